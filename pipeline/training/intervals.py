"""Intervals and sets that hold a stated share of targets: split conformal prediction.

Residuals of rows that a fit has not seen say how far below and above a prediction targets lie. If
later rows are exchangeable with these rows, an interval between two of their order statistics
holds a new target with at least the stated chance, whatever the model and the distribution. So does
a set of all classes that are as likely as the true ones mostly were. Rows of other times are not
quite exchangeable, so that the coverage is monitored like any metric.

Vovk, Gammerman and Shafer (2005), Algorithmic Learning in a Random World; Lei, G'Sell, Rinaldo,
Tibshirani and Wasserman (2018), JASA 113: 1094-1111, for the split; Sadinle, Lei and Wasserman
(2019), JASA 114: 223-234, for sets, which are the smallest where chances are right; Barber,
Candes, Ramdas and Tibshirani (2023), Ann. Stat. 51: 816-845, for what is lost where rows are not
exchangeable.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, floor
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.columns import Floats, Matrix
from pipeline.errors import ConfigError
from pipeline.training.model import Predictions

_ROUNDED = 1e-9
"""What products such as 20 * 0.95 may be off by."""


@dataclass(frozen=True)
class Margins:
    """How far the ends of an interval lie from a prediction of a regression.

    Attributes
    ----------
    coverage : float
        Share of targets that intervals shall hold, between 0 and 1.
    low, high : float
        What is added to a prediction for the lower and the upper end, in units of the target.
    rows : int
        Held-out rows that they were computed from.
    """

    KEY: ClassVar = "interval"
    COVERED: ClassVar = "interval_coverage"
    SIZE: ClassVar = "interval_width"
    coverage: float
    low: float
    high: float
    rows: int

    @classmethod
    def of(cls, target: Floats, predictions: Floats, coverage: float) -> Self:
        """Compute margins from held-out rows.

        Each end leaves out half of the rest: with n rows and a rest of a, the k-th smallest and
        the k-th largest residual, where k = floor((n + 1) * a / 2). The target may so be skewed.

        Parameters
        ----------
        target, predictions : array of float, shape (n_rows,)
            Targets of rows, and what a fit predicted that had not seen them.
        coverage : float
            Share of targets to hold.

        Raises
        ------
        ConfigError
            If the rows are too few for such a share.
        """
        n = len(target)
        _require(cls.needed(coverage), n, coverage)
        # A rest such as 1 - 0.9 is not exact, and must not cost a rank.
        rank = floor((n + 1) * (1 - coverage) / 2 + _ROUNDED)
        residuals = np.sort(target - predictions)
        return cls(coverage, float(residuals[rank - 1]), float(residuals[n - rank]), n)

    @staticmethod
    def needed(coverage: float) -> int:
        """How many held-out rows a coverage needs."""
        return ceil(2 / (1 - coverage) - _ROUNDED) - 1

    def size(self, _: Predictions) -> float:
        """Width of the intervals, in units of the target."""
        return self.high - self.low

    def around(self, predictions: Floats) -> Matrix:
        """Lower and upper ends for predictions of shape (n_rows,), shape (n_rows, 2)."""
        return np.stack([predictions + self.low, predictions + self.high], axis=1)

    def covered(self, target: Floats, predictions: Floats) -> float:
        """Share of rows whose target lies in its interval, ends included."""
        residuals = target - predictions
        # An end is itself a residual, which the sum and the difference may round apart.
        slack = 1e-9 * np.maximum(np.abs(target), np.abs(predictions))
        return float(np.mean((residuals >= self.low - slack) & (residuals <= self.high + slack)))


@dataclass(frozen=True)
class Sets:
    """Which classes the set of a row holds: the likeliest, and each whose chance is large enough.

    The likeliest is there whatever its chance, so that no set is empty: it can only raise the
    coverage, and an empty set says nothing that can be acted on.

    Attributes
    ----------
    coverage : float
        Share of targets that sets shall hold, between 0 and 1.
    threshold : float
        Smallest chance of a class of the set.
    rows : int
        Held-out rows that it was computed from.
    """

    KEY: ClassVar = "sets"
    COVERED: ClassVar = "set_coverage"
    SIZE: ClassVar = "set_size"
    coverage: float
    threshold: float
    rows: int

    @classmethod
    def of(cls, target: Floats, predictions: Predictions, coverage: float) -> Self:
        """Compute the threshold from held-out rows.

        With n rows it is the k-th largest chance of the true class, k = ceil((n + 1) * coverage).

        Parameters
        ----------
        target : array of float, shape (n_rows,)
            Places of the true classes; of two classes 0 or 1.
        predictions : array of float, shape (n_rows,) or (n_rows, n_classes)
            What a fit that had not seen the rows predicted: the chance of 1, or of each class.
        coverage : float
            Share of targets to hold.

        Raises
        ------
        ConfigError
            If the rows are too few for such a share.
        """
        n = len(target)
        _require(cls.needed(coverage), n, coverage)
        own = np.sort(_of_truth(_chances(predictions), target))
        return cls(coverage, float(own[n - ceil((n + 1) * coverage - _ROUNDED)]), n)

    @staticmethod
    def needed(coverage: float) -> int:
        """How many held-out rows a coverage needs."""
        return ceil(coverage / (1 - coverage) - _ROUNDED)

    def size(self, predictions: Predictions) -> float:
        """Mean number of classes in the sets of rows."""
        return float(self.holding(predictions).sum(axis=1).mean())

    def holding(self, predictions: Predictions) -> NDArray[np.bool_]:
        """Whether the set of each row holds each class, shape (n_rows, n_classes)."""
        chances = _chances(predictions)
        held: NDArray[np.bool_] = chances >= self.threshold
        np.put_along_axis(held, chances.argmax(axis=1)[:, None], values=True, axis=1)
        return held

    def covered(self, target: Floats, predictions: Predictions) -> float:
        """Share of rows whose class is in its set."""
        return float(_of_truth(self.holding(predictions), target).mean())


Promise = Margins | Sets


def promise_of(manifest: Mapping[str, Any]) -> Promise | None:
    """Margins or sets in the manifest of a version; None if it has neither."""
    found = (kind(**manifest[kind.KEY]) for kind in (Margins, Sets) if manifest.get(kind.KEY))
    return next(found, None)


def promised(
    task: str, target: Floats, predictions: Predictions, coverage: float
) -> tuple[Promise, dict[str, float]]:
    """What held-out rows promise for later ones, and what they themselves say of it.

    Parameters
    ----------
    task : str
        ``regression``, which has intervals, or ``classification``, which has sets.
    target : array of float, shape (n_rows,)
        Of held-out rows, in time order.
    predictions : array of float, shape (n_rows,) or (n_rows, n_classes)
        What a fit predicted that had not seen them.
    coverage : float
        Share of targets to hold.

    Returns
    -------
    Margins or Sets
        Of all rows.
    dict of str to float
        ``interval_coverage`` or ``set_coverage``: of the newer half of the rows, by margins or sets
        of the older half, which shows what time does to them; it is left out where half of the rows
        are too few. ``interval_width``, in units of the target, or ``set_size``, the mean number
        of classes: by those of all rows.

    Raises
    ------
    ConfigError
        If the rows are too few for such a share.
    """
    kind: type[Promise] = Sets if task == "classification" else Margins
    whole, half = kind.of(target, predictions, coverage), len(target) // 2
    found = {kind.SIZE: whole.size(predictions)}
    if half >= kind.needed(coverage):
        older = kind.of(target[:half], predictions[:half], coverage)
        found[kind.COVERED] = older.covered(target[half:], predictions[half:])
    return whole, found


def _require(needed: int, rows: int, coverage: float) -> None:
    if rows < needed:
        message = (
            f"training.intervals must suit the held-out rows: a coverage of {coverage:g} needs "
            f"{needed} of them. Got {rows}. Lower it, or raise training.holdout."
        )
        raise ConfigError(message)


def _chances(predictions: Predictions) -> Matrix:
    """The chance of each class, shape (n_rows, n_classes)."""
    if predictions.ndim > 1:
        return predictions
    return np.stack([1 - predictions, predictions], axis=1)


def _of_truth(values: NDArray[Any], target: Floats) -> NDArray[Any]:
    """The value of the true class of each row."""
    return values[np.arange(len(target)), target.astype(np.intp)]
