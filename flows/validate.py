"""Check rows of a source against the declared columns, without training or judging."""

from typing import Any, Literal

from prefect import flow

from flows.notes import OF_A_MODEL
from flows.steps import check, opened, patient, quarantine_folder, read, require_window
from pipeline.config import Moment
from pipeline.data import validation
from pipeline.training.target import checked_target


@flow(name="validate", **OF_A_MODEL)
def validate(
    conf: str,
    source: Literal["train", "live"] = "train",
    start: Moment | None = None,
    end: Moment | None = None,
) -> dict[str, Any]:
    """Count the valid rows of a source, and write the refused rows with their reasons."""
    settings, _ = opened(conf)
    require_window(start, end)
    chosen = settings.data.train if source == "train" else settings.data.live
    rows = patient(read.fn)(settings, chosen or settings.data.train, start, end)
    name = f"{source} {start or 'first'} to {end or 'last'}".replace(":", "")
    validated = check(settings, rows, name)
    if source == "train":
        came = validation.as_they_came(validated, settings.data.target)
        checked_target(came, settings.data, settings.task)
    return {
        "rows": len(rows),
        "valid": len(validated.valid),
        "quarantined": len(validated.quarantined),
        "reasons": validated.reasons,
        "folder": str(quarantine_folder(settings)),
    }
