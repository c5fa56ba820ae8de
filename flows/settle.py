"""Realised performance of recorded batches, from the labels that are known at a moment."""

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
from prefect import get_run_logger

from flows.estimates import cells_of
from flows.reports import redraw
from flows.slices import slice_losses
from flows.steps import check, labels_so_far, read
from pipeline.columns import as_target, as_time
from pipeline.config import Settings, Source
from pipeline.data.labels import comparable, labelled, newest_labels
from pipeline.errors import DataError, RegistryError
from pipeline.monitoring.means import HORIZON, Baseline
from pipeline.monitoring.performance import RIVAL_LOSS, Performance, realised
from pipeline.monitoring.promises import Promise, kept
from pipeline.monitoring.targets import target_faults
from pipeline.registry import champions, records
from pipeline.registry.history import MOST_RECENT, Batch, History
from pipeline.registry.recent import read_recent
from pipeline.registry.versions import Registry, Version
from pipeline.training.costs import costs_of, decision_metrics
from pipeline.training.intervals import promise_of
from pipeline.training.metrics import class_metrics, compute_metrics, losses, rates
from pipeline.training.predictions import (
    HALVED,
    PREDICTION,
    PREVIOUS,
    ROW_LOSS,
    as_cells,
    in_columns,
    of_cells,
)


def settle(
    settings: Settings, registry: Registry, history: History, as_of: pd.Timestamp
) -> History:
    """Record what the labels that are known at a moment show of each batch.

    Labels may come in any order, in parts, late, or again with a correction. What they show depends
    on the labels alone, so a batch is judged anew whenever they have changed. They are looked for
    as long as `data.label_delay` and 52 batches more are recorded; in the live rows, which have to
    be read again for it, four times `persistence` batches more.

    Returns
    -------
    History
        With the performance of these batches.
    """
    newest = as_of if history.last is None else min(history.last.end, as_of)
    oldest = newest - _reach(settings)
    batches = [b for b in history.batches if b.rows and oldest <= b.end <= as_of]
    if not batches:
        return history
    labels = _labels(settings, batches, as_of)
    changed = False  # a batch is judged together with the batches before it
    for batch in batches:
        try:
            rows = _with_labels(_predicted(settings, registry, batch), labels, settings)
            known = labelled(rows, settings.data, as_of=as_of)
            before = "" if batch.performance is None else batch.performance.digest
            changed |= digest_of(known, settings) != before
            if changed and len(known):
                history = _settled(settings, registry, history, batch, rows=rows, as_of=as_of)
        except (RegistryError, DataError) as error:  # what is lost of one keeps no other waiting
            get_run_logger().warning("Batch %s is not settled. %s", batch.name, error)
    _record_promises(registry, history, settings.loss)
    return history


def recent_history(
    settings: Settings, registry: Registry, batch: pd.Timestamp | None = None
) -> History:
    """The batches that the decision about a batch needs, by default about the next one."""
    cooldown = settings.monitoring.cooldown
    return read_recent(registry, _reach(settings), batch=batch, calm=cooldown)


def _reach(settings: Settings) -> pd.Timedelta:
    """How long before the newest batch labels are looked for."""
    data, policy = settings.data, settings.monitoring
    more = HORIZON * policy.persistence if data.labels is None else MOST_RECENT
    return data.label_delay + more * policy.batch


def _record_promises(registry: Registry, history: History, loss: str) -> None:
    """Tag each promoted version with its realised gain, unless it carries that tag already.

    A version whose first batches have left the history keeps the gain that it was tagged with.
    """
    versions = {v.number: v for v in registry.versions() if history.covers(v.until)}
    for promise in promises_kept(versions.values(), history, loss):
        found = f"{promise.realised:.4f} on {promise.rows} rows"
        if versions[promise.version].tags.get("realised_gain") != found:
            registry.tag(promise.version, {"realised_gain": found})


def promises_kept(versions: Iterable[Version], history: History, loss: str) -> list[Promise]:
    """The promised and the realised gain of each version that was promoted."""
    promised = {v.number: v.promised for v in versions if v.promoted and v.promised is not None}
    performances = {number: history.performances(number) for number in promised}
    return kept(promised, performances, loss)


def _labels(settings: Settings, batches: Sequence[Batch], as_of: pd.Timestamp) -> pd.DataFrame:
    """The newest label of each key or, where labels are in the live rows, of each key and time.

    A source that has forgotten its rows does not keep newer batches from being judged.
    """
    data = settings.data
    if data.labels is not None:
        return newest_labels(labels_so_far(settings), data, as_of=as_of)
    columns = [data.key, data.time, data.target]
    columns += [data.label_time] if data.label_time else []
    try:
        rows = read(settings, live_source(settings), batches[0].start, batches[-1].end)
    except DataError as error:
        get_run_logger().warning("Labels of earlier batches cannot be read. %s", error)
        rows = pd.DataFrame(columns=columns)
    rows = rows.reindex(columns=columns)
    rows = rows.assign(**{data.time: as_time(rows[data.time])})
    return newest_labels(rows, data, as_of=as_of, by=[data.key, data.time])


def _with_labels(rows: pd.DataFrame, labels: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Join the known labels to rows, as numbers; a value that is not a label becomes null."""
    data = settings.data
    keys = rows.assign(**{data.key: comparable(rows[data.key])})[list(labels.index.names)]
    wanted = pd.MultiIndex.from_frame(keys) if keys.shape[1] > 1 else pd.Index(keys[data.key])
    found = labels.reindex(wanted).set_axis(rows.index)
    target, _ = as_target(found[data.target], settings.task, data.class_count)
    return pd.concat([rows, found.assign(**{data.target: target})], axis=1)


def _settled(
    settings: Settings,
    registry: Registry,
    history: History,
    batch: Batch,
    *,
    rows: pd.DataFrame,
    as_of: pd.Timestamp,
) -> History:
    """Record a batch's performance unless it is recorded already; the history with it."""
    judged = performance_of(
        settings,
        registry,
        batch.version,
        rows,
        name=batch.name,
        as_of=as_of,
        earlier=history.before(batch.name).performances(batch.version),
    )
    if judged is None:
        return history
    if judged.worse and not batch.verdict.evidence.broken:
        accepted = {fault for other in history.accepted for fault in other.label_faults}
        faults = _label_faults(settings, registry, batch, rows, accepted=accepted, as_of=as_of)
        judged = replace(judged, faults=faults)
    if batch.performance is not None and _text(judged) == _text(batch.performance):
        return history
    # A chart has one point for each batch, unless its labels are corrected afterwards.
    complete = batch.end + settings.data.label_delay <= as_of
    step = step_of(settings, registry, batch.start) if complete else None
    redraw(settings, registry, history, replace(batch, performance=judged))
    own = _of_classes(settings, rows, as_of)
    return history.with_batch(
        records.record_performance(registry, batch, judged, as_of=as_of, step=step, of_classes=own)
    )


def _of_classes(settings: Settings, rows: pd.DataFrame, as_of: pd.Timestamp) -> dict[str, float]:
    """Share, recall and precision of each class, where there are three or more."""
    known = labelled(rows, settings.data, as_of=as_of)
    target = known[settings.data.target].to_numpy(dtype=np.float64)
    return class_metrics(target, of_cells(known[PREDICTION]), settings.data.several)


def _text(performance: Performance) -> str:
    """A performance as JSON, in which two metrics that are NaN are equal."""
    return json.dumps(asdict(performance))


def _predicted(settings: Settings, registry: Registry, batch: Batch) -> pd.DataFrame:
    """Key, time and predictions of a batch's rows, as they were when it was judged."""
    data = settings.data
    kept = records.predictions(registry, batch)
    if kept is not None:
        return kept.rename(columns={"key": data.key, "time": data.time})
    # A version of before recorded the batch and kept no predictions.
    rows = read(settings, live_source(settings), batch.start, batch.end)
    valid = check(settings, rows, rows_name(batch.name, batch.reading)).valid
    model = registry.bundle(batch.version).model
    return valid[[data.key, data.time]].assign(**{PREDICTION: as_cells(model.predict(valid))})


def _label_faults(
    settings: Settings,
    registry: Registry,
    batch: Batch,
    rows: pd.DataFrame,
    *,
    accepted: Collection[str],
    as_of: pd.Timestamp,
) -> dict[str, str]:
    """Faults of labels that came after their batch was judged, each with its sentence."""
    data, bundle = settings.data, registry.bundle(batch.version)
    known = labelled(rows, data, as_of=as_of)
    if bundle.targets is None or not settings.monitoring.diagnosis or HALVED not in known:
        return {}
    found = target_faults(
        bundle.targets,
        known[data.target],
        in_columns(of_cells(known[HALVED]), bundle.model.classes)[PREDICTION],
        broken_alpha=settings.monitoring.broken_alpha,
        classes=data.several,
        kept=registry.sound_blocks(batch.version, "labels"),
    )
    return {c.name: c.sentence for c in found if c.name not in accepted}


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
        Valid rows of the batch with their ``prediction``.
    name : str
        Name of the batch.
    as_of : Timestamp
        Labels that had arrived by then are used.
    earlier : sequence of Performance
        Of the version's batches before, oldest first.
    """
    data = settings.data
    known = labelled(rows, data, as_of=as_of) if data.target in rows else rows[:0]
    if known.empty:
        return None
    target = known[data.target].to_numpy(dtype=np.float64)
    baseline, column = _baseline(settings, registry, number, known)
    lost = losses(settings.loss, target, of_cells(known[column]))
    metrics = compute_metrics(settings.task, target, of_cells(known[PREDICTION]))
    manifest = registry.bundle(number).manifest
    promise, costs = promise_of(manifest), costs_of(manifest)
    if promise is not None:
        metrics[promise.COVERED] = promise.covered(target, of_cells(known[PREDICTION]))
    if costs is not None:
        metrics |= decision_metrics(costs, target, of_cells(known[PREDICTION]))
    if PREVIOUS in known:
        rival = losses(settings.loss, target, of_cells(known[PREVIOUS]))
        metrics[RIVAL_LOSS] = float(rival.mean())
    current = pd.Series(lost, index=known[data.time])
    bundle = registry.bundle(number)
    slices = slice_losses(settings, bundle, known, current, earlier) if column == HALVED else ()
    judged = realised(
        batch=name,
        metrics=metrics | rates(target, of_cells(known[PREDICTION])),
        current=current,
        baseline=baseline,
        length=settings.monitoring.batch,
        allowed=settings.monitoring.performance_loss,
        earlier=earlier,
        persistence=settings.monitoring.persistence,
        of=len(rows),
        digest=digest_of(known, settings),
        cells=cells_of(settings, bundle, of_cells(known[PREDICTION]), target),
    )
    return replace(judged, slices=slices)


def _baseline(
    settings: Settings, registry: Registry, number: int, known: pd.DataFrame
) -> tuple[Baseline, str]:
    """What losses are compared with, and the predictions whose losses are.

    The half fits predict training rows that they had not seen and live rows alike, so that all rows
    of training are a baseline. Without half fits it is the held-out rows.
    """
    bundle = registry.bundle(number)
    if bundle.baseline is not None and HALVED in known:
        return Baseline.from_dict(bundle.baseline), HALVED
    heldout = bundle.heldout.set_index(settings.data.time)[ROW_LOSS]
    heavy = settings.task == "regression"
    return Baseline.of(heldout, settings.monitoring.batch, heavy=heavy), PREDICTION


def known_performance(
    settings: Settings,
    registry: Registry,
    own: History,
    predicted: pd.DataFrame,
    *,
    version: int,
    name: str,
    as_of: pd.Timestamp,
    also: Collection[str] = (),
) -> Performance | None:
    """Performance that a decision is made from; None: no label has come.

    It is that of the newest batch with labels: the batch that is judged, or one before it whose
    labels came since. A batch that is set aside counts if too much is lost by it.

    Parameters
    ----------
    settings : Settings
        The model's.
    registry : Registry
        The model's.
    own : History
        The champion's batches before the batch that is judged.
    predicted : DataFrame
        Valid rows of the batch with their ``prediction``, and with the labels that came with them.
    version : int
        The champion.
    name : str
        Name of the batch.
    as_of : Timestamp
        Its end.
    also : collection of str
        Batches that are set aside and count: a fault must not hide lost performance.
    """
    earlier = own.performances(version, also=also)
    judged = performance_of(
        settings, registry, version, predicted, name=name, as_of=as_of, earlier=earlier
    )
    newest = [*earlier, *([judged] if judged else [])][-1:]
    aside = [known for known in earlier if known.batch in also]
    return next((known for known in [*newest, *aside] if known.worse), next(iter(newest), None))


def is_harmless(settings: Settings, earlier: Sequence[Performance]) -> bool:
    """Whether the champion's loss surely stayed within the limit on its last batches."""
    needed, allowed = settings.monitoring.persistence, settings.monitoring.performance_loss
    last = earlier[-needed:]
    upper_ends = [2 * judged.change - judged.at_least for judged in last]
    return len(last) == needed and all(end < allowed for end in upper_ends)


def digest_of(known: pd.DataFrame, settings: Settings) -> str:
    """Hash of some labels that does not depend on their order; it shows whether they changed."""
    labels = known[[settings.data.key, settings.data.target]]
    hashed = pd.util.hash_pandas_object(labels.astype(str), index=False)
    return f"{int(hashed.to_numpy().sum(dtype=np.uint64)):x}" if len(known) else ""


def step_of(settings: Settings, registry: Registry, start: pd.Timestamp) -> int:
    """Number of a batch since the end of the first version's training window."""
    return int((start - champions.first_start(registry)) // settings.monitoring.batch)


def rows_name(batch: str, reading: int) -> str:
    """Name that the rows of a batch are kept under; each reading has its own."""
    return f"batch {batch}".replace(":", "") + (f" reading {reading}" if reading > 1 else "")


def live_source(settings: Settings) -> Source:
    """Where live rows come from."""
    return settings.data.live or settings.data.train
