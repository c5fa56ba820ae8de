"""Protocols of requests: our own, MLflow's scoring protocol and the Open Inference Protocol.

https://mlflow.org/docs/latest/ml/deployment/deploy-model-locally
https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol
"""

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pipeline.config import Categorical, Columns, Numeric
from pipeline.serving.bodies import read_json
from pipeline.serving.problems import MAX_ROWS, Problem, Unreadable

PREDICTION = "prediction"
"""Name of the output tensor in the Open Inference Protocol."""
_FRAMES = ("dataframe_split", "dataframe_records", "instances", "inputs")
_TYPES = {
    "numeric": ("FP64", "FP32", "INT64", "INT32", "INT16", "INT8", "UINT32", "UINT16", "UINT8"),
    "categorical": ("BYTES",),
}


@dataclass(frozen=True)
class Answer:
    """Predictions and keys of a request's rows, in their order.

    Attributes
    ----------
    predictions : list of float or None
        None for a row that was refused while the others were predicted.
    keys : list of str
        Key of each row, by which its label joins later.
    name, version, request_id : str
        The model, its version, and the request.
    problems : list of Problem
        Problems of the refused rows.
    asked : Any
        Whatever else the protocol's `write` needs from the request.
    """

    predictions: list[float | None]
    keys: list[str]
    name: str
    version: str
    request_id: str
    problems: list[Problem]
    asked: Any


@dataclass(frozen=True)
class Protocol:
    """How a request is read and its answer is written.

    Attributes
    ----------
    read : callable or None
        From body, content type and columns to ``{"rows": ..., "keys": ...}`` and whatever `write`
        needs from the request; None where the body has this form already.
    write : callable
        From an answer to the content that is sent as JSON.
    """

    read: Callable[[bytes, str, Columns], tuple[dict[str, Any], Any]] | None
    write: Callable[[Answer], dict[str, Any]]


def _native(answer: Answer) -> dict[str, Any]:
    content: dict[str, Any] = {
        "predictions": answer.predictions,
        "keys": answer.keys,
        "version": answer.version,
        "request_id": answer.request_id,
    }
    return content | {"problems": answer.problems} if answer.problems else content


# MLflow's scoring protocol


def _read_invocation(body: bytes, kind: str, columns: Columns) -> tuple[dict[str, Any], Any]:
    if kind == "text/csv":
        return {"rows": _csv(body, columns)}, None
    asked = _object(body, columns, _FRAME)
    found = [name for name in _FRAMES if name in asked]
    extra = sorted(set(asked) - set(_FRAMES))
    if len(found) != 1 or extra:
        rule = f"a request must hold one of {', '.join(_FRAMES)}, and nothing else"
        raise Unreadable(", ".join([*found, *extra]) or "none of them", rule, _FRAME)
    given = asked[found[0]]
    return {"rows": _split(given) if found[0] == "dataframe_split" else _records(given)}, None


_FRAME = 'Send {"dataframe_records": [{"column": value, ...}, ...]}.'


def _object(body: bytes, columns: Columns, cure: str) -> dict[str, Any]:
    asked = read_json(body, len(columns), cure)
    if not isinstance(asked, dict):
        raise Unreadable(type(asked).__name__, "a request must be an object", cure)
    return asked


def _split(given: Any) -> list[dict[str, Any]]:
    rule = "dataframe_split must hold columns, and data with one value per column in each row"
    cure = 'Send {"dataframe_split": {"columns": ["a"], "data": [[1]]}}.'
    if not isinstance(given, dict) or not {"columns", "data"} <= set(given) <= _SPLIT:
        raise Unreadable(type(given).__name__, rule, cure)
    names, data = given["columns"], given["data"]
    lists = isinstance(names, list) and isinstance(data, list)
    if not lists or not all(isinstance(name, str) for name in names):
        raise Unreadable(f"{type(names).__name__}, {type(data).__name__}", rule, cure)
    if len(set(names)) < len(names):
        raise Unreadable(f"{len(names)} columns, some of them twice", rule, cure)
    _check_rows(len(data), cure)
    for row in data:
        if not isinstance(row, list) or len(row) != len(names):
            raise Unreadable(type(row).__name__, rule, cure)
    return [dict(zip(names, row, strict=True)) for row in data]


_SPLIT = {"columns", "data", "index"}


def _records(given: Any) -> Any:
    """Turn columns of equal length into rows; anything else is returned unchanged."""
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
    cure = "Send a header with the column names, and one line per row."
    if body.count(b",") > MAX_ROWS * len(columns):
        rule = f"a request must hold at most {MAX_ROWS:,} rows of the declared columns"
        raise Unreadable(f"{body.count(b','):,} commas", rule, cure)
    try:
        lines = csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True)
        names, *records = islice(lines, MAX_ROWS + 2)
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        rule = "a request must be CSV in UTF-8 with a header"
        raise Unreadable(str(error), rule, cure) from error
    _check_rows(len(records), cure)
    if len(set(names)) < len(names) or any(len(record) != len(names) for record in records):
        rule = "the header must name each column once, and each line must hold one value per column"
        raise Unreadable(f"{len(names)} columns", rule, cure)
    return [
        {name: _cell(text, columns.get(name)) for name, text in zip(names, record, strict=True)}
        for record in records
    ]


def _cell(text: str, column: Numeric | Categorical | None) -> Any:
    """Read a CSV field: empty is null; in numeric columns text stays text, to be refused."""
    if text == "":
        return None
    if not isinstance(column, Numeric) or "_" in text:  # only Python reads 1_000 as a number
        return text
    try:
        return float(text)
    except ValueError:
        return text


def _write_invocation(answer: Answer) -> dict[str, Any]:
    return {"predictions": answer.predictions}


# Open Inference Protocol, version 2


def _read_infer(body: bytes, _kind: str, columns: Columns) -> tuple[dict[str, Any], Any]:
    asked = _object(body, columns, _TENSOR)
    inputs, outputs = asked.get("inputs"), asked.get("outputs")
    unknown = sorted(set(asked) - {"id", "inputs", "outputs", "parameters"})
    if not isinstance(inputs, list) or not inputs or unknown:
        rule = "a request must hold inputs, a list of tensors, and at most id, outputs, parameters"
        raise Unreadable(", ".join(unknown) or type(inputs).__name__, rule, _TENSOR)
    if outputs and not _is_prediction(outputs):
        rule = f'outputs must be [{{"name": "{PREDICTION}"}}]'
        raise Unreadable(repr(outputs)[:40], rule, "Leave outputs out.")
    return {"rows": _rows([_tensor(tensor, columns) for tensor in inputs])}, asked.get("id")


def _is_prediction(outputs: Any) -> bool:
    """Whether the outputs that a request asks for are the prediction, and nothing else."""
    if not isinstance(outputs, list) or len(outputs) != 1:
        return False
    [output] = outputs
    return (output.get("name") if isinstance(output, dict) else output) == PREDICTION


def _rows(tensors: list[tuple[str, list[Any]]]) -> list[dict[str, Any]]:
    names = [name for name, _ in tensors]
    if len(set(names)) < len(names) or len({len(values) for _, values in tensors}) != 1:
        rule = "tensors must have different names and the same number of rows"
        raise Unreadable(", ".join(name[:40] for name in names[:5]), rule, _TENSOR)
    values = zip(*[values for _, values in tensors], strict=True)
    return [dict(zip(names, row, strict=True)) for row in values]


_TENSOR = 'Send {"inputs": [{"name": "column", "shape": [1], "datatype": "FP64", "data": [1]}]}.'


def _tensor(given: Any, columns: Columns) -> tuple[str, list[Any]]:
    if not isinstance(given, dict) or not isinstance(given.get("name"), str):
        raise Unreadable(type(given).__name__, "a tensor must have a name", _TENSOR)
    name, data, shape = given["name"], given.get("data"), given.get("shape")
    if isinstance(data, list) and all(isinstance(row, list) and len(row) == 1 for row in data):
        data = [value for [value] in data]
    if not isinstance(data, list) or len(data) > MAX_ROWS:
        rule = f"the data of a tensor must be a list of at most {MAX_ROWS:,} values"
        raise Unreadable(f"{name[:40]}: {type(data).__name__}", rule, _TENSOR)
    if shape not in ([len(data)], [len(data), 1]):
        rule = "the shape of a tensor must be [n] or [n, 1] for n values"
        raise Unreadable(f"{name[:40]}: {str(shape)[:40]} for {len(data)}", rule, _TENSOR)
    column = columns.get(name)
    if column is not None and given.get("datatype") not in _TYPES[column.type]:
        rule = f"the datatype of {name} must be one of {', '.join(_TYPES[column.type])}"
        raise Unreadable(str(given.get("datatype"))[:40], rule, _TENSOR)
    return name, data


def _write_infer(answer: Answer) -> dict[str, Any]:
    content = {
        "model_name": answer.name,
        "model_version": answer.version,
        "id": answer.asked if isinstance(answer.asked, str) else answer.request_id,
        "outputs": [
            {
                "name": PREDICTION,
                "shape": [len(answer.predictions)],
                "datatype": "FP64",
                "data": answer.predictions,
            }
        ],
    }
    problems = {"parameters": {"problems": answer.problems}} if answer.problems else {}
    return content | problems


def metadata(name: str, version: str, columns: Columns) -> dict[str, Any]:
    """Model metadata of the Open Inference Protocol: the tensors it takes and returns."""
    return {
        "name": name,
        "versions": [version],
        "platform": "holdfast",
        "inputs": [
            {"name": column, "datatype": _TYPES[rule.type][0], "shape": [-1]}
            for column, rule in columns.items()
        ],
        "outputs": [{"name": PREDICTION, "datatype": "FP64", "shape": [-1]}],
    }


NATIVE = Protocol(None, _native)
INVOCATIONS = Protocol(_read_invocation, _write_invocation)
INFERENCE = Protocol(_read_infer, _write_infer)
