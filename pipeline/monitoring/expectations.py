"""What labels of some batches let expect of a batch without labels, and with which variance.

Rows are summed by cells of their prediction, so that batches of any size cost alike, and what is
kept of a batch for later estimates is small.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from pipeline.columns import Floats, Matrix

WINDOW, WINDOW_ROWS = 3, 2_000
"""Batches that an expectation is fitted on: the newest so many, and more up to so many rows."""
TARGET = "target"
SQUARED = "{}^2"
"""Names of sums: of the labels of two classes; of the squares of a loss."""
_CELLS = {"classification": 50, "regression": 10}
_EDGE = 1e-7
_HALF = 0.5
_RIDGE = 1.0
_STEPS = 25
_CLOSE = 1e-8


@dataclass(frozen=True)
class Cells:
    """Rows of a batch, summed by cells of their prediction.

    Attributes
    ----------
    rows : tuple of float
        Number of rows of each cell, shape (n_cells,).
    predictions : tuple of float
        Mean prediction of each cell; 0 where it has no row.
    sums : dict of str to tuple of float
        What is known of the rows of each cell. Two classes: the sum of ``target``, 0 or 1. A
        regression: the sum of each loss by its name, and of its squares (`SQUARED`). Empty: no
        label is known.
    """

    rows: tuple[float, ...]
    predictions: tuple[float, ...]
    sums: dict[str, tuple[float, ...]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        predictions: Floats,
        edges: Floats,
        *,
        target: Floats | None = None,
        losses: Mapping[str, Floats] | None = None,
    ) -> Self:
        """Sum rows by the cells between `edges`.

        Parameters
        ----------
        predictions : array of float, shape (n_rows,)
            Chances of the class 1, or numbers.
        edges : array of float
            Ascending inner edges of cells, as of `edges_of`.
        target : array of float, shape (n_rows,), optional
            Labels of two classes, 0 or 1.
        losses : mapping of str to array of float, shape (n_rows,), optional
            Losses of a regression, by their names.
        """
        cell = np.searchsorted(edges, predictions, side="right")
        known = {} if target is None else {TARGET: target}
        for name, lost in (losses or {}).items():
            known |= {name: lost, SQUARED.format(name): np.square(lost)}
        rows = np.bincount(cell, minlength=len(edges) + 1)
        means = _total(cell, predictions, len(rows)) / np.maximum(rows, 1)
        return cls(
            tuple(rows.astype(np.float64).tolist()),
            tuple(means.tolist()),
            {name: tuple(_total(cell, each, len(rows)).tolist()) for name, each in known.items()},
        )

    @property
    def size(self) -> float:
        """Number of rows."""
        return sum(self.rows)


class Expected(NamedTuple):
    """A metric of a batch as the batches before let expect it, with its variance in two parts.

    `sampling` is that of labels which are drawn once the chances are known, and `fitted` that of
    the chances, which are estimated themselves.
    """

    value: float
    sampling: float
    fitted: float


class _Measure(NamedTuple):
    """A metric and its derivative by the chance of each row, shape (n_cells,)."""

    value: float
    slope: Floats


def edges_of(predictions: Floats, task: str) -> Floats:
    """Inner edges of cells that hold about equally many of some predictions.

    Parameters
    ----------
    predictions : array of float, shape (n_rows,)
        Of rows of training that the model had not seen.
    task : str
        ``classification`` (50 cells, and an edge at 0.5, where the predicted class changes) or
        ``regression`` (10 cells).
    """
    shares = np.linspace(0, 1, _CELLS[task] + 1)[1:-1]
    quantiles = np.quantile(predictions, shares) if len(predictions) else np.empty(0)
    middle = [_HALF] if task == "classification" else []
    edges: Floats = np.unique([*quantiles, *middle])
    return edges


def names_of(known: Sequence[Cells]) -> list[str]:
    """Metrics that are estimated."""
    sums = known[-1].sums if known else {}
    if TARGET in sums:
        return ["roc_auc", "accuracy", "log_loss"]
    return [name for name in sums if SQUARED.format(name) in sums]


def expect(current: Cells, known: Sequence[Cells]) -> dict[str, Expected]:
    """What the newest of some batches let expect, half and half with what the newest showed."""
    window = _window(known)
    found = (_by_chances if TARGET in window[-1].sums else _by_size)(current, window)
    last = realised(known[-1])
    return {
        name: one._replace(value=(one.value + last[name]) / 2, fitted=one.fitted / 4)
        for name, one in found.items()
    }


def _window(known: Sequence[Cells]) -> list[Cells]:
    """The newest batches that an estimate is fitted on, oldest first."""
    sizes = np.cumsum([batch.size for batch in reversed(known)])
    needed = int(np.searchsorted(sizes, WINDOW_ROWS)) + 1
    return list(known[-max(WINDOW, needed) :])


def realised(batch: Cells) -> dict[str, float]:
    """Metrics of a batch with labels."""
    rows = np.array(batch.rows)
    if TARGET not in batch.sums:
        return {name: sum(batch.sums[name]) / batch.size for name in names_of([batch])}
    shares = np.array(batch.sums[TARGET]) / np.maximum(rows, 1)
    found = _measures(rows, _inside(batch), shares)
    return {name: one.value for name, one in found.items()}


def _by_chances(current: Cells, window: Sequence[Cells]) -> dict[str, Expected]:
    """Metrics of two classes, by predictions that are calibrated on some batches."""
    p = np.concatenate([_inside(batch) for batch in window])
    rows = np.concatenate([batch.rows for batch in window])
    positives = np.concatenate([batch.sums[TARGET] for batch in window])
    weights, covariance = _calibrated(p, rows, positives)
    now, count = _inside(current), np.array(current.rows)
    x = _terms(now)
    chances = expit(x @ weights)
    spread = chances * (1 - chances)
    found = {}
    for name, one in _measures(count, now, chances).items():
        by_weight = (count * one.slope * spread) @ x
        found[name] = Expected(
            one.value,
            float((count * np.square(one.slope) * spread).sum()),
            float(by_weight @ covariance @ by_weight),
        )
    return found


def _calibrated(p: Floats, rows: Floats, positives: Floats) -> tuple[Floats, Matrix]:
    """Beta calibration: weights of `_terms`, and their covariance.

    A ridge pulls the weights towards predictions as they are, which counts where there are few
    rows or one class only. Newton's steps are halved until the likelihood does not fall.
    """
    x, start = _terms(p), np.array([1.0, 1.0, 0.0])

    def penalised(weights: Floats) -> float:
        score = x @ weights
        likelihood = positives @ score - rows @ np.logaddexp(0, score)
        return float(likelihood - _RIDGE / 2 * np.square(weights - start).sum())

    weights = start
    best = penalised(weights)
    for _ in range(_STEPS):
        chances = expit(x @ weights)
        information = (x.T * (rows * chances * (1 - chances))) @ x + _RIDGE * np.eye(3)
        step = np.linalg.solve(
            information, x.T @ (positives - rows * chances) - _RIDGE * (weights - start)
        )
        while (value := penalised(weights + step)) < best and np.abs(step).max() > _CLOSE:
            step = step / 2
        weights, best = weights + step, max(value, best)
        if np.abs(step).max() <= _CLOSE:
            break
    return weights, np.linalg.inv(information)


def _terms(p: Floats) -> Matrix:
    return np.column_stack([np.log(p), -np.log1p(-p), np.ones_like(p)])


def _measures(rows: Floats, p: Floats, chances: Floats) -> dict[str, _Measure]:
    """Metrics of cells of rows with predictions `p`, if their labels have some chances."""
    n = rows.sum()
    right = np.where(p >= _HALF, 1.0, -1.0)
    logs, rest = np.log(p), np.log1p(-p)
    return {
        "roc_auc": _auc(rows, p, chances),
        "accuracy": _Measure(
            float(rows @ np.where(p >= _HALF, chances, 1 - chances) / n), right / n
        ),
        "log_loss": _Measure(
            float(-(rows @ (chances * logs + (1 - chances) * rest)) / n), (rest - logs) / n
        ),
    }


def _auc(rows: Floats, p: Floats, chances: Floats) -> _Measure:
    """Share of pairs of a positive and a negative row that are in order; a tie counts half."""
    order = np.argsort(p, kind="stable")
    _, cell = np.unique(p[order], return_inverse=True)
    positive = (rows * chances)[order]
    negative = rows[order] - positive
    ups, downs = (np.bincount(cell, weights=one) for one in (positive, negative))
    below = (np.cumsum(downs) - downs / 2)[cell]
    above = (ups.sum() - np.cumsum(ups) + ups / 2)[cell]
    one, other = float(positive.sum()), float(negative.sum())
    if min(one, other) <= 0:
        return _Measure(np.nan, np.full_like(p, np.nan))
    area = float(positive @ below) / (one * other)
    slope = np.empty_like(p)
    slope[order] = (below - above) / (one * other) - area / one + area / other
    return _Measure(area, slope)


def _by_size(current: Cells, window: Sequence[Cells]) -> dict[str, Expected]:
    """Losses of a regression, by their mean in each cell of the prediction."""
    rows = np.sum([batch.rows for batch in window], axis=0)
    share = np.array(current.rows) / current.size
    found = {}
    for name in names_of(window):
        lost, squares = (
            np.sum([batch.sums[key] for batch in window], axis=0)
            for key in (name, SQUARED.format(name))
        )
        # A cell without a row has the mean of all.
        means = np.where(rows > 0, lost / np.maximum(rows, 1), lost.sum() / rows.sum())
        spread = max(float(squares.sum() / rows.sum()) - (lost.sum() / rows.sum()) ** 2, 0.0)
        within = np.where(rows > 1, squares / np.maximum(rows, 1) - np.square(means), spread)
        within = np.maximum(within, 0.0)
        found[name] = Expected(
            float(share @ means),
            float(share @ within) / current.size,
            float((np.square(share) * within / np.maximum(rows, 1)).sum()),
        )
    return found


def _inside(batch: Cells) -> Floats:
    """Predicted chances, away from 0 and 1, where a logarithm would be infinite."""
    chances: Floats = np.clip(np.array(batch.predictions), _EDGE, 1 - _EDGE)
    return chances


def _total(cell: NDArray[np.intp], values: Floats, count: int) -> Floats:
    return np.bincount(cell, weights=values, minlength=count).astype(np.float64)
