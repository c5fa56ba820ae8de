"""Predict a column from the others by boosted trees, learnt from the reference."""

from dataclasses import dataclass, replace

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray

from pipeline.columns import Floats
from pipeline.monitoring.diagnoses.likelihood import Mask, Places, mixture


@dataclass(frozen=True)
class Parameters:
    """How trees are boosted, and how far their predictions count.

    Attributes
    ----------
    bins : int
        Bins of the ranks of a column.
    depth, leaf_rows : int
        Largest depth of a tree, and fewest rows of a leaf.
    rate : float
        Share of each tree that is added to the prediction.
    rounds, label_rounds : int
        Trees of a fit to scores, and of a fit to labels, for each class.
    outermost : float
        Normal score beyond which a match of value and prediction proves no relation.
    least_doubt, most_doubt : float
        Least and largest share of rows for which a prediction of labels may be wrong.
    largest : float
        Most nats that the relation of a single row to the other columns may count for.
    fewest : int
        Rows of a half of the reference below which nothing is learnt.
    source : float
        Share of the total gain from which a predicting column counts as a source.
    """

    bins: int = 32
    depth: int = 5
    leaf_rows: int = 20
    rate: float = 0.25
    rounds: int = 30
    label_rounds: int = 12
    outermost: float = 2.5
    least_doubt: float = 0.005
    most_doubt: float = 0.2
    largest: float = 8.0
    fewest: int = 50
    source: float = 0.1


PARAMS = Parameters()
_TREES = {
    "tree_method": "hist",
    "max_bin": PARAMS.bins,
    "max_depth": PARAMS.depth,
    "eta": PARAMS.rate,
    "nthread": 1,
    "min_child_weight": PARAMS.leaf_rows,
}


@dataclass(frozen=True)
class Expected:
    """Prediction of a numeric column from the other columns.

    Attributes
    ----------
    before, now : array of float, shape (n_rows,)
        Normal score that the other columns predict, in the reference and in the drawn rows of
        the batch, by fits that did not see the row's block.
    scores : array of float, shape (n_rows,)
        Actual score in the reference.
    values : array of float, shape (n_rows,)
        Actual value in the reference.
    blocks : array of int, shape (n_rows,)
        Block number of each row of the reference.
    variance : float
        Variance of the score about the prediction, in the reference.
    sources : frozenset of str
        The columns that contribute a good part of the prediction.
    """

    before: Floats
    now: Floats
    scores: Floats
    values: Floats
    blocks: Places
    variance: float
    sources: frozenset[str] = frozenset()

    def log_ratio(self, scores: Floats, *, predicted: Floats | None = None) -> Floats:
        """Nats by which each score is likelier given the other columns than without them."""
        predicted = self.now if predicted is None else predicted
        ratio = (scores**2 - (scores - predicted) ** 2 / self.variance - np.log(self.variance)) / 2
        # An outermost score stands for all values beyond it, so it proves no relation.
        proved = np.where(np.abs(scores) > PARAMS.outermost, np.minimum(ratio, 0.0), ratio)
        nats: Floats = np.clip(proved, -PARAMS.largest, PARAMS.largest)
        return nats

    @property
    def most_nats(self) -> Floats:
        """Largest `log_ratio` that any score could have in each drawn row."""
        # The ratio is a parabola in the score, open below where the variance is less than 1.
        if self.variance < 1:
            likeliest = np.clip(self.now / (1 - self.variance), -PARAMS.outermost, PARAMS.outermost)
        else:
            likeliest = np.copysign(PARAMS.outermost, self.now)
        most: Floats = np.maximum(self.log_ratio(likeliest), 0.0)
        return most

    def loosened(self, scores: Floats, there: Mask) -> "Expected":
        """Adjust the prediction to the relation that most rows of the batch show.

        It is centred anew in each tenth of the predictions, with the spread of the rows about
        these centres. Rows that still stand out differ from the other rows of their batch.

        Parameters
        ----------
        scores : array of float, shape (n_drawn,)
            Scores of the column as it arrived.
        there : array of bool, shape (n_drawn,)
            Rows with a value.
        """
        now = self.now.copy()
        tenth = np.searchsorted(np.quantile(now, np.linspace(0.1, 0.9, 9)), now)
        for k in np.unique(tenth[there]):
            now[tenth == k] += np.median((scores - self.now)[there & (tenth == k)])
        left = np.abs(scores - now)[there]
        wide = (1.4826 * float(np.median(left))) ** 2 if len(left) else 0.0
        return replace(self, now=now, variance=max(self.variance, wide))


@dataclass(frozen=True)
class ExpectedLabels:
    """Prediction of a categorical column from the other columns.

    Attributes
    ----------
    labels : list of str
        The most frequent labels; all other labels are the last class.
    shares : array of float, shape (n_classes,)
        Logarithm of the share of each class in the reference.
    before : array of float, shape (n_rows, n_classes)
        Logarithm of the predicted chance of each class in the reference, by a fit that did not
        see the row's block.
    classes : array of int, shape (n_rows,)
        Actual class in the reference.
    blocks : array of int, shape (n_rows,)
        Block number of each row of the reference.
    now : array of float, shape (n_drawn, n_classes)
        Logarithm of the predicted chance of each class in the drawn rows of the batch.
    sources : frozenset of str
        The columns that contribute a good part of the prediction.
    """

    labels: list[str]
    shares: Floats
    before: Floats
    classes: Places
    blocks: Places
    now: Floats
    sources: frozenset[str] = frozenset()

    @property
    def information(self) -> float:
        """Mean nats per row that the other columns contribute, in the reference."""
        gained = self.before[np.arange(len(self.classes)), self.classes] - self.shares[self.classes]
        return float(gained.mean()) if len(gained) else 0.0


Ranks = NDArray[np.float32]


def fit_scores(
    before: Ranks, now: Ranks, scores: Floats, there: Mask, half: Mask
) -> tuple[Floats, Floats, Places]:
    """Fit the scores of a column to the other columns, and predict reference and batch.

    Returns predictions for the reference and for the batch, and the places of the columns that
    contribute a good part of them.

    Parameters
    ----------
    before, now : array of float, shape (n_rows, n_columns), (n_drawn, n_columns)
        Ranks of the other columns in the reference and in the batch.
    scores : array of float, shape (n_rows,)
        Scores of the column in the reference.
    there : array of bool, shape (n_rows,)
        Rows with a value.
    half : array of bool, shape (n_rows,)
        Rows of one half of the reference. Each half is predicted by a fit of the other half, the
        batch by the mean of both fits.
    """
    predicted_before, predicted_now = np.zeros(len(before)), np.zeros(len(now))
    gains = np.zeros(before.shape[1])
    if before.shape[1] and min(there[half].sum(), there[~half].sum()) > PARAMS.fewest:
        for part in (half, ~half):
            data = xgb.DMatrix(before[part & there], scores[part & there])
            fitted = xgb.train(_TREES, data, num_boost_round=PARAMS.rounds)
            predicted_before[~part] = fitted.predict(xgb.DMatrix(before[~part]))
            predicted_now += fitted.predict(xgb.DMatrix(now)) / 2
            gains += _gains(fitted, len(gains))
    return predicted_before, predicted_now, _sources(gains)


def _gains(fitted: xgb.Booster, count: int) -> Floats:
    """Total gain of each column in a fit."""
    gains = fitted.get_score(importance_type="total_gain")
    return np.asarray([gains.get(f"f{j}", 0.0) for j in range(count)], dtype=np.float64)


def _sources(gains: Floats) -> Places:
    return np.flatnonzero(gains > PARAMS.source * gains.sum())


def fit_classes(
    before: Ranks, now: Ranks, classes: Places, there: Mask, half: Mask, *, shares: Floats
) -> tuple[Floats, Floats, Places]:
    """Fit the classes of a column to the other columns, and predict reference and batch.

    Parameters and results are as in `fit_scores`, with the class of each row in place of its
    score, logarithms of chances in place of predictions, and the share of each class in the
    reference. No chance is surer than the share of rows on which the fit was wrong in the half
    that it had not seen.
    """
    flat = np.log(shares)
    logs_before, logs_now = np.tile(flat, (len(before), 1)), np.tile(flat, (len(now), 1))
    if not before.shape[1] or min(there[half].sum(), there[~half].sum()) <= PARAMS.fewest:
        return logs_before, logs_now, np.empty(0, dtype=np.intp)
    settings = _TREES | {"objective": "multi:softprob", "num_class": len(shares)}
    ahead, chances = np.zeros(logs_before.shape), np.zeros(logs_now.shape)
    gains = np.zeros(before.shape[1])
    for part in (half, ~half):
        data = xgb.DMatrix(before[part & there], classes[part & there])
        fitted = xgb.train(settings, data, num_boost_round=PARAMS.label_rounds)
        ahead[~part] = fitted.predict(xgb.DMatrix(before[~part]))
        chances += fitted.predict(xgb.DMatrix(now)) / 2
        gains += _gains(fitted, len(gains))
    right = ahead[np.flatnonzero(there), classes[there]]
    wrong, _ = mixture(flat[classes[there]] - np.log(right))
    doubt = float(np.clip(wrong, PARAMS.least_doubt, PARAMS.most_doubt))
    return (
        np.log((1 - doubt) * ahead + doubt * shares),
        np.log((1 - doubt) * chances + doubt * shares),
        _sources(gains),
    )
