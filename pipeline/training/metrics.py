"""How good predictions are: loss per row, metrics of many rows, importance of columns."""

from typing import Any

import numpy as np
import pandas as pd
from sklearn.inspection import permutation_importance
from sklearn.metrics import (
    brier_score_loss,
    log_loss,
    mean_absolute_error,
    r2_score,
    roc_auc_score,
    root_mean_squared_error,
)

from pipeline.columns import Floats, Matrix
from pipeline.training.model import Model, Predictions

LOSS = {"classification": "log_loss", "regression": "squared_error"}
"""The metric by which models are compared, for each task; smaller is better."""
_EDGE = 1e-7
"""Probabilities are kept this far from 0 and 1, or a single row could decide everything."""
_IMPORTANCE_ROWS = 4_000


def mean_loss(model: Model, x: Matrix, y: Floats) -> float:
    """Compute the mean loss of a model on encoded rows and their targets."""
    return float(losses(model.task, y, model.predict_encoded(x)).mean())


def losses(task: str, target: Floats, predictions: Predictions) -> Floats:
    """Compute the loss of each row, shape (n_rows,): log-loss in nats, or squared error."""
    if task == "regression":
        return np.square(target - predictions)
    chance = np.clip(predictions, _EDGE, 1 - _EDGE)
    return -np.where(target == 1, np.log(chance), np.log1p(-chance))


def compute_metrics(task: str, target: Floats, predictions: Predictions) -> dict[str, float]:
    """Compare predictions with the truth by the metrics of scikit-learn.

    Returns
    -------
    dict of str to float
        Classification: log_loss, roc_auc (NaN if the target has one class only), brier.
        Regression: squared_error, rmse, mae, r2 (NaN for a single row).
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
    """Compute how much loss is added when a column is shuffled (permutation importance).

    Parameters
    ----------
    model : Model
        The fitted model.
    rows : DataFrame
        Labelled rows that it was not fitted on; at most 4,000 of them are used.
    target : str
        Name of the target column.
    seed : int
        Seed of the sample and the shuffles.

    Returns
    -------
    dict of str to float
        Added loss by column, largest first.

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
