"""The contract of requests, derived from the declared columns, and the problems of refused ones.

Rows of a request obey the rules of `columns.pandera_schema` and the types of JSON: strings are
not numbers, numbers are not labels, booleans are neither.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import GenericAlias
from typing import Annotated, Any, Literal, NotRequired

import numpy as np
from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    Strict,
    TypeAdapter,
    ValidationError,
    with_config,
)
from pydantic_core import ErrorDetails, PydanticCustomError
from typing_extensions import TypedDict  # Python's own is too old before 3.12

from pipeline.columns import Categories, Matrix, limits, range_rule
from pipeline.config import Categorical, Columns, Numeric

Row = Mapping[str, Any]
Request = dict[str, Any]
"""A request as read: ``rows`` to predict, and optional ``keys`` that identify them."""
MAX_ROWS = 10_000
"""Rows that one request holds at most."""
LONGEST_KEY = 200
"""Characters of a key at most."""
_LONGEST, _LONGEST_BODY = 40, 200
_LENGTH = f"rows must be a list of 1 to {MAX_ROWS:,} rows"
_KEYS = f"keys must be a list of strings of 1 to {LONGEST_KEY} characters"
_ONE_KEY = "Send one string for each row, or leave keys out."
_SHAPE = 'Send {"rows": [{"column": value, ...}, ...]}.'
_NOTHING = "nothing"
UNSEEN = -1.0
"""Code of a label that the training rows do not hold."""


@dataclass(frozen=True)
class Problem:
    """One reason why a request is refused.

    Attributes
    ----------
    code : str
        The kind of rule, for programs: ``type``, ``range``, ``label``, ``null``, ``missing``,
        ``undeclared``, ``keys``, ``labels``, ``rows`` or ``body``.
    row : int or None
        Place of the row in the request, from 0; None for the request itself.
    column : str or None
        The column; None for a whole row or the request itself.
    rule : str
        The rule that the value breaks.
    got : str
        The value that was sent: at most 40 characters, and never a whole row.
    cure : str
        What the caller, or the owner of the model, can do.
    """

    code: str
    row: int | None
    column: str | None
    rule: str
    got: str
    cure: str


def row_type(columns: Columns) -> Any:
    """Typed dict of one row, which accepts what `columns.pandera_schema` accepts.

    Nullable columns may be left out.
    """
    fields: dict[str, Any] = {
        name: NotRequired[_annotation(column)] if column.nullable else _annotation(column)
        for name, column in columns.items()
    }
    return strict_dict("Row", fields)


def strict_dict(name: str, fields: dict[str, Any]) -> Any:
    """Typed dict with the given fields that refuses any other key."""
    kind: Any = TypedDict
    return with_config(ConfigDict(extra="forbid"))(kind(name, fields))


def _annotation(column: Numeric | Categorical) -> Any:
    if isinstance(column, Numeric):
        low, high = limits(column)
        rule: Any = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=low, le=high)]
    elif column.values is None:
        rule = Annotated[str, Field(strict=True)]
    else:
        rule = Literal[column.values]
    return rule | None if column.nullable else rule


def request_type(columns: Columns) -> TypeAdapter[Request]:
    """Reads a whole request: 1 to `MAX_ROWS` rows, and one key for each row or no keys."""
    row, key = row_type(columns), Annotated[str, Field(min_length=1, max_length=LONGEST_KEY)]
    rows: Any = GenericAlias(list, (row,))
    keys: Any = GenericAlias(list, (Annotated[key, Strict()],))
    fields = {
        "rows": Annotated[rows, Field(min_length=1, max_length=MAX_ROWS)],
        "keys": NotRequired[Annotated[keys, AfterValidator(_distinct)] | None],
    }
    whole: Any = Annotated[strict_dict("Request", fields), AfterValidator(_one_for_each_row)]
    return TypeAdapter(whole)


def _distinct(keys: list[str]) -> list[str]:
    if len(set(keys)) < len(keys):
        doubled, _ = Counter(keys).most_common(1)[0]
        raise _key_error(rule="keys must be unique", got=shown(doubled))
    return keys


def _one_for_each_row(request: Request) -> Request:
    keys, rows = request.get("keys"), request["rows"]
    if keys is not None and len(keys) != len(rows):
        raise _key_error(
            rule="keys must be as many as rows", got=f"{len(keys)} for {len(rows)} rows"
        )
    return request


def _key_error(*, rule: str, got: str) -> PydanticCustomError:
    kind = "keys"
    return PydanticCustomError(kind, "{rule}", {"rule": rule, "got": got})


def problems(error: ValidationError, columns: Columns) -> list[Problem]:
    """Every problem that pydantic found in a request.

    Parameters
    ----------
    error : ValidationError
        Raised by a reader that `request_type` made.
    columns : dict of str to Column
        Declared columns of that reader.
    """
    return [_problem(details, columns) for details in error.errors(include_url=False)]


def _problem(details: ErrorDetails, columns: Columns) -> Problem:  # noqa: PLR0911 -- by place
    if details["type"] == "keys":
        context = details["ctx"]
        return Problem("keys", None, None, context["rule"], context["got"], _ONE_KEY)
    match details["loc"]:
        case ("rows", int(row), name):
            return _value_problem(details, row, str(name), columns.get(str(name)))
        case ("rows", int(row)):
            rule, cure = "must be an object", 'Send {"column": value, ...}.'
            return Problem("type", row, None, rule, shown(details["input"]), cure)
        case ("rows",):
            cure = f"Send 1 to {MAX_ROWS:,} rows, and more of them in several requests."
            return Problem("rows", None, None, _LENGTH, _size(details), cure)
        case ("keys", *place):
            at = place[0] if place and isinstance(place[0], int) else None
            return Problem("keys", at, None, _KEYS, shown(details["input"]), _ONE_KEY)
        case (name,):
            rule, cure = "a request must hold only rows and keys", "Leave it out."
            return Problem("undeclared", None, None, rule, shown(name), cure)
        case _:
            return _body_problem(details)


def _value_problem(
    details: ErrorDetails, row: int, name: str, column: Numeric | Categorical | None
) -> Problem:
    got = shown(details["input"])
    if column is None:
        rule, cure = "must be a declared column", "Leave it out, or declare it in data.features."
        return Problem("undeclared", row, name[:_LONGEST], rule, got, cure)
    if details["type"] == "missing":
        cure = "Send it, or declare it nullable in data.features."
        return Problem("missing", row, name, "must be present", _NOTHING, cure)
    if details["input"] is None:
        cure = "Send a value, or declare the column nullable in data.features."
        return Problem("null", row, name, "must not be null", "None", cure)
    code, rule, cure = _rule(details["type"], column)
    return Problem(code, row, name, rule, got, cure)


def _rule(kind: str, column: Numeric | Categorical) -> tuple[str, str, str]:
    """Code and text of the rule that a value broke, and the cure."""
    if isinstance(column, Categorical):
        if column.values is None:
            return "type", "must be a string", "Send a JSON string of valid Unicode."
        cure = "Send one of these labels, or add the new label to data.features."
        return "label", f"must be one of {{{', '.join(column.values)}}}", cure
    if kind in {"greater_than_equal", "less_than_equal"}:
        return "range", range_rule(column), "Fix the value, or its range in data.features."
    if kind == "finite_number":
        return "range", "must be finite", "Send null for an unknown value."
    return "type", "must be a number", "Send a JSON number, without quotes."


def _body_problem(details: ErrorDetails) -> Problem:
    if details["type"] == "json_invalid":
        return body_problem(details["ctx"]["error"])
    rule, cure = "a request must be an object", _SHAPE
    return Problem("body", None, None, rule, shown(details["input"]), cure)


def body_problem(got: str, rule: str = "a request must be valid JSON", cure: str = "") -> Problem:
    """Problem of a whole request, of which at most 200 characters are shown."""
    return Problem("body", None, None, rule, got[:_LONGEST_BODY], cure or _SHAPE)


def shown(value: object) -> str:
    """Show a value in 40 characters, and only the type of a collection: it may hold rows."""
    return type(value).__name__ if isinstance(value, list | dict) else repr(value)[:_LONGEST]


def _size(details: ErrorDetails) -> str:
    if details["type"] == "missing":
        return _NOTHING
    too_long = details["type"] == "too_long"
    return f"more than {MAX_ROWS:,}" if too_long else shown(details["input"])


def encoder(columns: Columns, categories: Categories) -> Callable[[Sequence[Row]], Matrix]:
    """Encode accepted rows as `columns.encode` does, without the cost of a DataFrame.

    Parameters
    ----------
    columns : dict of str to Column
        Declared columns, in the order of the matrix.
    categories : dict of str to list of str
        Known labels of each categorical column.

    Returns
    -------
    callable
        From n rows to an array of float64, shape (n, n_columns); an unknown label is `UNSEEN`,
        which the caller has to count and to replace by NaN.
    """
    places: dict[str, dict[str | None, float]] = {
        name: {None: math.nan} | {label: float(i) for i, label in enumerate(labels)}
        for name, labels in categories.items()
    }
    pairs = [(name, places.get(name)) for name in columns]

    def encode(rows: Sequence[Row]) -> Matrix:
        values = [  # column by column, so that the kind of a column is looked up only once
            [row.get(name) for row in rows]
            if known is None
            else [known.get(row.get(name), UNSEEN) for row in rows]
            for name, known in pairs
        ]
        return np.array(values, dtype=np.float64).T.copy()

    return encode
