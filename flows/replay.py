"""Replay past batches through the monitor one by one, as if they came in live."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
from prefect import flow
from prefect.artifacts import create_progress_artifact, update_progress_artifact

from flows import terminal
from flows.judge import judge
from flows.monitor import judge_shadows, next_batch
from flows.notes import OF_A_MODEL
from flows.paging import page_owed, post
from flows.retrains import outstanding
from flows.settle import live_source, recent_history, rows_name, settle
from flows.steps import check, opened, patient, read
from flows.train import train
from pipeline.config import Settings
from pipeline.data.labels import labelled
from pipeline.errors import DataError
from pipeline.registry import records
from pipeline.registry.history import Batch, History, batch_name
from pipeline.registry.versions import CHAMPION, Registry
from pipeline.reporting.events import unusable_batch
from pipeline.reporting.history_page import file_of, history_page
from pipeline.training.metrics import compute_metrics
from pipeline.training.model import Model

Say = Callable[[str], None]


@flow(name="replay", **OF_A_MODEL)
def replay(conf: str, batches: int | None = None) -> list[dict[str, Any]]:
    """Train the first version if there is none, then judge all batches, or the next `batches`."""
    settings, registry = opened(conf)
    with terminal.progress() as progress:
        bar = progress.add_task("training the first version", total=None)

        def say(doing: str) -> None:
            progress.update(bar, description=doing)

        if registry.alias(CHAMPION) is None:
            train(conf)
            registry.champion()  # raises if the gate refused the version
        catch_up(settings, registry)
        history = patient(records.read_history)(registry)
        end = _last_end(settings)
        starts = _starts(settings, next_batch(settings, registry, history), end)[:batches]
        done = len(history.batches)
        progress.update(bar, total=done + len(starts), completed=done)
        shown = create_progress_artifact(0.0, f"{settings.name}-replay", "Share of batches judged")
        assert isinstance(shown, UUID)  # noqa: S101 -- called without a loop it is no coroutine
        for place, start in enumerate(starts, start=1):
            try:
                step(settings, registry, start, say)
            except DataError as error:  # the history goes on after an unusable batch
                progress.console.print(f"Not judged: {error}")
                event = unusable_batch(settings.name, conf, batch_name(start), str(error))
                post(settings, event)
            progress.advance(bar)
            update_progress_artifact(shown, progress=100 * place / len(starts))
        history = patient(records.read_history)(registry)
        history = patient(settle)(settings, registry, history, end + settings.data.label_delay)
        say("comparing with the first version left alone")
        story = _story(settings, registry, history)
        drawn = history_page(story, model=settings.name, loss=settings.loss, conf=settings.conf)
        file_of(settings.tracking.folder, settings.name).write_text(drawn, encoding="utf-8")
        return story


def _starts(settings: Settings, first: pd.Timestamp, end: pd.Timestamp) -> list[pd.Timestamp]:
    """Starts of the batches that are over by a moment."""
    length = settings.monitoring.batch
    return [first + k * length for k in range(max(int((end - first) // length), 0))]


def step(settings: Settings, registry: Registry, start: pd.Timestamp, say: Say) -> None:
    """Judge one batch, and train in this process if a retrain is asked for."""
    say(f"batch {start:%Y-%m-%d}")
    with registry.exclusive("monitor"):
        history = patient(recent_history)(settings, registry)
        history = judge(settings, registry, history, start)
        history = patient(page_owed)(settings, registry, history)
    if history.batch(batch_name(start)).verdict.decision.action == "retrain":
        say(f"batch {start:%Y-%m-%d}: retrain")
    catch_up(settings, registry)


def catch_up(settings: Settings, registry: Registry) -> None:
    """Page and train for the last batch, if a replay was stopped before it could."""
    with registry.exclusive("monitor"):
        history = patient(recent_history)(settings, registry)
        history = patient(page_owed)(settings, registry, history)
        judge_shadows(settings, registry, history)
    asked = outstanding(registry, history)
    if asked is not None:
        train(**asked)


@patient
def _last_end(settings: Settings) -> pd.Timestamp:
    """End of the newest row's day, or the time of the next row where rows have none."""
    rows = read(settings, live_source(settings), None, None)
    newest: pd.Timestamp = rows[settings.data.time].max()
    arrival = settings.data.arrival
    return newest + arrival.every if arrival else newest.normalize() + pd.Timedelta("1D")


@patient
def _story(settings: Settings, registry: Registry, history: History) -> list[dict[str, Any]]:
    """One row for each batch, with the first version's metrics beside the maintained model's."""
    first = registry.bundle(registry.versions()[0].number).model
    return [
        {
            "batch": batch.name[:10],
            "rows": batch.rows,
            "refused": batch.quarantined,
            "drifted": list(batch.drifted),
            "outcome": batch.outcome,
            "state": batch.state,
            "causes": list(batch.verdict.evidence.broken),
            "accepted_unanswered": list(batch.verdict.decision.presumed),
            "action": batch.verdict.decision.action,
            "reason": batch.verdict.decision.reason,
            "version": batch.version,
            "maintained": batch.performance.metrics if batch.performance else {},
            "alone": _alone(settings, first, batch),
            "estimated": _estimated(settings, batch),
        }
        for batch in history.batches
    ]


def _estimated(settings: Settings, batch: Batch) -> dict[str, float]:
    """The loss as it was estimated before labels came; empty where nothing was said."""
    return {
        name: value
        for one in batch.estimates
        if one.metric == settings.loss and not one.reason
        for name, value in (("value", one.value), ("low", one.low), ("high", one.high))
    }


def _alone(settings: Settings, model: Model, batch: Batch) -> dict[str, float]:
    """Scores of a model on a batch; empty while the batch has no valid row with a label."""
    if not batch.rows:
        return {}
    rows = read(settings, live_source(settings), batch.start, batch.end)
    valid = check(settings, rows, rows_name(batch.name, reading=1)).valid
    known = labelled(valid, settings.data, as_of=batch.end + settings.data.label_delay)
    target = known[settings.data.target].to_numpy(dtype=np.float64)
    return compute_metrics(settings.task, target, model.predict(known)) if len(known) else {}
