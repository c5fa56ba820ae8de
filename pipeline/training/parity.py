"""The golden batch: rows with every awkward value, and how the model must handle them.

It is logged with each model and replayed wherever the model is loaded, so that a new pandas,
another processor or a tampered file is noticed before a single row is served.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.columns import Matrix, conform
from pipeline.config import Categorical, Numeric
from pipeline.errors import RegistryError, first_line
from pipeline.training.model import Model, Predictions
from pipeline.training.predictions import as_cells, of_cells

RELATIVE, ABSOLUTE = 1e-5, 1e-6
"""Tolerances of predictions, wide enough for float32 arithmetic."""
EXACT = 1e-7
"""Relative tolerance of encoded values: allows float32 rounding, but not a shifted hour."""
UNSEEN = "holdfast-unseen"
_PREDICTION = "holdfast-prediction"
_HELD_OUT = 4_000


@dataclass(frozen=True)
class Golden:
    """Rows with the encoding and the predictions that a model gave them at training.

    Attributes
    ----------
    rows : DataFrame
        Declared columns: each nullable column has a null, each categorical column without
        declared labels an unseen label, each numeric column its extremes. Values of private
        columns are invented.
    encoded : array of float64, shape (n_rows, n_columns)
        The expected matrix.
    predictions : array of float64, shape (n_rows,) or (n_rows, n_classes)
        The expected predictions.
    """

    rows: pd.DataFrame
    encoded: Matrix
    predictions: Predictions

    def save(self, folder: Path) -> None:
        """Write the rows and the expected values into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        self.rows.to_parquet(folder / "golden.parquet")
        expected = pd.DataFrame(self.encoded, columns=list(self.rows.columns))
        cells = {_PREDICTION: as_cells(self.predictions)}
        expected.assign(**cells).to_parquet(folder / "expected.parquet")

    @classmethod
    def load(cls, folder: Path) -> "Golden":
        """Read a folder that `save` wrote.

        Raises
        ------
        RegistryError
            If a file is missing or damaged.
        """
        try:
            rows = pd.read_parquet(folder / "golden.parquet")
            expected = pd.read_parquet(folder / "expected.parquet")
            predictions = of_cells(expected.pop(_PREDICTION))
        except Exception as error:  # nonsense makes pyarrow raise what it likes
            got = first_line(error)
            message = f"The golden batch in {folder} is damaged or incomplete ({got}). Train again."
            raise RegistryError(message) from error
        return cls(rows, expected.to_numpy(dtype=np.float64), predictions)


def make(model: Model, rows: pd.DataFrame, *, n: int = 64, seed: int = 0) -> Golden:
    """Compose golden rows from training rows, and encode and predict them.

    Parameters
    ----------
    model : Model
        The fitted model.
    rows : DataFrame
        Valid training rows.
    n : int
        Number of ordinary rows; rows with awkward values are added.
    seed : int
        Seed of the sample and of invented values.
    """
    rows = _without_private(conform(rows, model.columns), model, seed)
    ordinary = rows.sample(min(n, len(rows)), random_state=seed)
    awkward = []
    for i, (name, value) in enumerate(_awkward_values(rows, model)):
        row = ordinary.iloc[[i % len(ordinary)]].copy()
        row[name] = value
        awkward.append(row)
    nulls = ordinary.iloc[[0]].copy()
    for name, column in model.columns.items():
        if column.nullable:
            nulls[name] = np.nan if isinstance(column, Numeric) else None
    golden = conform(pd.concat([ordinary, *awkward, nulls], ignore_index=True), model.columns)
    return Golden(golden, model.encode(golden), model.predict(golden))


def held_out(model: Model, rows: pd.DataFrame) -> Golden | None:
    """Held-out rows as they are, encoded and predicted; None if they hold private columns.

    Parameters
    ----------
    model : Model
        The fitted model.
    rows : DataFrame
        The rows; the newest 4,000 are kept.
    """
    if any(column.private for column in model.columns.values()):
        return None
    kept = conform(rows.tail(_HELD_OUT), model.columns).reset_index(drop=True)
    return Golden(kept, model.encode(kept), model.predict(kept))


def _without_private(rows: pd.DataFrame, model: Model, seed: int) -> pd.DataFrame:
    """Invent the values of private columns, so that no value of a person is stored.

    Numbers are uniform between the 5% and 95% quantiles, which hides extremes as well; labels
    are uniform over the known labels.
    """
    random = np.random.default_rng(seed)
    made: dict[str, Any] = {}
    for name, column in model.columns.items():
        if column.private and isinstance(column, Numeric):
            low, high = rows[name].quantile([0.05, 0.95]).fillna(0)
            made[name] = random.uniform(low, high, len(rows))
        elif column.private:
            made[name] = random.choice(model.categories[name] or [UNSEEN], len(rows))
    return rows.assign(**made)


def _awkward_values(rows: pd.DataFrame, model: Model) -> list[tuple[str, float | str | None]]:
    values: list[tuple[str, float | str | None]] = []
    for name, column in model.columns.items():
        if column.nullable:
            values.append((name, np.nan if isinstance(column, Numeric) else None))
        if isinstance(column, Categorical):
            values += [(name, label) for label in model.categories[name]]
            values += [(name, UNSEEN)] if column.values is None else []
        else:
            values += [(name, float(rows[name].min())), (name, float(rows[name].max()))]
            declared = (column.min, column.max)
            values += [(name, float(limit)) for limit in declared if limit is not None]
    return values


def replay(model: Model, golden: Golden, what: str = "golden") -> None:
    """Check that a model encodes and predicts its golden rows as it did at training.

    Parameters
    ----------
    model : Model
        The model.
    golden : Golden
        The rows.
    what : str
        What rows they are, in the words of a message.

    Raises
    ------
    RegistryError
        If it does not: the message names the columns that it encodes differently, or how many
        predictions differ and by how much.
    """
    if list(model.columns) != list(golden.rows.columns):
        message = (
            f"The model has other columns than its golden rows: {', '.join(model.columns)} "
            f"instead of {', '.join(golden.rows.columns)}. Register the model again."
        )
        raise RegistryError(message)
    _check_encoding(model, golden, what)
    _check_predictions(model, golden, what)


def _check_encoding(model: Model, golden: Golden, what: str) -> None:
    encoded = model.encode(golden.rows)
    close = np.isclose(encoded, golden.encoded, rtol=EXACT, atol=ABSOLUTE, equal_nan=True)
    differ = [
        f"{name} ({int((~close[:, i]).sum())} rows)"
        for i, name in enumerate(model.columns)
        if not close[:, i].all()
    ]
    if differ:
        message = (
            f"The model encodes its {what} rows differently than at training, in "
            f"{', '.join(differ)}. Install the locked environment."
        )
        raise RegistryError(message)


def are_close(predicted: Predictions, expected: Predictions, *, atol: float) -> NDArray[Any]:
    """Whether each row is predicted as expected, in all of its classes."""
    close = np.isclose(predicted, expected, rtol=RELATIVE, atol=atol)
    return np.asarray(close.reshape(len(close), -1).all(axis=1))


def _check_predictions(model: Model, golden: Golden, what: str) -> None:
    predictions = model.predict_encoded(golden.encoded)
    if predictions.shape != golden.predictions.shape:
        message = (
            f"The model predicts {predictions.shape} numbers of its {what} rows, rows by classes, "
            f"instead of {golden.predictions.shape}. Register the model again."
        )
        raise RegistryError(message)
    close = are_close(predictions, golden.predictions, atol=ABSOLUTE)
    if not close.all():
        largest = np.abs(predictions - golden.predictions).max()
        message = (
            f"The model predicts {int((~close).sum())} of {len(close)} {what} rows differently "
            f"than at training, by up to {largest:.3g}, from equal inputs. "
            "Install the locked environment or register the model again."
        )
        raise RegistryError(message)
