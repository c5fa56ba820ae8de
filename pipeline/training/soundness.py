"""What a fitted model must show before it is used: that it predicts what its task asks for."""

import numpy as np

from pipeline.columns import Matrix
from pipeline.config import Training
from pipeline.errors import ConfigError
from pipeline.training.estimators import suiting
from pipeline.training.model import Model

LOOKED_AT = 1_000
"""Most rows of those that a model was fitted on whose predictions are looked at."""


def require_sound(model: Model, matrix: Matrix, training: Training) -> None:
    """Refuse a fitted model that does not predict what its task asks for.

    Parameters
    ----------
    model : Model
        As it was fitted.
    matrix : array of float, shape (n_rows, n_columns)
        Encoded rows to predict.
    training : Training
        Estimator and parameters.

    Raises
    ------
    ConfigError
        If a prediction is not a finite number, or that of a classifier is not a probability.
    """
    with suiting(training.estimator):
        found = model.predict_encoded(matrix)
    if found.ndim != (2 if model.classes else 1):
        got = f"{found.shape[-1]} numbers for a row"
    elif not np.isfinite(found).all():
        got = f"{found[~np.isfinite(found)][0]}"
    elif model.task == "classification" and len(found) and (found.min() < 0 or found.max() > 1):
        got = f"numbers from {found.min():.4g} to {found.max():.4g}"
    else:
        return
    wanted = "a finite number" if model.task == "regression" else "a probability from 0 to 1"
    names = " and ".join(f"training.params.{name}" for name in training.params)
    if "objective" in training.params:
        names = "training.params.objective"
    message = (
        f"training.estimator must predict {wanted} of each row. Got {got} from "
        f"{training.estimator}. Correct {names or 'training.estimator'}, or leave it out."
    )
    raise ConfigError(message)
