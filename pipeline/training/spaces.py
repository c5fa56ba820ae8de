"""What `holdfast tune` chooses among: modest ranges around the usual values of each estimator."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from sklearn import ensemble, linear_model

from pipeline.columns import Floats
from pipeline.errors import ConfigError

_DIGITS: Final = 3
"""Significant digits of a drawn number, so that what is tried is what a person can write."""


@dataclass(frozen=True)
class Range:
    """Numbers between two ends, both included.

    Attributes
    ----------
    low, high : float
        The ends.
    log : bool
        Whether ratios count, not differences: 1 is then as far from 10 as 10 from 100.
    whole : bool
        Whether only whole numbers count.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def at(self, place: float) -> float | int:
        """The number at a place of the range, from 0 (its lower end) to 1 (its upper end)."""
        ends = np.log([self.low, self.high]) if self.log else np.array([self.low, self.high])
        value = ends[0] + place * (ends[1] - ends[0])
        number = float(f"{np.exp(value) if self.log else value:.{_DIGITS}g}")
        return round(number) if self.whole else number


@dataclass(frozen=True)
class Choice:
    """Some values, in any order that makes sense.

    Attributes
    ----------
    values : sequence
        The values.
    """

    values: Sequence[Any]

    def at(self, place: float) -> Any:
        """The value at a place from 0 to 1."""
        return self.values[min(int(place * len(self.values)), len(self.values) - 1)]


Space = Mapping[str, Range | Choice]
"""What each parameter is chosen from."""
_BOOSTER: Space = {
    "learning_rate": Range(0.02, 0.2, log=True),
    "max_depth": Range(3, 10, whole=True),
    "min_child_weight": Range(1, 100, log=True),
    "subsample": Range(0.5, 1),
    "colsample_bytree": Range(0.4, 1),
    "reg_lambda": Range(0.1, 100, log=True),
}
"""Ranges for XGBoost; the number of rounds is read off the learning curves of each trial."""
_SPACES: tuple[tuple[tuple[type, ...], Space], ...] = (
    (
        (ensemble.HistGradientBoostingClassifier, ensemble.HistGradientBoostingRegressor),
        {
            "learning_rate": Range(0.02, 0.2, log=True),
            "max_iter": Range(50, 600, log=True, whole=True),
            "max_leaf_nodes": Range(7, 127, log=True, whole=True),
            "min_samples_leaf": Range(5, 200, log=True, whole=True),
            "l2_regularization": Range(0.01, 100, log=True),
            "max_features": Range(0.4, 1),
        },
    ),
    (
        (
            *(ensemble.RandomForestClassifier, ensemble.RandomForestRegressor),
            *(ensemble.ExtraTreesClassifier, ensemble.ExtraTreesRegressor),
        ),
        {
            "max_features": Range(0.1, 1),
            "min_samples_leaf": Range(1, 100, log=True, whole=True),
        },
    ),
    ((linear_model.LogisticRegression,), {"C": Range(0.001, 100, log=True)}),
    ((linear_model.Ridge,), {"alpha": Range(0.01, 10_000, log=True)}),
)


def space_of(kind: Any, path: str, search: Mapping[str, Sequence[Any]]) -> Space:
    """What the parameters of an estimator are chosen from.

    Parameters
    ----------
    kind : Any
        The estimator's class.
    path : str
        Its import path, for messages.
    search : mapping of str to sequence
        Values of parameters, as `training.search` gives them; empty: those of its family.

    Raises
    ------
    ConfigError
        If no values are given and nothing is known about such an estimator.
    """
    if search:
        return {name: Choice(values) for name, values in search.items()}
    if hasattr(kind, "get_booster"):
        return _BOOSTER
    for kinds, space in _SPACES:
        if isinstance(kind, type) and issubclass(kind, kinds):
            return space
    message = (
        f"training.search must say which parameters of {path} to try: only XGBoost, histogram "
        "boosting, forests, and linear models with a penalty have ranges of their own. Got none. "
        "Write, for example, search: {max_depth: [3, 5, 8]}."
    )
    raise ConfigError(message)


def parameters_at(space: Space, point: Floats) -> dict[str, Any]:
    """Values of all parameters at a point of the unit cube, shape (n_parameters,)."""
    return {
        name: dimension.at(place)
        for (name, dimension), place in zip(space.items(), point.tolist(), strict=True)
    }
