"""How good predictions are: the loss of each row, metrics of many, and what each column adds."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.inspection import permutation_importance
from sklearn.metrics import (
    brier_score_loss,
    log_loss,
    mean_absolute_error,
    r2_score,
    roc_auc_score,
    root_mean_squared_error,
)

from pipeline.columns import Matrix
from pipeline.training.model import Model, Predictions

Floats = NDArray[np.float64]
LOSS = {"classification": "log_loss", "regression": "squared_error"}
"""What is compared between models and over time; smaller is better."""


_EDGE = 1e-7
"""Chances are kept this far from 0 and 1, or one row could decide everything."""


_IMPORTANCE_ROWS = 4_000


def mean_loss(model: Model, x: Matrix, y: Floats) -> float:
    """Mean loss of a model on encoded rows and their targets."""
    return float(losses(model.task, y, model.predict_encoded(x)).mean())


def losses(task: str, target: Floats, predictions: Predictions) -> Floats:
    """Loss of each row, shape (n_rows,): log-loss in nats, or squared error."""
    if task == "regression":
        return np.square(target - predictions)
    chance = np.clip(predictions, _EDGE, 1 - _EDGE)
    return -np.where(target == 1, np.log(chance), np.log1p(-chance))


def evaluate(task: str, target: Floats, predictions: Predictions) -> dict[str, float]:
    """Scores of predictions against the truth, by scikit-learn.

    Returns
    -------
    dict of str to float
        Classification: log_loss, roc_auc (NaN when only one class is there), brier.
        Regression: squared_error, rmse, mae, r2.
    """
    if task == "regression":
        rmse = float(root_mean_squared_error(target, predictions))
        return {
            "squared_error": rmse**2,
            "rmse": rmse,
            "mae": float(mean_absolute_error(target, predictions)),
            "r2": float(r2_score(target, predictions)) if len(target) > 1 else float("nan"),
        }
    chance = np.clip(predictions, _EDGE, 1 - _EDGE)
    both = len(np.unique(target)) > 1
    return {
        "log_loss": float(log_loss(target, chance, labels=[0, 1])),
        "roc_auc": float(roc_auc_score(target, predictions)) if both else float("nan"),
        "brier": float(brier_score_loss(target, chance, labels=[0, 1])),
    }


def importance(model: Model, rows: pd.DataFrame, target: str, *, seed: int) -> dict[str, float]:
    """Loss added when a column is shuffled, by scikit-learn's permutation importance.

    Parameters
    ----------
    model : Model
        The fitted model.
    rows : DataFrame
        Labelled rows it was not fitted on; at most 4,000 of them are used.
    target : str
        Column of the truth.
    seed : int
        Of the sample and the shuffles.

    References
    ----------
    Breiman (2001), Machine Learning 45(1): 5-32.
    """
    sample = rows.sample(min(len(rows), _IMPORTANCE_ROWS), random_state=seed)

    def negative_loss(fitted: Any, x: Matrix, y: Floats) -> float:
        del fitted
        return -mean_loss(model, x, y)

    found = permutation_importance(
        model.estimator,
        model.encode(sample),
        sample[target].to_numpy(dtype=np.float64),
        scoring=negative_loss,
        n_repeats=3,
        random_state=seed,
    )
    named = zip(model.columns, found.importances_mean.tolist(), strict=True)
    return dict(sorted(named, key=lambda pair: -pair[1]))
