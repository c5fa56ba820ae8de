"""The Open Inference Protocol, version 2, without its binary extension.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
"""

import json
from http import HTTPStatus
from typing import Any

from pipeline.config import Column, Columns, Numeric
from pipeline.serving.bodies import read_json
from pipeline.serving.problems import LONGEST_KEY, MAX_ROWS, Unreadable, shown
from pipeline.serving.protocols import Answer, Protocol
from pipeline.training.model import Model

PREDICTION = "prediction"
DECISION = "decision"
"""Names of the output tensors; a version without costs has only the first."""
_BITS = {
    **{f"INT{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (64, 32, 16, 8)},
    **{f"UINT{bits}": (0, 2**bits - 1) for bits in (64, 32, 16, 8)},
}
"""Least and greatest value of each datatype of integers."""
_NUMBERS, _LABELS = ("FP64", "FP32", "FP16", *_BITS), ("BYTES",)
"""Datatypes of a column's tensor; the first is the one that metadata names."""
_TENSOR = 'Send {"inputs": [{"name": "column", "shape": [1], "datatype": "FP64", "data": [1]}]}.'
_NO_BINARY = "Send and ask for tensors as JSON."


def _read(
    body: bytes, _kind: str, columns: Columns, *, decides: bool
) -> tuple[dict[str, Any], Any]:
    asked = read_json(body, len(columns), _TENSOR)
    inputs = asked.get("inputs") if isinstance(asked, dict) else None
    unknown = sorted(set(asked) - {"id", "inputs", "outputs", "parameters"}) if inputs else []
    if not isinstance(inputs, list) or not inputs or unknown:
        rule = "a request must hold inputs, a list of tensors, and at most id, outputs, parameters"
        got = ", ".join(name[:40] for name in unknown[:5])
        raise Unreadable(got or shown(inputs or asked), rule, _TENSOR)
    name = asked.get("id", "")
    if not isinstance(name, str) or len(name) > LONGEST_KEY:
        rule = f"id must be a string of at most {LONGEST_KEY} characters"
        raise Unreadable(shown(name), rule, "Send a shorter one, or no id.")
    _check_parameters(asked)
    outputs = _outputs(asked.get("outputs", []), decides=decides)
    rows = _rows([_tensor(tensor, columns) for tensor in inputs])
    return {"rows": rows}, (asked.get("id"), outputs)


def _check_parameters(given: dict[str, Any]) -> None:
    """Refuse parameters of a request or tensor that are none, or that ask for binary data."""
    parameters = given.get("parameters", {})
    kinds = str | int | float | bool
    if not isinstance(parameters, dict) or not all(
        isinstance(value, kinds) for value in parameters.values()
    ):
        rule = "parameters must be an object of strings, numbers and booleans"
        raise Unreadable(shown(parameters), rule, "Leave parameters out.")
    binary = [
        name for name, value in parameters.items() if name.startswith("binary_data") and value
    ]
    if binary:
        rule = "the binary extension of the protocol is not supported"
        raise Unreadable(binary[0][:40], rule, _NO_BINARY)


def _outputs(outputs: Any, *, decides: bool) -> list[str]:
    """Names of the tensors to return: those asked for, or all."""
    known = [PREDICTION, DECISION] if decides else [PREDICTION]
    some = "some of " if decides else ""
    wanted = ", ".join(f'{{"name": "{name}"}}' for name in known)
    rule, cure = f"outputs must be {some}[{wanted}]", "Leave outputs out."
    if not isinstance(outputs, list):
        raise Unreadable(shown(outputs), rule, cure)
    names = list[str]()
    for output in outputs:
        if not isinstance(output, dict) or not {"name"} <= set(output) <= {"name", "parameters"}:
            raise Unreadable(shown(output), rule, cure)
        if output["name"] not in known or output["name"] in names:
            raise Unreadable(shown(output["name"]), rule, cure)
        _check_parameters(output)
        names.append(output["name"])
    return names or known


def _rows(tensors: list[tuple[str, list[Any]]]) -> list[dict[str, Any]]:
    names = [name for name, _ in tensors]
    if len(set(names)) < len(names) or len({len(values) for _, values in tensors}) != 1:
        rule = "tensors must have different names and the same number of rows"
        raise Unreadable(", ".join(name[:40] for name in names[:5]), rule, _TENSOR)
    values = zip(*[values for _, values in tensors], strict=True)
    return [dict(zip(names, row, strict=True)) for row in values]


def _tensor(given: Any, columns: Columns) -> tuple[str, list[Any]]:
    """Name and values of a tensor."""
    if not isinstance(given, dict) or not isinstance(given.get("name"), str):
        raise Unreadable(type(given).__name__, "a tensor must have a name", _TENSOR)
    name, kind = given["name"], given.get("datatype")
    unknown = sorted(set(given) - {"name", "shape", "datatype", "data", "parameters"})
    if unknown:
        rule = "a tensor must hold only name, shape, datatype, data and parameters"
        raise Unreadable(f"{name[:40]}: {unknown[0][:40]}", rule, _TENSOR)
    _check_parameters(given)
    data = _values(name, given.get("data"), given.get("shape"))
    column = columns.get(name)
    if column is not None and kind not in _datatypes(column):
        rule = f"the datatype of {name} must be one of {', '.join(_datatypes(column))}"
        raise Unreadable(shown(kind), rule, _TENSOR)
    if kind in _BITS:
        low, high = _BITS[kind]
        for value in data:
            if value is not None and not (type(value) is int and low <= value <= high):
                rule = f"a value of an {kind} tensor must be an integer in {low} .. {high}"
                cure = "Send integers, or the datatype FP64."
                raise Unreadable(f"{name[:40]}: {shown(value)}", rule, cure)
    return name, data


def _datatypes(column: Column) -> tuple[str, ...]:
    return _NUMBERS if isinstance(column, Numeric) else _LABELS


def _values(name: str, data: Any, shape: Any) -> list[Any]:
    """Values of a tensor of one column, which may be written as rows of one value."""
    if isinstance(data, list) and all(isinstance(row, list) and len(row) == 1 for row in data):
        data = [value for [value] in data]
    if not isinstance(data, list) or len(data) > MAX_ROWS:
        rule = f"the data of a tensor must be a list of at most {MAX_ROWS:,} values"
        raise Unreadable(f"{name[:40]}: {type(data).__name__}", rule, _TENSOR)
    whole = isinstance(shape, list) and all(type(size) is int for size in shape)
    if not whole or shape not in ([len(data)], [len(data), 1]):
        rule = "the shape of a tensor must be [n] or [n, 1], in integers, for n values"
        raise Unreadable(f"{name[:40]}: {str(shape)[:40]} for {len(data)}", rule, _TENSOR)
    return data


def _write(answer: Answer) -> dict[str, Any]:
    rows, (name, outputs) = answer.predictions, answer.asked
    width = [len(answer.classes)] if answer.classes else []
    null = [None] * len(answer.classes)
    data = [one for row in rows for one in row or null] if answer.classes else rows
    tensors: dict[str, dict[str, Any]] = {
        PREDICTION: {"shape": [len(rows), *width], "datatype": "FP64", "data": data},
        DECISION: {"shape": [len(rows)], "datatype": "INT64", "data": answer.decisions},
    }
    content = {
        "model_name": answer.name,
        "model_version": answer.version,
        "id": name or answer.request_id,
        "outputs": [{"name": output, **tensors[output]} for output in outputs],
    }
    problems = {"parameters": {"problems": answer.problems}} if answer.problems else {}
    return content | problems


def metadata(name: str, version: str, model: Model, *, decides: bool) -> dict[str, Any]:
    """Model metadata of the protocol: the tensors it takes and returns.

    The columns of the output tensor of several classes are named in its parameters.
    """
    output: dict[str, Any] = {"name": PREDICTION, "datatype": "FP64", "shape": [-1]}
    decision = {"name": DECISION, "datatype": "INT64", "shape": [-1]}
    if model.classes:
        labels = json.dumps(model.classes)
        output |= {"shape": [-1, len(model.classes)], "parameters": {"labels": labels}}
    return {
        "name": name,
        "versions": [version],
        "platform": "holdfast",
        "inputs": [
            {"name": column, "datatype": _datatypes(rule)[0], "shape": [-1]}
            for column, rule in model.columns.items()
        ],
        "outputs": [output, *([decision] if decides else [])],
    }


INFERENCE = Protocol(_read, _write, HTTPStatus.BAD_REQUEST)
