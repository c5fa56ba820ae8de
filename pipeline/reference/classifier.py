"""Classifier two-sample test: finds differences that no column and no pair shows."""

from dataclasses import dataclass

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray
from scipy import special

from pipeline.reference.statistics import separation

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
        Area under the ROC curve on rows that it was not trained on; 0.5 is a guess.
    p_value : float
        Chance of an area this large when both sides have the same source; NaN with too few
        rows.
    columns : tuple of int
        At most three columns that it relied on most, by total gain.
    rows : tuple of int
        Number of judged rows of the reference and of the current side.
    """

    area: float
    p_value: float
    columns: tuple[int, ...]
    rows: tuple[int, int]

    def chance(self, floor: float) -> float:
        """Chance of an area `floor` above 0.5 when both sides have the same source."""
        zeros, ones = self.rows
        if not zeros or not ones:
            return float("nan")
        return float(special.ndtr(-floor / np.sqrt((ones + zeros + 1) / (12 * ones * zeros))))


def separate(reference: Ranks, current: Ranks, *, seed: int) -> Separation:
    """Train boosted trees on one half of the rows of each side and judge the other half.

    Cross-validation would judge more rows, but its folds share training rows, so that the
    textbook variance of the area is too small. A single held-out half has no such problem.

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
    matrix = np.vstack(sides)
    current_side = np.arange(len(matrix)) >= len(sides[0])
    judged = np.concatenate([np.arange(len(side)) % 2 == 1 for side in sides])
    labels = current_side[~judged]
    share = labels.mean()
    weights = np.where(labels, 0.5 / share, 0.5 / (1 - share))
    train = xgb.DMatrix(matrix[~judged], labels, weight=weights)
    booster = xgb.train(_SETTINGS | {"seed": seed}, train, _TREES)
    scores = booster.inplace_predict(matrix[judged])
    area, p_value = separation(current_side[judged], scores)
    gains = {
        int(name[1:]): float(np.sum(gain))
        for name, gain in booster.get_score(importance_type="total_gain").items()
    }
    most = sorted(gains, key=lambda column: (-gains[column], column))[:3]
    return Separation(area, p_value, tuple(most), (len(sides[0]) // 2, len(sides[1]) // 2))
