"""Dashboards that show a run: one file each, so that only the runs which choose one load its library."""

import os

# Their makers are told how they are used, also offline; nothing here goes to the network unasked.
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
