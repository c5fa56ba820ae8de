"""Requests that send the labels of predicted rows."""

import json
from types import GenericAlias
from typing import Annotated, Any, Literal, NamedTuple

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
_AGREE = "the labels of a key must agree"
_NAMES = ("key", "target")
_KEY = f"key must be text of 1 to {LONGEST_KEY} characters, without blanks around it or NUL in it"
_NAMED = 20
"""Classes that an error names."""


class Asked(NamedTuple):
    """What targets of labels are.

    Attributes
    ----------
    task : str
        ``classification`` or ``regression``.
    classes : tuple of str
        Labels of a target of three or more classes; else targets are 0 and 1.
    """

    task: str
    classes: tuple[str, ...] = ()

    @property
    def rule(self) -> str:
        """What a target must be."""
        if self.classes:
            more = ", ..." if len(self.classes) > _NAMED else ""
            return f"must be one of {', '.join(self.classes[:_NAMED])}{more}"
        return "must be 0 or 1" if self.task == "classification" else "must be a finite number"

    @property
    def cure(self) -> str:
        """A request that would be taken."""
        target = json.dumps(self.classes[0], ensure_ascii=False) if self.classes else "1"
        return f'Send {{"labels": [{{"key": "...", "target": {target}}}, ...]}}.'


def label_type(asked: Asked) -> TypeAdapter[Any]:
    """Reads ``{"labels": [{"key": ..., "target": ...}]}``; targets depend on what is predicted."""
    target: Any = Annotated[float, Field(strict=True, allow_inf_nan=False)]
    if asked.classes:
        target = Literal[asked.classes]
    elif asked.task == "classification":
        described = Field(json_schema_extra={"enum": [0, 1]})
        target = Annotated[target, AfterValidator(_class), described]
    labels: Any = GenericAlias(
        list, (strict_dict("Label", {"key": text_type(LONGEST_KEY), "target": target}),)
    )
    whole = {"labels": Annotated[labels, Field(min_length=1, max_length=MOST)]}
    return TypeAdapter(strict_dict("Labels", whole))


def _class(target: float) -> float:
    if target not in {0, 1}:
        rule = "must be 0 or 1"
        raise ValueError(rule)
    return target


def read_labels(
    body: bytes, asked: Asked, kind: TypeAdapter[Any]
) -> dict[str, float | str] | Found:
    """Read labels by the keys of their rows; in their place, the problems of the request."""
    try:
        given = read_json(body, len(_NAMES), asked.cure)
        labels = kind.validate_python(given)["labels"]
    except Unreadable as error:
        return Found([error.problem])
    except ValidationError as error:
        return _found(error, given, asked, kind)
    targets = {label["key"]: label["target"] for label in labels}
    doubled = [
        Problem("labels", row, None, _AGREE, shown(label["key"]), asked.cure)
        for row, label in enumerate(labels)
        if targets[label["key"]] != label["target"]
    ]
    return Found(*shortened(doubled)) if doubled else targets


def _found(error: ValidationError, given: Any, asked: Asked, kind: TypeAdapter[Any]) -> Found:
    """The first problems of a request that was refused."""
    items = given.get("labels") if isinstance(given, dict) else None
    if not isinstance(items, list) or not 0 < len(items) <= MOST or len(given) > 1:
        first = error.errors(include_url=False)[-1]["type"] if error.error_count() == 1 else ""
        got = f"{len(items):,} labels" if isinstance(items, list) else first or shown(given)
        rule = f"a request must hold labels, a list of 1 to {MOST:,} objects, and nothing else"
        return Found([body_problem(got, rule, asked.cure)])
    found: list[Problem] = []
    for start, details in row_errors(kind, "labels", items, _NAMES):
        found.append(_problem(details, start, asked))
        if len(found) > MOST_PROBLEMS:
            break
    return Found(*shortened(found))


def _problem(details: ErrorDetails, start: int, asked: Asked) -> Problem:
    _, place, *name = details["loc"]
    got = "nothing" if details["type"] == "missing" else shown(details["input"])
    rule = "must hold only key and target"
    if name and name[0] in _NAMES:
        rule = _KEY if name[0] == "key" else f"target {asked.rule}"
    return Problem("labels", start + int(place), None, rule, got, asked.cure)
