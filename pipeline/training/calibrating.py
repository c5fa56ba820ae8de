"""Fits a calibration by cross-fitted predictions, and keeps it where it helps on later rows.

The judged fit is calibrated by predictions of the rows that it was fitted on, each by a fit that
had not seen it, and its held-out rows say whether that helps. Held-out rows alone would not do to
fit it: they show how the world moved as well, which the model that serves has learned from them.
"""

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from pipeline.columns import Floats
from pipeline.config import Data, Training
from pipeline.training.calibration import Calibration, Kind, log_odds
from pipeline.training.fitting import Trained, split
from pipeline.training.metrics import class_metrics, compute_metrics, losses
from pipeline.training.model import Model, Predictions
from pipeline.training.predictions import PREDICTION, as_cells, of_cells
from pipeline.training.unseen import cross_fit

GAIN = "calibration_gain"
"""Metric: by what share a calibration lowers the log-loss of held-out rows, kept or left out."""
_GRID, _HIGHEST = 0.2, 4.6
"""Log-odds are rounded for an isotonic curve, and above a chance of 0.99 are one: else it could be
so steep that the last bits of a float32 would show, which differ between ways of adding up trees.
"""
_FREE = 1e4
"""Inverse of the penalty on the slope, which is felt only where classes are quite apart."""


def calibrated(
    trained: Trained, rows: pd.DataFrame, data: Data, training: Training, *, length: pd.Timedelta
) -> Trained:
    """Calibrate a training as its settings ask for, if that lowers the log-loss of held-out rows.

    Parameters
    ----------
    trained : Trained
        As `train` made it.
    rows : DataFrame
        The labelled rows that it was made from.
    data : Data
        Declared columns and their roles.
    training : Training
        Kind of the calibration, and how a model is fitted.
    length : Timedelta
        Length of the stretches that are cross-fitted.

    Returns
    -------
    Trained
        With `GAIN` among its metrics. If the calibration is kept, the model has one that was fitted
        on all rows, and metrics and held-out predictions are those of the judged fit, calibrated by
        the rows before; else they are as they were.
    """
    if training.calibration is None:
        return trained
    fitting_of = partial(_cross_fitted, data=data, training=training, length=length)
    older, _ = split(rows, data, training)
    judged = replace(trained.judged, calibration=fitting_of(trained.judged, older))
    target = trained.heldout[data.target].to_numpy(dtype=np.float64)
    raw, moved = of_cells(trained.heldout[PREDICTION]), judged.predict(trained.heldout)
    before, after = (float(losses("log_loss", target, one).mean()) for one in (raw, moved))
    gain = 1 - after / before if before else 0.0
    if gain <= 0:
        return replace(trained, metrics=trained.metrics | {GAIN: gain})
    return replace(
        trained,
        model=replace(trained.model, calibration=fitting_of(trained.model, rows)),
        judged=judged,
        heldout=trained.heldout.assign(**{PREDICTION: as_cells(moved)}),
        metrics=compute_metrics("classification", target, moved) | {GAIN: gain},
        of_classes=class_metrics(target, moved, data.several),
    )


def _cross_fitted(
    model: Model, rows: pd.DataFrame, *, data: Data, training: Training, length: pd.Timedelta
) -> Calibration:
    """A calibration by predictions of the rows of a model, each by a fit that had not seen it."""
    assert training.calibration is not None  # noqa: S101 -- asked before
    _, predictions = cross_fit(model, rows, rows, data, training, length=length)
    target = rows[data.target].to_numpy(dtype=np.float64)
    return fit_calibration(training.calibration, target, predictions)


def fit_calibration(kind: Kind, target: Floats, predictions: Predictions) -> Calibration:
    """Fit a calibration to classes and chances of rows, one curve for each class of several."""
    if predictions.ndim == 1:
        return Calibration(kind, [_curve(kind, target == 1, predictions)])
    places = range(predictions.shape[1])
    curves = [_curve(kind, target == place, predictions[:, place]) for place in places]
    return Calibration(kind, curves)


def _curve(kind: Kind, own: Floats, chances: Floats) -> tuple[list[float], list[float]]:
    """A curve for the rows of a class; empty where there is nothing to fit."""
    if len(np.unique(own)) < 2 or np.ptp(chances) == 0:  # noqa: PLR2004 -- all rows or none
        return [], []
    odds, truth = log_odds(chances), own.astype(np.float64)
    if kind == "isotonic":
        least = 1 / (len(own) + 2)  # as sure as so many rows can be: the rule of succession
        fit = IsotonicRegression(y_min=least, y_max=1 - least, increasing=True)
        fit.fit(np.minimum(np.round(odds / _GRID) * _GRID, _HIGHEST), truth)
        return fit.X_thresholds_.tolist(), fit.y_thresholds_.tolist()
    line = LogisticRegression(C=_FREE).fit(odds[:, None], truth)
    slope, intercept = float(line.coef_[0, 0]), float(line.intercept_[0])
    return ([slope], [intercept]) if slope > 0 else ([], [])
