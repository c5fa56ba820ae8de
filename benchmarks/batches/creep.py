"""Faults of an environment, put into the functions that read, encode and predict."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, Final

import numpy as np
import pandas as pd

from pipeline import columns
from pipeline.columns import Floats, Matrix
from pipeline.training import model as models
from pipeline.training.model import Model

NUMBERS: Final = ("amount", "age", "serial", "visits", "at")
LABELS: Final = ("plan", "city", "code")
NULLABLE: Final = ("age", "visits")
_MINUTES: Final = 256
"""Seconds between times, which float32 holds, so that its fault is in one column alone."""
Change = Callable[[Any], Any]


@dataclass(frozen=True)
class Fault:
    """A change of the environment, and what parity has to say about it.

    Attributes
    ----------
    put : callable
        Puts it into this process.
    stage : str
        Begin of the stage that has to be named.
    columns : sequence of str
        Columns that have to be named, no more and no fewer.
    """

    put: Callable[[], None]
    stage: str
    columns: Sequence[str]


def table(n: int, seed: int) -> pd.DataFrame:
    """Rows with nulls, labels, codes, seconds since 1970 and large numbers, with a target of each.

    A reading is a large number of which the last digits count, as of a counter.
    """
    random = np.random.default_rng(seed)
    start = pd.Timestamp("2026-01-01").timestamp() // _MINUTES * _MINUTES
    frame = pd.DataFrame(
        {
            "amount": random.lognormal(3, 1, n),
            "age": np.where(random.random(n) < 0.15, np.nan, random.gamma(4, 10, n)),
            "serial": 1e8 + random.uniform(0, 40, n),
            "visits": np.where(random.random(n) < 0.15, np.nan, random.poisson(4, n)),
            "at": start + _MINUTES * np.floor(random.uniform(0, 3e7, n) / _MINUTES),
            "plan": random.choice(["Free", "Pro", "Team"], n),
            "city": pd.Series(random.choice(["Bergen", "Oslo", "Tromsø"], n), dtype=object),
            "code": random.choice(["1", "2", "10"], n),
        }
    )
    frame["city"] = frame["city"].where(random.random(n) > 0.1, None)
    age, visits = frame["age"].fillna(90), frame["visits"].fillna(12)
    score = (
        (np.log(frame["amount"]) - 3)
        + (age - 45) / 20
        + (visits - 5) / 4
        + (frame["serial"] - 1e8 - 20) / 10
        + (frame["at"] - start - 1.5e7) / 1e7
        + frame["plan"].map({"Free": -1.0, "Pro": 0.0, "Team": 1.0})
        + frame["city"].map({"Bergen": 1.0, "Oslo": -1.0}).fillna(0)
        + frame["code"].map({"1": -1.0, "2": 1.0, "10": 0.0})
    )
    noisy = score + random.normal(size=n)
    return frame.assign(target=(noisy > 0).astype(int), spend=noisy)


def as_source(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """Rows as sources give them: as text and floats; with codes as numbers; typed."""
    features = rows[[*NUMBERS, *LABELS]]
    plain = features.astype(dict.fromkeys(LABELS, object))
    codes = plain.assign(code=features["code"].astype("float64"))
    typed = plain.assign(
        at=pd.to_datetime(features["at"], unit="s"),
        visits=features["visits"].astype("Int64"),
        plan=features["plan"].astype("category"),
    )
    return [plain, codes, typed]


def _after(module: Any, name: str, change: Change) -> None:
    """Change what a function of the pipeline returns."""
    function = getattr(module, name)

    @wraps(function)
    def changed(*given: Any, **named: Any) -> Any:
        return change(function(*given, **named))

    setattr(module, name, changed)


def _null_to_zero() -> None:
    _after(columns, "as_number", lambda values: values.fillna(0))


def _float32() -> None:
    _after(columns, "as_number", lambda values: values.astype("float32").astype("float64"))


def _folded() -> None:
    _after(columns, "as_text", lambda values: values.str.lower())


def _null_to_label() -> None:
    _after(columns, "as_text", lambda values: values.fillna("Oslo"))


def _order() -> None:
    def swapped(matrix: Matrix) -> Matrix:
        matrix[:, [0, 1]] = matrix[:, [1, 0]]
        return matrix

    _after(models, "encode", swapped)


def _point_zero() -> None:
    label = columns._label  # noqa: SLF001 -- what a pandas could write otherwise
    columns._label = (  # noqa: SLF001 -- the same place
        lambda value: str(value) if isinstance(value, float) else label(value)
    )


def _codes() -> None:
    read = columns.as_text

    def as_text(values: pd.Series) -> pd.Series:
        if isinstance(values.dtype, pd.CategoricalDtype):
            return pd.Series(values.cat.codes, index=values.index).astype("str")
        return read(values)

    columns.as_text = as_text


def _milliseconds() -> None:
    _after(columns, "_seconds", lambda values: values * 1000)


def _integer_null() -> None:
    read = columns.as_number

    def as_number(values: pd.Series) -> pd.Series:
        return read(values.fillna(0) if str(values.dtype) == "Int64" else values)

    columns.as_number = as_number


def _before_model(change: Callable[[Matrix], Matrix]) -> None:
    predict = Model.predict_encoded
    Model.predict_encoded = lambda self, matrix: predict(self, change(matrix))  # type: ignore[method-assign]


def _imputer_zero() -> None:
    _before_model(lambda matrix: np.where(np.isnan(matrix), 0, matrix))


def _imputer_off() -> None:
    from sklearn.impute import SimpleImputer  # noqa: PLC0415 -- not every environment has it

    transform = SimpleImputer.transform

    def kept(self: SimpleImputer, matrix: Matrix) -> Matrix:
        filled: Matrix = transform(self, matrix)
        filled[:, : matrix.shape[1]][np.isnan(matrix)] = np.nan
        return filled

    SimpleImputer.transform = kept


def _float32_model() -> None:
    _before_model(lambda matrix: matrix.astype("float32").astype("float64"))


def _rounded() -> None:
    def three_digits(predictions: Floats) -> Floats:
        return np.round(predictions, 3)

    _after(Model, "predict_encoded", three_digits)


def _other_class() -> None:
    _after(Model, "predict_encoded", lambda predictions: 1 - predictions)


MISSING, ENCODING = "the handling of missing values", "the encoding"
WITHIN, MODEL = "how the model handles missing values", "the model itself"
TYPE: Final = "the reading of columns of the type "
FAULTS: Final = {
    "NaN to 0": Fault(_null_to_zero, MISSING, NULLABLE),
    "null to a label": Fault(_null_to_label, MISSING, ("city",)),
    "case folded": Fault(_folded, ENCODING, ("plan", "city")),
    "float32 numbers": Fault(_float32, "the rounding of numbers", ("serial",)),
    "column order": Fault(_order, "the order of columns", ("amount", "age")),
    "whole labels keep .0": Fault(_point_zero, f"{TYPE}number", ("code",)),
    "categories read as codes": Fault(_codes, f"{TYPE}category", LABELS),
    "times in milliseconds": Fault(_milliseconds, f"{TYPE}time", ("at", "visits")),
    "integer nulls to 0": Fault(_integer_null, f"{TYPE}integer", ("visits",)),
    # A label that training did not see is missing to a model too; those of plan are declared.
    "imputer fills 0": Fault(_imputer_zero, WITHIN, (*NULLABLE, "city", "code")),
    "imputer off": Fault(_imputer_off, WITHIN, NULLABLE),
    "float32 in the model": Fault(_float32_model, MODEL, ()),
    "rounded to 3 digits": Fault(_rounded, MODEL, ()),
    "the other class": Fault(_other_class, MODEL, ()),
}
