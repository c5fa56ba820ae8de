"""The golden batch: rows with every awkward value, and what they must encode to and predict.

Logged with each model and replayed wherever it is loaded, so that a new pandas, another
processor or a tampered file shows before a single row is served.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.columns import Matrix, conform
from pipeline.config import Categorical, Numeric
from pipeline.errors import RegistryError
from pipeline.training.model import Model, Predictions

RELATIVE, ABSOLUTE = 1e-5, 1e-6
"""Tolerances of predictions: float32 arithmetic passes."""
EXACT = 1e-7
"""Relative tolerance of encoded values: float32 rounding passes, a shifted hour does not."""
UNSEEN = "holdfast-unseen"
_PREDICTION = "holdfast-prediction"


@dataclass(frozen=True)
class Golden:
    """Rows with what they encoded to and predicted when the model was made.

    Attributes
    ----------
    rows : DataFrame
        Declared columns; every nullable one holds a null, every open categorical one a label
        never seen, every numeric one its extremes. Values of private columns are made up.
    encoded : array of float64, shape (n_rows, n_columns)
        The expected matrix.
    predictions : array of float64, shape (n_rows,)
        The expected predictions.
    """

    rows: pd.DataFrame
    encoded: Matrix
    predictions: Predictions

    def save(self, folder: Path) -> None:
        """Write rows and expectations beside each other."""
        folder.mkdir(parents=True, exist_ok=True)
        self.rows.to_parquet(folder / "golden.parquet")
        expected = pd.DataFrame(self.encoded, columns=list(self.rows.columns))
        expected.assign(**{_PREDICTION: self.predictions}).to_parquet(folder / "expected.parquet")

    @classmethod
    def load(cls, folder: Path) -> "Golden":
        """Read what `save` wrote.

        Raises
        ------
        RegistryError
            If a file is missing or broken.
        """
        try:
            rows = pd.read_parquet(folder / "golden.parquet")
            expected = pd.read_parquet(folder / "expected.parquet")
            predictions = expected.pop(_PREDICTION).to_numpy(dtype=np.float64)
        except (OSError, ValueError, KeyError) as error:
            message = f"The golden batch in {folder} must be whole. Got: {error}. Train again."
            raise RegistryError(message) from error
        return cls(rows, expected.to_numpy(dtype=np.float64), predictions)


def make(model: Model, rows: pd.DataFrame, *, n: int = 64, seed: int = 0) -> Golden:
    """Compose golden rows from training rows and record what `model` makes of them.

    Parameters
    ----------
    model : Model
        The fitted model.
    rows : DataFrame
        Valid training rows.
    n : int
        Ordinary rows to start from; the awkward ones are added to them.
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


def _without_private(rows: pd.DataFrame, model: Model, seed: int) -> pd.DataFrame:
    """Private columns are made up, so that no value of a person is stored.

    Numbers are drawn evenly between the 5 % and 95 % quantiles, so that extremes do not leave
    either; labels evenly from the known ones.
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


def replay(model: Model, golden: Golden) -> None:
    """Predict the golden rows again; silence means the model is the one that was logged.

    Raises
    ------
    RegistryError
        Naming the first stage that differs: the columns that encode differently, else how
        many predictions differ and by how much.
    """
    if list(model.columns) != list(golden.rows.columns):
        message = (
            "The model must have the columns of its golden rows, "
            f"{', '.join(golden.rows.columns)}. Got {', '.join(model.columns)}. "
            "Register the model again."
        )
        raise RegistryError(message)
    encoded = model.encode(golden.rows)
    same = np.isclose(encoded, golden.encoded, rtol=EXACT, atol=ABSOLUTE, equal_nan=True)
    if not same.all():
        differ = [
            f"{name} ({int((~same[:, i]).sum())} rows)"
            for i, name in enumerate(model.columns)
            if not same[:, i].all()
        ]
        message = (
            "The model must encode its golden rows as it did at training. "
            f"Got other values in {', '.join(differ)}. Install the locked environment."
        )
        raise RegistryError(message)
    predictions = model.predict_encoded(golden.encoded)
    close = np.isclose(predictions, golden.predictions, rtol=RELATIVE, atol=ABSOLUTE)
    if not close.all():
        largest = np.abs(predictions - golden.predictions).max()
        message = (
            "The model must predict its golden rows as it did at training. "
            f"Got {int((~close).sum())} of {len(close)} different, by up to {largest:.3g}, "
            "from equal inputs. Install the locked environment or register the model again."
        )
        raise RegistryError(message)
