"""Requests that send the labels of predicted rows."""

from types import GenericAlias
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from pipeline.serving.requests import LONGEST_KEY, Problem, body_problem, shown, strict_dict

MOST = 10_000
"""Labels that one request holds at most."""
_CURE = 'Send {"labels": [{"key": "...", "target": 1}, ...]}.'
_RULES = {
    "key": f"must be a string of 1 to {LONGEST_KEY} characters",
    "classification": "must be 0 or 1",
    "regression": "must be a finite number",
}


def label_type(task: str) -> TypeAdapter[Any]:
    """Reads ``{"labels": [{"key": ..., "target": ...}]}``; targets depend on the task."""
    fields = {
        "key": Annotated[str, Field(strict=True, min_length=1, max_length=LONGEST_KEY)],
        "target": Annotated[float, Field(strict=True, allow_inf_nan=False, **_bounds(task))],
    }
    labels: Any = GenericAlias(list, (strict_dict("Label", fields),))
    whole = {"labels": Annotated[labels, Field(min_length=1, max_length=MOST)]}
    return TypeAdapter(strict_dict("Labels", whole))


def _bounds(task: str) -> dict[str, Any]:
    return {"ge": 0, "le": 1, "multiple_of": 1} if task == "classification" else {}


def problems(error: ValidationError, task: str) -> list[Problem]:
    """Every problem that pydantic found in a request with labels."""
    found = []
    for details in error.errors(include_url=False):
        match details["loc"]:
            case ("labels", int(row), ("key" | "target") as name):
                rule = _RULES["key" if name == "key" else task]
                got = "nothing" if details["type"] == "missing" else shown(details["input"])
                found.append(Problem("labels", row, None, f"{name} {rule}", got, _CURE))
            case ("labels", int(row), *_):
                rule, got = "must hold only key and target", shown(details["input"])
                found.append(Problem("labels", row, None, rule, got, _CURE))
            case _:
                rule = f"a request must hold labels, a list of 1 to {MOST:,} objects"
                got = details["msg"] if details["type"] == "json_invalid" else details["type"]
                found.append(body_problem(got, rule, _CURE))
    return found
