"""Predictions beside other columns: one cell per row, and what of them is compared."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.columns import Floats
from pipeline.config import RESERVED, Categorical, Columns, Numeric
from pipeline.training.model import Model, Predictions

PREDICTION = f"{RESERVED}prediction"
HALVED = f"{RESERVED}halved"
PREVIOUS = f"{RESERVED}previous"
BASELINE = f"{RESERVED}baseline"
ROW_LOSS = f"{RESERVED}loss"
"""Names of the columns of predictions, of those by the two half fits, by the champion before, and
of the trivial baseline, and of losses."""
SLICE = f"{RESERVED}slice "
"""Beginning of the names of the columns of slices that rows belong to."""
CONFIDENCE = f"{RESERVED}confidence"
"""Name of the column of the probability of the predicted class, where there are three or more."""


def as_cells(predictions: Predictions) -> Any:
    """One cell per row for a column of a frame: a number, or the probabilities of all classes."""
    return predictions if predictions.ndim == 1 else list(predictions)


def of_cells(values: pd.Series) -> Predictions:
    """Read back a column of `as_cells`."""
    if values.dtype == object and len(values):
        return np.stack([np.asarray(cell, dtype=np.float64) for cell in values])
    return values.to_numpy(dtype=np.float64)


def labels_of(predictions: Predictions, classes: Sequence[str]) -> pd.Series:
    """The likeliest class of each row, of three or more."""
    places = predictions.argmax(axis=1) if len(predictions) else np.empty(0, dtype=np.intp)
    return pd.Series(np.array(classes, dtype=object)[places], dtype="str")


def in_columns(
    predictions: Predictions, classes: Sequence[str], name: str = PREDICTION
) -> dict[str, Any]:
    """Columns in which predictions of live rows are compared with those of the reference.

    A number is compared as it is. Of several classes it is the likeliest one, whose shares are
    compared, and its probability, which says how sure the model is.
    """
    if not classes:
        return {name: predictions}
    surest = predictions.max(axis=1) if len(predictions) else np.empty(0)
    return {name: labels_of(predictions, classes).to_numpy(), CONFIDENCE: surest}


def columns_of(classes: Sequence[str]) -> Columns:
    """Declarations of the columns of `in_columns`."""
    if not classes:
        return {PREDICTION: Numeric()}
    return {PREDICTION: Categorical(), CONFIDENCE: Numeric()}


def baseline(target: Floats, classes: Sequence[str], n: int) -> Predictions:
    """Predict `n` rows by the mean of a target, or by the shares of its classes."""
    if not classes:
        return np.full(n, target.mean())
    shares = np.bincount(target.astype(np.intp), minlength=len(classes)) / len(target)
    return np.tile(shares, (n, 1))


def figures(predictions: Predictions, classes: Sequence[str]) -> dict[str, float]:
    """What is charted of the predictions of a batch: their mean, or the share of each class."""
    if not classes:
        return {"mean_prediction": float(predictions.mean()) if len(predictions) else np.nan}
    shares = labels_of(predictions, classes).value_counts(normalize=True)
    return {f"predicted/{label}": float(shares.get(label, 0.0)) for label in classes}


def halves_of(keys: pd.Series) -> NDArray[np.intp]:
    """Draw 0 or 1 for each key, the same whenever the key comes, shape (n_rows,)."""
    hashed = pd.util.hash_pandas_object(keys.astype("str"), index=False)
    return (hashed.to_numpy() >> np.uint64(32) & np.uint64(1)).astype(np.intp)


def predict_by_halves(
    models: Sequence[Model], rows: pd.DataFrame, halves: NDArray[np.intp]
) -> Predictions:
    """Predict each row by the model whose place `halves` names."""
    parts = [model.predict(rows[halves == half]) for half, model in enumerate(models)]
    predictions = np.empty((len(rows), *parts[0].shape[1:]))
    for half, part in enumerate(parts):
        predictions[halves == half] = part
    return predictions
