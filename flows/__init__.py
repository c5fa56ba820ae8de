"""What Holdfast runs: short Prefect flows around the decisions of `pipeline`."""

import os

# Before Prefect is imported: no figure leaves the machine unless someone asked for it.
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
