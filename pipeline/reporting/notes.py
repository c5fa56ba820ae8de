"""What people read in MLflow: notes in Markdown, figures, and numbers that are charted."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from pipeline.monitoring.episode import Verdict
from pipeline.monitoring.findings import DriftReport
from pipeline.reporting.rendering import markdown, one_line
from pipeline.training.fitting import Trained
from pipeline.training.gate import GateResult

_MOST_FINDINGS = 30
"""Rows of the table of drift in a note."""
_MOST_BARS = 50
"""Columns whose importance is drawn, the most important ones."""
_LABEL = 40
"""Characters of a column's name beside its bar."""


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
    return markdown(
        "batch_note.md.j2",
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
    }
    for column in report.columns:
        metrics |= {
            f"psi/{column.name}": column.psi,
            f"distance/{column.name}": column.distance,
            f"missing/{column.name}": column.missing,
        }
    return metrics


def figures(trained: Trained, loss: str) -> dict[str, Any]:
    """Draw the learning curve and the feature importance of a training run.

    Parameters
    ----------
    trained : Trained
        What training made.
    loss : str
        Name of the loss.

    Returns
    -------
    dict of str to Figure
        Matplotlib figures by file name.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 -- slow to import, only training draws

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(xlabel=trained.curve.label, ylabel=loss, title="Learning curve")
    axes.plot(trained.curve.steps, trained.curve.fitted, label="fitted rows")
    axes.plot(trained.curve.steps, trained.curve.heldout, label="held-out rows")
    axes.legend()
    shown = list(trained.importance.items())[:_MOST_BARS][::-1]
    importance = Figure(figsize=(7, 1 + 0.3 * len(shown)), layout="constrained")
    axes = importance.add_subplot(xlabel=f"{loss} added when shuffled", title="Feature importance")
    axes.barh(range(len(shown)), [added for _, added in shown])
    axes.set_yticks(
        range(len(shown)), [one_line(name)[:_LABEL] for name, _ in shown], parse_math=False
    )
    return {"learning_curve.png": figure, "feature_importance.png": importance}
