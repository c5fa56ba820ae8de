"""One live batch: validate, compare with the champion's reference, record, decide, act."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import takewhile
from typing import Any

import numpy as np
import pandas as pd
from prefect import flow

from flows.register import gate, shadowed
from flows.retrains import send
from flows.steps import check, opened, page_failure, patient, quarantine_folder, read
from pipeline.config import Settings, Source
from pipeline.data import validation
from pipeline.data.labels import labelled
from pipeline.data.sources import is_whole
from pipeline.data.validation import NoValidRowError
from pipeline.monitoring import episode
from pipeline.monitoring.drift import compare
from pipeline.monitoring.episode import Evidence, Verdict
from pipeline.monitoring.findings import Cause, DriftReport
from pipeline.monitoring.performance import Performance, realised
from pipeline.reference.summaries import Summary
from pipeline.registry import champions, records
from pipeline.registry.champions import champion_at
from pipeline.registry.records import Batch
from pipeline.registry.versions import Registry
from pipeline.reporting.notes import how_to_answer
from pipeline.reporting.pages import Event, Kind, page
from pipeline.training.fitting import PREDICTION
from pipeline.training.metrics import evaluate, losses
from pipeline.training.model import Predictions

MOST_RECENT = 52
"""Batches that evidence is read back from: of slow decay, and of faults that go on."""


@flow(name="monitor", on_failure=[page_failure], on_crashed=[page_failure])
def monitor(conf: str, batch: str | None = None) -> dict[str, Any]:
    """Judge one batch, the next one if none is named, and act on the decision."""
    settings, registry = opened(conf)
    with registry.exclusive("monitor"):
        start = next_batch(settings, registry) if batch is None else pd.Timestamp(batch)
        patient(champions.settle)(registry, start)
        # A page that was lost with its process is found here, and sent.
        for last in patient(records.batches)(registry)[-1:]:
            tell(settings, registry, last)
        end = start + settings.monitoring.batch
        if batch is None and not is_whole(_source(settings), end):
            reason = f"The batch is not over before {end:%Y-%m-%d %H:%M} UTC; nothing was judged."
            told = {"batch": _name(start), "rows": 0, "drifted": [], "action": "none"}
            told |= {"reason": reason}
        else:
            judged = judge(settings, registry, start)
            tell(settings, registry, judged)
            decision = judged.verdict.decision
            told = {"batch": judged.name, "rows": judged.rows, "drifted": list(judged.drifted)}
            told |= {"action": decision.action, "reason": decision.reason}
        judge_shadows(settings, registry)
    send(conf, settings, registry)
    return told


def _name(start: pd.Timestamp) -> str:
    return f"{start:%Y-%m-%dT%H:%M}"


def _label(name: str, reading: int) -> str:
    """What the rows of a batch are kept under; those of each reading have their own."""
    return f"batch {name}".replace(":", "") + (f" reading {reading}" if reading > 1 else "")


def _source(settings: Settings) -> Source:
    return settings.data.live or settings.data.train


@patient
def next_batch(settings: Settings, registry: Registry) -> pd.Timestamp:
    """Start of the batch after the last recorded one, else of the first after training."""
    recorded = records.batches(registry)
    if recorded:
        return pd.Timestamp(recorded[-1].name) + settings.monitoring.batch
    return registry.champion().until


@patient
def judge(
    settings: Settings, registry: Registry, start: pd.Timestamp, *, reading: int = 1
) -> Batch:
    """Record one batch and what to do about it; a recorded one is given back as it stands.

    One that was read less often than it is to be is read from its source again.
    """
    name = _name(start)
    recorded = records.batches(registry)
    before = next((one for one in recorded if one.name == name), None)
    if before is not None and before.reading >= reading:
        return before
    end = start + settings.monitoring.batch
    number = champion_at(registry, start).number
    label = _label(name, reading)
    rows = _live(settings, start, end)
    problem = None
    try:
        validated = check(settings, rows, label)
    except NoValidRowError as error:  # unless a cause is found, there is nothing to judge
        validated, problem = error.validated, error
    settle(settings, registry, end)
    history = [one for one in records.batches(registry) if one.name < name]
    report, predicted = _compared(
        settings, registry, number, history=history, rows=rows, valid=validated.valid
    )
    if problem is not None and (not report.causes or _unfinished(rows, end)):
        raise problem
    if report.causes:
        validation.keep(rows, quarantine_folder(settings) / f"{label} broken.parquet")
    worse = ""
    if not report.causes:
        worse = _worse(
            settings, registry, number, history=history, rows=validated.valid, start=start
        )
    evidence = Evidence(
        batch=name,
        version=number,
        alarm=report.alarm,
        persisted=report.persistent[:20],
        worse=worse,
        harmless=_harmless(settings, history, number) if not worse else False,
        broken=tuple(cause.name[:100] for cause in report.causes[:20]),
    )
    given: dict[str, Any] = {
        "attempts": registry.attempts(),
        "accepted": [one.name for one in history if one.answer == "accept"],
        "cooldown": settings.monitoring.cooldown,
        "late": any(one.name > name and not one.set_aside for one in recorded),
        "record_harmless": settings.monitoring.harmless == "record",
    }
    decision = episode.decide(evidence, history=[one.verdict for one in history], **given)
    records.record(
        registry,
        verdict=Verdict(evidence, decision),
        report=report,
        quarantined=len(validated.quarantined),
        predicted=float(np.mean(predicted)) if len(predicted) else np.nan,
        window=(start, end),
        step=_step(settings, registry, start),
        given={
            **given,
            "history": [one.name for one in history],
            "attempts": [asdict(one) for one in given["attempts"]],
        },
        reading=reading,
    )
    return next(one for one in records.batches(registry) if one.name == name)


def _unfinished(rows: pd.DataFrame, end: pd.Timestamp) -> bool:
    """Whether a window is empty because it lies ahead."""
    return rows.empty and end > pd.Timestamp.now("UTC").tz_localize(None)


def _compared(
    settings: Settings,
    registry: Registry,
    number: int,
    *,
    history: Sequence[Batch],
    rows: pd.DataFrame,
    valid: pd.DataFrame,
) -> tuple[DriftReport, Predictions]:
    """The report on a batch, less the causes that people have accepted, and its predictions."""
    data, bundle = settings.data, registry.bundle(number)
    own = [one for one in history if one.verdict.evidence.version == number]
    predicted = bundle.model.predict(valid) if len(valid) else np.empty(0)
    report = compare(
        reference=bundle.reference,
        current=valid[list(data.features)].assign(**{PREDICTION: predicted}),
        recent=_recent(registry, own),
        alpha=settings.monitoring.alpha,
        persistence=settings.monitoring.persistence,
        importance=bundle.manifest["importance"],
        arrived=rows.drop(columns=[data.key, data.time, data.target], errors="ignore"),
        diagnosis=settings.monitoring.diagnosis,
        standing=standing(registry, history),
    )
    accepted = {
        (cause.cause, cause.columns)
        for one in own
        if one.answer == "accept"
        for cause in records.causes(registry, one)
    }
    new = [cause for cause in report.causes if (cause.cause, cause.columns) not in accepted]
    return replace(report, causes=tuple(new)), predicted


def _live(settings: Settings, start: pd.Timestamp, end: pd.Timestamp) -> pd.DataFrame:
    return read(settings, _source(settings), start, end)


def _step(settings: Settings, registry: Registry, start: pd.Timestamp) -> int:
    """Number of a batch since the first version."""
    first = registry.versions()[0].until
    return int((start - first) // settings.monitoring.batch)


def _recent(registry: Registry, own: Sequence[Batch]) -> list[Summary]:
    counted = [one for one in own if not one.set_aside]
    return records.summaries(registry, counted[-MOST_RECENT:])


def standing(registry: Registry, history: Sequence[Batch]) -> list[Cause]:
    """Faults of the batches right before that are set aside."""
    last = takewhile(lambda one: one.set_aside, reversed(history[-MOST_RECENT:]))
    return [cause for one in last for cause in records.causes(registry, one)]


def _worse(
    settings: Settings,
    registry: Registry,
    number: int,
    *,
    history: Sequence[Batch],
    rows: pd.DataFrame,
    start: pd.Timestamp,
) -> str:
    """The batch, if the champion lost too much on its labels so far and on the last batches."""
    end = start + settings.monitoring.batch
    earlier = _settled(history, number)
    name = f"{start:%Y-%m-%dT%H:%M}"
    judged = _realised(settings, registry, number, rows, name=name, as_of=end, earlier=earlier)
    return name if judged is not None and judged.worse else ""


def _harmless(settings: Settings, history: Sequence[Batch], number: int) -> bool:
    """Whether the champion is surely no worse than allowed on its last batches with labels."""
    last = _settled(history, number)[-settings.monitoring.persistence :]
    if len(last) < settings.monitoring.persistence:
        return False
    allowed = settings.monitoring.performance_loss
    return all(2 * one.change - one.at_least < allowed for one in last)  # the far end


@patient
def tell(settings: Settings, registry: Registry, batch: Batch) -> None:
    """Page people about a batch whose decision calls for it, unless they were."""
    evidence, decision = batch.verdict.evidence, batch.verdict.decision
    if decision.action == "none" or batch.paged:
        return
    if evidence.broken:
        causes = records.causes(registry, batch)
        said = [f"{cause.sentence} {cause.cure}" for cause in causes[:5]]
        body = "\n".join([decision.reason, *said, how_to_answer(settings.conf, batch.name)])
        subject = f"{settings.name}, batch {batch.name}: broken, set aside"
        page(Event("broken", subject, body), settings.alerts.urls)
    else:
        drifted = f" Drifted: {', '.join(batch.drifted)}." if batch.drifted else ""
        subject = f"{settings.name}, batch {batch.name}: {decision.action}"
        kind: Kind = "performance" if evidence.worse else "drift"
        page(Event(kind, subject, decision.reason + drifted), settings.alerts.urls)
    records.mark(registry, batch, paged="yes")


@patient
def judge_shadows(settings: Settings, registry: Registry) -> None:
    """Put each challenger before the gate that has scored its batches beside the champion."""
    for version in registry.versions():
        wanted = int(version.tags.get("shadow", "0"))
        waits = version.settled or version.tags.get("waits")
        if wanted and not waits and len(shadowed(registry, version)) >= wanted:
            gate(settings, registry, version.number)


def settle(settings: Settings, registry: Registry, as_of: pd.Timestamp) -> None:
    """Add realised performance to every batch whose labels have all arrived by `as_of`."""
    length = settings.monitoring.batch
    delay = settings.data.label_delay
    for batch in records.batches(registry):
        end = pd.Timestamp(batch.name) + length
        if batch.performance is None and batch.rows and end + delay <= as_of:
            _settle(settings, registry, batch, as_of)


def _settle(settings: Settings, registry: Registry, batch: Batch, as_of: pd.Timestamp) -> None:
    start = pd.Timestamp(batch.name)
    end = start + settings.monitoring.batch
    rows = check(settings, _live(settings, start, end), _label(batch.name, batch.reading))
    number = batch.verdict.evidence.version
    history = [one for one in records.batches(registry) if one.name < batch.name]
    earlier = _settled(history, number)
    judged = _realised(
        settings, registry, number, rows.valid, name=batch.name, as_of=as_of, earlier=earlier
    )
    if judged is not None:
        judged = replace(judged, worse=judged.worse and not batch.set_aside)
        step = _step(settings, registry, start)
        records.record_performance(registry, batch, judged, end=end, step=step)


def _realised(
    settings: Settings,
    registry: Registry,
    number: int,
    rows: pd.DataFrame,
    *,
    name: str,
    as_of: pd.Timestamp,
    earlier: Sequence[Performance],
) -> Performance | None:
    """Performance of a version on the rows whose labels have arrived; None without any."""
    data, bundle = settings.data, registry.bundle(number)
    known = labelled(rows, data, as_of=as_of) if data.target in rows else rows[:0]
    if known.empty:
        return None
    target = known[data.target].to_numpy(dtype=np.float64)
    predicted = bundle.model.predict(known)
    return realised(
        batch=name,
        scores=evaluate(settings.task, target, predicted),
        current=pd.Series(losses(settings.task, target, predicted), index=known[data.time]),
        heldout=bundle.heldout.set_index(data.time)["loss"],
        length=settings.monitoring.batch,
        allowed=settings.monitoring.performance_loss,
        earlier=earlier[1 - settings.monitoring.persistence :],
    )


def _settled(history: Sequence[Batch], version: int) -> list[Performance]:
    """Realised performance of a version's batches that are not set aside, oldest first."""
    return [
        one.performance
        for one in history
        if one.performance is not None
        and one.verdict.evidence.version == version
        and not one.set_aside
    ]
