"""How good predictions are: loss per row, metrics of many rows, importance of columns."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.inspection import permutation_importance
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    log_loss,
    mean_absolute_error,
    r2_score,
    roc_auc_score,
    root_mean_squared_error,
)

from pipeline.columns import Floats, Matrix
from pipeline.training.model import Model, Predictions

_EDGE = 1e-7
"""Probabilities are kept this far from 0 and 1, or a single row could decide everything."""
_IMPORTANCE_ROWS = 4_000
PARTS = 10
"""Parts of the rows, by whose differences intervals are computed."""
Interval = tuple[float, float]


def mean_loss(model: Model, x: Matrix, y: Floats, loss: str) -> float:
    """Compute the mean loss of a model on encoded rows and their targets."""
    return float(losses(loss, y, model.predict_encoded(x)).mean())


def losses(loss: str, target: Floats, predictions: Predictions) -> Floats:
    """Compute the loss of each row, shape (n_rows,).

    Parameters
    ----------
    loss : str
        ``log_loss`` in nats, ``squared_error``, ``mae`` (the absolute error), or
        ``squared_log_error``: the squared error of log(1 + y), for targets above -1.
    target : array of float, shape (n_rows,)
        The truth; places of classes where there are several.
    predictions : array of float, shape (n_rows,) or (n_rows, n_classes)
        What was predicted. A class that the model does not know had no chance.
    """
    if predictions.ndim > 1:
        known = target < predictions.shape[1]
        places = np.where(known, target, 0).astype(np.intp)
        chance = np.where(known, predictions[np.arange(len(target)), places], 0)
        logs: Floats = -np.log(np.clip(chance, _EDGE, 1 - _EDGE))
        return logs
    if loss == "squared_error":
        return np.square(target - predictions)
    if loss == "mae":
        return np.abs(target - predictions)
    if loss == "squared_log_error":
        ones, others = np.log1p(np.maximum([target, predictions], _EDGE - 1))
        squares: Floats = np.square(ones - others)
        return squares
    chance = np.clip(predictions, _EDGE, 1 - _EDGE)
    return -np.where(target == 1, np.log(chance), np.log1p(-chance))


def compute_metrics(task: str, target: Floats, predictions: Predictions) -> dict[str, float]:
    """Compare predictions with the truth by the metrics of scikit-learn.

    Parameters
    ----------
    task : str
        ``classification`` or ``regression``.
    target, predictions : array of float
        As of `losses`.

    Returns
    -------
    dict of str to float
        Classification: log_loss, roc_auc and average_precision (the area below precision by
        recall, for rare ones; both are NaN if the target has one class only), brier, accuracy
        (a probability of 0.5 and more counts as 1), and calibration_error (mean distance of
        predicted and seen shares over ten classes of the prediction, weighted by rows).
        Three or more classes: log_loss, roc_auc (mean over the classes, each against the rest),
        brier (the sum over the classes), and accuracy (of the likeliest class).
        Regression: squared_error, rmse, mae, r2 (NaN for a single row), and squared_log_error
        (only if all targets are above -1).

    References
    ----------
    Naeini, Cooper and Hauskrecht (2015), AAAI, for the calibration error.
    """
    if task == "regression":
        rmse = float(root_mean_squared_error(target, predictions))
        above = target.min() > -1
        logs = losses("squared_log_error", target, predictions) if above else None
        return {
            "squared_error": rmse**2,
            "rmse": rmse,
            "mae": float(mean_absolute_error(target, predictions)),
            "r2": float(r2_score(target, predictions)) if len(target) > 1 else float("nan"),
            **({} if logs is None else {"squared_log_error": float(logs.mean())}),
        }
    if predictions.ndim > 1:
        return _of_several(target, predictions)
    chance = np.clip(predictions, _EDGE, 1 - _EDGE)
    both = len(np.unique(target)) > 1
    return {
        "log_loss": float(log_loss(target, chance, labels=[0, 1])),
        "roc_auc": float(roc_auc_score(target, predictions)) if both else float("nan"),
        "average_precision": float(average_precision_score(target, predictions))
        if both
        else float("nan"),
        "brier": float(brier_score_loss(target, chance, labels=[0, 1])),
        "accuracy": float(accuracy_score(target == 1, predictions >= 0.5)),  # noqa: PLR2004 -- even
        "calibration_error": _calibration_error(target, predictions),
    }


def _of_several(target: Floats, predictions: Predictions) -> dict[str, float]:
    """Metrics of a target of three or more classes."""
    truth, chances = _side_by_side(target, predictions)
    return {
        "log_loss": float(losses("log_loss", target, predictions).mean()),
        "roc_auc": _macro_auc(truth, chances),
        "brier": float(np.square(truth - chances).sum(axis=1).mean()),
        "accuracy": float((chances.argmax(axis=1) == target).mean()),
    }


def _side_by_side(target: Floats, predictions: Predictions) -> tuple[Matrix, Matrix]:
    """The truth as 0 and 1 of each class, and the chances of as many classes."""
    width = max(predictions.shape[1], int(target.max()) + 1)
    missing = width - predictions.shape[1]
    return np.eye(width)[target.astype(np.intp)], np.pad(predictions, ((0, 0), (0, missing)))


def rates(target: Floats, predictions: Predictions) -> dict[str, float]:
    """Mean prediction and mean target of rows: the predicted and the actual rate of two classes.

    Three or more classes have none; `class_metrics` has the share of each.

    Parameters
    ----------
    target, predictions : array of float
        As of `losses`.
    """
    if predictions.ndim > 1 or not len(target):
        return {}
    return {"mean_prediction": float(predictions.mean()), "mean_target": float(target.mean())}


def class_metrics(
    target: Floats, predictions: Predictions, classes: Sequence[str]
) -> dict[str, float]:
    """Compute what of each class came and was found, of a target of three or more classes.

    Parameters
    ----------
    target, predictions : array of float
        As of `losses`.
    classes : sequence of str
        Labels of the classes; empty for any other target.

    Returns
    -------
    dict of str to float
        ``share/<label>`` of the rows and ``recall/<label>`` of each class that occurs, and
        ``precision/<label>`` of each class that is the likeliest one of a row.
    """
    if not classes:
        return {}
    truth, chances = _side_by_side(target, predictions)
    guessed = np.eye(truth.shape[1])[chances.argmax(axis=1)]
    right, came, said = ((truth * guessed).sum(0), truth.sum(0), guessed.sum(0))
    found: dict[str, float] = {}
    for place, label in enumerate(classes[: len(came)]):
        if came[place]:
            found[f"share/{label}"] = float(came[place] / len(target))
            found[f"recall/{label}"] = float(right[place] / came[place])
        if said[place]:
            found[f"precision/{label}"] = float(right[place] / said[place])
    return found


def _macro_auc(truth: Matrix, chances: Matrix) -> float:
    """Mean AUC of each class against the rest; of classes that some rows have and some have not."""
    mixed = [own for own in range(truth.shape[1]) if 0 < truth[:, own].mean() < 1]
    scores = [roc_auc_score(truth[:, own], chances[:, own]) for own in mixed]
    return float(np.mean(scores)) if scores else float("nan")


def _calibration_error(target: Floats, predictions: Predictions) -> float:
    tenth = np.minimum((predictions * 10).astype(int), 9)
    gaps = np.bincount(tenth, weights=predictions - target, minlength=10)
    return float(np.abs(gaps).sum() / len(target))


def importance(
    model: Model, rows: pd.DataFrame, target: str, *, loss: str, seed: int
) -> tuple[dict[str, float], dict[str, Interval]]:
    """Compute how much loss is added when a column is shuffled (permutation importance).

    Parameters
    ----------
    model : Model
        The fitted model.
    rows : DataFrame
        Labelled rows that it was not fitted on; at most 4,000 of them are used.
    target : str
        Name of the target column.
    loss : str
        The loss, as of `losses`.
    seed : int
        Seed of the sample and the shuffles.

    Returns
    -------
    dict of str to float
        Added loss by column, largest first.
    dict of str to tuple of two floats
        Ends of its 95% interval, from the added loss of ten parts of the rows, in their order.

    References
    ----------
    Breiman (2001), Machine Learning 45(1): 5-32.
    """
    sample = rows.sample(min(len(rows), _IMPORTANCE_ROWS), random_state=seed)

    place = np.argsort(np.argsort(sample.index.to_numpy(), kind="stable"), kind="stable")
    parts = place * PARTS // max(len(sample), 1)
    rows_of = np.bincount(parts, minlength=PARTS)
    rows_of = rows_of[rows_of > 0]

    def negative_loss(fitted: Any, x: Matrix, y: Floats) -> dict[str, float]:
        del fitted
        lost = losses(loss, y, model.predict_encoded(x))
        by_part = np.bincount(parts, weights=lost)[: len(rows_of)] / rows_of
        return {"": -float(lost.mean())} | {str(k): -v for k, v in enumerate(by_part.tolist())}

    found = permutation_importance(
        model.estimator,
        model.encode(sample),
        sample[target].to_numpy(dtype=np.float64),
        scoring=negative_loss,
        n_repeats=3,
        random_state=seed,
    )
    added = found[""].importances_mean
    by_part = np.array([found[str(k)].importances_mean for k in range(len(rows_of))])
    weights = rows_of / rows_of.sum()
    error = np.sqrt(np.square(weights[:, None] * (by_part - added)).sum(axis=0))
    reach = _quantile(len(rows_of)) * error * np.sqrt(len(rows_of) / max(len(rows_of) - 1, 1))
    order = np.argsort(-added, kind="stable")
    names = list(model.columns)
    return (
        {names[i]: float(added[i]) for i in order},
        {names[i]: (float(added[i] - reach[i]), float(added[i] + reach[i])) for i in order},
    )


def metric_intervals(task: str, target: Floats, predictions: Predictions) -> dict[str, Interval]:
    """Compute 95% intervals of the metrics of rows in time order.

    Rows near one another depend on one another, so one of ten consecutive parts is left out at a
    time (jackknife).

    References
    ----------
    Kuensch (1989), Ann. Stat. 17(3): 1217-1241, for the jackknife of blocks.
    """
    whole = compute_metrics(task, target, predictions)
    parts = min(PARTS, len(target) // 2)
    if parts < 2:  # noqa: PLR2004 -- a variance needs two
        return {}
    place = np.arange(len(target)) * parts // len(target)
    without = [
        compute_metrics(task, target[place != k], predictions[place != k]) for k in range(parts)
    ]
    found = {}
    for name, value in whole.items():
        values = np.array([one.get(name, np.nan) for one in without])
        error = np.sqrt((parts - 1) * values.var())
        reach = float(_quantile(parts) * error)
        found[name] = (value - reach, value + reach)
    return found


def _quantile(parts: int) -> float:
    """Two-sided 95% quantile of Student's t for an interval from some parts."""
    return float(stats.t.ppf(0.975, max(parts - 1, 1)))
