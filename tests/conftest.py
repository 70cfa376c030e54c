"""One thread each: tensors of tests are small, and waiting threads cost more than they gain."""

import os
import tempfile

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["ANOMALY_LAB_CACHE"] = tempfile.mkdtemp(prefix="anomaly-lab-tests-")
