"""Monitor one live batch: judge it, page people, judge challengers, and ask for a retrain."""

from typing import Any

import pandas as pd
from prefect import flow, get_run_logger

from flows.gate import gate, shadowed
from flows.judge import judge
from flows.notes import OF_A_MODEL, is_scheduled, note
from flows.paging import event_of, page_owed, page_silence
from flows.retrains import send
from flows.sentences import of_batch
from flows.settle import live_source, recent_history
from flows.steps import opened, patient
from pipeline.config import CaptureSource, Moment, Settings, spelled
from pipeline.data.captures import first_captured
from pipeline.data.tables import Progress, progress
from pipeline.errors import DataError
from pipeline.registry import champions, records
from pipeline.registry.history import History, batch_name
from pipeline.registry.versions import Registry
from pipeline.reporting.wording import STATES


@flow(name="monitor", **OF_A_MODEL)
def monitor(conf: str, batch: Moment | None = None) -> dict[str, Any]:
    """Judge one batch, by default the batch after the last recorded one, and act on it."""
    settings, registry = opened(conf)
    if is_scheduled() and not patient(registry.all_versions)():
        return _untrained(settings)
    with registry.exclusive("monitor"):
        history = patient(recent_history)(settings, registry, batch)
        start = next_batch(settings, registry, history) if batch is None else batch
        if batch is not None:
            _require_judgeable(settings, registry, history, start)
        patient(champions.reconcile)(registry, start)
        # A page that was lost with its process is written here.
        history = patient(page_owed)(settings, registry, history)
        end = start + settings.monitoring.batch
        came: Progress = "whole"
        if batch is None:
            came = patient(progress)(
                live_source(settings), settings.data, start, end, captures=settings.captures
            )
        if came != "whole":
            result = _not_judged(settings, came, start, end)
            if came == "silent":
                patient(page_silence)(settings, registry, history, scheduled=None)
        else:
            history = judge(settings, registry, history, start)
            history = patient(page_owed)(settings, registry, history)
            result = _result(history, start)
        judge_shadows(settings, registry, history)
    send(settings, registry, history)
    patient(registry.note_monitored)()
    if came == "whole":
        _note(registry, history, result)
    return result


def _require_judgeable(
    settings: Settings, registry: Registry, history: History, start: pd.Timestamp
) -> None:
    """Refuse a batch of rows that were trained on or of two others, unless it is recorded."""
    if batch_name(start) in {batch.name for batch in history.batches}:
        return
    length, following = settings.monitoring.batch, next_batch(settings, registry, history)
    unseen, off = patient(champions.judged_from)(registry, start), (start - following) % length
    if start < unseen:
        first = unseen + (following - unseen) % length
        message = (
            f"A batch must start after the rows that its version was trained on: the first such "
            f"batch is {batch_name(first)}. Got {batch_name(start)}. Name {batch_name(first)} or a "
            "later one."
        )
        raise DataError(message)
    if off:
        message = (
            f"A batch must start a multiple of monitoring.batch ({spelled(length)}) from the next "
            f"one, {batch_name(following)}, or rows would count twice. Got {batch_name(start)}. "
            f"Name {batch_name(start - off)} or {batch_name(start - off + length)}."
        )
        raise DataError(message)


def _untrained(settings: Settings) -> dict[str, Any]:
    """Nothing, said quietly: a schedule runs for a model that nobody has trained yet."""
    reason = (
        f"No version was trained yet; nothing was judged. Run `holdfast train {settings.conf}`."
    )
    get_run_logger().info(reason)
    return {"batch": "", "rows": 0, "drifted": [], "action": "none", "reason": reason}


def _not_judged(
    settings: Settings, came: Progress, start: pd.Timestamp, end: pd.Timestamp
) -> dict[str, Any]:
    arrival, name = settings.data.arrival, batch_name(start)
    when = f"before {end:%Y-%m-%d %H:%M} UTC"
    if arrival is not None:
        when = f"before it holds {settings.monitoring.batch // arrival.every:,} rows"
    reason = f"The batch is not over {when}; nothing was judged."
    if came == "silent":
        reason = f"No row of {name} or later has come; nothing was judged."
        if isinstance(live_source(settings), CaptureSource):
            reason = (
                "No request was answered yet; nothing was judged. Serve the model: "
                f"`holdfast serve {settings.conf}`."
            )
    nothing = {"batch": name, "rows": 0, "drifted": [], "action": "none"}
    return nothing | {"reason": reason}


def _result(history: History, start: pd.Timestamp) -> dict[str, Any]:
    batch = history.batch(batch_name(start))
    decision = batch.verdict.decision
    return {
        "batch": batch.name,
        "rows": batch.rows,
        "refused": batch.quarantined,
        "drifted": list(batch.drifted),
        "action": decision.action,
        "reason": decision.reason,
        "moved_slice": batch.verdict.evidence.moved_slice,
    }


@patient
def _note(registry: Registry, history: History, result: dict[str, Any]) -> None:
    """Say in Prefect what the batch came to, and what people have to do."""
    batch = history.batch(result["batch"])
    calm = batch.verdict.decision.action == "none"
    said = "" if calm else event_of(registry, history, batch).body
    figures = {
        "batch": batch.name,
        "rows": f"{batch.rows:,}",
        "refused": f"{batch.quarantined:,}",
        "verdict": STATES[batch.state].lower(),
        "drifted": ", ".join(batch.drifted),
        "faults": ", ".join(batch.verdict.evidence.broken),
        "action": result["action"],
        "champion": f"version {batch.version}",
    }
    sentence = of_batch(result, registry.name)
    name = f"monitor {registry.name} {batch.name}"
    page = records.PAGE
    note(registry, batch.run_id, sentence, name=name, figures=figures, page=page, said=said)


@patient
def next_batch(settings: Settings, registry: Registry, history: History) -> pd.Timestamp:
    """Start of the batch after the last recorded batch, else of the first after training.

    Batches of captures begin with the first request: of the time before there is nothing to judge.
    The first batch is one of which at least half came after it.
    """
    following = registry.champion().until if history.last is None else history.last.end
    if not isinstance(live_source(settings), CaptureSource):
        return following
    length, first = settings.monitoring.batch, first_captured(settings.captures)
    later = 0 if first is None else round((first - following) / length)
    return following + max(later, 0) * length


@patient
def judge_shadows(settings: Settings, registry: Registry, history: History) -> None:
    """Put each challenger before the gate that has scored its batches beside the champion."""
    for version in registry.versions():
        if version.closed or version.waits_for or not version.shadow:
            continue
        if not history.covers(version.until):
            history = records.read_history(registry)
        if len(shadowed(settings, history, version)) >= version.shadow:
            gate(settings, registry, version.number)
