"""Turns labelled rows into a model: fitted, judged on held-out rows, and fitted again.

The window is split by time. A first fit on the older rows is judged on the newer, held-out rows,
which it has not seen; the model that serves is then fitted on all rows.
"""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from pipeline.columns import Floats, Matrix, known_categories, require
from pipeline.config import Data, Training, spelled
from pipeline.errors import DataError
from pipeline.training.estimators import suiting, unfitted
from pipeline.training.metrics import class_metrics, compute_metrics, importance, mean_loss
from pipeline.training.model import Model, Predictions
from pipeline.training.predictions import (
    PREDICTION,
    as_cells,
    baseline,
)
from pipeline.training.soundness import LOOKED_AT, require_sound
from pipeline.training.target import check_logarithm, check_variety, checked_target

FEWEST_HELDOUT = 20
"""Rows that a version is judged on at least: `promotion.min_rows` cannot be set lower."""
_EVALUATED = {
    "log_loss": ("logloss", 1),
    "squared_error": ("rmse", 2),
    "mae": ("mae", 1),
    "squared_log_error": ("rmsle", 2),
}
"""XGBoost's metric of each loss, and the power of it that is the loss."""
_OF_SEVERAL = ("mlogloss", 1)


@dataclass(frozen=True)
class Curve:
    """A learning curve: the loss on fitted and on held-out rows, step by step.

    Attributes
    ----------
    label : str
        What the horizontal axis counts.
    steps : list of int
        Boosting rounds, or numbers of rows fitted.
    fitted, heldout : list of float
        Loss at each step.
    """

    label: str
    steps: list[int]
    fitted: list[float]
    heldout: list[float]


@dataclass(frozen=True)
class Trained:
    """A trained model and how it was judged.

    Attributes
    ----------
    model : Model
        The model that serves, fitted on all labelled rows of the window.
    judged : Model
        The model fitted without the held-out rows, to which `metrics` belong.
    heldout : DataFrame
        Held-out rows with the target and, as `PREDICTION`, what `judged` predicts.
    metrics, baseline : dict of str to float
        Metrics of `judged` and of the trivial baseline, on the held-out rows.
    trivial : array of float, shape (n_rows,) or (n_rows, n_classes)
        The baseline's prediction of the held-out rows: the mean target of the older rows, or the
        shares of their classes.
    curve : Curve
        Learning curve of `judged`.
    importance : dict of str to float
        Loss added on held-out rows when a column is shuffled, largest first.
    fitted_rows : int
        Number of rows that `model` was fitted on.
    loss : str
        The metric by which models are compared.
    importance_ends : dict of str to tuple of two floats
        Ends of the 95% interval of each column's importance.
    of_classes : dict of str to float
        Share, recall and precision of each class, where there are three or more.
    """

    model: Model
    judged: Model
    heldout: pd.DataFrame
    metrics: dict[str, float]
    baseline: dict[str, float]
    trivial: Predictions
    curve: Curve
    importance: dict[str, float]
    fitted_rows: int
    loss: str
    importance_ends: dict[str, tuple[float, float]] = field(default_factory=dict)
    of_classes: dict[str, float] = field(default_factory=dict)


def train(rows: pd.DataFrame, data: Data, training: Training, *, task: str) -> Trained:
    """Fit a model, judge it on held-out rows, and fit it again on all rows.

    Parameters
    ----------
    rows : DataFrame
        Valid labelled rows of the window.
    data : Data
        Declared columns and their roles.
    training : Training
        Estimator, parameters, length of the holdout, seed.
    task : str
        ``classification`` or ``regression``.

    Raises
    ------
    DataError
        If either part of the split is empty, or the target does not suit the task.
    ConfigError
        If the estimator or its parameters are wrong.
    """
    require(rows, [data.time, data.target])
    if rows.empty:
        message = "The training window has no labelled rows. See data.label_delay and data.labels."
        raise DataError(message)
    loss = training.metric(task)
    rows = rows.assign(**{data.target: checked_target(rows, data, task, nullable=False)})
    check_logarithm(rows[data.target], loss)
    check_variety(rows, data, "of the training window")
    older, heldout = split(rows, data, training)
    judged, curve = fit_judged(older, heldout, data, training, task=task, loss=loss)
    added, ends = importance(judged, heldout, data.target, loss=loss, seed=training.seed)
    predictions = judged.predict(heldout)
    target = heldout[data.target].to_numpy(dtype=np.float64)
    trivial = baseline(older[data.target].to_numpy(dtype=np.float64), data.several, len(heldout))
    return Trained(
        model=fit(rows, data, training, task),
        judged=judged,
        heldout=heldout.assign(**{PREDICTION: as_cells(predictions)}),
        metrics=compute_metrics(task, target, predictions),
        baseline=compute_metrics(task, target, trivial),
        of_classes=class_metrics(target, predictions, data.several),
        trivial=trivial,
        curve=curve,
        importance=added,
        fitted_rows=len(rows),
        loss=loss,
        importance_ends=ends,
    )


def split(rows: pd.DataFrame, data: Data, training: Training) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split labelled rows into the rows that a version is judged on and the rows before.

    Raises
    ------
    DataError
        If either part is too small, or the older part holds a single target.
    """
    holdout = training.holdout
    newest = rows[data.time] >= rows[data.time].max() - holdout
    older, heldout = rows[~newest], rows[newest].reset_index(drop=True)
    if older.empty or heldout.empty:
        message = (
            f"The training window must be longer than training.holdout ({spelled(holdout)}). "
            f"Got {len(older)} rows before it and {len(heldout)} in it. Give more history."
        )
        raise DataError(message)
    if len(heldout) < FEWEST_HELDOUT:
        newest_times = ", ".join(f"{at:%Y-%m-%d %H:%M}" for at in heldout[data.time].head(3))
        message = (
            f"training.holdout ({spelled(holdout)}) must hold at least {FEWEST_HELDOUT} rows. Got "
            f"{len(heldout)}, at {newest_times}, after {older[data.time].max():%Y-%m-%d %H:%M}. "
            "If these times are wrong, correct them; else hold out a longer part."
        )
        raise DataError(message)
    check_variety(older, data, "before training.holdout")
    return older, heldout


def fit(rows: pd.DataFrame, data: Data, training: Training, task: str) -> Model:
    """Fit a model on all of some labelled rows, and look at what it predicts of them.

    Raises
    ------
    ConfigError
        If the estimator or its parameters are wrong.
    """
    model = fit_only(rows, data, training, task)
    require_sound(model, model.encode(rows.head(LOOKED_AT)), training)
    return model


def fit_only(rows: pd.DataFrame, data: Data, training: Training, task: str) -> Model:
    """Fit a model without a look at what it predicts, such as on made-up rows.

    Raises
    ------
    ConfigError
        If the estimator or its parameters are wrong.
    """
    model = _unfitted_model(rows, data, training, task)
    x, y = model.encode(rows), rows[data.target].to_numpy(dtype=np.float64)
    with suiting(training.estimator):
        model.fit(x, y)
    return model


def _unfitted_model(rows: pd.DataFrame, data: Data, training: Training, task: str) -> Model:
    """A model that knows the labels of some rows, and is not fitted yet."""
    estimator, labels = unfitted(data, training, task), known_categories(rows, data.features)
    return Model(task, data.features, labels, estimator, data.derive, data.several)


def fit_judged(
    older: pd.DataFrame,
    heldout: pd.DataFrame,
    data: Data,
    training: Training,
    *,
    task: str,
    loss: str,
) -> tuple[Model, Curve]:
    """Fit a model on older rows, and follow its loss on newer rows while it is fitted."""
    model = _unfitted_model(older, data, training, task)
    estimator = model.estimator
    x, y = model.encode(older), older[data.target].to_numpy(dtype=np.float64)
    ahead, truth = model.encode(heldout), heldout[data.target].to_numpy(dtype=np.float64)
    if not hasattr(estimator, "get_booster"):
        with suiting(training.estimator):
            curve = _sizes(model, (x, y), (ahead, truth), loss)
        require_sound(model, ahead, training)
        return model, curve
    own, several = model.coded(y), len(model.seen) > 2  # noqa: PLR2004 -- XGBoost's name for more
    everything = ahead
    if model.classes:  # XGBoost cannot evaluate a class that it was not fitted on
        known = np.isin(truth, model.seen)
        ahead, truth = ahead[known], np.searchsorted(model.seen, truth[known]).astype(np.float64)
    metric, power = _OF_SEVERAL if several else _EVALUATED[loss]
    estimator.set_params(eval_metric=metric)
    with suiting(training.estimator):
        estimator.fit(x, own, eval_set=[(x, own), (ahead, truth)], verbose=False)
        logs = estimator.evals_result().values()
    require_sound(model, everything, training)
    fitted, tested = ([float(value) ** power for value in log[metric]] for log in logs)
    return model, Curve("boosting rounds", list(range(1, len(fitted) + 1)), fitted, tested)


def _sizes(
    model: Model, rows: tuple[Matrix, Floats], heldout: tuple[Matrix, Floats], loss: str
) -> Curve:
    """Fit the newest quarter, the newest half and all of the rows; the last fit stays."""
    x, y = rows
    steps, fitted, tested = [], [], []
    for share in (4, 2, 1):
        n = len(x) // share
        if n == 0 or len(np.unique(y[-n:])) < 2:  # noqa: PLR2004 -- one class cannot be fitted
            continue
        model.fit(x[-n:], y[-n:])
        steps.append(n)
        fitted.append(mean_loss(model, x[-n:], y[-n:], loss))
        tested.append(mean_loss(model, *heldout, loss))
    return Curve("rows fitted", steps, fitted, tested)
