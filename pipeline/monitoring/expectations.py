"""What labels of some batches let expect of a batch without labels, and with which variance.

Rows are summed by cells of their prediction, so that batches of any size cost alike, and what is
kept of a batch for later estimates is small.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from pipeline.columns import Floats, Matrix

WINDOW, WINDOW_ROWS, LONGER = 3, 2_000, 12
"""Batches that forecasts are fitted on: the newest so many, and more up to so many rows, or the
newest twelve."""
TARGET = "target"
SQUARED = "{}^2"
"""Names of sums: of the labels of two classes; of the squares of a loss."""
_CELLS = {"classification": 50, "regression": 10}
_EDGE = 1e-7
_HALF = 0.5
_RIDGE = 1.0
_STEPS = 25
_CLOSE = 1e-6


@dataclass(frozen=True)
class Cells:
    """Rows of a batch, summed by cells of their prediction.

    Attributes
    ----------
    rows : tuple of int
        Number of rows of each cell, shape (n_cells,).
    predictions : tuple of float
        Mean prediction of each cell; 0 where it has no row.
    sums : dict of str to tuple of float
        What is known of the rows of each cell. Two classes: the sum of ``target``, 0 or 1. A
        regression: the sum of each loss by its name, and of its squares (`SQUARED`). Empty: no
        label is known.
    """

    rows: tuple[int, ...]
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
            tuple(rows.tolist()),
            _short(means),
            {name: _short(_total(cell, each, len(rows))) for name, each in known.items()},
        )

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Self:
        """Read back what `dataclasses.asdict` made of it."""
        sums = {name: tuple(values) for name, values in stored["sums"].items()}
        return cls(tuple(stored["rows"]), tuple(stored["predictions"]), sums)

    @property
    def size(self) -> int:
        """Number of rows."""
        return sum(self.rows)

    @cached_property
    def table(self) -> "_Table":
        """The cells as arrays."""
        return _Table(
            np.array(self.rows, dtype=np.float64),
            np.array(self.predictions),
            {name: np.array(values) for name, values in self.sums.items()},
        )


class _Table(NamedTuple):
    """Cells as arrays, shape (n_cells,)."""

    rows: Floats
    predictions: Floats
    sums: dict[str, Floats]

    @classmethod
    def of(cls, batches: Sequence[Cells]) -> Self:
        """Some batches as one."""
        tables = [batch.table for batch in batches]
        rows = np.sum([one.rows for one in tables], axis=0)
        total = np.sum([one.rows * one.predictions for one in tables], axis=0)
        sums = {
            name: np.sum([one.sums[name] for one in tables], axis=0) for name in tables[-1].sums
        }
        return cls(rows, total / np.maximum(rows, 1), sums)

    @property
    def chances(self) -> Floats:
        """Predicted chances, away from 0 and 1, where a logarithm would be infinite."""
        inside: Floats = np.clip(self.predictions, _EDGE, 1 - _EDGE)
        return inside


class Expected(NamedTuple):
    """Forecasts of a metric of a batch, with their variance.

    Attributes
    ----------
    values : array of float, shape (3,)
        By the labels of the newest three batches, by those of the newest twelve, and what the
        newest batch showed.
    fitted : array of float, shape (3,)
        Variance of each forecast, as it is estimated itself.
    sampling : float
        Variance of the metric, as labels are drawn once their chances are known.
    """

    values: Floats
    fitted: Floats
    sampling: float


class _Guess(NamedTuple):
    """A metric of a batch, if its labels are as those of some other batches."""

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
    """Metrics that are estimated from some batches; none if there are no batches."""
    sums = known[-1].sums if known else {}
    return ["roc_auc", "accuracy", "log_loss"] if TARGET in sums else _losses_of(sums)


def _losses_of(sums: Collection[str]) -> list[str]:
    return [name for name in sums if SQUARED.format(name) in sums]


def expect(current: Cells, known: Sequence[Cells]) -> dict[str, Expected]:
    """Forecast the metrics of a batch from batches with labels, in three ways.

    Of two classes, the predicted chances are calibrated (beta calibration). Of a regression, the
    size of the error is its mean in each of ten cells of the prediction.

    Parameters
    ----------
    current : Cells
        The batch; no label of it is read.
    known : sequence of Cells
        Batches with labels, oldest first, each with rows; at least one.

    References
    ----------
    Kull, Silva Filho and Flach (2017), AISTATS, for beta calibration.
    """
    way = _by_chances if TARGET in known[-1].sums else _by_size
    newest, longer = (way(current.table, _Table.of(part)) for part in _windows(known))
    last = _shown(known[-1])
    return {
        name: Expected(
            np.array([one.value, longer[name].value, last[name].value]),
            np.array([one.fitted, longer[name].fitted, last[name].sampling]),
            one.sampling,
        )
        for name, one in newest.items()
    }


def _windows(known: Sequence[Cells]) -> tuple[Sequence[Cells], Sequence[Cells]]:
    """The newest batches that forecasts are fitted on."""
    sizes = np.cumsum([batch.size for batch in reversed(known)])
    needed = int(np.searchsorted(sizes, WINDOW_ROWS)) + 1
    return known[-max(WINDOW, needed) :], known[-max(LONGER, needed) :]


def realised(batch: Cells) -> dict[str, float]:
    """Metrics of a batch with labels; the AUC is NaN where they are of one class only."""
    return {name: one.value for name, one in _shown(batch).items()}


def _shown(batch: Cells) -> dict[str, _Guess]:
    """Metrics of a batch with labels, with the variance of the labels."""
    table = batch.table
    if TARGET in table.sums:
        shares = table.sums[TARGET] / np.maximum(table.rows, 1)
        found = _measures(table.rows, table.chances, shares)
        return {
            name: _Guess(one.value, _of_labels(table.rows, one.slope, shares), 0.0)
            for name, one in found.items()
        }
    values = {}
    for name in names_of([batch]):
        mean, square = (table.sums[key].sum() / batch.size for key in (name, SQUARED.format(name)))
        values[name] = _Guess(float(mean), float(max(square - mean**2, 0) / batch.size), 0.0)
    return values


def _of_labels(rows: Floats, slope: Floats, chances: Floats) -> float:
    """Variance of a metric whose labels are drawn, each by its own chance (delta method).

    Elementary: a label of the chance p has the variance p (1 - p), times its squared slope.
    """
    return float((rows * np.square(slope) * chances * (1 - chances)).sum())


def _by_chances(current: _Table, known: _Table) -> dict[str, _Guess]:
    """Metrics of two classes, by predictions that are calibrated on other rows."""
    weights, covariance = _calibrated(known.chances, known.rows, known.sums[TARGET])
    x = _terms(current.chances)
    chances = expit(x @ weights)
    spread = chances * (1 - chances)
    found = {}
    for name, one in _measures(current.rows, current.chances, chances).items():
        by_weight = (current.rows * one.slope * spread) @ x
        found[name] = _Guess(
            one.value,
            _of_labels(current.rows, one.slope, chances),
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
    """Share of pairs of a positive and a negative row that are in order; a tie counts half.

    It is the statistic of Mann & Whitney (1947, Ann. Math. Stat. 18(1): 50-60); its slope is the
    derivative of the quotient of ordered and all pairs by each row's chance.
    """
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


def _by_size(current: _Table, known: _Table) -> dict[str, _Guess]:
    """Losses of a regression, by their mean in each cell of the prediction.

    A post-stratified mean, with the variance of a draw and of the cells' means (Holt & Smith 1979,
    J. R. Stat. Soc. A 142(1): 33-46).
    """
    rows, size = known.rows, current.rows.sum()
    share, count = current.rows / size, np.maximum(known.rows, 1)
    found = {}
    for name in _losses_of(known.sums):
        lost, squares = known.sums[name], known.sums[SQUARED.format(name)]
        mean, square = lost.sum() / rows.sum(), squares.sum() / rows.sum()
        # A cell without a row is as all rows are.
        means = np.where(rows > 0, lost / count, mean)
        within = np.where(rows > 1, squares / count - means**2, square - mean**2)
        within = np.maximum(within, 0.0)
        found[name] = _Guess(
            float(share @ means),
            float(share @ within) / size,
            float((np.square(share) * within / count).sum()),
        )
    return found


def _short(values: Floats) -> tuple[float, ...]:
    """Numbers as they are stored: six digits decide nothing of a mean."""
    return tuple(float(f"{value:.6g}") for value in values)


def _total(cell: NDArray[np.intp], values: Floats, count: int) -> Floats:
    return np.bincount(cell, weights=values, minlength=count).astype(np.float64)
