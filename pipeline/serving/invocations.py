"""MLflow's scoring protocol.

https://mlflow.org/docs/latest/ml/deployment/deploy-model-locally
"""

import csv
import io
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

from pipeline.config import Categorical, Columns, Numeric
from pipeline.serving.bodies import read_json
from pipeline.serving.problems import MAX_ROWS, Unreadable, shown
from pipeline.serving.protocols import Answer, Protocol

_FRAMES = ("dataframe_split", "dataframe_records", "instances", "inputs")
_FRAME = 'Send {"dataframe_records": [{"column": value, ...}, ...]}.'
_SPLIT = 'Send {"dataframe_split": {"columns": ["a"], "data": [[1]]}}.'
_LONGEST_LINE = 100_000
_LINES = 2
"""Lines of a row on average, because a label may hold some."""
_CSV = "Send a header with the column names, and one line per row."
_NUMBER = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|nan|inf)", re.ASCII | re.IGNORECASE)


def _read(body: bytes, kind: str, columns: Columns, **_: bool) -> tuple[dict[str, Any], Any]:
    if kind == "text/csv":
        return {"rows": _csv(body, columns)}, None
    asked = read_json(body, len(columns), _FRAME)
    if not isinstance(asked, dict):
        raise Unreadable(type(asked).__name__, "a request must be an object", _FRAME)
    if asked.get("params"):
        rule = "params must be empty, because this model takes none"
        raise Unreadable(shown(asked["params"]), rule, "Leave params out.")
    if "signature_name" in asked:
        rule = "signature_name is not supported, because this model has one signature"
        raise Unreadable(shown(asked["signature_name"]), rule, "Leave signature_name out.")
    found = [name for name in _FRAMES if name in asked]
    extra = sorted(set(asked) - {*_FRAMES, "params"})
    if len(found) != 1 or extra:
        rule = f"a request must hold one of {', '.join(_FRAMES)}, and besides it only params"
        names = ", ".join([*found, *(name[:40] for name in extra[:5])])
        raise Unreadable(names or "none of them", rule, _FRAME)
    given = asked[found[0]]
    return {"rows": _split(given) if found[0] == "dataframe_split" else _records(given)}, None


def _split(given: Any) -> list[dict[str, Any]]:
    rule = "dataframe_split must hold columns, and data with one value per column in each row"
    if not isinstance(given, dict) or not {"columns", "data"} <= set(given) <= _SPLIT_KEYS:
        raise Unreadable(type(given).__name__, rule, _SPLIT)
    names, data = given["columns"], given["data"]
    lists = isinstance(names, list) and isinstance(data, list)
    if not lists or not all(isinstance(name, str) for name in names):
        raise Unreadable(f"{type(names).__name__}, {type(data).__name__}", rule, _SPLIT)
    if len(set(names)) < len(names):
        raise Unreadable(f"{len(names)} columns, some of them twice", rule, _SPLIT)
    _check_rows(len(data), _SPLIT)
    _check_index(given.get("index"), len(data))
    for row in data:
        if not isinstance(row, list) or len(row) != len(names):
            raise Unreadable(type(row).__name__, rule, _SPLIT)
    return [dict(zip(names, row, strict=True)) for row in data]


_SPLIT_KEYS = {"columns", "data", "index"}


def _check_index(index: Any, n: int) -> None:
    """Refuse an index that does not name each row once."""
    if index is None:
        return
    named = isinstance(index, list) and all(type(one) in {int, str} for one in index)
    if not named or len(index) != n or len(set(index)) < n:
        rule = "the index of dataframe_split must be a list of one number or text for each row"
        raise Unreadable(shown(index), rule, "Leave index out, or name each row once.")


def _records(given: Any) -> Any:
    """Turn columns of equal length into rows; a list of rows is returned unchanged."""
    if isinstance(given, list) and given and isinstance(given[0], list):
        cure = "Send objects, or dataframe_split with columns and data."
        raise Unreadable(shown(given[0]), "rows must be objects that name their columns", cure)
    if not isinstance(given, dict):
        return given
    lists = [value for value in given.values() if isinstance(value, list)]
    if len(lists) < len(given) or len({len(values) for values in lists}) != 1:
        rule = "columns must be lists of equal length"
        raise Unreadable(", ".join(f"{k[:40]}" for k in list(given)[:5]), rule, _FRAME)
    _check_rows(len(lists[0]), _FRAME)
    return [dict(zip(given, row, strict=True)) for row in zip(*lists, strict=True)]


def _check_rows(n: int, cure: str) -> None:
    """Refuse more rows than a request holds, before any is built."""
    if n > MAX_ROWS:
        rule = f"a request must hold at most {MAX_ROWS:,} rows"
        raise Unreadable(f"{n:,} rows", rule, f"{cure} Send the rows in several requests.")


def _csv(body: bytes, columns: Columns) -> list[dict[str, Any]]:
    commas, ends = body.count(b","), body.count(b"\n")
    if commas > MAX_ROWS * len(columns) or ends > _LINES * MAX_ROWS:
        rule = f"a request must hold at most {MAX_ROWS:,} rows of the declared columns"
        raise Unreadable(f"{commas:,} commas in {ends:,} lines", rule, _CSV)
    try:
        text = io.TextIOWrapper(io.BytesIO(body), "utf-8-sig", newline="")
        lines = csv.reader(_lines(text), strict=True)
        names, *records = islice(lines, MAX_ROWS + 2)
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        rule = "a request must be CSV in UTF-8 with a header"
        raise Unreadable(str(error), rule, _CSV) from error
    _check_rows(len(records), _CSV)
    if not columns.keys() & set(names):
        rule = "the first line must be a header that names declared columns"
        raise Unreadable(shown(names[0]) if names else "an empty line", rule, _CSV)
    if len(set(names)) < len(names) or any(len(record) != len(names) for record in records):
        rule = "the header must name each column once, and each line must hold one value per column"
        raise Unreadable(f"{len(names)} columns", rule, _CSV)
    return [
        {name: _cell(text, columns.get(name)) for name, text in zip(names, record, strict=True)}
        for record in records
    ]


def _lines(text: io.TextIOWrapper) -> Iterator[str]:
    """Lines of a text, up to one that is too long to be a row."""
    while line := text.readline(_LONGEST_LINE):
        if len(line) == _LONGEST_LINE:
            message = f"a line of {_LONGEST_LINE:,} characters or more"
            raise csv.Error(message)
        yield line


def _cell(text: str, column: Numeric | Categorical | None) -> Any:
    """Read a CSV field: empty is null; in numeric columns text stays text, to be refused."""
    if text == "":
        return None
    # Python also reads blanks, underscores and the digits of other scripts as parts of numbers.
    return float(text) if isinstance(column, Numeric) and _NUMBER.fullmatch(text) else text


def _write(answer: Answer) -> dict[str, Any]:
    return {"predictions": answer.predictions}


INVOCATIONS = Protocol(_read, _write)
