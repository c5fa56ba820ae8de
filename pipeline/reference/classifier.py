"""Two samples told apart by a classifier: for what no column and no pair shows."""

from dataclasses import dataclass

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray
from scipy import special

from pipeline.reference.statistics import separation

Ranks = NDArray[np.float32]
CLASSIFIED = 5_000
"""Most rows of either side."""
FEWEST = 20
"""Rows of either side below which there is nothing to learn from."""
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
    """How well a classifier tells one side from the other.

    Attributes
    ----------
    area : float
        Area under the ROC curve on rows it was not trained on; 0.5 is a guess.
    p_value : float
        Chance of an area this large when both sides have one source; NaN with too few rows.
    columns : tuple of int
        Columns it relied on most, by total gain, at most three.
    rows : tuple of int
        Judged rows of either side.
    """

    area: float
    p_value: float
    columns: tuple[int, ...]
    rows: tuple[int, int]

    def chance(self, floor: float) -> float:
        """Chance of an area `floor` above 0.5 when both sides have one source."""
        zeros, ones = self.rows
        if not zeros or not ones:
            return float("nan")
        return float(special.ndtr(-floor / np.sqrt((ones + zeros + 1) / (12 * ones * zeros))))


def separate(reference: Ranks, current: Ranks, *, seed: int) -> Separation:
    """Train boosted trees on one half of the rows of each side and judge on the other.

    Out-of-fold areas of several folds share training rows, so the textbook variance is too
    small for them; one half that nothing was trained on has none of that.

    Parameters
    ----------
    reference, current : array of float, shape (n_rows, n_columns)
        Rows in random order, NaN where a value is missing; at most `CLASSIFIED` of each are used.
    seed : int
        Of the trees.
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
