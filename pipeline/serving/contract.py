"""The served request, derived from the declared columns, and what to answer when it is refused.

A request obeys the rules of `columns.contract`, and JSON's types besides: text is no number
and a number no label.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import GenericAlias
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    create_model,
    field_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from pipeline.columns import Categories, Matrix
from pipeline.config import Categorical, Columns, Numeric

Row = Mapping[str, Any]
MAX_ROWS = 10_000
_LONGEST = 40
_LENGTH = f"rows must be a list of 1 to {MAX_ROWS:,} rows"
_NOTHING = "nothing"


@dataclass(frozen=True)
class Problem:
    """One reason why a request is refused.

    Attributes
    ----------
    row : int or None
        Place of the row in the request, from 0; None for the request itself.
    column : str or None
        The column; None for a whole row or the request itself.
    rule : str
        What must hold.
    got : str
        What came instead: at most 40 characters of it, and never a whole row.
    cure : str
        What to do about it.
    """

    row: int | None
    column: str | None
    rule: str
    got: str
    cure: str


class Request(BaseModel):
    """Rows to predict, and what to call them; `request_body` says what a row is."""

    model_config = ConfigDict(extra="forbid")

    rows: list[Any]
    keys: list[str] | None = None

    @field_validator("keys")
    @classmethod
    def _one_for_each_row(cls, keys: list[str] | None, info: ValidationInfo) -> list[str] | None:
        rows = info.data.get("rows")
        if keys is not None and len(set(keys)) < len(keys):
            doubled, _ = Counter(keys).most_common(1)[0]
            rule, got = "keys must differ from one another", _shown(doubled)
        elif keys is not None and rows is not None and len(keys) != len(rows):
            rule, got = "keys must be as many as rows", f"{len(keys)} for {len(rows)} rows"
        else:
            return keys
        kind = "keys"
        raise PydanticCustomError(kind, "{rule}", {"rule": rule, "got": got})


def request_model(columns: Columns) -> type[BaseModel]:
    """The model of one row: it accepts what `columns.contract` accepts.

    Column names are aliases, since they need not be Python identifiers; dump by alias. A
    nullable column may be left out.
    """
    fields: dict[str, Any] = {
        f"column_{i}": (_annotation(column), _field(name, column))
        for i, (name, column) in enumerate(columns.items())
    }
    return create_model("Row", __config__=ConfigDict(extra="forbid"), **fields)


def _annotation(column: Numeric | Categorical) -> Any:
    """Each type is strict by itself; a strict model would refuse rows that are dicts."""
    if isinstance(column, Numeric):
        rule: Any = Annotated[
            float, Field(strict=True, allow_inf_nan=False, ge=column.min, le=column.max)
        ]
    elif column.values is None:
        rule = Annotated[str, Field(strict=True)]
    else:
        rule = Literal[column.values]
    return rule | None if column.nullable else rule


def _field(name: str, column: Numeric | Categorical) -> Any:
    return Field(alias=name, default=None) if column.nullable else Field(alias=name)


def request_body(columns: Columns) -> type[Request]:
    """The model of a whole request: 1 to `MAX_ROWS` rows, and one key for each or none."""
    rows: Any = GenericAlias(list, (request_model(columns),))
    keys: Any = GenericAlias(list, (Annotated[str, Field(strict=True, min_length=1)],))
    return create_model(
        "Rows",
        __base__=Request,
        rows=(rows, Field(min_length=1, max_length=MAX_ROWS)),
        keys=(keys | None, None),
    )


def problems(error: ValidationError, columns: Columns) -> list[Problem]:
    """Every problem that pydantic found in a request.

    Parameters
    ----------
    error : ValidationError
        What validating with `request_body` raised.
    columns : dict of str to Column
        The columns it was made from.
    """
    return [_problem(details, columns) for details in error.errors(include_url=False)]


def _problem(details: ErrorDetails, columns: Columns) -> Problem:
    match details["loc"]:
        case ("rows", int(row), name):
            return _value_problem(details, row, str(name), columns.get(str(name)))
        case ("rows", int(row)):
            rule, cure = "must be an object", 'Send {"column": value, ...}.'
            return Problem(row, None, rule, _shown(details["input"]), cure)
        case ("rows",):
            cure = "Send at least one row, and no more than that at once."
            return Problem(None, None, _LENGTH, _size(details), cure)
        case ("keys", *_):
            return _key_problem(details)
        case (name,):
            rule, cure = "a request must hold rows and keys only", "Leave it out."
            return Problem(None, None, rule, _shown(name), cure)
        case _:
            return _body_problem(details)


def _value_problem(
    details: ErrorDetails, row: int, name: str, column: Numeric | Categorical | None
) -> Problem:
    if column is None:
        cure = "Leave it out, or declare it in data.features."
        return Problem(row, name, "must be a declared column", _shown(details["input"]), cure)
    if details["type"] == "missing":
        cure = "Send it, or declare it nullable in data.features."
        return Problem(row, name, "must be present", _NOTHING, cure)
    if details["input"] is None:
        cure = "Send a value, or declare the column nullable in data.features."
        return Problem(row, name, "must not be null", "None", cure)
    rule, cure = _rule(details["type"], column)
    return Problem(row, name, rule, _shown(details["input"]), cure)


def _rule(kind: str, column: Numeric | Categorical) -> tuple[str, str]:
    """The rule that a value broke, and the cure."""
    if isinstance(column, Categorical):
        if column.values is None:
            return "must be text", "Send a JSON string of valid Unicode."
        cure = "Send one of them, or add this one to its values in data.features."
        return f"must be one of {{{', '.join(column.values)}}}", cure
    if kind in {"greater_than_equal", "less_than_equal"}:
        low = "-inf" if column.min is None else f"{column.min:g}"
        high = "inf" if column.max is None else f"{column.max:g}"
        return f"must lie in {low} .. {high}", "Fix the value, or its range in data.features."
    if kind == "finite_number":
        return "must be finite", "Send null for a value that is not known."
    return "must be a number", "Send a JSON number, without quotes."


def _key_problem(details: ErrorDetails) -> Problem:
    cure = "Send one text for each row, or no keys."
    if details["type"] == "keys":
        return Problem(None, None, details["ctx"]["rule"], details["ctx"]["got"], cure)
    place = details["loc"][-1]
    row = place if isinstance(place, int) else None
    return Problem(
        row, None, "keys must be a list of texts, none empty", _shown(details["input"]), cure
    )


def _body_problem(details: ErrorDetails) -> Problem:
    cure = 'Send {"rows": [{"column": value, ...}, ...]}.'
    if details["type"] == "json_invalid":
        return Problem(None, None, "a request must be valid JSON", details["ctx"]["error"], cure)
    return Problem(None, None, "a request must be an object", _shown(details["input"]), cure)


def _shown(value: object) -> str:
    """A collection is named by its type alone: it may hold whole rows."""
    return type(value).__name__ if isinstance(value, list | dict) else repr(value)[:_LONGEST]


def _size(details: ErrorDetails) -> str:
    if details["type"] == "missing":
        return _NOTHING
    return "more" if details["type"] == "too_long" else _shown(details["input"])


def encoder(columns: Columns, categories: Categories) -> Callable[[Sequence[Row]], Matrix]:
    """What turns accepted rows into the matrix of `columns.encode`, without a DataFrame.

    Parameters
    ----------
    columns : dict of str to Column
        Declared columns; rows must hold them in this order.
    categories : dict of str to list of str
        Known labels of each categorical column.

    Returns
    -------
    callable
        From n rows to an array of float64, shape (n, n_columns).
    """
    places = {
        name: {label: i for i, label in enumerate(labels)} for name, labels in categories.items()
    }

    def encode(rows: Sequence[Row]) -> Matrix:
        values = [
            [places[name].get(row[name]) if name in places else row[name] for name in columns]
            for row in rows
        ]
        return np.array(values, dtype=np.float64)

    return encode
