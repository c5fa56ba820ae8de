"""Tables that commands print: batches, questions, policies and trials."""

from typing import Any, Final

import numpy as np
from rich import box
from rich.markup import escape
from rich.table import Table

Result = dict[str, Any]
SCORES: Final = {
    "classification": {"roc_auc": "AUC", "log_loss": "log-loss"},
    "regression": {"r2": "R2", "rmse": "RMSE"},
}
"""Scores of a replay's table, and their headings."""
BEST: Final = 10
"""Trials that a table lists."""
SMALL: Final = 100
"""Losses below it have decimals."""
FEW: Final = 4
"""Names that fit into a cell of a table."""


def replay_table(story: list[Result], task: str, *, narrow: bool = False) -> Table:
    """The maintained model beside the first version left alone, one row for each batch.

    A narrow table fits 80 columns: it has the last of the scores, which retraining improves.
    """
    shown = dict([*SCORES[task].items()][-1:]) if narrow else SCORES[task]
    drawn = Table(
        title="Batch by batch: the maintained model beside the first one left alone",
        box=box.SIMPLE_HEAD if narrow else box.HEAVY_HEAD,
        padding=(0, 1, 0, 0) if narrow else (0, 1),
    )
    drawn.add_column("batch", no_wrap=True)
    drawn.add_column("rows", justify="right")
    for heading in ("drifted", "decision", "champion"):
        drawn.add_column(heading)
    for heading in shown.values():
        drawn.add_column(f"{heading}\nmaintained", justify="right", no_wrap=True)
        drawn.add_column(f"{heading}\nleft alone", justify="right", no_wrap=True)
    for row in story:
        cells = [
            row["batch"],
            f"{row['rows']:,}",
            _found(row),
            _decision(row),
            f"v{row['version']}",
        ]
        for name in shown:
            cells += [f"{row[side].get(name, np.nan):.3f}" for side in ("maintained", "alone")]
        drawn.add_row(*cells)
    return drawn


def _found(row: Result) -> str:
    """What was found in a batch; where that is nothing, why something was done all the same."""
    lost = ["performance lost"] if row["state"] == "worse" else []
    asked = [row["reason"]] if row["action"] != "none" else []
    found = row["causes"] or row["drifted"] or lost or asked
    few = ", ".join(found[:FEW]) + (" ..." if len(found) > FEW else "")
    return escape(f"broken: {few}" if row["causes"] else few)


def _decision(row: Result) -> str:
    colours = {"retrain": "bold yellow", "halt": "bold red"}
    colour = "bold red" if row["causes"] else colours.get(row["action"])
    return f"[{colour}]{row['action']}[/]" if colour else row["action"]


def review_table(questions: list[Result]) -> Table:
    """Broken batches with what was seen in each and what to do about it."""
    drawn = Table(title="Broken batches that wait for an answer", show_lines=True)
    drawn.add_column("batch", no_wrap=True)
    for heading in ("cause", "what was seen", "what to do"):
        drawn.add_column(heading)
    for row in questions:
        cells = ["\n".join(row[name]) for name in ("causes", "sentences", "cures")]
        drawn.add_row(row["batch"], *map(escape, cells))
    return drawn


def backtest_table(result: Result) -> Table:
    """What each policy of retraining was worth."""
    window = f"{result['since']} to {result['until']}"
    drawn = Table(title=f"Policies of retraining, {window}, by {result['loss']}")
    drawn.add_column("policy", no_wrap=True)
    best = "best with\nas many"
    for heading in ("loss", "gain\nkept", best, "retrains", "pages", "delay"):
        drawn.add_column(heading, justify="right")
    for one in result["policies"]:
        shares = [f"{one[key]:.0%}".replace("nan%", "") for key in ("kept", "best")]
        delay = f"{one['delay']:.1f}".replace("nan", "")
        pages = "" if one["pages"] is None else str(one["pages"])
        drawn.add_row(
            one["policy"], f"{one['loss']:.4g}", *shares, str(one["retrains"]), pages, delay
        )
    return drawn


def tuning_table(result: Result) -> Table:
    """The parameters of the file and the best trials, the smallest loss first."""
    trials = sorted(result["trials"], key=lambda one: one["loss"])
    shown = [one for one in trials if one["trial"] in (0, result["chosen"]) or one in trials[:BEST]]
    names = [*dict.fromkeys(name for one in shown for name in one["params"])]
    drawn = Table("trial", title=f"{len(trials)} trials, by {result['loss']} on newer rows")
    for heading in ("loss", *names):
        drawn.add_column(heading.replace("_", " "), justify="right")
    for one in shown:
        own = one["params"] if one["trial"] else result["own"]
        cells = [str(own.get(name, "")) for name in names]
        drawn.add_row(str(one["trial"] or "the file"), figure(one["loss"]), *map(escape, cells))
    return drawn


def figure(loss: float) -> str:
    """A loss as people read it: four decimals where it is small, else none."""
    return f"{loss:,.4f}" if loss < SMALL else f"{loss:,.0f}"
