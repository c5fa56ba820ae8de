"""The card of a version: what it was trained on, how good it is, and how to load it.

It is made of the record of a training and of the gate's decision, so that it can be drawn again.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.reporting.drawing import HEIGHT, Box, Chart, bars, line, steps
from pipeline.reporting.rendering import page
from pipeline.reporting.wording import number, share

OPEN = 20
"""Columns that are not folded."""
_PACKAGES = "packages"


def model_card(
    record: Mapping[str, Any],
    *,
    model: str,
    conf: str,
    number_of: int,
    tags: Mapping[str, str],
    parameters: Mapping[str, str],
    tracking: str,
    gate: Mapping[str, Any] | None,
) -> str:
    """Make the card of a version.

    Parameters
    ----------
    record : mapping of str to Any
        What training found, as `evaluation` describes it.
    model, conf : str
        Name of the model and path of its file.
    number_of : int
        Number of the version.
    tags : mapping of str to str
        Of the version: window, rows, episode, environment.
    parameters : mapping of str to str
        Estimator and parameters.
    tracking : str
        Address of MLflow.
    gate : mapping of str to Any or None
        The gate's decision; None: it has not judged yet.

    Returns
    -------
    str
        HTML, complete in itself.
    """
    return page(
        "model_card.html.j2",
        title=f"{model}, version {number_of}",
        model=model,
        conf=conf,
        number_of=number_of,
        record=record,
        tags=tags,
        parameters=parameters,
        gate=gate,
        verdict=_verdict(gate, tags),
        importance=_importance(record),
        open=OPEN,
        curve=_learning_curve(record),
        charts=_charts(record["figures"]),
        columns=[one | {"allows": _allows(one), "had": _had(one)} for one in record["columns"]],
        packages=json.loads(tags.get(_PACKAGES, "{}")),
        code=loading_code(model, number_of, tracking),
    )


def loading_code(model: str, number_of: int, tracking: str) -> str:
    """Three lines of Python that load a version from MLflow; Holdfast is not needed for it."""
    return (
        "import mlflow\n"
        f"mlflow.set_tracking_uri({tracking!r})\n"
        f"model = mlflow.pyfunc.load_model({f'models:/{model}/{number_of}'!r})"
    )


def _verdict(gate: Mapping[str, Any] | None, tags: Mapping[str, str]) -> str:
    if gate is None:
        waits = tags.get("shadow", "")
        return f"It scores {waits} live batches first." if waits else "The gate has not judged yet."
    return "It passed the gate." if gate["promoted"] else "The gate refused it."


def _importance(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each column's importance as a share of the loss, with its place on an axis for all."""
    loss = next((one["value"] for one in record["metrics"] if one["name"] == record["loss"]), None)
    found = []
    for one in record["importance"]:
        values = (one["added"], *(one["ends"] or (None, None)))
        rise, low, high = (value / loss if value is not None and loss else None for value in values)
        found.append({**one, "rise": rise, "low": low, "high": high})
    ends = [end for one in found for end in (one["rise"], one["low"], one["high"]) if end]
    least, most = min([0.0, *ends]), max([0.0, *ends])
    return [
        one | {"at": _places(one, least, most), "range": f"{share(least)} to {share(most)}"}
        for one in found
    ]


def _places(one: Mapping[str, Any], least: float, most: float) -> list[int]:
    """Where a bar ends, where its interval does, and where zero is; empty: nothing to draw."""
    values = [one["rise"], one["low"], one["high"]]
    if None in values or most <= least:
        return []
    return [round(200 * (value - least) / (most - least)) for value in (*values, 0.0)]


def _learning_curve(record: Mapping[str, Any]) -> dict[str, Any] | None:
    curve = record["curve"]
    if len(curve["steps"]) < 2 or None in [*curve["fitted"], *curve["heldout"]]:  # noqa: PLR2004
        return None
    lowest = min(range(len(curve["steps"])), key=curve["heldout"].__getitem__)
    least, largest = _range([*curve["fitted"], *curve["heldout"]])
    box = Box(curve["steps"][0], curve["steps"][-1], least, largest)
    at = curve["steps"][lowest]
    said = f"lowest on held-out rows at {at:,} {curve['label']}: {number(curve['heldout'][lowest])}"
    mark = line(box, [at, at], [least, largest])
    return {
        "lowest": said,
        "last": lowest == len(curve["steps"]) - 1,
        "chart": Chart(
            title=f"{record['loss']} from {number(least)} to {number(largest)}: held-out rows "
            "(thick), fitted rows (thin), where it is lowest (dashed)",
            words=f"Learning curve, {said}",
            width=box.width,
            height=box.height,
            paths=(
                ("base dash", mark),
                ("before", line(box, curve["steps"], curve["fitted"])),
                ("mark-line thick", line(box, curve["steps"], curve["heldout"])),
            ),
            low=f"{curve['steps'][0]:,}",
            across=curve["label"],
            high=f"{curve['steps'][-1]:,}",
        ),
    }


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
    return low - margin, high + margin


def _charts(figures: Mapping[str, Any]) -> list[Chart]:
    """Curves of held-out rows, those that the task has."""
    draw = {
        "roc": _roc,
        "precision_recall": _precision_recall,
        "calibration": _calibration,
        "scores": _scores,
        "predicted": _predicted,
        "residuals": _residuals,
    }
    return [draw[name](figures[name]) for name in draw if name in figures]


def _roc(found: Mapping[str, Any]) -> Chart:
    box = Box(0, 1, 0, 1, 200, 200)
    middle = _at(found["x"], found["y"], 0.1)
    return Chart(
        title="ROC: share of ones found against share of zeros taken for ones",
        words=f"ROC curve; of the ones, {share(middle)} are found at 10% false alarms",
        width=box.width,
        height=box.height,
        paths=(
            ("base dash", line(box, [0, 1], [0, 1])),
            ("mark-line", line(box, found["x"], found["y"])),
        ),
        low="0",
        across="false alarms",
        high="1",
    )


def _precision_recall(found: Mapping[str, Any]) -> Chart:
    box = Box(0, 1, 0, 1, 200, 200)
    middle = _at(found["x"], found["y"], 0.5)
    usual = found["share"] or 0.0
    return Chart(
        title=f"Precision against recall; dashed: {share(usual)}, the share of ones",
        words=f"Precision and recall; at 50% recall {share(middle)} of the alarms are right",
        width=box.width,
        height=box.height,
        paths=(
            ("base dash", line(box, [0, 1], [usual, usual])),
            ("mark-line", line(box, found["x"], found["y"])),
        ),
        low="0",
        across="recall",
        high="1",
    )


def _at(xs: Sequence[float], ys: Sequence[float], x: float) -> float:
    """The value of a curve at the first point that is not left of a place."""
    return next((y for place, y in zip(xs, ys, strict=True) if place >= x), ys[-1])


def _calibration(found: Mapping[str, Any]) -> Chart:
    return _grouped(
        found,
        "Calibration: share of ones against the predicted chance, with 95% intervals",
        "predicted chance",
        (0.0, 1.0),
    )


def _predicted(found: Mapping[str, Any]) -> Chart:
    return _grouped(
        found,
        "Actual mean against the prediction, in ten groups of rows, with 95% intervals",
        "predicted",
        _range([*found["x"], *found["low"], *found["high"]]),
    )


def _grouped(found: Mapping[str, Any], title: str, across: str, ends: tuple[float, float]) -> Chart:
    low, high = ends
    box = Box(low, high, low, high, 200, 200)
    ranges = "".join(
        line(box, [x, x], [a, b])
        for x, a, b in zip(found["x"], found["low"], found["high"], strict=True)
    )
    pairs = zip(found["x"], found["y"], strict=True)
    said = "; ".join(f"{number(x)} predicted, {number(y)} seen" for x, y in pairs)
    return Chart(
        title=title,
        words=f"{title}: {said}",
        width=box.width,
        height=box.height,
        paths=(
            ("base dash", line(box, [low, high], [low, high])),
            ("before", ranges),
            ("mark-line", line(box, found["x"], found["y"])),
        ),
        low=number(low),
        across=across,
        high=number(high),
    )


def _scores(found: Mapping[str, Any]) -> Chart:
    zeros, ones = found["0"], found["1"]
    size = {"top": max(*zeros, *ones), "bin_width": 10}
    said = share(sum(shares * (i + 0.5) / len(ones) for i, shares in enumerate(ones)) / sum(ones))
    return Chart(
        title="Predicted chances: rows that are one (filled), rows that are zero (line)",
        words=f"Predicted chances; {said} on average for rows that are one",
        width=10 * len(zeros),
        height=HEIGHT,
        paths=(
            ("now", steps(ones, closed=True, **size)),
            ("before", steps(zeros, closed=False, **size)),
        ),
        low="0",
        across="predicted chance",
        high="1",
    )


def _residuals(found: Mapping[str, Any]) -> Chart:
    shares = found["shares"]
    return Chart(
        title="Residuals: actual less predicted",
        words=f"Residuals from {number(found['low'])} to {number(found['high'])}, "
        f"median {number(found['median'])}",
        width=10 * len(shares),
        height=HEIGHT,
        paths=(("now", bars(shares, top=max(shares), bin_width=10, gap=1)),),
        low=number(found["low"]),
        across=f"median {number(found['median'])}",
        high=number(found["high"]),
    )


def _allows(column: Mapping[str, Any]) -> str:
    """What the contract allows in a column."""
    if "allowed" in column:
        low, high = column["allowed"]
        if low is None and high is None:
            return "any number"
        if low is None or high is None:
            return f"up to {number(high)}" if low is None else f"from {number(low)}"
        return f"{number(low)} to {number(high)}"
    return "the labels beside" if column["declared"] else "any label"


def _had(column: Mapping[str, Any]) -> str:
    """What the training rows had in a column."""
    if column["private"]:
        return "private"
    if "allowed" in column:
        low, high = column["seen"] or (None, None)
        return f"{number(low)} to {number(high)}" if low is not None else ""
    more = f" and {column['more']:,} more" if column["more"] else ""
    return ", ".join(column["labels"]) + more
