"""The golden batch: rows with every awkward value, and how the model must handle them.

It is logged with each model and replayed wherever the model is loaded, so that a new pandas,
another processor or a tampered file is noticed before a single row is served.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.columns import Matrix, conform
from pipeline.config import Categorical, Numeric
from pipeline.errors import RegistryError
from pipeline.training.golden import Golden, installed
from pipeline.training.model import Model, Predictions

RELATIVE, ABSOLUTE = 1e-5, 1e-6
"""Tolerances of predictions, wide enough for float32 arithmetic."""
EXACT = 1e-7
"""Relative tolerance of encoded values: allows float32 rounding, but not a shifted hour."""
EXACT_INTEGERS = 2**53
"""Whole numbers below it are exact as floats and as integers."""
UNSEEN = "holdfast-unseen"
_HELD_OUT = 4_000
_EXAMPLES = 3
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parity:
    """How golden rows are predicted here, where they are predicted as at training.

    Attributes
    ----------
    equal : bool
        Whether to the bit, or only within the tolerance.
    changed : tuple of str
        Packages with other versions than at training, such as ``pandas 3.0.1 to 3.0.2``.
    """

    equal: bool
    changed: tuple[str, ...]

    def __str__(self) -> str:
        how = "to the bit" if self.equal else "within the tolerance"
        return (
            f"Golden rows are predicted as at training, {how}, though packages changed: "
            f"{', '.join(self.changed)}."
        )


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
    return Golden(golden, model.encode(golden), model.predict(golden), installed())


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
    return Golden(kept, model.encode(kept), model.predict(kept), installed())


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


def replay(model: Model, golden: Golden, what: str = "golden", *, types: bool = True) -> Parity:
    """Check that a model encodes and predicts its golden rows as it did at training.

    Parameters
    ----------
    model : Model
        The model.
    golden : Golden
        The rows.
    what : str
        What rows they are, in the words of a message.
    types : bool
        Whether to read the rows in each of the types in which rows come from a source.

    Returns
    -------
    Parity
        Whether each prediction is equal to the bit, and which packages have other versions.

    Raises
    ------
    RegistryError
        If it does not: the message names the first stage that differs (reading a type, missing
        values, encoding, the model), the columns, three values before and now, and the packages
        whose versions changed.
    """
    if list(model.columns) != list(golden.rows.columns):
        message = (
            f"The model has other columns than its {what} rows: {', '.join(model.columns)} "
            f"instead of {', '.join(golden.rows.columns)}. Register the model again."
        )
        raise RegistryError(message)
    changed = golden.changed
    _check_encoding(model, golden, what, types=types)
    predictions = _checked_predictions(model, golden, what)
    parity = Parity(np.array_equal(predictions, golden.predictions), changed)
    if changed:
        logger.info("%s", parity)
    return parity


def _check_encoding(model: Model, golden: Golden, what: str, *, types: bool) -> None:
    came = _as_they_may_come(golden.rows, model) if types else [("", golden.rows)]
    for name, rows in came:
        encoded = model.encode(rows)
        close = np.isclose(encoded, golden.encoded, rtol=EXACT, atol=ABSOLUTE, equal_nan=True)
        if close.all():
            continue
        columns = [
            f"{column} ({int((~close[:, i]).sum())} rows)"
            for i, column in enumerate(model.columns)
            if not close[:, i].all()
        ]
        message = (
            f"The model encodes its {what} rows differently than at training, in "
            f"{', '.join(columns)}. The first stage that differs is "
            f"{_stage(name, encoded[~close], golden.encoded[~close])}: "
            f"{_cells(rows, golden.encoded, encoded, close)}. {golden.since_training}"
        )
        raise RegistryError(message)


def _as_they_may_come(rows: pd.DataFrame, model: Model) -> Iterator[tuple[str, pd.DataFrame]]:
    """Rows as they were stored, and in each of the types in which rows come from a source."""
    yield "", rows
    labels = [name for name, one in model.columns.items() if isinstance(one, Categorical)]
    whole = [
        name
        for name in model.columns
        if name not in labels
        and ((rows[name] == rows[name].round()) & (rows[name].abs() < EXACT_INTEGERS)).all()
    ]
    yield "object", rows.astype(object)
    yield "category", rows.astype(dict.fromkeys(labels, "category"))
    yield "string", rows.astype(dict.fromkeys(labels, "string"))
    yield "integer", rows.astype(dict.fromkeys(whole, "Int64"))
    if find_spec("pyarrow"):  # an environment that only serves an export reads no such rows
        yield "Arrow", rows.convert_dtypes(dtype_backend="pyarrow")


def _stage(kind: str, now: Matrix, before: Matrix) -> str:
    if kind:
        return f"the reading of columns of the type {kind}"
    if (np.isnan(now) != np.isnan(before)).all():
        return "the handling of missing values"
    return "the encoding"


def _cells(rows: pd.DataFrame, before: Matrix, now: Matrix, close: NDArray[Any]) -> str:
    """The first values that differ, as text."""
    names = list(rows.columns)
    differ = dict.fromkeys(
        f"{names[column]} {_shown(rows.iloc[row, column])} was {before[row, column]:g} and is "
        f"{now[row, column]:g}"
        for row, column in np.argwhere(~close)
    )
    return "; ".join(islice(differ, _EXAMPLES))


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, str) else f"{value}"


def are_close(predicted: Predictions, expected: Predictions, *, atol: float) -> NDArray[Any]:
    """Whether each row is predicted as expected, in all of its classes."""
    close = np.isclose(predicted, expected, rtol=RELATIVE, atol=atol)
    return np.asarray(close.reshape(len(close), -1).all(axis=1))


def _checked_predictions(model: Model, golden: Golden, what: str) -> Predictions:
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
        rows = "; ".join(
            f"row {row}: {golden.predictions[row]} then, {predictions[row]} now"
            for row in np.flatnonzero(~close)[:_EXAMPLES]
        )
        message = (
            f"The model predicts {int((~close).sum())} of {len(close)} {what} rows differently "
            f"than at training, by up to {largest:.3g}, from equal inputs: the first stage that "
            f"differs is the model itself ({rows}). {golden.since_training}"
        )
        raise RegistryError(message)
    return predictions
