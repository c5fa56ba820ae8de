"""The contract of requests, derived from the declared columns.

Rows of a request obey the rules of `contract.pandera_schema` and the types of JSON: strings are
not numbers, numbers are not labels, booleans are neither.
"""

import math
import re
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
    TypeAdapter,
    with_config,
)
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict  # Python's own is too old before 3.12

from pipeline.columns import Categories, Matrix, limits
from pipeline.config import Categorical, Columns, Numeric
from pipeline.serving.problems import LONGEST_KEY, LONGEST_TEXT, MAX_ROWS, Found, find, shown

Row = Mapping[str, Any]
Request = dict[str, Any]
"""A request as read: ``rows`` to predict, and optional ``keys`` that identify them."""
_PLAIN = r"^[^\s\x00-\x1f](?:[^\x00]*[^\s\x00-\x1f])?$"
"""Text without blanks or control characters around it, as a pattern of JSON Schema. SQLite's JSON
ends a text at U+0000, so that keys with it would be taken for each other."""
UNSEEN = -1.0
"""Code of a label that the training rows do not hold."""


@dataclass(frozen=True)
class Contract:
    """What requests must hold.

    Attributes
    ----------
    columns : dict of str to Column
        Declared columns.
    request : TypeAdapter
        Reads and checks whole requests, up to the first bad row.
    few : TypeAdapter
        Checks a few rows with all their problems.
    outline : TypeAdapter
        Checks requests whatever their rows hold.
    """

    columns: Columns
    request: TypeAdapter[Request]
    few: TypeAdapter[Any]
    outline: TypeAdapter[Any]

    @classmethod
    def of(cls, columns: Columns, categories: Categories) -> "Contract":
        """The contract of some columns with the labels of their training rows."""
        row = row_type(columns, categories)
        rows: Any = GenericAlias(list, (row,))
        first: Any = Annotated[rows, Field(fail_fast=True)]
        kinds = map(_request_type, (first, rows, list[Any]))
        return cls(columns, *kinds)

    def problems(self, given: Any, *, every_row: bool) -> Found:
        """Find the problems of a request that breaks the contract; see `problems.find`."""
        return find(
            given,
            few=self.few,
            outline=self.outline,
            columns=self.columns,
            every_row=every_row,
        )


def row_type(columns: Columns, categories: Categories) -> Any:
    """Typed dict of one row, which accepts what `contract.pandera_schema` accepts.

    Labels that neither the columns declare nor the training rows hold must also be short, and
    without blanks around them. Nullable columns may be left out.
    """
    fields: dict[str, Any] = {}
    for name, column in columns.items():
        kind = _annotation(column, categories.get(name, ()))
        fields[name] = NotRequired[kind] if column.nullable else kind
    return strict_dict("Row", fields)


def strict_dict(name: str, fields: dict[str, Any]) -> Any:
    """Typed dict with the given fields that refuses any other key."""
    kind: Any = TypedDict
    return with_config(ConfigDict(extra="forbid"))(kind(name, fields))


def text_type(longest: int) -> Any:
    """Strings of 1 to some characters, without blanks around them or U+0000 in them."""
    return Annotated[str, Field(strict=True, min_length=1, max_length=longest, pattern=_PLAIN)]


def _annotation(column: Numeric | Categorical, known: Sequence[str]) -> Any:
    if isinstance(column, Numeric):
        low, high = limits(column)
        rule: Any = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=low, le=high)]
    elif column.values is None:
        odd = tuple(
            label for label in known if len(label) > LONGEST_TEXT or not re.fullmatch(_PLAIN, label)
        )
        text = text_type(LONGEST_TEXT)
        rule = Literal[odd] | text if odd else text
    else:
        rule = Literal[column.values]
    return rule | None if column.nullable else rule


def _request_type(rows: Any) -> TypeAdapter[Any]:
    """Reads a whole request: 1 to `MAX_ROWS` rows, and one key for each row or no keys."""
    keys: Any = GenericAlias(list, (text_type(LONGEST_KEY),))
    fields = {
        "rows": Annotated[rows, Field(min_length=1, max_length=MAX_ROWS)],
        "keys": NotRequired[
            Annotated[keys, Field(fail_fast=True), AfterValidator(_distinct)] | None
        ],
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
        values = [  # one flat list: NumPy takes ten times as long for a row of nested ones
            row.get(name) if known is None else known.get(row.get(name), UNSEEN)
            for row in rows
            for name, known in pairs
        ]
        return np.array(values, dtype=np.float64).reshape(-1, len(pairs))

    return encode
