"""What a person reads in MLflow: descriptions in Markdown, figures, metrics to draw."""

import shlex
from collections.abc import Mapping
from typing import Any

import pandas as pd

from pipeline.monitoring.episode import Verdict
from pipeline.monitoring.findings import Cause, DriftReport
from pipeline.training.fitting import Trained

_WHOLE, _LONG = 1e3, 1e12
"""Numbers between these are written out, without decimals."""


def training_note(trained: Trained, tags: Mapping[str, str]) -> str:
    """A training run in a few sentences and a table."""
    rows = "\n".join(
        f"| {name} | {value:.4f} | {trained.baseline[name]:.4f} |"
        for name, value in trained.scores.items()
    )
    most = ", ".join(list(trained.importance)[:5])
    return (
        f"Trained on {trained.fitted_rows:,} labelled rows from {tags['since']} to "
        f"{tags['until']}; judged on the newest {len(trained.heldout):,}, which that fit had "
        f"not seen, then fitted again on all.\n\n"
        f"| held out | model | trivial baseline |\n|---|---|---|\n{rows}\n\n"
        f"It relies most on {most}."
    )


def batch_note(
    verdict: Verdict, report: DriftReport, quarantined: int, *, length: pd.Timedelta, conf: str
) -> str:
    """A batch in a sentence, what to expect when nothing is wrong, and a table of what drifted.

    Where faults were recognised, these come first, with how to answer.
    """
    evidence, decision = verdict.evidence, verdict.decision
    batches = pd.Timedelta(days=365.25) / length
    if report.causes:
        lines = [f"**{decision.reason}** Outcome: **{report.outcome}**, action: **page**.", ""]
        lines += [line for cause in report.causes for line in _cause(cause)]
        lines += [how_to_answer(conf, evidence.batch), ""]
    else:
        outcome = report.outcome.capitalize()
        lines = [f"**{outcome}**: {decision.reason} Action: **{decision.action}**.", ""]
    lines += [
        f"{report.rows:,} rows judged against version {evidence.version}, {quarantined} refused.",
        *report.notes,
        "",
        (
            f"When nothing is wrong, at most {report.alpha * batches:.1f} of a year's "
            f"{batches:,.0f} batches alarm, and at most {report.false_persisted * batches:.1f} "
            "persist and ask for a retrain in vain."
        ),
        "",
    ]
    drifted = [found for found in report.findings if found.drifted]
    if drifted:
        lines += [
            "| what | level | change | size | floor | corrected p | batches so far | importance |",
            "|---|---|---|---|---|---|---|---|",
        ]
    lines += [
        f"| {found.name} | {found.level} | {found.kind} | {found.statistic:.3g} "
        f"| {found.floor:g} | {found.adjusted:.2g} | {found.since} | {found.importance:.2g} |"
        for found in drifted[:30]
    ]
    return "\n".join(lines)


def _cause(cause: Cause) -> list[str]:
    cells = "".join(
        f"\n| {_pretty(name)} | {_pretty(value)} |" for name, value in cause.evidence.items()
    )
    table = [f"| {_pretty(cause.name)} | |\n|---|---:|{cells}", ""] if cells else []
    return [cause.sentence, "", *table, cause.cure, ""]


def _pretty(value: float | str) -> str:
    if isinstance(value, str):
        return value.replace("|", "\\|")
    return f"{value:,.0f}" if _WHOLE <= abs(value) < _LONG else f"{value:.4g}"


def how_to_answer(conf: str, batch: str) -> str:
    """What the answers to a broken batch mean, and the command for one of them."""
    return (
        "Answer reload once the source is mended, accept if the world is like that now, drop if "
        "these rows shall never be learnt from: "
        f"holdfast review {shlex.quote(conf)} --batch {batch} --answer reload "
        '--reason "..."'
    )


def batch_metrics(report: DriftReport, quarantined: int, predicted: float) -> dict[str, float]:
    """The numbers that are drawn from batch to batch."""
    metrics = {
        "rows": float(report.rows),
        "quarantined": float(quarantined),
        "drifted_columns": float(sum(column.drifted for column in report.columns)),
        "drifted_pairs": float(sum(pair.drifted for pair in report.pairs)),
        "alarm": float(report.alarm),
        "causes": float(len(report.causes)),
        "mean_prediction": predicted,
    }
    for column in report.columns:
        metrics |= {
            f"psi/{column.name}": column.psi,
            f"distance/{column.name}": column.distance,
            f"missing/{column.name}": column.missing,
        }
    return metrics


def figures(trained: Trained, loss: str) -> dict[str, Any]:
    """Learning curve and feature importance, by file name."""
    from matplotlib.figure import Figure  # noqa: PLC0415 -- slow to import, only training draws

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(xlabel=trained.curve.label, ylabel=loss, title="Learning curve")
    axes.plot(trained.curve.steps, trained.curve.fitted, label="fitted rows")
    axes.plot(trained.curve.steps, trained.curve.heldout, label="held-out rows")
    axes.legend()
    importance = Figure(figsize=(7, 1 + 0.3 * len(trained.importance)), layout="constrained")
    axes = importance.add_subplot(xlabel=f"{loss} added when shuffled", title="Feature importance")
    names = list(reversed(trained.importance))
    axes.barh(names, [trained.importance[name] for name in names])
    return {"learning_curve.png": figure, "feature_importance.png": importance}
