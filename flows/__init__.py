"""What Holdfast runs: short Prefect flows around the decisions of `pipeline`."""
