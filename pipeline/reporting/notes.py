"""What people read in MLflow: notes in Markdown, and numbers that are charted."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from pipeline.monitoring.episode import Verdict
from pipeline.monitoring.estimate import Estimate
from pipeline.monitoring.findings import DriftReport
from pipeline.monitoring.indicators import LIMIT
from pipeline.monitoring.slice_drift import charted
from pipeline.monitoring.verdicts import state_of
from pipeline.reporting.rendering import markdown
from pipeline.reporting.wording import STATES, after
from pipeline.training.fitting import Trained
from pipeline.training.gate import GateResult

INDICATORS = "indicator/"
TIME_LINE = ("psi/", "distance/", "missing/", INDICATORS)
"""Beginnings of the names of metrics that the time line alone shows: of columns, and of indicators
with their baselines and limits."""
_MOST_FINDINGS = 30
"""Rows of the table of drift in a note."""


def training_note(trained: Trained, tags: Mapping[str, str]) -> str:
    """Describe a training run: its rows, its metrics and the columns that it relies on.

    Parameters
    ----------
    trained : Trained
        What training made.
    tags : mapping of str to str
        Tags of the run; ``since`` and ``until`` are the ends of its window.
    """
    ends = {"since": tags["since"], "until": tags["until"]}
    return markdown("training_note.md.j2", trained=trained, **ends)


def model_note(changes: Sequence[Mapping[str, Any]], conf: str) -> str:
    """Describe a model: who is champion, since when and why, and who was before.

    Parameters
    ----------
    changes : sequence of mapping of str to Any
        The newest changes of champion, the newest first.
    conf : str
        Path of the model's file, for the commands.
    """
    return markdown("model_note.md.j2", changes=changes, newest=changes[0], conf=conf)


def gate_note(result: GateResult) -> str:
    """Describe the gate's decision about a version: reason, gains and worst slices."""
    return markdown("gate_note.md.j2", result=result)


def batch_note(
    verdict: Verdict, report: DriftReport, quarantined: int, *, length: pd.Timedelta, conf: str
) -> str:
    """Describe a judged batch: what happened, its faults or its drift, and how to answer.

    Parameters
    ----------
    verdict : Verdict
        Evidence and decision.
    report : DriftReport
        The comparison with the reference.
    quarantined : int
        Refused rows.
    length : Timedelta
        Length of a batch.
    conf : str
        Path of the model's file, for the commands.
    """
    evidence = verdict.evidence
    state = state_of(alarm=report.alarm, broken=bool(report.causes), worse=bool(evidence.worse))
    return markdown(
        "batch_note.md.j2",
        word=STATES[state],
        reason=after(STATES[state], verdict.decision.reason),
        verdict=verdict,
        report=report,
        quarantined=quarantined,
        batches=pd.Timedelta(days=365.25) / length,
        drifted=[found for found in report.findings if found.drifted][:_MOST_FINDINGS],
        conf=conf,
    )


def batch_metrics(
    report: DriftReport, quarantined: int, predicted: Mapping[str, float]
) -> dict[str, float]:
    """Collect the numbers of a batch that MLflow charts from batch to batch."""
    metrics = {
        "rows": float(report.rows),
        "quarantined": float(quarantined),
        "drifted_columns": float(sum(column.drifted for column in report.columns)),
        "drifted_pairs": float(sum(pair.drifted for pair in report.pairs)),
        "alarm": float(report.alarm),
        "causes": float(len(report.causes)),
        **predicted,
        **charted(report.slices),
    }
    for one in report.indicators:
        metrics |= {
            f"{INDICATORS}{one.name}": one.now,
            f"{INDICATORS}{one.name} baseline": one.before,
            f"{INDICATORS}{one.name} lowest": one.before - LIMIT * abs(one.before),
            f"{INDICATORS}{one.name} highest": one.before + LIMIT * abs(one.before),
        }
    for column in report.columns:
        metrics |= {
            f"psi/{column.name}": column.psi,
            f"distance/{column.name}": column.distance,
            f"missing/{column.name}": column.missing,
        }
    return metrics


def estimated(estimates: Sequence[Estimate]) -> dict[str, float]:
    """Estimated metrics of a batch with the ends of their intervals, as far as there are any."""
    found = {}
    for one in estimates:
        if not one.reason:
            found[f"estimated_{one.metric}"] = one.value
            found[f"estimated_{one.metric}_low"] = one.low
            found[f"estimated_{one.metric}_high"] = one.high
    return found


def estimate_errors(
    estimates: Sequence[Estimate], realised: Mapping[str, float]
) -> dict[str, float]:
    """What labels that came later showed above what was estimated before."""
    return {
        f"estimate_error_{one.metric}": realised[one.metric] - one.value
        for one in estimates
        if not one.reason and one.metric in realised
    }
