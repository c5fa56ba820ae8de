"""Chooses parameters of an estimator on rows before the held-out ones, which it never sees.

A trial is judged as a version is, on newer rows than it was fitted on, on up to three stretches. It
is chosen only where it is better than the parameters of the file on every one of these, and the
choice must hold on a newer stretch that no other trial was judged on: the best of many trials looks
better than it is, and parameters that suit one time need not suit the next.

Points come from a scrambled Halton sequence, which covers few trials in many dimensions more
evenly than chance does; from some trials on, every other point lies near the best one so far.
Each point follows from the seed and the trials before, so that a search can be continued.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import qmc

from pipeline.columns import Floats, Matrix
from pipeline.config import Data, Training
from pipeline.errors import DataError
from pipeline.training.estimators import import_estimator
from pipeline.training.fitting import FEWEST_HELDOUT, fit, fit_judged, split
from pipeline.training.metrics import mean_loss
from pipeline.training.spaces import Space, parameters_at, space_of

_STRETCHES: Final = 4
"""Stretches at most, with the newest; together at most half of the older rows' time."""
_EXPLORED: Final = 8
"""Trials before the first one near the best."""
_NEAR: Final = 0.15
"""How far from the best a near point lies at most, in each direction, as a share of its range."""
_ROUNDS: Final = 1_000
"""Boosting rounds of a trial, at most."""
_PATIENCE: Final = 50
"""Rounds without a gain after which a booster stops."""
_NUMBER: Final = "n_estimators"
"""XGBoost's name of the number of rounds."""


class Stretch(NamedTuple):
    """Rows to fit and the newer rows to judge the fit on.

    Attributes
    ----------
    older, block : DataFrame
        The rows, with labels.
    """

    older: pd.DataFrame
    block: pd.DataFrame


class Trial(NamedTuple):
    """Parameters that were tried.

    Attributes
    ----------
    params : dict of str to Any
        What differs from the parameters of the file; empty for these themselves.
    losses : list of float
        Mean loss on each stretch that choices are made on, the newest first.
    loss : float
        Mean loss on all rows of these stretches.
    """

    params: dict[str, Any]
    losses: list[float]
    loss: float


def stretches(rows: pd.DataFrame, data: Data, training: Training) -> list[Stretch]:
    """Cut the rows before `training.holdout` into rows to fit and rows to judge.

    Parameters
    ----------
    rows : DataFrame
        Labelled rows of the window, with numbers as labels; of these the held-out rows are left
        out, by which training judges a version.
    data : Data
        Declared columns and their roles.
    training : Training
        Length of the holdout, which is the length of a stretch where there is time for four.

    Returns
    -------
    list of Stretch
        Two to four, the newest first: it confirms a choice that is made on the others.

    Raises
    ------
    DataError
        If fewer than two stretches hold enough rows.
    """
    older, _ = split(rows, data, training)
    times = older[data.time]
    length = min(training.holdout, (times.max() - times.min()) / (2 * _STRETCHES))
    found = []
    for k in range(_STRETCHES):
        start, end = times.max() - (k + 1) * length, times.max() - k * length
        block = older[(times > start) & (times <= end)]
        before = older[times <= start]
        if len(block) >= FEWEST_HELDOUT and len(set(before[data.target])) > 1:
            found.append(Stretch(before, block.reset_index(drop=True)))
    if len(found) < 2:  # noqa: PLR2004 -- one to choose on, one that confirms
        message = (
            f"Tuning needs {FEWEST_HELDOUT} labelled rows in each eighth of the time before "
            f"training.holdout. Got {len(older)} rows from {times.min():%Y-%m-%d %H:%M} to "
            f"{times.max():%Y-%m-%d %H:%M}. Give more history."
        )
        raise DataError(message)
    return found


def space_of_training(training: Training) -> Space:
    """What the parameters of a training are chosen from.

    Raises
    ------
    ConfigError
        If nothing is known about the estimator's parameters and the file names none.
    """
    kind = import_estimator(training.estimator)
    return space_of(kind, training.estimator, training.search)


def bounds(trials: Sequence[Trial]) -> list[float]:
    """How much each trial gains at least over the first one: the mean minus its standard error.

    Gains are shares of the first trial's loss, one for each stretch, so that a stretch of large
    losses counts no more than the others. Where all gains are positive, so is the bound: the
    standard error of positive numbers is at most their mean.

    Parameters
    ----------
    trials : sequence of Trial
        Trials on the same stretches; the first one is of the parameters of the file.

    References
    ----------
    Breiman, Friedman, Olshen and Stone (1984), Classification and Regression Trees, section 3.4.3,
    for counting differences within a standard error as none.
    """
    gains = _gains(trials)
    count = gains.shape[1]
    error = gains.std(axis=1, ddof=1) / np.sqrt(count) if count > 1 else 0
    found: list[float] = (gains.mean(axis=1) - error).tolist()
    return found


def chosen(trials: Sequence[Trial]) -> int:
    """Place of the trial with the largest bound of those that gain on every stretch; else 0."""
    always = (_gains(trials) > 0).all(axis=1)
    return int(np.where(always, bounds(trials), 0).argmax())


def _gains(trials: Sequence[Trial]) -> Matrix:
    found = np.array([trial.losses for trial in trials], dtype=np.float64)
    return np.asarray(1 - found / np.maximum(found[0], np.finfo(float).tiny))


def proposed(space: Space, gained: Sequence[float], *, seed: int) -> dict[str, Any]:
    """Parameters of the next trial.

    Parameters
    ----------
    space : Space
        What they are chosen from.
    gained : sequence of float
        What `bounds` says of the trials so far; the first one is of the parameters of the file,
        for which nothing is proposed.
    seed : int
        Seed of the sequence of points.
    """
    if not gained:
        return {}
    known = gained[1:]
    drawn = qmc.Halton(len(space), rng=np.random.default_rng(seed)).random(len(gained))
    points: list[Floats] = []
    for number, point in enumerate(drawn):
        if number >= _EXPLORED and number % 2:
            best = points[int(np.argmax(known[:number]))]
            points.append(np.clip(best + _NEAR * (2 * point - 1), 0, 1))
        else:
            points.append(point)
    return parameters_at(space, points[-1])


def attempt(
    params: Mapping[str, Any], parts: Sequence[Stretch], data: Data, training: Training, task: str
) -> Trial:
    """Fit with some parameters and judge the fits.

    Of a booster whose number of rounds is not given, the number that is best over all stretches
    is added to the parameters.

    Parameters
    ----------
    params : mapping of str to Any
        What differs from the parameters of the file.
    parts : sequence of Stretch
        The rows.
    data : Data
        Declared columns and their roles.
    training : Training
        Estimator and the parameters of the file.
    task : str
        ``classification`` or ``regression``.

    Raises
    ------
    ConfigError
        If the estimator does not take the parameters.
    """
    loss = training.metric(task)
    kind = import_estimator(training.estimator)
    if params and hasattr(kind, "get_booster") and _NUMBER not in params:
        return _boosted(params, parts, data, training, task=task)
    changed, found = _changed(training, params), []
    for older, block in parts:
        model = fit(older, data, changed, task)
        target = block[data.target].to_numpy(dtype=np.float64)
        found.append(mean_loss(model, model.encode(block), target, loss))
    whole = float(np.average(found, weights=_sizes(parts)))
    return Trial(dict(params), found, whole)


def _boosted(
    params: Mapping[str, Any],
    parts: Sequence[Stretch],
    data: Data,
    training: Training,
    *,
    task: str,
) -> Trial:
    from xgboost.callback import EarlyStopping  # noqa: PLC0415 -- slow to import

    curves = []
    for older, block in parts:
        grown = {**params, _NUMBER: _ROUNDS, "callbacks": [EarlyStopping(rounds=_PATIENCE)]}
        changed, loss = _changed(training, grown), training.metric(task)
        curves.append(fit_judged(older, block, data, changed, task=task, loss=loss)[1].heldout)
    shortest = min(map(len, curves))
    together = [curve[:shortest] for curve in curves]
    means = np.average(together, axis=0, weights=_sizes(parts))
    last = int(means.argmin())
    return Trial(
        {_NUMBER: last + 1, **params}, [curve[last] for curve in curves], float(means[last])
    )


def _changed(training: Training, params: Mapping[str, Any]) -> Training:
    return training.model_copy(update={"params": {**training.params, **params}})


def _sizes(parts: Sequence[Stretch]) -> list[int]:
    return [len(part.block) for part in parts]
