"""Judge one batch: gather its rows, compare them with the reference, decide, and record."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import islice
from typing import Any

import pandas as pd

from flows import reports
from flows.estimates import estimates_of
from flows.faults import fault_of_refusals, faults_of_labels
from flows.gathered import Compared, Gathered, gather
from flows.indicators import indicators
from flows.predict import predict
from flows.settle import is_harmless, known_performance, settle, step_of
from flows.slices import slice_drifts
from flows.steps import patient, quarantine_folder
from pipeline.config import Settings
from pipeline.data import validation
from pipeline.monitoring import drift, episode, questions
from pipeline.monitoring.episode import Evidence, Verdict
from pipeline.monitoring.findings import Cause, DriftReport
from pipeline.monitoring.performance import Performance
from pipeline.monitoring.slice_drift import most_drifted
from pipeline.monitoring.slices import worst_slice
from pipeline.registry import champions, records
from pipeline.registry.history import MOST_RECENT, Batch, History, batch_name
from pipeline.registry.versions import Registry, Version
from pipeline.reporting.rendering import drawn
from pipeline.training.bundle import Bundle
from pipeline.training.model import Predictions
from pipeline.training.predictions import (
    HALVED,
    PREDICTION,
    PREVIOUS,
    SLICE,
    in_columns,
    of_cells,
)

_MOST_REASONS = 5
"""Reasons of refused rows that the report of a batch lists."""


@patient
def judge(
    settings: Settings,
    registry: Registry,
    history: History,
    start: pd.Timestamp,
    *,
    reading: int = 1,
) -> History:
    """Record a batch and the decision about it; a recorded batch stays as it is.

    Parameters
    ----------
    settings : Settings
        The model's.
    registry : Registry
        The model's.
    history : History
        All recorded batches.
    start : Timestamp
        Start of the batch.
    reading : int
        How often the batch is to be read from its source; if it was read less often, it is read
        and judged again.

    Returns
    -------
    History
        With the batch.
    """
    recorded = history.find(batch_name(start))
    if recorded is not None and recorded.reading >= reading:
        return history
    gathered = gather(settings, registry, start, reading)
    history = settle(settings, registry, history, gathered.end)
    compared = compare(settings, registry, history, gathered)
    verdict, given = reach_verdict(settings, registry, history, gathered, compared)
    return history.with_batch(
        record(settings, registry, history, gathered, compared, verdict=verdict, given=given)
    )


def compare(settings: Settings, registry: Registry, history: History, batch: Gathered) -> Compared:
    """Compare a batch with the reference; if faults are found, its rows are kept as they came.

    Raises
    ------
    NoValidRowError
        If no row is valid and no fault explains it, or the window is not over yet.
    """
    before = history.before(batch.name)
    predicted = predict(settings, registry, batch.version, batch.checked.valid)
    report = _report(
        settings,
        registry,
        batch,
        predictions=of_cells(predicted[HALVED]),
        recent=before.recent(batch.version),
        diagnosis=settings.monitoring.diagnosis,
        standing=standing(registry, before),
    )
    if settings.monitoring.diagnosis and not report.causes:
        # A fault of the features would show in predictions and refusals, and these in the labels.
        found = (
            *faults_of_labels(
                settings, registry, batch.checked, predicted, version=batch.version, as_of=batch.end
            ),
            *fault_of_refusals(settings, registry.bundle(batch.version), batch.checked, before),
        )
        report = replace(report, causes=found)
    new = _new(registry, before.of_version(batch.version), report)
    # Accepted or not, a fault that leaves no valid row is reported.
    if new or batch.refusal is None:
        report = replace(report, causes=new)
    if batch.refusal is not None and (not report.causes or batch.lies_ahead):
        raise batch.refusal
    if report.causes:
        folder = quarantine_folder(settings)
        validation.keep(batch.rows, folder / f"{batch.kept_as} broken.parquet")
    bundle = registry.bundle(batch.version)
    rows = _rows(settings, bundle, batch, of_cells(predicted[HALVED]))
    report = replace(
        report,
        indicators=indicators(settings, bundle, batch.checked, predicted),
        refused=dict(islice(batch.checked.reasons.items(), _MOST_REASONS)),
        slices=slice_drifts(settings, bundle, rows, predicted),
    )
    return Compared(report, predicted)


def _rows(
    settings: Settings, bundle: Bundle, batch: Gathered, predictions: Predictions
) -> pd.DataFrame:
    """Valid rows of a batch with predictions, as they are compared with the reference."""
    name = next(iter(bundle.reference.prediction), PREDICTION)  # of before: another one
    shown = in_columns(predictions, bundle.model.classes, name)
    return batch.checked.valid[list(settings.data.features)].assign(**shown)


def _report(
    settings: Settings,
    registry: Registry,
    batch: Gathered,
    *,
    predictions: Predictions,
    recent: list[Batch],
    diagnosis: bool,
    standing: Sequence[Cause] = (),
) -> DriftReport:
    data, policy = settings.data, settings.monitoring
    bundle = registry.bundle(batch.version)
    roles = [name for name in (data.key, data.time, data.target, data.label_time) if name]
    return drift.compare(
        reference=bundle.reference,
        current=_rows(settings, bundle, batch, predictions),
        recent=records.summaries(registry, recent),
        alpha=policy.alpha,
        persistence=policy.persistence,
        importance=bundle.manifest["importance"],
        arrived=batch.rows.drop(columns=roles, errors="ignore"),
        diagnosis=diagnosis,
        broken_alpha=policy.broken_alpha,
        standing=standing,
        kept=registry.sound_blocks(batch.version, "features"),
    )


def standing(registry: Registry, before: History) -> list[Cause]:
    """Faults of the last batches in a row that are set aside, the newest batch first."""
    return [cause for batch in before.standing for cause in records.causes(registry, batch)]


def _new(registry: Registry, own: History, report: DriftReport) -> tuple[Cause, ...]:
    """Faults that nobody accepted, and that do not count as accepted for want of an answer."""
    accepted = {
        (cause.cause, cause.columns)
        for batch in own.accepted
        for cause in records.causes(registry, batch)
    }
    presumed = {fault for batch in own.batches for fault in batch.presumed}
    return tuple(
        cause
        for cause in report.causes
        if (cause.cause, cause.columns) not in accepted and _name(cause) not in presumed
    )


def _name(cause: Cause) -> str:
    """Name of a fault, as evidence holds it."""
    return cause.name[:100]


def reach_verdict(
    settings: Settings,
    registry: Registry,
    history: History,
    batch: Gathered,
    compared: Compared,
) -> tuple[Verdict, dict[str, Any]]:
    """Gather the evidence of a batch and decide about it.

    Returns
    -------
    Verdict
        Evidence and decision.
    dict of str to Any
        What else the decision was made from, to be stored as JSON.
    """
    before, policy = history.before(batch.name), settings.monitoring
    evidence = _evidence(settings, registry, before, batch, compared)
    asked: dict[str, Any] = {
        "accepted": [known.name for known in before.accepted],
        "answered": [known.name for known in before.opposed],
        "escalate_after": policy.escalate_after,
        "on_unanswered": policy.on_unanswered,
    }
    faults = questions.ask(evidence, history=before.verdicts, **asked).faults
    if faults and batch.refusal is None:
        other = _without(
            settings, registry, before, batch, compared, evidence=evidence, faults=faults
        )
        evidence = replace(evidence, otherwise=other)
    made = champions.attempts(registry.versions())
    given = asked | {
        "cooldown": policy.cooldown,
        "late": history.counts_after(batch.name),
        "record_harmless": policy.harmless == "record",
        "refusals": episode.REFUSALS,
        "uncleared": episode.UNCLEARED,
    }
    decision = episode.decide(evidence, history=before.verdicts, attempts=made, **given)
    given["history"] = [known.name for known in before.batches]
    given["attempts"] = [asdict(attempt) for attempt in made]
    return Verdict(evidence, decision), given


def _evidence(
    settings: Settings,
    registry: Registry,
    before: History,
    batch: Gathered,
    compared: Compared,
) -> Evidence:
    report, own = compared.report, before.of_version(batch.version)
    aside = [known.name for known in own.unanswered] if report.causes else []
    known = known_performance(
        settings,
        registry,
        own,
        compared.predicted,
        version=batch.version,
        name=batch.name,
        as_of=batch.end,
        also=aside,
    )
    moved = most_drifted(report.slices)
    return Evidence(
        batch=batch.name,
        version=batch.version,
        alarm=report.alarm,
        persisted=report.persistent[:20],
        worse=known.batch if known and known.worse else "",
        harmless=not (known and known.worse)
        and is_harmless(settings, before.performances(batch.version)),
        broken=tuple(_name(cause) for cause in report.causes[:20]),
        labels=tuple(
            f"{fault} in batch {other.name}"
            for other in own.batches[-MOST_RECENT:]
            if other.set_aside and not other.answer
            for fault in other.label_faults
        ),
        moved_slice="" if moved is None else moved.sentence,
        **({} if known is None else _measured(known)),
    )


def _measured(known: Performance) -> dict[str, Any]:
    """What evidence says of performance."""
    worst = worst_slice(known.slices)
    return {
        "measured": known.batch,
        "change": known.change,
        "at_least": known.at_least,
        "worst_slice": "" if worst is None else worst.sentence,
    }


def _without(
    settings: Settings,
    registry: Registry,
    before: History,
    batch: Gathered,
    compared: Compared,
    *,
    evidence: Evidence,
    faults: Sequence[str],
) -> Evidence:
    """Judge a broken batch as if some of its faults were accepted, in it and the batches before."""
    aside = questions.counted_with(
        evidence,
        faults,
        history=before.verdicts,
        answered=[known.name for known in before.opposed],
    )
    recent = before.recent(batch.version, also=aside)
    halved = of_cells(compared.predicted[HALVED])
    report = _report(settings, registry, batch, predictions=halved, recent=recent, diagnosis=False)
    earlier = before.performances(batch.version, also=aside)
    return replace(
        evidence,
        alarm=report.alarm,
        persisted=report.persistent[:10],
        harmless=not evidence.worse and is_harmless(settings, earlier),
        broken=tuple(fault for fault in evidence.broken if fault not in faults),
    )


def record(
    settings: Settings,
    registry: Registry,
    history: History,
    batch: Gathered,
    compared: Compared,
    *,
    verdict: Verdict,
    given: dict[str, Any],
) -> Batch:
    """Record a batch with its verdict, and with its page."""
    data, features = settings.data, settings.data.features
    names = {data.key: "key", data.time: "time"}
    models = [name for name in (PREDICTION, HALVED, PREVIOUS) if name in compared.predicted]
    slices = [name for name in compared.predicted if str(name).startswith(SLICE)]
    kept = compared.predicted[[*names, *models, *slices]].rename(columns=names)
    quarantined = len(batch.checked.quarantined)
    before, version = history.before(batch.name), batch.version
    estimates = estimates_of(
        settings, registry, before, start=batch.start, version=version, predicted=compared.predicted
    )

    def page(run_id: str, comparison: dict[str, Any]) -> str:
        drawing = partial(
            reports.draw,
            settings,
            registry,
            history,
            verdict=verdict,
            record=comparison,
            run_id=run_id,
            quarantined=quarantined,
            estimates=estimates,
            reading=batch.reading,
        )
        return drawn(drawing, f"batch {verdict.evidence.batch}")

    return records.record(
        registry,
        verdict=verdict,
        report=compared.report,
        quarantined=quarantined,
        predictions=kept,
        window=(batch.start, batch.end),
        step=step_of(settings, registry, batch.start),
        given=given,
        draw=page,
        reading=batch.reading,
        private=[name for name, column in features.items() if column.private],
        classes=registry.bundle(version).model.classes,
        estimates=estimates,
        ages=_ages(registry.version(version), batch.end),
    )


def _ages(version: Version, moment: pd.Timestamp) -> dict[str, float]:
    """Days from the end and from the start of the window that a version was trained on."""
    ends = {"champion_age_days": "until", "oldest_training_row_days": "since"}
    return {
        name: (moment - pd.Timestamp(version.tags[tag])) / pd.Timedelta("1D")
        for name, tag in ends.items()
        if tag in version.tags
    }
