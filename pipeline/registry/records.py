"""Batches recorded in MLflow: what each showed, and what was decided.

All state of the monitor is read back from here, as a `History`; `recent` reads the part of it
that decisions need.
"""

import json
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import pandas as pd
from mlflow.entities import Run, RunTag

from pipeline.config import RESERVED
from pipeline.monitoring.episode import Decision, Evidence, Verdict
from pipeline.monitoring.estimate import Estimate
from pipeline.monitoring.expectations import Cells
from pipeline.monitoring.findings import LISTED, Cause, DriftReport
from pipeline.monitoring.performance import Performance
from pipeline.monitoring.slices import figures_of, from_text, to_text
from pipeline.monitoring.stored import to_record
from pipeline.monitoring.verdicts import State, state_of
from pipeline.reference.sketches import KEPT
from pipeline.reference.summaries import Summary, summary_from_json, summary_to_json
from pipeline.registry.history import Batch, History
from pipeline.registry.tracking import Tracking, milliseconds, translated
from pipeline.reporting import notes
from pipeline.reporting.wording import STATES
from pipeline.training.predictions import figures, of_cells

logger = logging.getLogger(__name__)

SUMMARY, SKETCH, REPORT, GIVEN = "summary.json", "sketch.parquet", "report.json", "given.json"
PREDICTIONS, FINDINGS, PAGE = "predictions.parquet", "findings.parquet", "report.html"
"""Artifacts of a batch run: the batch as one observation, some of its rows, what the comparison
found, what the decision was made from, what was predicted for which key, every test, and the page
that people read."""
IDENTITY = ("key", "time")
"""Columns of stored predictions that are not reserved ones without their prefix."""
BATCHES = "tags.kind = 'batch'"
"""Condition of the runs that batches are recorded in."""
READ_AGAIN = (REPORT, SUMMARY, PREDICTIONS)
"""Artifacts that later batches are judged with."""


def read_history(tracking: Tracking) -> History:
    """All recorded batches, oldest first; the last reading of a batch replaces earlier readings.

    A batch whose record is damaged counts as not judged, with a warning.
    """
    return History.of(read_batches(tracking.search(BATCHES)))


def read_batches(runs: Iterable[Run]) -> list[Batch]:
    """The batches of some runs, each by its last reading; damaged records are warned of."""
    found, damaged = _parsed(runs)
    if damaged:
        logger.warning("Records of batches are damaged and left out: %s.", ", ".join(damaged))
    return [*{one.name: one for one in sorted(found, key=lambda one: one.reading)}.values()]


def damaged_batches(tracking: Tracking) -> list[str]:
    """Names of the batches whose record is damaged; where the name is lost, the id of its run."""
    return _parsed(tracking.search(BATCHES))[1]


def _parsed(runs: Iterable[Run]) -> tuple[list[Batch], list[str]]:
    """The batches that can be read, and the names of those that cannot."""
    found, damaged = [], []
    for run in runs:
        if "verdict" not in run.data.tags:  # it was cut off, and is judged again
            continue
        try:
            found.append(_batch(run))
        except (LookupError, ValueError, TypeError, AttributeError):
            damaged.append(run.data.tags.get("batch", run.info.run_id))
    return found, sorted(damaged)


def record(
    tracking: Tracking,
    *,
    verdict: Verdict,
    report: DriftReport,
    quarantined: int,
    predictions: pd.DataFrame,
    window: tuple[pd.Timestamp, pd.Timestamp],
    step: int,
    given: Mapping[str, Any],
    draw: Callable[[str, dict[str, Any]], str],
    reading: int = 1,
    private: Collection[str] = (),
    classes: Sequence[str] = (),
    estimates: Sequence[Estimate] = (),
    ages: Mapping[str, float] | None = None,
) -> Batch:
    """Log one batch: its own run with the report, and a step of its champion's time line.

    Parameters
    ----------
    tracking : Tracking
        Where to log it.
    verdict : Verdict
        Evidence and decision.
    report : DriftReport
        The comparison.
    quarantined : int
        Refused rows.
    predictions : DataFrame
        ``key`` and ``time`` of each valid row, its predictions, and the slices that it belongs to.
    window : tuple of Timestamp
        Start and end of the batch.
    step : int
        Number of the batch since the first champion.
    given : mapping
        What the decision was made from beside the evidence: `episode.decide` repeats the decision
        from it.
    draw : callable
        From the run's id and the comparison as it is stored to the page that people read.
    reading : int
        How often the batch was read from its source, this time included.
    private : collection of str
        Columns of which no row is stored.
    classes : sequence of str
        Labels of the champion's target, where these are three or more.
    estimates : sequence of Estimate
        Its metrics, as they are estimated before its labels come.
    ages : mapping of str to float, optional
        Of its champion.

    Returns
    -------
    Batch
        The recorded batch, as `read_history` reads it back.
    """
    version = verdict.evidence.version
    timeline = _timeline(tracking, version, window[0])
    run_id = _batch_run(tracking, verdict.evidence.batch, window[0], reading)
    stored = predictions.rename(columns=lambda name: name.removeprefix(RESERVED))
    comparison = to_record(report, private=private)
    worse = bool(verdict.evidence.worse)
    state = state_of(alarm=report.alarm, broken=bool(report.causes), worse=worse)
    predicted = figures(of_cells(stored["prediction"]), classes) | dict(ages or {})
    metrics = notes.batch_metrics(report, quarantined, predicted | notes.estimated(estimates))
    note = notes.batch_note(
        verdict, report, quarantined, length=window[1] - window[0], conf=tracking.conf
    )
    tags = {
        "mlflow.parentRunId": timeline,
        "mlflow.note.content": note,
        **_facts(verdict, report),
        "state": state,
        "estimates": json.dumps([asdict(one) for one in estimates]),
        # The verdict comes last: a batch without one is judged again.
        "verdict": json.dumps(asdict(verdict)),
    }
    with translated():
        tracking.client.log_text(run_id, json.dumps(comparison, separators=(",", ":")), REPORT)
        tracking.log_frame(run_id, report.to_frame().head(LISTED), FINDINGS)
        store_page(tracking, run_id, draw(run_id, comparison))
        tracking.client.log_text(run_id, json.dumps(summary_to_json(report.summary)), SUMMARY)
        if report.summary.sketch is not None:
            public = report.summary.sketch.drop(columns=list(private), errors="ignore")
            tracking.log_frame(run_id, public, SKETCH)
        tracking.log_frame(run_id, stored, PREDICTIONS)
        tracking.client.log_dict(run_id, dict(given), GIVEN)
        # A chart of one batch says nothing of a column; the time line has all columns.
        whole = {
            name: value for name, value in metrics.items() if not name.startswith(notes.TIME_LINE)
        }
        tracking.log(run_id, whole, window[1], 0)
        tracking.log(timeline, metrics, window[1], step)
        tracking.client.set_terminated(run_id, end_time=milliseconds(window[1]))
        _rename(tracking, run_id, verdict, state, reading)
        tracking.client.log_batch(run_id, tags=[RunTag(*tag) for tag in tags.items()])
        return _batch(tracking.client.get_run(run_id))


def _rename(tracking: Tracking, run_id: str, verdict: Verdict, state: State, reading: int) -> None:
    """Name the run of a batch by what became of it, as the list of runs shows names first."""
    action = verdict.decision.action
    done = "" if action == "none" else f", {action}"
    name = f"{_run_name(verdict.evidence.batch, reading)}: {STATES[state].lower()}{done}"
    tracking.client.update_run(run_id, name=name)


def _run_name(batch: str, reading: int) -> str:
    return f"batch {batch}" if reading == 1 else f"batch {batch}, reading {reading}"


def _batch_run(tracking: Tracking, batch: str, start: pd.Timestamp, reading: int) -> str:
    tags = {"kind": "batch", "batch": batch}
    if reading > 1:
        tags |= {"reading": str(reading)}
    return tracking.run(tags, _run_name(batch, reading), start)


def _facts(verdict: Verdict, report: DriftReport) -> dict[str, str]:
    """Tags of a batch that MLflow's list of runs can be filtered by."""
    return {
        "version": str(verdict.evidence.version),
        "action": verdict.decision.action,
        "episode": verdict.decision.episode,
        "alarm": str(report.alarm).lower(),
        "outcome": report.outcome,
        "drifted": json.dumps(report.drifted[:20]),
    }


def record_performance(
    tracking: Tracking,
    batch: Batch,
    performance: Performance,
    *,
    as_of: pd.Timestamp,
    step: int | None,
    of_classes: Mapping[str, float] | None = None,
) -> Batch:
    """Add realised performance to a batch and to its champion's time line.

    Parameters
    ----------
    tracking : Tracking
        Where to log it.
    batch : Batch
        The batch.
    performance : Performance
        Its realised performance.
    as_of : Timestamp
        The moment whose labels it was computed from; it replaces what earlier labels showed.
    step : int or None
        Number of the batch since the first champion; None while more of its labels are awaited,
        and the time line has no point for it.
    of_classes : mapping of str to float, optional
        Share, recall and precision of each class, where there are three or more.

    Returns
    -------
    Batch
        The batch with its performance.
    """
    metrics = {f"realised_{key}": value for key, value in performance.metrics.items()}
    metrics |= {"loss_change": performance.change, "loss_change_at_least": performance.at_least}
    metrics |= {f"realised_{key}": value for key, value in (of_classes or {}).items()}
    metrics |= {"labels": float(performance.rows), "labelled_share": _share(performance)}
    metrics |= notes.estimate_errors(batch.estimates, performance.metrics)
    metrics |= figures_of(performance.slices)
    with translated():
        tracking.log(batch.run_id, metrics, as_of, 0)
        if step is not None:
            timeline = _timeline(tracking, batch.version, batch.end)
            tracking.log(timeline, metrics, as_of, step)
        known = replace(batch, performance=performance)
        tracking.client.set_tag(batch.run_id, "state", known.state)
        _rename(tracking, batch.run_id, batch.verdict, known.state, batch.reading)
        if performance.slices or (batch.performance and batch.performance.slices):
            tracking.client.set_tag(batch.run_id, "slices", to_text(performance.slices))
        whole = asdict(replace(performance, slices=()))  # a value of a tag is limited in length
        tracking.client.set_tag(batch.run_id, "performance", json.dumps(whole))
    return known


def _share(performance: Performance) -> float:
    return performance.rows / performance.of if performance.of else float("nan")


def store_page(tracking: Tracking, run_id: str, page: str) -> None:
    """Store the page of a batch with its run, in the place of an earlier one."""
    with translated():
        tracking.client.log_text(run_id, page, PAGE)


def record_page(tracking: Tracking, batch: Batch) -> Batch:
    """Note that people were paged about a batch; the batch with that note."""
    with translated():
        tracking.client.set_tag(batch.run_id, "paged", "yes")
    return replace(batch, paged=True)


def record_announcement(tracking: Tracking, batch: Batch, key: str) -> Batch:
    """Note that the retrain which a batch asks for was announced; the batch with that note.

    Parameters
    ----------
    tracking : Tracking
        Where to note it.
    batch : Batch
        The batch that opened the episode.
    key : str
        Of the request that was announced.
    """
    with translated():
        tracking.client.set_tag(batch.run_id, "announced", key)
    return replace(batch, announced=True)


def record_digest(tracking: Tracking, page: str, start: pd.Timestamp) -> None:
    """Store the page of a week's refused requests in its own run; a repeated call replaces it."""
    name = f"refused {start:%Y-%m-%d}"
    run_id = tracking.run({"kind": "digest", "week": f"{start:%Y-%m-%d}"}, name, start)
    with translated():
        tracking.client.log_text(run_id, page, "digest.md")
        tracking.client.set_tag(run_id, "mlflow.note.content", page)


def comparison(tracking: Tracking, batch: Batch) -> dict[str, Any] | None:
    """The comparison of a batch as it is stored; None, with a warning, if it is lost."""
    report: dict[str, Any] | None = tracking.read(batch.run_id, REPORT)
    if report is None:
        logger.warning("The report of batch %s is lost, and what was found with it.", batch.name)
    return report


def causes(tracking: Tracking, batch: Batch) -> tuple[Cause, ...]:
    """The faults that were recognised in a batch; none if its report is lost."""
    report = comparison(tracking, batch)
    if report is None:
        return ()
    return tuple(
        Cause(**{**cause, "columns": tuple(cause["columns"])}) for cause in report["causes"]
    )


def summaries(tracking: Tracking, chosen: Sequence[Batch]) -> list[Summary]:
    """What some batches looked like as observations, in the order given; the last with rows.

    Batches whose summary is lost are left out, with a warning.
    """
    found = [(batch, tracking.read(batch.run_id, SUMMARY)) for batch in chosen]
    known = [(batch, summary_from_json(values)) for batch, values in found if values is not None]
    if len(known) < len(chosen):
        lost = ", ".join(batch.name for batch, values in found if values is None)
        logger.warning("The summaries of some batches are lost and left out: %s.", lost)
    for batch, summary in known[-KEPT:]:
        summary.sketch = tracking.read_frame(batch.run_id, SKETCH)
    return [summary for _, summary in known]


def predictions(tracking: Tracking, batch: Batch) -> pd.DataFrame | None:
    """What was predicted for the rows of a batch, as `record` stored it; None if it did not."""
    stored = tracking.read_frame(batch.run_id, PREDICTIONS)
    if stored is None:
        return None
    return stored.rename(columns=lambda name: name if name in IDENTITY else f"{RESERVED}{name}")


def _timeline(tracking: Tracking, version: int, start: pd.Timestamp) -> str:
    tags = {"kind": "timeline", "version": str(version)}
    return tracking.run(tags, f"monitoring of version {version}", start)


def _batch(run: Run) -> Batch:
    tags, verdict = run.data.tags, json.loads(run.data.tags["verdict"])
    evidence = _evidence(verdict["evidence"])
    if tags["batch"] != evidence.batch:
        raise ValueError(tags["batch"])
    return Batch(
        name=evidence.batch,
        end=pd.Timestamp(run.info.end_time, unit="ms"),
        verdict=Verdict(evidence, _decision(verdict["decision"])),
        rows=int(run.data.metrics["rows"]),
        quarantined=int(run.data.metrics["quarantined"]),
        drifted=tuple(json.loads(tags["drifted"])),
        performance=_performance(tags.get("performance"), tags.get("slices", "[]")),
        run_id=run.info.run_id,
        outcome=tags.get("outcome") or ("moved" if evidence.alarm else "quiet"),
        answer=tags.get("answer", ""),
        paged="paged" in tags,
        announced="announced" in tags,
        reading=int(tags.get("reading", "1")),
        estimates=tuple(Estimate(**one) for one in json.loads(tags.get("estimates", "[]"))),
    )


def _evidence(values: Mapping[str, Any]) -> Evidence:
    """Evidence as it was stored; older stores lack some of its values."""
    lists = {key: tuple(values.get(key, ())) for key in ("persisted", "broken", "labels")}
    other = values.get("otherwise")
    return Evidence(**{**values, **lists, "otherwise": _evidence(other) if other else None})


def _decision(values: Mapping[str, Any]) -> Decision:
    return Decision(**{**values, "presumed": tuple(values.get("presumed", ()))})


def _performance(text: str | None, slices: str) -> Performance | None:
    """A performance as it was stored; None if it cannot be read, and labels show it anew."""
    try:
        values = json.loads(text or "")
        metrics = values.pop("scores", None) or values["metrics"]  # older stores: ``scores``
        lists = {key: tuple(values.get(key, ())) for key in ("parts", "counts")}
        cells = values.get("cells") and Cells.from_dict(values["cells"])
        more = {"metrics": metrics, "cells": cells, "slices": from_text(slices)}
        return Performance(**{**values, **lists, **more})
    except (LookupError, ValueError, TypeError, AttributeError):
        return None
