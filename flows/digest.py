"""The requests that the served API refused in a week, as one note in Prefect and in MLflow."""

from typing import Any

import pandas as pd
from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact

from flows.notes import OF_A_MODEL, is_scheduled
from flows.steps import opened
from pipeline.config import Moment
from pipeline.data.captures import read_refusals
from pipeline.errors import DataError
from pipeline.registry import records
from pipeline.reporting.refusals import most_frequent, weekly_note

WEEK = pd.Timedelta("7D")


@flow(name="digest", **OF_A_MODEL)
def digest(conf: str, until: Moment | None = None) -> dict[str, Any]:
    """Summarise the requests that were refused in the week before `until`, by default now."""
    settings, registry = opened(conf)
    end = (until or pd.Timestamp.now("UTC").tz_localize(None)).floor("1D")
    if not settings.captures.exists():
        if is_scheduled():
            get_run_logger().info("The model was never served, so that no request was refused.")
            return {"until": f"{end:%Y-%m-%d}", "refused": 0, "before": 0, "reasons": {}}
        message = (
            f"The store of captures does not exist at {settings.captures}. "
            f"Serve the model first: `holdfast serve {conf}`."
        )
        raise DataError(message)
    refused = read_refusals(settings.captures, start=end - WEEK, end=end)
    before = read_refusals(settings.captures, start=end - 2 * WEEK, end=end - WEEK)
    known = registry.bundle(registry.champion().number).model.categories
    note = weekly_note(refused, before, known, conf)
    records.record_digest(registry, note, end - WEEK)
    create_markdown_artifact(note, key=f"{settings.name}-digest")
    return {
        "until": f"{end:%Y-%m-%d}",
        "refused": len(refused),
        "before": len(before),
        "reasons": most_frequent(refused),
    }
