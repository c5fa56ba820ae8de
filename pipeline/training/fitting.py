"""Labelled rows -> a judged and a refitted model.

The window is split by time: a first fit on the older part is judged on the newer, held-out
part, which no fit has seen; the model that serves is then fitted again on both.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import is_classifier, is_regressor

from pipeline.columns import Matrix, known_categories, require
from pipeline.config import Data, Training, spelled
from pipeline.errors import ConfigError, DataError
from pipeline.training.metrics import evaluate, importance, mean_loss
from pipeline.training.model import Model, Predictions, build_estimator

Floats = NDArray[np.float64]
PREDICTION = "prediction"


@dataclass(frozen=True)
class Curve:
    """Loss against effort, on fitted and held-out rows.

    Attributes
    ----------
    label : str
        What the horizontal axis counts.
    steps : list of int
        Boosting rounds, or rows fitted.
    fitted, heldout : list of float
        Loss at each step.
    """

    label: str
    steps: list[int]
    fitted: list[float]
    heldout: list[float]


@dataclass(frozen=True)
class Trained:
    """What training made.

    Attributes
    ----------
    model : Model
        Fitted on all labelled rows of the window; what serves.
    judged : Model
        Fitted without the held-out rows; what `scores` are of.
    heldout : DataFrame
        Held-out rows with the target and `judged`'s ``prediction``.
    scores, baseline : dict of str to float
        Of `judged` and of the trivial baseline, on the held-out rows.
    trivial : float
        What the baseline predicts for every row: the mean of the older targets.
    curve : Curve
        How the loss of `judged` came about.
    importance : dict of str to float
        Loss added on held-out rows when a column is shuffled, largest first.
    fitted_rows : int
        Rows `model` was fitted on.
    """

    model: Model
    judged: Model
    heldout: pd.DataFrame
    scores: dict[str, float]
    baseline: dict[str, float]
    trivial: float
    curve: Curve
    importance: dict[str, float]
    fitted_rows: int


def train(rows: pd.DataFrame, data: Data, training: Training, *, task: str) -> Trained:
    """Fit, judge on held-out rows, fit again on all.

    Parameters
    ----------
    rows : DataFrame
        Valid labelled rows of the window.
    data : Data
        Columns and their roles.
    training : Training
        Estimator, parameters, length of the holdout, seed.
    task : str
        ``classification`` or ``regression``.

    Raises
    ------
    DataError
        If either side of the split is empty or the target is not what the task needs.
    ConfigError
        If the estimator or its parameters are wrong.
    """
    require(rows, [data.time, data.target])
    _check_target(rows, data, task)
    newest = rows[data.time] >= rows[data.time].max() - training.holdout
    older, heldout = rows[~newest], rows[newest].reset_index(drop=True)
    if older.empty or heldout.empty:
        message = (
            "The training window must be longer than training.holdout "
            f"({spelled(training.holdout)}). Got {len(older)} rows before it and "
            f"{len(heldout)} in it. Give more history."
        )
        raise DataError(message)
    _check_variety(older, data, "before training.holdout")
    judged, curve = _fit_judged(older, heldout, data, training, task)
    predictions = judged.predict(heldout)
    target = heldout[data.target].to_numpy(dtype=np.float64)
    trivial = float(older[data.target].mean())
    return Trained(
        model=_fit(rows, data, training, task),
        judged=judged,
        heldout=heldout.assign(**{PREDICTION: predictions}),
        scores=evaluate(task, target, predictions),
        baseline=evaluate(task, target, np.full(len(heldout), trivial)),
        trivial=trivial,
        curve=curve,
        importance=importance(judged, heldout, data.target, seed=training.seed),
        fitted_rows=len(rows),
    )


def _check_target(rows: pd.DataFrame, data: Data, task: str) -> None:
    if rows.empty:
        message = "The training rows must hold labelled rows. Got none. Check data.label_delay."
        raise DataError(message)
    target = rows[data.target]
    text = pd.api.types.is_string_dtype(target)
    if task == "classification":
        rule, right = "0 and 1 only", target.isin([0, 1]) & (not text)
    else:
        numbers = pd.to_numeric(target, errors="coerce").to_numpy("float64", na_value=np.nan)
        rule, right = "finite numbers only", np.isfinite(numbers) & (not text)
    wrong = [repr(value) for value in target[~right].drop_duplicates()[:5].tolist()]
    if wrong:
        message = (
            f"Target {data.target!r} must hold {rule}. Got {', '.join(wrong)}. Fix the source."
        )
        raise DataError(message)
    _check_variety(rows, data, "of the training window")


def _check_variety(rows: pd.DataFrame, data: Data, where: str) -> None:
    target = rows[data.target]
    if target.nunique() < 2:  # noqa: PLR2004 -- nothing to learn from one value
        message = (
            f"Target {data.target!r} must hold at least two values in the rows {where}. "
            f"Got {target.iloc[0]} in all {len(target)}. Give more history."
        )
        raise DataError(message)


def _unfitted(data: Data, training: Training, task: str) -> Any:
    estimator = build_estimator(
        training.estimator, training.params, data.features, seed=training.seed
    )
    if getattr(estimator, "early_stopping_rounds", None) is not None:
        message = (
            "training.params must not hold early_stopping_rounds: held-out rows would choose the "
            f"rounds. Got {estimator.early_stopping_rounds}. Set n_estimators."
        )
        raise ConfigError(message)
    suits = is_regressor if task == "regression" else is_classifier
    if suits(estimator) and (task == "regression" or hasattr(estimator, "predict_proba")):
        return estimator
    wanted = "a regressor" if task == "regression" else "a classifier with predict_proba"
    message = (
        f"training.estimator must be {wanted} for the task {task}. Got {training.estimator}. "
        "Name another or change task."
    )
    raise ConfigError(message)


@contextmanager
def _fitting(training: Training) -> Iterator[None]:
    """Rows and target were checked, so what an estimator still refuses is its parameters."""
    try:
        yield
    except (TypeError, ValueError) as error:
        got = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
        message = (
            f"training.params must suit {training.estimator}. Got: {got}. See its documentation."
        )
        raise ConfigError(message) from error


def _fit(rows: pd.DataFrame, data: Data, training: Training, task: str) -> Model:
    estimator = _unfitted(data, training, task)
    model = Model(task, data.features, known_categories(rows, data.features), estimator)
    x, y = model.encode(rows), rows[data.target].to_numpy(dtype=np.float64)
    with _fitting(training):
        estimator.fit(x, y)
    return model


def out_of_sample(
    model: Model,
    known: pd.DataFrame,
    rows: pd.DataFrame,
    data: Data,
    training: Training,
    *,
    length: pd.Timedelta,
) -> Predictions:
    """What the model answers for rows it was not fitted on, as it will for live ones.

    Every other stretch of `length` is predicted by a fit of the stretches between: answers to
    rows that a model has learnt are more extreme than to any others. A half that cannot be
    fitted alone leaves the model's own answers.

    Parameters
    ----------
    model : Model
        Fitted on `known`.
    known : DataFrame
        Labelled rows of the window.
    rows : DataFrame
        Rows to be predicted, those of `known` among them.
    data : Data
        Columns and their roles.
    training : Training
        Estimator, parameters and seed.
    length : Timedelta
        Length of a stretch.
    """
    start = rows[data.time].min().normalize()
    of_rows, of_known = (
        ((frame[data.time] - start) // length % 2).to_numpy() for frame in (rows, known)
    )
    fits = [known[of_known != half] for half in (0, 1)]
    predictions = model.predict(rows)
    if any(fit[data.target].nunique() < 2 for fit in fits):  # noqa: PLR2004 -- nothing to learn
        return predictions
    for half, fit in enumerate(fits):
        other = _fit(fit, data, training, model.task)
        predictions[of_rows == half] = other.predict(rows[of_rows == half])
    return predictions


def _fit_judged(
    older: pd.DataFrame, heldout: pd.DataFrame, data: Data, training: Training, task: str
) -> tuple[Model, Curve]:
    estimator = _unfitted(data, training, task)
    model = Model(task, data.features, known_categories(older, data.features), estimator)
    x, y = model.encode(older), older[data.target].to_numpy(dtype=np.float64)
    ahead, truth = model.encode(heldout), heldout[data.target].to_numpy(dtype=np.float64)
    if not hasattr(estimator, "get_booster"):
        with _fitting(training):
            return model, _sizes(model, (x, y), (ahead, truth))
    metric, power = ("rmse", 2) if task == "regression" else ("logloss", 1)
    estimator.set_params(eval_metric=metric)
    with _fitting(training):
        estimator.fit(x, y, eval_set=[(x, y), (ahead, truth)], verbose=False)
    fitted, tested = (
        [float(value) ** power for value in log[metric]]
        for log in estimator.evals_result().values()
    )
    return model, Curve("boosting rounds", list(range(1, len(fitted) + 1)), fitted, tested)


def _sizes(model: Model, rows: tuple[Matrix, Floats], heldout: tuple[Matrix, Floats]) -> Curve:
    """The newest quarter, half and all of the rows; the last fit is the one that stays."""
    x, y = rows
    steps, fitted, tested = [], [], []
    for share in (4, 2, 1):
        n = len(x) // share
        if n == 0 or len(np.unique(y[-n:])) < 2:  # noqa: PLR2004 -- one class cannot be fitted
            continue
        model.estimator.fit(x[-n:], y[-n:])
        steps.append(n)
        fitted.append(mean_loss(model, x[-n:], y[-n:]))
        tested.append(mean_loss(model, *heldout))
    return Curve("rows fitted", steps, fitted, tested)
