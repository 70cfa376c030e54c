"""One thread each: the tests' tensors are small, and threads that wait for each other cost more than they bring."""

import os
import tempfile

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["ANOMALY_LAB_CACHE"] = tempfile.mkdtemp(prefix="anomaly-lab-tests-")
