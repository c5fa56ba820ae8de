"""The history of a model as one picture: maintained beside the first version left alone."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from pipeline.reporting.drawing import Box, Chart, line
from pipeline.reporting.rendering import page
from pipeline.reporting.wording import STATES, number

_WIDTH, _HEIGHT = 900, 220
_LETTERS = {"none": "", "page": "P", "retrain": "R", "halt": "H"}
Row = Mapping[str, Any]


def file_of(folder: Path, model: str) -> Path:
    """The file that the picture of a model's history is written to."""
    return folder / f"history-{model}.html"


def history_page(story: Sequence[Row], *, model: str, loss: str, conf: str) -> str:
    """Draw the batches of a replay.

    Parameters
    ----------
    story : sequence of mapping of str to Any
        One row for each batch, oldest first, as `replay` returns them.
    model, conf : str
        Name of the model and path of its file.
    loss : str
        Name of the loss.

    Returns
    -------
    str
        HTML, complete in itself.
    """
    rows = [_row(row, loss) for row in story]
    for before, row in pairwise(rows):
        row["promoted"] = row["version"] != before["version"]
    both = [row for row in rows if row["maintained"] is not None and row["alone"] is not None]
    means = {side: _mean([row[side] for row in both]) for side in ("maintained", "alone")}
    actions = [row["action"] for row in rows]
    return page(
        "history.html.j2",
        title=f"{model}: its history",
        model=model,
        conf=conf,
        loss=loss,
        rows=rows,
        states=STATES,
        letters=_LETTERS,
        means=means,
        gain=1 - means["maintained"] / means["alone"] if means["alone"] else math.nan,
        retrains=actions.count("retrain"),
        pages=len(actions) - actions.count("none"),
        champions=len({row["version"] for row in rows}),
        chart=_chart(rows, both, loss) if both else None,
        has_estimate=any(row["estimated"] is not None for row in rows),
        width=_WIDTH,
    )


def _row(row: Mapping[str, Any], loss: str) -> dict[str, Any]:
    values = {side: row[side].get(loss) for side in ("maintained", "alone")}
    known: dict[str, Any] = {
        side: value if value is not None and math.isfinite(value) else None
        for side, value in values.items()
    }
    guess = row.get("estimated", {})
    known |= {
        "estimated": guess.get("value"),
        "ends": [guess[end] for end in ("low", "high") if guess],
    }
    return {**row, **known, "promoted": False, "why": ", ".join(row["causes"] or row["drifted"])}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _chart(
    rows: Sequence[Mapping[str, Any]], both: Sequence[Mapping[str, Any]], loss: str
) -> Chart:
    values = [row[side] for row in both for side in ("maintained", "alone")]
    guessed = [row for row in rows if row["estimated"] is not None]
    values += [row["estimated"] for row in guessed]
    low, high = min(values), max(values)
    box = Box(0, max(len(rows), 1), low, high, _WIDTH, _HEIGHT)
    place = {row["batch"]: at + 0.5 for at, row in enumerate(rows)}
    at = [place[row["batch"]] for row in both]
    new = "".join(line(box, [k, k], [low, high]) for k, row in enumerate(rows) if row["promoted"])
    dots = "".join(
        line(box, [k + 0.3, k + 0.7], [row["estimated"]] * 2)
        for k, row in enumerate(rows)
        if row["estimated"] is not None
    )
    said = ", estimates before labels came (short)" if guessed else ""
    return Chart(
        title=f"{loss} from {number(low)} to {number(high)}: maintained (thick), the first version "
        f"left alone (thin), new champions (dashed){said}",
        words=f"{loss} of {len(both)} batches, maintained and left alone",
        width=_WIDTH,
        height=_HEIGHT,
        paths=(
            ("base dash", new),
            ("before", line(box, at, [row["alone"] for row in both])),
            ("mark-line thick", line(box, at, [row["maintained"] for row in both])),
            ("before", dots),
        ),
        low=rows[0]["batch"],
        across="batches",
        high=rows[-1]["batch"],
    )
