"""Dashboards that show a run: one file each, so that only the runs which choose one load its library."""
