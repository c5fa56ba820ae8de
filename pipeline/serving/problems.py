"""The problems of refused requests: what is wrong, what came, and the cure.

Finding them costs no more than reading the request: rows are checked a few at a time, and once
`MOST_PROBLEMS` are found the rest is left alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, to_json

from pipeline.columns import range_rule
from pipeline.config import Categorical, Columns, Numeric

MAX_ROWS = 10_000
"""Rows that one request holds at most."""
LONGEST_KEY = 200
"""Characters of a key at most."""
MOST_PROBLEMS = 50
"""Problems of a request that are looked for; answers list them as far as they are short."""
_LONGEST, _LONGEST_BODY, _LONGEST_RULE = 40, 200, 200
LONGEST_LIST = 15_000
"""Bytes of the problems that an answer lists, at most."""
LONGEST_TEXT = 256
"""Characters of a label at most, unless the training rows hold it."""
TEXT_RULE = f"must be text of 1 to {LONGEST_TEXT} characters, without blanks around it or NUL in it"
_AT_ONCE = 10
"""Rows that are checked together, as all their problems are found together."""
_LENGTH = f"rows must be a list of 1 to {MAX_ROWS:,} rows"
_KEYS = f"keys must be a list of strings of 1 to {LONGEST_KEY} characters"
_ONE_KEY = "Send one string for each row, or leave keys out."
SHAPE = 'Send {"rows": [{"column": value, ...}, ...]}.'
_NOTHING = "nothing"


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


class Unreadable(Exception):  # noqa: N818 -- an answer, not an error
    """Raised for a body that cannot be read into rows.

    Attributes
    ----------
    problem : Problem
        Why it cannot be read.
    """

    def __init__(self, got: str, rule: str, cure: str) -> None:
        self.problem = body_problem(got, rule, cure)
        super().__init__(rule)


class Found(NamedTuple):
    """The problems of a request.

    Attributes
    ----------
    problems : list of Problem
        The first of them, as many as an answer lists.
    more : bool
        Whether there are others.
    bad : set of int
        Places of the rows with a problem; incomplete unless every row was asked for.
    whole : bool
        Whether one of them concerns the request itself, so that no row of it can be predicted.
    """

    problems: list[Problem]
    more: bool = False
    bad: frozenset[int] = frozenset()
    whole: bool = True


def find(
    given: Any,
    *,
    few: TypeAdapter[Any],
    outline: TypeAdapter[Any],
    columns: Columns,
    every_row: bool,
) -> Found:
    """Find the problems of a request that was read and breaks the contract.

    Parameters
    ----------
    given : Any
        The request, as JSON was read.
    few : TypeAdapter
        Checks a few rows with all their problems.
    outline : TypeAdapter
        Checks everything but what rows hold.
    columns : dict of str to Column
        Declared columns.
    every_row : bool
        Whether all bad rows are looked for, and not only those of the first problems.
    """
    outer = [_outer_problem(details) for details in _errors(outline, _cut(given, ("rows", "keys")))]
    if any(problem.code in {"rows", "body"} for problem in outer):
        return Found(shortened(outer)[0])
    found: list[Problem] = []
    bad, more = set(), False
    for start, details in row_errors(few, "rows", given["rows"], tuple(columns)):
        bad.add(start + int(details["loc"][1]))
        if len(found) < MOST_PROBLEMS:
            found.append(_row_problem(details, start, columns))
            continue
        more = True
        if not every_row:
            break
    listed, left = shortened([*found, *outer])
    return Found(listed, more or left, frozenset(bad), bool(outer))


def row_errors(
    kind: TypeAdapter[Any], field: str, items: list[Any], names: tuple[str, ...]
) -> Iterator[tuple[int, ErrorDetails]]:
    """Errors of the items of a request's list, in their order and as they are asked for.

    Each comes with the place from which its item is counted. Of fields that `names` does not
    hold, some of each item are checked.
    """
    for start in range(0, len(items), _AT_ONCE):
        part = [_cut(item, names) for item in items[start : start + _AT_ONCE]]
        for details in _errors(kind, {field: part}):
            yield start, details


def _errors(kind: TypeAdapter[Any], value: Any) -> list[ErrorDetails]:
    try:
        kind.validate_python(value)
    except ValidationError as error:
        return error.errors(include_url=False)
    return []


def _cut(item: Any, names: tuple[str, ...]) -> Any:
    """Leave out all but the first of the keys that an object should not hold."""
    if not isinstance(item, dict) or len(item) <= len(names):
        return item
    extra = islice((key for key in item if key not in names), MOST_PROBLEMS)
    return {key: item[key] for key in names if key in item} | {key: item[key] for key in extra}


def shortened(problems: list[Problem]) -> tuple[list[Problem], bool]:
    """The first problems, as many as one answer lists, and whether there are others."""
    size = 0
    for i, problem in enumerate(problems[:MOST_PROBLEMS]):
        size += len(to_json(problem))
        if i and size > LONGEST_LIST:
            return problems[:i], True
    return problems[:MOST_PROBLEMS], len(problems) > MOST_PROBLEMS


def _row_problem(details: ErrorDetails, start: int, columns: Columns) -> Problem:
    """Problem of a row; `start` is the place of the first row that it was checked with."""
    _, place, *column = details["loc"]
    row = start + int(place)
    if column:
        name = str(column[0])
        return _value_problem(details, row, name, columns.get(name))
    rule, cure = "must be an object", 'Send {"column": value, ...}.'
    return Problem("type", row, None, rule, shown(details["input"]), cure)


def _outer_problem(details: ErrorDetails) -> Problem:
    if details["type"] == "keys":
        context = details["ctx"]
        return Problem("keys", None, None, context["rule"], context["got"], _ONE_KEY)
    match details["loc"]:
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
            got = shown(details["input"])
            return body_problem(got, "a request must be an object", SHAPE)


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
        if column.values is not None:
            cure = "Send one of these labels, or add the new label to data.features."
            return "label", f"must be one of {{{_listed(column.values)}}}", cure
        if kind in {"string_too_long", "string_too_short", "string_pattern_mismatch"}:
            return "label", TEXT_RULE, "Send null for an unknown label."
        return "type", "must be a string", "Send a JSON string of valid Unicode."
    if kind in {"greater_than_equal", "less_than_equal"}:
        return "range", range_rule(column), "Fix the value, or its range in data.features."
    if kind == "finite_number":
        return "range", "must be finite", "Send null for an unknown value."
    return "type", "must be a number", "Send a JSON number, without quotes."


def _listed(labels: tuple[str, ...]) -> str:
    listed = ", ".join(labels)
    return listed if len(listed) <= _LONGEST_RULE else f"{listed[:_LONGEST_RULE]}, ..."


def body_problem(got: str, rule: str, cure: str) -> Problem:
    """Problem of a whole request, of which at most 200 characters are shown."""
    return Problem("body", None, None, rule, got[:_LONGEST_BODY], cure)


def shown(value: object) -> str:
    """Show a value in 40 characters, and only the type of a collection: it may hold rows."""
    if isinstance(value, list | dict):
        return type(value).__name__
    return repr(value[:_LONGEST] if isinstance(value, str) else value)[:_LONGEST]


def _size(details: ErrorDetails) -> str:
    if details["type"] == "missing":
        return _NOTHING
    too_long = details["type"] == "too_long"
    return f"more than {MAX_ROWS:,}" if too_long else shown(details["input"])
