"""The door for ``python -m anomaly_lab.check``, which is ``python -m anomaly_lab check``."""

import sys

from anomaly_lab.__main__ import main

if __name__ == "__main__":
    sys.argv.insert(1, "check")
    sys.exit(main())
