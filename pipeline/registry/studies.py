"""Searches of parameters in MLflow: one run for each search, and below it one for each trial.

A trial that was finished is read from its run, so that a search needs no store of its own.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from mlflow.entities import Param, RunTag

from pipeline.registry.tracking import Tracking, milliseconds, translated
from pipeline.training.tuning import Trial


def open_study(tracking: Tracking, study: str) -> tuple[str, list[Trial]]:
    """Start a search, or go on with it.

    The caller holds the lock of searches, so that a trial which seems to run was cut off.

    Parameters
    ----------
    tracking : Tracking
        The model's.
    study : str
        What rows and settings identify the search.

    Returns
    -------
    str
        Id of its run.
    list of Trial
        Its finished trials from the first one on, without a gap.
    """
    now = pd.Timestamp.now("UTC").tz_localize(None)
    tags = {"kind": "tuning", "study": study}
    run_id = tracking.run(tags, f"tune {now:%Y-%m-%d %H:%M}", now)
    found: dict[int, Trial] = {}
    with translated():
        tracking.client.update_run(run_id, status="RUNNING")
        for run in tracking.search(f"tags.kind = 'trial' and tags.study = '{study}'"):
            if run.info.status == "RUNNING":
                tracking.client.set_terminated(run.info.run_id, status="KILLED")
            if run.info.status == "FINISHED":
                record = json.loads(run.data.tags["trial"])
                number = record.pop("number")
                found[number] = Trial(**record)
    firsts = (number for number in range(len(found) + 1) if number not in found)
    return run_id, [found[number] for number in range(next(firsts))]


def record_trial(
    tracking: Tracking,
    parent: str,
    study: str,
    trial: Trial,
    *,
    number: int,
    params: Mapping[str, Any],
    began: pd.Timestamp,
) -> None:
    """Keep a trial in a run of its own, nested in that of the search.

    Parameters
    ----------
    tracking : Tracking
        The model's.
    parent, study : str
        Run of the search, and what identifies it.
    trial : Trial
        What was tried and found.
    number : int
        Its place in the search.
    params : mapping of str to Any
        All parameters of the estimator, as people read them.
    began : Timestamp
        When it began, in UTC.
    """
    now = pd.Timestamp.now("UTC").tz_localize(None)
    tags = {
        "kind": "trial",
        "study": study,
        "trial": json.dumps({"number": number, **trial._asdict()}),
        "mlflow.parentRunId": parent,
        "mlflow.runName": f"trial {number}" if number else "parameters of the file",
    }
    with translated():
        client = tracking.client
        start = milliseconds(began)
        created = client.create_run(tracking.experiment, start_time=start, tags=tags)
        run_id = created.info.run_id
        given = [Param(name, str(value)) for name, value in params.items()]
        client.log_batch(run_id, params=given)
        tracking.log(run_id, {"loss": trial.loss}, now, number)
        for place, loss in enumerate(trial.losses):
            tracking.log(run_id, {"loss_of_stretch": loss}, now, place)
        client.set_terminated(run_id)


def close_study(tracking: Tracking, run_id: str, note: str, losses: Sequence[float]) -> None:
    """End the run of a search, or of a part of it: its note, and the best loss trial by trial."""
    now = pd.Timestamp.now("UTC").tz_localize(None)
    with translated():
        tracking.client.log_batch(run_id, tags=[RunTag("mlflow.note.content", note)])
        for number in range(len(losses)):
            tracking.log(run_id, {"best_loss": min(losses[: number + 1])}, now, number)
        tracking.client.set_terminated(run_id)
