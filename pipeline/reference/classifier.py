"""Classifier two-sample test: finds differences that no column and no pair shows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray
from scipy import special

from pipeline.columns import Floats
from pipeline.reference.statistics import cauchy_p, separation

Ranks = NDArray[np.float32]
CLASSIFIED = 5_000
"""Largest number of rows used of each side."""
FEWEST = 20
"""Rows of a side below which no classifier is trained."""
_TREES = 20
_SETTINGS = {
    "objective": "binary:logistic",
    "tree_method": "hist",
    "max_bin": 32,
    "max_depth": 4,
    "eta": 0.3,
    "nthread": 1,
}


@dataclass(frozen=True)
class Separation:
    """How well a classifier separates the current rows from those of the reference.

    Attributes
    ----------
    area : float
        Mean area under the ROC curve on rows that it was not trained on; 0.5 is a guess.
    p_value : float
        Chance of areas this large when both sides have the same source; NaN with too few
        rows.
    columns : tuple of int
        At most three columns that it relied on most, by total gain.
    rows : tuple of int
        Number of rows of the reference and of the current side that either area is of.
    """

    area: float
    p_value: float
    columns: tuple[int, ...]
    rows: tuple[int, int]

    def chance(self, floor: float) -> float:
        """Bound of the chance of a mean area `floor` above 0.5 with nothing wrong.

        The variance is that of one area without ties (Mann & Whitney 1947, Ann. Math. Stat. 18(1):
        50-60); a mean of two varies no more, and ties make it smaller.
        """
        zeros, ones = self.rows
        if not zeros or not ones:
            return float("nan")
        return float(special.ndtr(-floor / np.sqrt((ones + zeros + 1) / (12 * ones * zeros))))


def separate(reference: Ranks, current: Ranks, *, seed: int) -> Separation:
    """Train boosted trees on one half of the rows of each side and judge the other half, twice.

    Each half is judged by trees that saw the other half only, so that either area is a rank sum
    with a known distribution. The two depend on one another, and pooling their rows would make
    the textbook variance too small; their p-values are combined by the Cauchy distribution,
    whose tail holds under dependence (Liu and Xie 2020, J. Am. Stat. Assoc. 115: 393-402).

    Parameters
    ----------
    reference, current : array of float, shape (n_rows, n_columns)
        Rows in random order, NaN where a value is missing; the first `CLASSIFIED` of each side
        are used.
    seed : int
        Random seed of the trees.
    """
    sides = [side[:CLASSIFIED] for side in (reference, current)]
    if min(len(side) for side in sides) < FEWEST or not reference.shape[1]:
        return Separation(0.5, float("nan"), (), (0, 0))
    halves = [[side[start::2] for side in sides] for start in (0, 1)]
    areas, p_values, gains = zip(
        *(_judged(known, judged, seed) for known, judged in (halves, halves[::-1])), strict=True
    )
    gain = np.sum(gains, axis=0)
    most = [int(j) for j in np.argsort(-gain, kind="stable")[:3] if gain[j] > 0]
    rows = len(sides[0]) // 2, len(sides[1]) // 2
    return Separation(float(np.mean(areas)), cauchy_p(p_values), tuple(most), rows)


def _judged(
    known: Sequence[Ranks], judged: Sequence[Ranks], seed: int
) -> tuple[float, float, Floats]:
    """Area and p-value of the judged rows by trees of the known rows, and gain of each column.

    Both have the rows of the reference and those of the current side.
    """
    labels = _current(known)
    share = labels.mean()
    weights = np.where(labels, 0.5 / share, 0.5 / (1 - share))
    train = xgb.DMatrix(np.vstack(known), labels, weight=weights)
    booster = xgb.train(_SETTINGS | {"seed": seed}, train, _TREES)
    scores = booster.inplace_predict(np.vstack(judged))
    area, p_value = separation(_current(judged), scores)
    gains = np.zeros(known[0].shape[1])
    for name, gain in booster.get_score(importance_type="total_gain").items():
        gains[int(name[1:])] = float(np.sum(gain))
    return area, p_value, gains


def _current(sides: Sequence[Ranks]) -> NDArray[np.bool_]:
    """Mark the rows of the second of two sides."""
    return np.repeat([False, True], [len(side) for side in sides])
