"""Realised performance of recorded batches, added once their labels have arrived."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from flows.steps import check, read
from pipeline.config import Settings, Source
from pipeline.data.labels import labelled
from pipeline.monitoring.performance import Performance, realised
from pipeline.registry import records
from pipeline.registry.history import Batch, History
from pipeline.registry.versions import Registry
from pipeline.training.fitting import ROW_LOSS
from pipeline.training.metrics import compute_metrics, losses


def settle(
    settings: Settings, registry: Registry, history: History, as_of: pd.Timestamp
) -> History:
    """Record the realised performance of each batch whose labels have all arrived by `as_of`.

    Returns
    -------
    History
        With the performance of these batches.
    """
    for batch in history.batches:
        arrived = batch.end + settings.data.label_delay <= as_of
        if arrived and batch.rows and batch.performance is None:
            history = _settled(settings, registry, history, batch, as_of)
    return history


def _settled(
    settings: Settings, registry: Registry, history: History, batch: Batch, as_of: pd.Timestamp
) -> History:
    rows = read(settings, live_source(settings), batch.start, batch.end)
    valid = check(settings, rows, rows_name(batch.name, batch.reading)).valid
    judged = performance_of(
        settings,
        registry,
        batch.version,
        valid,
        name=batch.name,
        as_of=as_of,
        earlier=history.before(batch.name).performances(batch.version),
    )
    if judged is None:
        return history
    step = step_of(settings, registry, batch.start)
    return history.with_batch(records.record_performance(registry, batch, judged, step=step))


def performance_of(
    settings: Settings,
    registry: Registry,
    number: int,
    rows: pd.DataFrame,
    *,
    name: str,
    as_of: pd.Timestamp,
    earlier: Sequence[Performance],
) -> Performance | None:
    """Performance of a version on the rows of a batch; None while no label has arrived.

    Parameters
    ----------
    settings : Settings
        The model's.
    registry : Registry
        The model's.
    number : int
        The version.
    rows : DataFrame
        Valid rows of the batch.
    name : str
        Name of the batch.
    as_of : Timestamp
        Labels that had arrived by then are used.
    earlier : sequence of Performance
        Of the version's batches before, oldest first.
    """
    data, bundle = settings.data, registry.bundle(number)
    known = labelled(rows, data, as_of=as_of) if data.target in rows else rows[:0]
    if known.empty:
        return None
    target = known[data.target].to_numpy(dtype=np.float64)
    predicted = bundle.model.predict(known)
    return realised(
        batch=name,
        metrics=compute_metrics(settings.task, target, predicted),
        current=pd.Series(losses(settings.task, target, predicted), index=known[data.time]),
        heldout=bundle.heldout.set_index(data.time)[ROW_LOSS],
        length=settings.monitoring.batch,
        allowed=settings.monitoring.performance_loss,
        earlier=earlier[1 - settings.monitoring.persistence :],
    )


def step_of(settings: Settings, registry: Registry, start: pd.Timestamp) -> int:
    """Number of a batch since the end of the first version's training window."""
    return int((start - registry.versions()[0].until) // settings.monitoring.batch)


def rows_name(batch: str, reading: int) -> str:
    """Name that the rows of a batch are kept under; each reading has its own."""
    return f"batch {batch}".replace(":", "") + (f" reading {reading}" if reading > 1 else "")


def live_source(settings: Settings) -> Source:
    """Where live rows come from."""
    return settings.data.live or settings.data.train
