"""What a model card says of a training: figures with intervals, and curves of held-out rows.

All of it is one JSON-able record, so that the card can be drawn again when more is known.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.metrics import precision_recall_curve, roc_curve

from pipeline.columns import Floats
from pipeline.config import Columns, Data, Numeric
from pipeline.reference.finite import finite
from pipeline.training.fitting import Trained
from pipeline.training.metrics import metric_intervals
from pipeline.training.model import Predictions
from pipeline.training.predictions import PREDICTION, of_cells

_POINTS = 120
"""Most points of a stored curve."""
_BINS = 20
_GROUPS = 10
"""Groups of rows by their prediction, of equal size."""
_DIGITS = 5
_LABELS = 12
"""Labels of a column that a card lists."""


def evaluation(
    trained: Trained, data: Data, *, task: str, ranges: Mapping[str, list[float]]
) -> dict[str, Any]:
    """Describe a training for its model card.

    Parameters
    ----------
    trained : Trained
        What training made.
    data : Data
        Declared columns and their roles.
    task : str
        ``classification`` or ``regression``.
    ranges : mapping of str to list of two floats
        Smallest and largest number of each numeric column that is not private.

    Returns
    -------
    dict of str to Any
        Metrics and importance with 95% intervals, the learning curve, the contract, and curves of
        the held-out rows: those of a classifier of two classes, or those of a regression.
    """
    rows = trained.heldout.sort_values(data.time, kind="stable")
    target = rows[data.target].to_numpy(dtype=np.float64)
    predicted = of_cells(rows[PREDICTION])
    ends = metric_intervals(task, target, predicted)
    record = {
        "task": task,
        "loss": trained.loss,
        "target": data.target,
        "fitted_rows": trained.fitted_rows,
        "heldout": {
            "rows": len(rows),
            "since": f"{rows[data.time].min():%Y-%m-%d %H:%M}",
            "until": f"{rows[data.time].max():%Y-%m-%d %H:%M}",
        },
        "metrics": [
            {"name": name, "value": value, "ends": ends.get(name), "baseline": before}
            for name, value in trained.metrics.items()
            for before in [trained.baseline.get(name)]
        ],
        "importance": [
            {"column": name, "added": added, "ends": trained.importance_ends.get(name)}
            for name, added in trained.importance.items()
        ],
        "classes": _classes(trained),
        "curve": _curve(trained),
        "columns": _contract(data.features, trained.model.categories, ranges),
        "figures": _figures(task, target, predicted),
    }
    rounded: dict[str, Any] = finite(record, digits=_DIGITS)
    return rounded


def _classes(trained: Trained) -> list[dict[str, Any]]:
    """Share, recall and precision of each class, where there are three or more."""
    kinds = ("share", "recall", "precision")
    return [
        {"label": label, **{kind: trained.of_classes.get(f"{kind}/{label}") for kind in kinds}}
        for label in trained.model.classes
    ]


def _curve(trained: Trained) -> dict[str, Any]:
    curve = trained.curve
    chosen = _thinned(len(curve.steps))
    if curve.heldout:
        chosen = sorted({*chosen, int(np.argmin(curve.heldout))})
    return {
        "label": curve.label,
        "steps": [curve.steps[i] for i in chosen],
        "fitted": [curve.fitted[i] for i in chosen],
        "heldout": [curve.heldout[i] for i in chosen],
    }


def _thinned(count: int) -> list[int]:
    if not count:
        return []
    return sorted({*np.linspace(0, count - 1, _POINTS).round().astype(int).tolist()})


def _contract(
    columns: Columns, labels: Mapping[str, list[str]], ranges: Mapping[str, list[float]]
) -> list[dict[str, Any]]:
    """Declared columns, with the range or the labels that training rows had."""
    found = []
    for name, column in columns.items():
        one: dict[str, Any] = {
            "name": name,
            "type": column.type,
            "nullable": column.nullable,
            "private": column.private,
        }
        if isinstance(column, Numeric):
            one |= {"allowed": [column.min, column.max], "seen": ranges.get(name)}
        else:
            known = [] if column.private else list(labels.get(name, ()))
            one |= {"declared": column.values is not None, "labels": known[:_LABELS]}
            one["more"] = max(len(known) - _LABELS, 0)
        found.append(one)
    return found


def _figures(task: str, target: Floats, predicted: Predictions) -> dict[str, Any]:
    """Curves of held-out rows; none for a task that has no figures of its own."""
    if predicted.ndim > 1 or len(target) < _GROUPS:
        return {}
    if task == "regression":
        return _of_numbers(target, predicted)
    return _of_two_classes(target, predicted) if len(np.unique(target)) > 1 else {}


def _of_two_classes(target: Floats, predicted: Predictions) -> dict[str, Any]:
    wrong, right, _ = roc_curve(target, predicted)
    precision, recall, _ = precision_recall_curve(target, predicted)
    bins = np.linspace(0, 1, _BINS + 1)
    scores = {
        str(label): np.histogram(predicted[target == label], bins)[0] / len(target)
        for label in (0, 1)
    }
    return {
        "roc": {"x": _few(wrong), "y": _few(right)},
        "precision_recall": {
            "x": _few(recall[::-1]),
            "y": _few(precision[::-1]),
            "share": target.mean(),
        },
        "calibration": _groups(target, predicted),
        "scores": {label: shares.tolist() for label, shares in scores.items()},
    }


def _of_numbers(target: Floats, predicted: Predictions) -> dict[str, Any]:
    left = target - predicted
    low, high = np.quantile(left, [0.005, 0.995])
    counts, _ = np.histogram(np.clip(left, low, high), _BINS, (low, high) if high > low else None)
    return {
        "residuals": {
            "low": low,
            "high": high,
            "shares": (counts / len(left)).tolist(),
            "median": float(np.median(left)),
        },
        "predicted": _groups(target, predicted),
    }


def _groups(target: Floats, predicted: Predictions) -> dict[str, list[float]]:
    """Mean prediction and mean target of groups of equal size, ordered by prediction.

    The ends are those of a 95% interval of the mean target.
    """
    found: dict[str, list[float]] = {"x": [], "y": [], "low": [], "high": []}
    for rows in np.array_split(np.argsort(predicted, kind="stable"), _GROUPS):
        mean = target[rows].mean()
        error = 1.96 * target[rows].std() / np.sqrt(max(len(rows), 1))
        points = (predicted[rows].mean(), mean, mean - error, mean + error)
        for values, value in zip(found.values(), points, strict=True):
            values.append(float(value))
    return found


def _few(values: Floats) -> list[float]:
    return [float(values[i]) for i in _thinned(len(values))]
