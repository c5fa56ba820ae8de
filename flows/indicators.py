"""The indicators of a version's training rows, and those of a batch beside them."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from pipeline.columns import as_time
from pipeline.config import Settings
from pipeline.data.validation import Validated
from pipeline.monitoring.indicators import Indicator, compare_indicators
from pipeline.monitoring.means import Baseline
from pipeline.training.bundle import Bundle
from pipeline.training.model import Predictions
from pipeline.training.predictions import HALVED, labels_of, of_cells

VALID: Final = "valid_share"
"""Indicator of the rows that hold the contract, which follows from the refused ones."""


def baselines(settings: Settings, predictions: Predictions, times: pd.Series) -> dict[str, Any]:
    """Baselines of all indicators but that of valid rows, as they are stored.

    Parameters
    ----------
    settings : Settings
        The model's.
    predictions : array of float, shape (n_rows,) or (n_rows, n_classes)
        Of the rows of training, by models that had not seen them.
    times : Series
        Their times.
    """
    length = settings.monitoring.batch
    return {
        name: Baseline.of(pd.Series(values, index=times), length, heavy=False).to_dict()
        for name, values in _of_rows(settings, predictions).items()
    }


def summary_of(stored: dict[str, Any]) -> tuple[float, float]:
    """An indicator, and the standard deviation of sevenths of a batch, as the server shows them."""
    baseline = Baseline.from_dict(stored)
    return baseline.mean, baseline.deviation


def indicators(
    settings: Settings, bundle: Bundle, checked: Validated, predicted: pd.DataFrame
) -> tuple[Indicator, ...]:
    """Compare the indicators of a batch with those of training; versions of before have none.

    Parameters
    ----------
    settings : Settings
        The model's.
    bundle : Bundle
        The champion.
    checked : Validated
        Valid and refused rows of the batch.
    predicted : DataFrame
        Time and predictions of its valid rows.
    """
    time = settings.data.time
    stored: Mapping[str, Any] = (bundle.baseline or {}).get("indicators", {})
    known = {name: Baseline.from_dict(one) for name, one in stored.items()}
    times = pd.Index(predicted[time])
    current = {
        name: pd.Series(values, index=times)
        for name, values in _of_rows(settings, of_cells(predicted[HALVED])).items()
    }
    refused = as_time(checked.quarantined.get(time, pd.Series(dtype=object))).dropna()
    if counts := bundle.manifest.get("refused"):
        known[VALID] = _valid(counts)
        both = np.repeat([1.0, 0.0], [len(times), len(refused)])
        current[VALID] = pd.Series(both, index=[*times, *refused])
    return compare_indicators(known, current, settings.monitoring.batch)


def _of_rows(settings: Settings, predictions: Predictions) -> dict[str, Any]:
    """The number of each row whose mean is an indicator."""
    if classes := settings.data.several:
        likeliest = labels_of(predictions, classes)
        shares = {f"predicted/{one}": (likeliest == one).to_numpy(np.float64) for one in classes}
        return shares | {"mean_confidence": predictions.max(axis=1, initial=0)}
    if settings.task == "classification":
        sure = np.maximum(predictions, 1 - predictions)
        return {"mean_prediction": predictions, "mean_confidence": sure}
    return {"mean_prediction": predictions}


def _valid(counts: list[tuple[int, int]]) -> Baseline:
    """Shares of valid rows of stretches that are as long as a batch."""
    rows, refused = np.array(counts, dtype=np.float64).T
    parts = pd.DataFrame({"block": np.arange(len(rows)), "loss": rows - refused, "rows": rows})
    return Baseline(parts)
