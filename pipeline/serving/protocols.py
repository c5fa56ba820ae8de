"""What a protocol of requests is, and our own; others are in modules of their own."""

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from pipeline.serving.problems import Problem


@dataclass(frozen=True)
class Answer:
    """Predictions and keys of a request's rows, in their order.

    Attributes
    ----------
    predictions : list of float, list or None
        Of three or more classes, the probabilities of a row. None for a row that was refused while
        the others were predicted.
    keys : list of str
        Key of each row, by which its label joins later.
    name, version, request_id : str
        The model, its version, and the request.
    problems : list of Problem
        Problems of the refused rows.
    asked : Any
        Whatever else the protocol's `write` needs from the request.
    outside : dict or None
        Values outside of the training rows, where the request asked for them.
    classes : tuple of str
        Labels of the target, where these are three or more.
    decisions : list of (int or None) or None
        0 or 1 for each row, where the version has costs.
    intervals : list of (list of float or None) or None
        Lower and upper end for each row, where the request asked for them.
    sets : list of (list of int, list of str or None) or None
        Classes of the set of each row, where the request asked for them; of two, 0 and 1.
    contributions : list of (dict or None) or None
        What each column added to each prediction, where the request asked for it.
    """

    predictions: list[Any]
    keys: list[str]
    name: str
    version: str
    request_id: str
    problems: list[Problem]
    asked: Any
    outside: dict[str, Any] | None
    classes: tuple[str, ...] = ()
    decisions: list[Any] | None = None
    intervals: list[Any] | None = None
    sets: list[Any] | None = None
    contributions: list[Any] | None = None


@dataclass(frozen=True)
class Protocol:
    """How a request is read and its answer is written.

    Attributes
    ----------
    read : callable or None
        From body, content type, columns and whether the version `decides` to ``{"rows": ...,
        "keys": ...}`` and whatever `write` needs from the request; None where the body has this
        form already.
    write : callable
        From an answer to the content that is sent as JSON.
    refused : HTTPStatus
        Status of the answer to a request that breaks the contract.
    """

    read: Callable[..., tuple[dict[str, Any], Any]] | None
    write: Callable[[Answer], dict[str, Any]]
    refused: HTTPStatus = HTTPStatus.UNPROCESSABLE_ENTITY


def _native(answer: Answer) -> dict[str, Any]:
    decided = {} if answer.decisions is None else {"decisions": answer.decisions}
    content: dict[str, Any] = {
        **_of_classes(answer.predictions, answer.classes),
        **decided,
        "keys": answer.keys,
        "version": answer.version,
        "request_id": answer.request_id,
    }
    if answer.problems:
        content["problems"] = answer.problems
    for name in ("outside", "intervals", "sets", "contributions"):
        if (asked := getattr(answer, name)) is not None:
            content[name] = asked
    return content


def _of_classes(predictions: list[Any], classes: tuple[str, ...]) -> dict[str, Any]:
    """Predictions as sent: numbers, or the likeliest class and the probability of each."""
    if not classes:
        return {"predictions": predictions}
    return {
        "predictions": [row and classes[row.index(max(row))] for row in predictions],
        "probabilities": [row and dict(zip(classes, row, strict=True)) for row in predictions],
    }


NATIVE = Protocol(None, _native)
