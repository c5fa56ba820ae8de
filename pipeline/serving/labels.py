"""Requests that send the labels of predicted rows."""

from types import GenericAlias
from typing import Annotated, Any

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from pipeline.serving.bodies import read_json
from pipeline.serving.problems import (
    LONGEST_KEY,
    MOST_PROBLEMS,
    Found,
    Problem,
    Unreadable,
    body_problem,
    row_errors,
    shortened,
    shown,
)
from pipeline.serving.requests import strict_dict, text_type

MOST = 10_000
"""Labels that one request holds at most."""
_CURE = 'Send {"labels": [{"key": "...", "target": 1}, ...]}.'
_NAMES = ("key", "target")
_RULES = {
    "key": f"must be text of 1 to {LONGEST_KEY} characters, without blanks around it",
    "classification": "must be 0 or 1",
    "regression": "must be a finite number",
}


def label_type(task: str) -> TypeAdapter[Any]:
    """Reads ``{"labels": [{"key": ..., "target": ...}]}``; targets depend on the task."""
    target: Any = Annotated[float, Field(strict=True, allow_inf_nan=False)]
    if task == "classification":
        described = Field(json_schema_extra={"enum": [0, 1]})
        target = Annotated[target, AfterValidator(_class), described]
    labels: Any = GenericAlias(
        list, (strict_dict("Label", {"key": text_type(LONGEST_KEY), "target": target}),)
    )
    whole = {"labels": Annotated[labels, Field(min_length=1, max_length=MOST)]}
    return TypeAdapter(strict_dict("Labels", whole))


def _class(target: float) -> float:
    if target not in {0, 1}:
        raise ValueError(_RULES["classification"])
    return target


def read_labels(body: bytes, task: str, kind: TypeAdapter[Any]) -> dict[str, float] | Found:
    """Read labels by the keys of their rows; in their place, the problems of the request."""
    try:
        given = read_json(body, len(_NAMES), _CURE)
        labels = kind.validate_python(given)["labels"]
    except Unreadable as error:
        return Found([error.problem])
    except ValidationError as error:
        return _found(error, given, task, kind)
    targets = {label["key"]: label["target"] for label in labels}
    doubled = [
        Problem("labels", row, None, "the labels of a key must agree", shown(label["key"]), _CURE)
        for row, label in enumerate(labels)
        if targets[label["key"]] != label["target"]
    ]
    return Found(*shortened(doubled)) if doubled else targets


def _found(error: ValidationError, given: Any, task: str, kind: TypeAdapter[Any]) -> Found:
    """The first problems of a request that was refused."""
    items = given.get("labels") if isinstance(given, dict) else None
    if not isinstance(items, list) or not 0 < len(items) <= MOST or len(given) > 1:
        first = error.errors(include_url=False)[-1]["type"] if error.error_count() == 1 else ""
        got = f"{len(items):,} labels" if isinstance(items, list) else first or shown(given)
        rule = f"a request must hold labels, a list of 1 to {MOST:,} objects, and nothing else"
        return Found([body_problem(got, rule, _CURE)])
    found: list[Problem] = []
    for start, details in row_errors(kind, "labels", items, _NAMES):
        found.append(_problem(details, start, task))
        if len(found) > MOST_PROBLEMS:
            break
    return Found(*shortened(found))


def _problem(details: ErrorDetails, start: int, task: str) -> Problem:
    _, place, *name = details["loc"]
    got = "nothing" if details["type"] == "missing" else shown(details["input"])
    rule = "must hold only key and target"
    if name and name[0] in _NAMES:
        rule = f"{name[0]} {_RULES['key' if name[0] == 'key' else task]}"
    return Problem("labels", start + int(place), None, rule, got, _CURE)
