"""Recorded batches: what each showed, what was decided, and what people answered.

All state of the monitor is read back from here.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pandas as pd

from pipeline.errors import RegistryError
from pipeline.monitoring.episode import Decision, Evidence, Verdict
from pipeline.monitoring.findings import Cause, DriftReport
from pipeline.monitoring.performance import Performance
from pipeline.reference.summaries import Summary, summary_from_json, summary_to_json
from pipeline.registry.tracking import Tracking, milliseconds, translated
from pipeline.reporting import notes

SUMMARY, REPORT, GIVEN = "summary.json", "report.json", "given.json"
"""Artifacts of a batch run: the batch as one observation, what the comparison found, and what the
decision was made from."""
Answer = Literal["accept", "drop", "reload"]


@dataclass(frozen=True)
class Batch:
    """A recorded batch.

    Attributes
    ----------
    name : str
        Start of its window, ISO.
    verdict : Verdict
        Evidence and decision.
    rows, quarantined : int
        Valid and refused rows.
    drifted : tuple of str
        Columns that drifted, in the words of the report.
    performance : Performance or None
        Realised, once its labels have arrived.
    run_id : str
        Its MLflow run.
    outcome : str
        ``quiet``, ``moved``, ``broken`` or ``mixed``.
    paged, announced : bool
        Whether people were told of its decision, and others of the episode it opened.
    answer : str
        What people said of it, ``accept``, ``drop`` or ``reload``; empty: nothing yet.
    reading : int
        1, or more if people had its source read again.
    """

    name: str
    verdict: Verdict
    rows: int
    quarantined: int
    drifted: tuple[str, ...]
    performance: Performance | None
    run_id: str
    outcome: str
    answer: str
    paged: bool
    announced: bool
    reading: int = 1

    @property
    def broken(self) -> bool:
        """Whether a fault was recognised in it."""
        return self.outcome in {"broken", "mixed"}

    @property
    def set_aside(self) -> bool:
        """Whether nothing may be learnt from it or judged by it."""
        return self.broken and self.answer != "accept"

    @property
    def is_open(self) -> bool:
        """Whether people have to answer for it."""
        return self.set_aside and self.answer != "drop"


def batches(tracking: Tracking) -> list[Batch]:
    """All recorded batches, oldest first; of one that was read again the last reading counts."""
    found = [_batch(run) for run in tracking.search("tags.kind = 'batch'")]
    readings = sorted((one for one in found if one is not None), key=lambda one: one.reading)
    named = {one.name: one for one in readings}
    return [named[name] for name in sorted(named)]


def record(
    tracking: Tracking,
    *,
    verdict: Verdict,
    report: DriftReport,
    quarantined: int,
    predicted: float,
    window: tuple[pd.Timestamp, pd.Timestamp],
    step: int,
    given: Mapping[str, Any],
    reading: int = 1,
) -> None:
    """Log one batch: its own run with the report, and a step of its champion's time line.

    Parameters
    ----------
    verdict : Verdict
        Evidence and decision.
    report : DriftReport
        The comparison.
    quarantined : int
        Refused rows.
    predicted : float
        Mean prediction.
    window : tuple of Timestamp
        Start and end of the batch.
    step : int
        Number of the batch since the first champion.
    given : mapping
        What the decision was made from beside the evidence: `episode.decide` on it decides the
        same again.
    reading : int
        How often it was read, this time included.
    """
    evidence = verdict.evidence
    parent = _timeline(tracking, evidence.version, window[0])
    tags, name = {"kind": "batch", "batch": evidence.batch}, f"batch {evidence.batch}"
    if reading > 1:
        tags, name = tags | {"reading": str(reading)}, f"{name}, reading {reading}"
    run_id = tracking.run(tags, name, window[0])
    metrics = notes.batch_metrics(report, quarantined, predicted)
    drifted = json.dumps(report.drifted[:20])
    facts = {
        "mlflow.parentRunId": parent,
        "mlflow.note.content": notes.batch_note(
            verdict, report, quarantined, length=window[1] - window[0], conf=tracking.conf
        ),
        "version": str(evidence.version),
        "action": verdict.decision.action,
        "episode": verdict.decision.episode,
        "alarm": str(report.alarm).lower(),
        "outcome": report.outcome,
        "drifted": drifted,
    }
    with translated():
        tracking.client.log_dict(run_id, report.to_dict(), REPORT)
        tracking.client.log_text(run_id, json.dumps(summary_to_json(report.summary)), SUMMARY)
        tracking.client.log_dict(run_id, dict(given), GIVEN)
        tracking.log(run_id, metrics, window[1], 0)
        tracking.log(parent, metrics, window[1], step)
        for key, value in facts.items():
            tracking.client.set_tag(run_id, key, value)
        tracking.client.set_terminated(run_id, end_time=milliseconds(window[1]))
        # The verdict comes last: a batch without one is judged again.
        tracking.client.set_tag(run_id, "verdict", json.dumps(asdict(verdict)))


def record_performance(
    tracking: Tracking, batch: Batch, performance: Performance, *, end: pd.Timestamp, step: int
) -> None:
    """Add realised performance to a batch and to its champion's time line."""
    scores = {f"realised_{key}": value for key, value in performance.scores.items()}
    scores |= {"loss_change": performance.change, "loss_change_at_least": performance.at_least}
    parent = _timeline(tracking, batch.verdict.evidence.version, end)
    with translated():
        tracking.log(batch.run_id, scores, end, 0)
        tracking.log(parent, scores, end, step)
        tracking.client.set_tag(batch.run_id, "performance", json.dumps(asdict(performance)))


def mark(tracking: Tracking, batch: Batch, **tags: str) -> None:
    """Set tags of a batch."""
    with translated():
        for key, value in tags.items():
            tracking.client.set_tag(batch.run_id, key, value)


def record_answer(tracking: Tracking, batch: str, answer: Answer, reason: str) -> Batch:
    """Record what people say of a batch; the same answer again changes nothing.

    Parameters
    ----------
    batch : str
        Its name, or any spelling of its start.
    answer : str
        ``accept``: the world is like that now. ``drop``: never learn from these rows. ``reload``:
        the source was mended, and the batch is to be read and judged again.
    reason : str
        Why, in the words of whoever answers; the first 300 characters are kept.

    Returns
    -------
    Batch
        The one that was answered for, as it was.

    Raises
    ------
    RegistryError
        If there is no such batch, or it is not broken and not to be read again.
    """
    start = pd.to_datetime(batch, errors="coerce")
    name = batch if pd.isna(start) else f"{start:%Y-%m-%dT%H:%M}"
    found = next((one for one in batches(tracking) if one.name == name), None)
    if found is None or not (found.broken or answer == "reload"):
        got = "It is not recorded" if found is None else f"It is {found.outcome}"
        rule = "be recorded to be read again" if answer == "reload" else f"be broken to {answer} it"
        message = (
            f"Batch {batch} of {tracking.name!r} must {rule}. {got}. "
            f"See the open questions: review/{tracking.name}."
        )
        raise RegistryError(message)
    if found.answer == answer:
        return found
    with translated():
        tags = tracking.client.get_run(found.run_id).data.tags
        moment = f"{pd.Timestamp.now('UTC'):%Y-%m-%dT%H:%MZ}"
        now = {"answer_reason": reason[:300], "answered": moment}
        if found.answer:
            earlier = {key: tags[key] for key in ("answer", *now)}
            history = [*json.loads(tags.get("answers", "[]")), earlier]
            tracking.client.set_tag(found.run_id, "answers", json.dumps(history))
        for key, value in (now | {"answer": answer}).items():
            tracking.client.set_tag(found.run_id, key, value)
    return found


def record_digest(tracking: Tracking, page: str, start: pd.Timestamp) -> None:
    """Keep the page of a week's refused requests in a run of its own; again, it is replaced."""
    name = f"refused {start:%Y-%m-%d}"
    run_id = tracking.run({"kind": "digest", "week": f"{start:%Y-%m-%d}"}, name, start)
    with translated():
        tracking.client.log_text(run_id, page, "digest.md")
        tracking.client.set_tag(run_id, "mlflow.note.content", page)


def causes(tracking: Tracking, batch: Batch) -> tuple[Cause, ...]:
    """The faults that were recognised in a batch."""
    report = tracking.read(batch.run_id, REPORT)
    return tuple(
        Cause(**{**cause, "columns": tuple(cause["columns"])}) for cause in report["causes"]
    )


def summaries(tracking: Tracking, chosen: Sequence[Batch]) -> list[Summary]:
    """What some batches looked like as observations, in the order given."""
    return [summary_from_json(tracking.read(one.run_id, SUMMARY)) for one in chosen]


def _timeline(tracking: Tracking, version: int, start: pd.Timestamp) -> str:
    tags = {"kind": "timeline", "version": str(version)}
    return tracking.run(tags, f"monitoring of version {version}", start)


def _batch(run: Any) -> Batch | None:
    tags = run.data.tags
    if "verdict" not in tags:
        return None
    verdict = json.loads(tags["verdict"])
    values = verdict["evidence"]
    lists = {key: tuple(values.get(key, ())) for key in ("persisted", "broken")}
    evidence = Evidence(**{**values, **lists})
    performance = tags.get("performance")
    return Batch(
        name=tags["batch"],
        verdict=Verdict(evidence, Decision(**verdict["decision"])),
        rows=int(run.data.metrics["rows"]),
        quarantined=int(run.data.metrics["quarantined"]),
        drifted=tuple(json.loads(tags["drifted"])),
        performance=None if performance is None else _performance(json.loads(performance)),
        run_id=run.info.run_id,
        outcome=tags.get("outcome") or ("moved" if evidence.alarm else "quiet"),
        answer=tags.get("answer", ""),
        paged="paged" in tags,
        announced="announced" in tags,
        reading=int(tags.get("reading", "1")),
    )


def _performance(values: dict[str, Any]) -> Performance:
    return Performance(**{**values, "parts": tuple(values["parts"])})
