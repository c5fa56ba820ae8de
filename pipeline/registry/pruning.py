"""Files of batches that no decision needs any more, found and deleted in MLflow's artifacts."""

from collections.abc import Collection
from typing import Final

import pandas as pd
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from pipeline.registry.records import BATCHES, GIVEN, SUMMARY
from pipeline.registry.tracking import Tracking, milliseconds, translated

_KEPT: Final = (SUMMARY, GIVEN)
"""Artifacts that are kept for good: small, and what decisions were made from."""
_PRUNED: Final = "pruned"
"""Tag of a batch: when its files were deleted."""


def prune_batches(
    tracking: Tracking, *, before: pd.Timestamp, needed: Collection[str], delete: bool
) -> tuple[int, list[str]]:
    """Find, or delete, the files of batches that ended before a moment.

    Parameters
    ----------
    tracking : Tracking
        Where batches are recorded.
    before : Timestamp
        The moment.
    needed : collection of str
        Names of batches whose files are kept.
    delete : bool
        Whether to delete them; a batch is tagged once all its files are gone.

    Returns
    -------
    int
        Their bytes.
    list of str
        Addresses from which MLflow cannot delete.
    """
    bound = f"attributes.end_time < {milliseconds(before)} and tags.{_PRUNED} IS NULL"
    freed, unreached = 0, set()
    for run in tracking.search(f"{BATCHES} and {bound}"):
        if run.data.tags.get("batch") in needed:
            continue
        found = _prune(tracking, run, delete=delete)
        if found is None:
            unreached.add(run.info.artifact_uri)
        else:
            freed += found
    return freed, sorted(unreached)


def _prune(tracking: Tracking, run: Run, *, delete: bool) -> int | None:
    """Bytes of the files that a run does without; None if its store deletes no file."""
    freed = 0
    with translated():
        files = get_artifact_repository(run.info.artifact_uri)
        for artifact in files.list_artifacts():
            if artifact.path in _KEPT:
                continue
            if delete and not _deleted(files, artifact.path):
                return None
            freed += artifact.file_size or 0
        if delete:
            tracking.tag_run(run.info.run_id, _PRUNED, f"{pd.Timestamp.now('UTC'):%Y-%m-%d}")
    return freed


def _deleted(files: object, path: str) -> bool:
    """Delete a file; False where the store cannot."""
    try:
        files.delete_artifacts(path)  # type: ignore[attr-defined]
    except (RuntimeError, MlflowException) as error:  # MLflow's stores differ in type and words
        if not any(sign in str(error).lower() for sign in ("not implemented", "not support")):
            raise
        return False
    return True
