"""The golden batch: rows with every awkward value, and how the model must handle them.

It is logged with each model and replayed wherever the model is loaded, so that a new pandas,
another processor or a tampered file is noticed before a single row is served.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.columns import Floats, Matrix, conform
from pipeline.config import Categorical, Numeric
from pipeline.errors import RegistryError, first_line
from pipeline.training.golden import Golden, installed
from pipeline.training.model import Model, Predictions

RELATIVE, ABSOLUTE = 1e-5, 1e-6
"""Tolerances of predictions, wide enough for float32 arithmetic."""
EXACT = 1e-7
"""Relative tolerance of encoded values: allows float32 rounding, but not a shifted hour."""
EXACT_INTEGERS = 2**53
"""Whole numbers below it are exact as floats and as integers."""
UNSEEN = "holdfast-unseen"
_LATEST = 2**32
"""Seconds since 1970 below which a whole number is read as a time too: the year 2106."""
_DIGITS = 15
"""Digits that a float holds."""
_HELD_OUT = 4_000
_EXAMPLES = 3
_MODEL = "the model itself"
logger = logging.getLogger(__name__)


class ParityError(RegistryError):
    """A model encodes or predicts rows differently than at training.

    Attributes
    ----------
    stage : str
        The first stage that differs, in the words of the message.
    columns : tuple of str
        Columns that differ there; empty where the whole model does.
    """

    def __init__(self, message: str, stage: str, columns: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.stage, self.columns = stage, tuple(columns)


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
    ParityError
        If it does not: the message names the first stage that differs (reading a type, missing
        values, order of columns, encoding, rounding, the model), the columns, three values before
        and now, and the packages whose versions changed.
    """
    if list(model.columns) != list(golden.rows.columns):
        message = (
            f"The model has other columns than its {what} rows: {', '.join(model.columns)} "
            f"instead of {', '.join(golden.rows.columns)}. Register the model again."
        )
        raise ParityError(message, "the columns of the model")
    changed = golden.changed
    exact = _check_encoding(model, golden, what, types=types)
    predictions = _checked_predictions(model, golden, what)
    parity = Parity(exact and np.array_equal(predictions, golden.predictions), changed)
    if changed:
        logger.info("%s", parity)
    return parity


def _check_encoding(model: Model, golden: Golden, what: str, *, types: bool) -> bool:
    """Check the encoding in every type; whether all rows are then predicted equal to the bit."""
    came = as_they_may_come(golden.rows, model) if types else [("", golden.rows)]
    exact = True
    for kind, rows in came:
        encoded = model.encode(rows)
        close = np.isclose(encoded, golden.encoded, rtol=EXACT, atol=ABSOLUTE, equal_nan=True)
        stage = _stage(kind, rows, encoded, golden.encoded, close)
        if np.array_equal(encoded, golden.encoded, equal_nan=True):
            continue
        if close.all():
            now, then = (_predicted(model, one, golden, what) for one in (encoded, golden.encoded))
            exact = exact and np.array_equal(now, then)
            if are_close(now, then, atol=ABSOLUTE).all():
                continue
            stage = "the rounding of numbers"
            close = ~_rounded(model, golden, encoded, then)
        columns = {
            column: int((~close[:, i]).sum())
            for i, column in enumerate(model.columns)
            if not close[:, i].all()
        }
        counted = ", ".join(f"{column} ({rows} rows)" for column, rows in columns.items())
        message = (
            f"The model encodes its {what} rows differently than at training, in {counted}. "
            f"The first stage that differs is {stage}: "
            f"{_cells(rows, golden.encoded, encoded, close)}. {golden.since_training}"
        )
        raise ParityError(message, stage, columns)
    return exact


def _rounded(model: Model, golden: Golden, now: Matrix, then: Predictions) -> NDArray[Any]:
    """Values whose rounding alone changes a prediction; all that are rounded, if none does."""
    differ: NDArray[np.bool_] = (now != golden.encoded) & ~np.isnan(now)
    alone = np.zeros_like(differ)
    for i in np.flatnonzero(differ.any(axis=0)):
        matrix = golden.encoded.copy()
        matrix[:, i] = now[:, i]
        alone[:, i] = ~are_close(model.predict_encoded(matrix), then, atol=ABSOLUTE)
    return np.asarray(alone & differ if alone.any() else differ)


def as_they_may_come(rows: pd.DataFrame, model: Model) -> Iterator[tuple[str, pd.DataFrame]]:
    """Conformed rows as they are, and in each of the types in which rows come from a source.

    Parameters
    ----------
    rows : DataFrame
        Conformed rows.
    model : Model
        The model that reads them.

    Yields
    ------
    tuple of str and DataFrame
        Name of the type, empty for the rows as they are, and the rows.
    """
    yield "", rows
    labels = [name for name, one in model.columns.items() if isinstance(one, Categorical)]
    numbers = [name for name in model.columns if name not in labels]
    given = rows[numbers].fillna(0)
    whole = {
        limit: [
            name
            for name in numbers
            if ((given[name] == given[name].round()) & (given[name].abs() < limit)).all()
        ]
        for limit in (EXACT_INTEGERS, _LATEST)
    }
    yield "object", rows.astype(object)
    yield "category", rows.astype(dict.fromkeys(labels, "category"))
    yield "string", rows.astype(dict.fromkeys(labels, "string"))
    yield "integer", rows.astype(dict.fromkeys(whole[EXACT_INTEGERS], "Int64"))
    yield "number", rows.assign(**{name: rows[name].map(_as_number) for name in labels})
    times = rows[whole[_LATEST]]
    yield "time", rows.assign(**times.apply(pd.to_datetime, unit="s"))
    yield "length of time", rows.assign(**times.apply(pd.to_timedelta, unit="s"))
    if find_spec("pyarrow"):  # an environment that only serves an export reads no such rows
        yield "Arrow", rows.convert_dtypes(dtype_backend="pyarrow")


def _as_number(label: Any) -> Any:
    """A label that is a whole number as the float that CSV files and nulls make of it."""
    whole = isinstance(label, str) and len(label) <= _DIGITS and str(label).isdecimal()
    return float(label) if whole and str(int(label)) == label else label


def _stage(kind: str, rows: pd.DataFrame, now: Matrix, before: Matrix, close: NDArray[Any]) -> str:
    """The first stage that differs, where some values are not `close`."""
    if kind:
        return f"the reading of columns of the type {kind}"
    differ = np.flatnonzero(~close.all(axis=0))
    if len(differ) > 1 and all(_is_another(now[:, i], before, int(i)) for i in differ):
        return "the order of columns"
    lost = np.isnan(now) != np.isnan(before)
    labels = np.array([dtype.kind != "f" for dtype in rows.dtypes])
    missing = lost & (~labels | rows.isna().to_numpy())  # a label that is not known is NaN as well
    return "the handling of missing values" if missing[~close].all() else "the encoding"


def _is_another(values: Floats, before: Matrix, place: int) -> bool:
    """Whether values of a column are those that another column had."""
    others = np.delete(before, place, axis=1)
    return bool(np.isclose(others, values[:, None], rtol=EXACT, equal_nan=True).all(axis=0).any())


def _cells(rows: pd.DataFrame, before: Matrix, now: Matrix, close: NDArray[Any]) -> str:
    """The first values that differ, as text."""
    names = list(rows.columns)
    differ = dict.fromkeys(
        f"{names[column]} {_shown(rows.iloc[row, column])} was {_short(before[row, column])} and "
        f"is {_short(now[row, column])}"
        for row, column in np.argwhere(~close)
    )
    return "; ".join(islice(differ, _EXAMPLES))


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, str) else f"{value}"


def _short(number: float) -> str:
    return f"{number:.10g}"


def are_close(predicted: Predictions, expected: Predictions, *, atol: float) -> NDArray[Any]:
    """Whether each row is predicted as expected, in all of its classes."""
    close = np.isclose(predicted, expected, rtol=RELATIVE, atol=atol)
    return np.asarray(close.reshape(len(close), -1).all(axis=1))


def _checked_predictions(model: Model, golden: Golden, what: str) -> Predictions:
    predictions = _predicted(model, golden.encoded, golden, what)
    if predictions.shape != golden.predictions.shape:
        message = (
            f"The model predicts {predictions.shape} numbers of its {what} rows, rows by classes, "
            f"instead of {golden.predictions.shape}. Register the model again."
        )
        raise ParityError(message, _MODEL)
    close = are_close(predictions, golden.predictions, atol=ABSOLUTE)
    if not close.all():
        largest = np.abs(predictions - golden.predictions).max()
        rows = "; ".join(
            f"row {row}: {golden.predictions[row]} then, {predictions[row]} now"
            for row in np.flatnonzero(~close)[:_EXAMPLES]
        )
        stage, columns = _within_model(golden, ~close)
        message = (
            f"The model predicts {int((~close).sum())} of {len(close)} {what} rows differently "
            f"than at training, by up to {largest:.3g}, from equal inputs: the first stage that "
            f"differs is {stage} ({rows}). {golden.since_training}"
        )
        raise ParityError(message, stage, columns)
    return predictions


def _predicted(model: Model, matrix: Matrix, golden: Golden, what: str) -> Predictions:
    try:
        return model.predict_encoded(matrix)
    except Exception as error:  # an estimator raises what it likes
        fails = np.array([_fails(model, matrix[i : i + 1]) for i in range(len(matrix))])
        stage, columns = _within_model(golden, fails)
        message = (
            f"The model does not predict its {what} rows any more ({first_line(error)}): the first "
            f"stage that differs is {stage}. {golden.since_training}"
        )
        raise ParityError(message, stage, columns) from error


def _fails(model: Model, row: Matrix) -> bool:
    try:
        model.predict_encoded(row)
    except Exception:  # noqa: BLE001 -- an estimator raises what it likes
        return True
    return False


def _within_model(golden: Golden, differ: NDArray[Any]) -> tuple[str, tuple[str, ...]]:
    """The stage of a model that predicts some golden rows differently, and the columns.

    Only rows with missing values differ where the model handles these otherwise. A golden row lacks
    one value, for each nullable column, so that the column shows.
    """
    lacks = np.isnan(golden.encoded)
    with_nulls = lacks.any(axis=1)
    if not differ.any() or (differ & ~with_nulls).any() or with_nulls.all():
        return _MODEL, ()
    single = lacks[differ & (lacks.sum(axis=1) == 1)].any(axis=0)
    found = single if single.any() else lacks[differ].any(axis=0)
    columns = tuple(np.array(golden.rows.columns)[found])
    return f"how the model handles missing values of {', '.join(columns)}", columns
