"""What the other columns say of one: learnt from the reference, by boosted trees."""

from dataclasses import dataclass, replace

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray

from pipeline.monitoring.diagnoses.likelihood import Mask, Places, mixture
from pipeline.reference.profile import Floats

_TREES = {
    "tree_method": "hist",
    "max_bin": 32,
    "max_depth": 5,
    "eta": 0.25,
    "nthread": 1,
    "min_child_weight": 20,
}
_ROUNDS = 30
_LABEL_ROUNDS = 12
_OUTERMOST = 2.5
_DOUBT = 0.005, 0.2
"""Least and largest share of rows of which a relation between labels may be wrong."""
_LARGEST = 8.0
"""Most nats that one row's relation to the others may count for."""
_FEWEST = 50
"""Rows of a half below which nothing is learnt from it."""
_SOURCE = 0.1
"""Share of all that the others say of a column that makes one of them a source."""


@dataclass(frozen=True)
class Expected:
    """What the other columns say of one.

    Attributes
    ----------
    before, now : array of float, shape (n_rows,)
        Normal score of the column as the others predict it, by a fit of other blocks.
    scores : array of float, shape (n_rows,)
        The score itself, in the reference.
    values : array of float, shape (n_rows,)
        The value itself.
    blocks : array of int, shape (n_rows,)
        Number of the block.
    variance : float
        Of the score about the prediction, in the reference.
    sources : frozenset of str
        The columns that say a good part of it.
    """

    before: Floats
    now: Floats
    scores: Floats
    values: Floats
    blocks: Places
    variance: float
    sources: frozenset[str] = frozenset()

    def log_ratio(self, scores: Floats, *, predicted: Floats | None = None) -> Floats:
        """Nats by which a score is likelier given the other columns than without them."""
        told = self.now if predicted is None else predicted
        ratio = (scores**2 - (scores - told) ** 2 / self.variance - np.log(self.variance)) / 2
        # An outermost score stands for all that lies beyond; it proves no relation.
        proved = np.where(np.abs(scores) > _OUTERMOST, np.minimum(ratio, 0.0), ratio)
        nats: Floats = np.clip(proved, -_LARGEST, _LARGEST)
        return nats

    def loosened(self, scores: Floats, there: Mask) -> "Expected":
        """The same once the relation may move and loosen: as it is for most rows of the batch.

        It is centred anew in each tenth of what the others say, and as wide as the rows about
        these centres. What is left are rows that differ from the others of their batch.

        Parameters
        ----------
        scores : array of float, shape (n_drawn,)
            Of the column as it came.
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
class Told:
    """What the other columns say of a column of labels.

    Attributes
    ----------
    labels : list of str
        The most frequent labels; any other is the last class.
    shares : array of float, shape (n_classes,)
        Logarithm of the share of each class in the reference.
    before : array of float, shape (n_rows, n_classes)
        Logarithm of the chance of each class, by a fit of other blocks, in the reference.
    classes : array of int, shape (n_rows,)
        What it was.
    blocks : array of int, shape (n_rows,)
        Number of the block.
    now : array of float, shape (n_drawn, n_classes)
        Logarithm of the chance of each class, in the batch.
    sources : frozenset of str
        The columns that say a good part of it.
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
        """Nats a row that the other columns say, in the reference."""
        told = self.before[np.arange(len(self.classes)), self.classes] - self.shares[self.classes]
        return float(told.mean()) if len(told) else 0.0


Ranks = NDArray[np.float32]


def fit_scores(
    before: Ranks, now: Ranks, scores: Floats, there: Mask, half: Mask
) -> tuple[Floats, Floats, Places]:
    """Scores of a column as the others predict them, in the reference and in the batch.

    The last of the three are the places of those that say a good part of it.

    Parameters
    ----------
    before, now : array of float, shape (n_rows, n_columns), (n_drawn, n_columns)
        Ranks of the other columns.
    scores : array of float, shape (n_rows,)
        Of the column, in the reference.
    there : array of bool, shape (n_rows,)
        Rows with a value.
    half : array of bool, shape (n_rows,)
        One half of the reference. Each is predicted by a fit of the other, the batch by both.
    """
    told_before, told_now = np.zeros(len(before)), np.zeros(len(now))
    gains = np.zeros(before.shape[1])
    if before.shape[1] and min(there[half].sum(), there[~half].sum()) > _FEWEST:
        for part in (half, ~half):
            data = xgb.DMatrix(before[part & there], scores[part & there])
            fitted = xgb.train(_TREES, data, num_boost_round=_ROUNDS)
            told_before[~part] = fitted.predict(xgb.DMatrix(before[~part]))
            told_now += fitted.predict(xgb.DMatrix(now)) / 2
            gains += _gains(fitted, len(gains))
    return told_before, told_now, _sources(gains)


def _gains(fitted: xgb.Booster, count: int) -> Floats:
    """What each column gained a fit."""
    gains = fitted.get_score(importance_type="total_gain")
    return np.asarray([gains.get(f"f{j}", 0.0) for j in range(count)], dtype=np.float64)


def _sources(gains: Floats) -> Places:
    return np.flatnonzero(gains > _SOURCE * gains.sum())


def fit_classes(
    before: Ranks, now: Ranks, classes: Places, there: Mask, half: Mask, *, shares: Floats
) -> tuple[Floats, Floats, Places]:
    """Logarithm of the chance of each class, in the reference and in the batch.

    Parameters are those of `fit_scores`, with the class of each row in the place of its score,
    and the share of each class in the reference. No row is surer than the share of rows that the
    fit proved wrong of, in the half that it had not seen.
    """
    flat = np.log(shares)
    logs_before, logs_now = np.tile(flat, (len(before), 1)), np.tile(flat, (len(now), 1))
    if not before.shape[1] or min(there[half].sum(), there[~half].sum()) <= _FEWEST:
        return logs_before, logs_now, np.empty(0, dtype=np.intp)
    settings = _TREES | {"objective": "multi:softprob", "num_class": len(shares)}
    ahead, chances = np.zeros(logs_before.shape), np.zeros(logs_now.shape)
    gains = np.zeros(before.shape[1])
    for part in (half, ~half):
        data = xgb.DMatrix(before[part & there], classes[part & there])
        fitted = xgb.train(settings, data, num_boost_round=_LABEL_ROUNDS)
        ahead[~part] = fitted.predict(xgb.DMatrix(before[~part]))
        chances += fitted.predict(xgb.DMatrix(now)) / 2
        gains += _gains(fitted, len(gains))
    right = ahead[np.flatnonzero(there), classes[there]]
    doubt = float(np.clip(mixture(flat[classes[there]] - np.log(right))[0], *_DOUBT))
    return (
        np.log((1 - doubt) * ahead + doubt * shares),
        np.log((1 - doubt) * chances + doubt * shares),
        _sources(gains),
    )
