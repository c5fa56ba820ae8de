"""Predictions of rows by models that were not fitted on them, as a model predicts live rows."""

from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.config import Data, Training
from pipeline.training.calibration import Calibration
from pipeline.training.fitting import FEWEST_HELDOUT, fit
from pipeline.training.model import Model, Predictions
from pipeline.training.predictions import (
    BASELINE,
    PREDICTION,
    as_cells,
    baseline,
    halves_of,
    predict_by_halves,
)

_FORWARD = 2
"""Stretches before the held-out rows that a version is judged on as well, at most."""


def forward(
    rows: pd.DataFrame,
    data: Data,
    training: Training,
    *,
    task: str,
    since: pd.Timestamp,
    calibration: Calibration | None = None,
) -> pd.DataFrame:
    """Predict earlier stretches too, each by a model that is fitted on the rows before it.

    A version is asked for where the champion did badly. On these rows alone any other model looks
    better than it is (regression to the mean), so it is judged on the stretches before as well.

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
    since : Timestamp
        The stretches, as long as the holdout, end before it and start then or later.
    calibration : Calibration or None
        Of the version, fitted on all rows.

    Returns
    -------
    DataFrame
        Rows of up to two stretches, oldest first, with prediction and trivial
        baseline of each (`PREDICTION` and `BASELINE`); it is empty where there is no such stretch.
    """
    length, end = training.holdout, rows[data.time].max() - training.holdout
    found: list[pd.DataFrame] = []
    while len(found) < _FORWARD and end - length >= since:
        older = rows[rows[data.time] < end - length]
        block = rows[(rows[data.time] >= end - length) & (rows[data.time] < end)]
        if len(block) < FEWEST_HELDOUT or older[data.target].nunique() < 2:  # noqa: PLR2004 -- nothing to learn from one value
            break
        fitted = replace(fit(older, data, training, task), calibration=calibration)
        predictions = fitted.predict(block)
        known = older[data.target].to_numpy(dtype=np.float64)
        trivial = baseline(known, data.several, len(block))
        own = {PREDICTION: as_cells(predictions), BASELINE: as_cells(trivial)}
        found.insert(0, block.assign(**own))
        end -= length
    return pd.concat(found, ignore_index=True) if found else rows[:0]


def cross_fit(
    model: Model,
    known: pd.DataFrame,
    rows: pd.DataFrame,
    data: Data,
    training: Training,
    *,
    length: pd.Timedelta,
) -> tuple[tuple[Model, ...], Predictions]:
    """Predict rows by models that were not fitted on them, as a model predicts live rows.

    Predictions of rows that a model was fitted on are more extreme than those of other rows.
    Time is cut into stretches of `length`; every other stretch is predicted by a model that is
    fitted on the stretches in between. If either half of the stretches cannot be fitted alone,
    the halves are drawn by row; if these cannot be fitted either, `model` itself predicts.

    Predictions of live rows can be compared with these only if the same two models make them,
    each half of the rows, drawn at random: `Bundle.predict_as_reference`.

    Parameters
    ----------
    model : Model
        Fitted on `known`; the two models are calibrated as it is.
    known : DataFrame
        Labelled rows of the window.
    rows : DataFrame
        Rows to predict; `known` is a part of them.
    data : Data
        Declared columns and their roles.
    training : Training
        Estimator, parameters and seed.
    length : Timedelta
        Length of a stretch.

    Returns
    -------
    tuple of Model
        The two models; empty if `model` itself predicted.
    array of float, shape (n_rows,) or (n_rows, n_classes)
        Predictions of `rows`.
    """
    start = rows[data.time].min().normalize()

    def stretch(frame: pd.DataFrame) -> NDArray[np.intp]:
        return np.asarray((frame[data.time] - start) // length % 2, dtype=np.intp)

    def coin(frame: pd.DataFrame) -> NDArray[np.intp]:
        return halves_of(frame[data.key])

    for half_of in (stretch, coin):
        parts = half_of(known)
        fits = [known[parts != half] for half in (0, 1)]
        if all(half[data.target].nunique() >= 2 for half in fits):  # noqa: PLR2004 -- one class cannot be fitted
            models = tuple(
                replace(fit(half, data, training, model.task), calibration=model.calibration)
                for half in fits
            )
            return models, predict_by_halves(models, rows, half_of(rows))
    return (), model.predict(rows)
