"""What each column adds to a prediction: TreeSHAP, as XGBoost computes it of its own trees.

Contributions are in units of the margin (log-odds of a binary target), and with the base they sum
to it. Lundberg et al. (2020), Nature Machine Intelligence 2: 56-67.
"""

import numpy as np

from pipeline.columns import Floats, Matrix
from pipeline.config import Categorical
from pipeline.errors import ConfigError
from pipeline.training.model import Model


def is_explainable(model: Model) -> bool:
    """Whether contributions of columns can be computed."""
    return hasattr(model.estimator, "get_booster")


def check_explainable(model: Model) -> None:
    """Refuse a model whose predictions are not explained.

    Raises
    ------
    ConfigError
        If it is not a model of XGBoost.
    """
    if not is_explainable(model):
        got = type(model.estimator).__name__
        message = f"Contributions of columns are computed for models of XGBoost only. Got {got}."
        raise ConfigError(message)


def contributions(model: Model, matrix: Matrix) -> Matrix:
    """Compute contributions of columns to the margins of encoded rows.

    Of three or more classes, they are contributions to the margin of the likeliest class.

    Parameters
    ----------
    model : Model
        A model of XGBoost.
    matrix : array of float, shape (n_rows, n_columns)
        Encoded rows.

    Returns
    -------
    array of float, shape (n_rows, n_columns + 1)
        Of each column, and last the base: the mean margin of the fitted rows.
    """
    import xgboost  # noqa: PLC0415 -- slow to import; models of other kinds do without

    kinds = ["c" if isinstance(one, Categorical) else "q" for one in model.columns.values()]
    rows = xgboost.DMatrix(
        matrix, missing=model.estimator.missing, feature_types=kinds, enable_categorical=True
    )
    booster = model.estimator.get_booster()
    found = booster.predict(rows, pred_contribs=True, strict_shape=True)
    groups = np.zeros(len(matrix), dtype=np.intp)
    if found.shape[1] > 1:
        groups = found.sum(axis=2).argmax(axis=1)
    own: Floats = found[np.arange(len(matrix)), groups].astype(np.float64)
    return own
