"""Dashboards that show a run: one file each, so that only the runs which choose one load its library."""

import os

# W&B tells its makers how it is used, also offline; nothing here goes to the network unasked.
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
