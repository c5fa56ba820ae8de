"""Reads and checks a request, and predicts its rows or refuses it with every problem."""

from typing import Literal, NamedTuple

from pydantic import ValidationError
from pydantic_core import from_json

from pipeline.serving import requests
from pipeline.serving.protocols import Answer, Protocol, Unreadable
from pipeline.serving.requests import Problem, Request
from pipeline.serving.served_version import Predicted, ServedVersion


class Refused(Exception):  # noqa: N818 -- an answer, not an error
    """Raised for a request that breaks the contract.

    Attributes
    ----------
    problems : list of Problem
        Every problem of the request.
    """

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(f"{len(problems)} problems")
        self.problems = problems


class Scored(NamedTuple):
    """A predicted request: the answer to send, and what is captured and counted.

    Attributes
    ----------
    answer : Answer
        Predictions and keys of all rows, for the protocol to write.
    predicted : Predicted
        Predictions and features of the accepted rows.
    keys : list of str or None
        Keys of the accepted rows; None if the caller sent none.
    """

    answer: Answer
    predicted: Predicted
    keys: list[str] | None


def score(
    served: ServedVersion,
    protocol: Protocol,
    *,
    body: bytes,
    content_type: str,
    request_id: str,
    bad_rows: Literal["request", "row"],
) -> Scored:
    """Predict the rows of a request.

    Parameters
    ----------
    served : ServedVersion
        The version that answers.
    protocol : Protocol
        Reads the body into rows.
    body : bytes
        The whole body of the request.
    content_type : str
        Media type of the body, in lower case and without parameters.
    request_id : str
        Identifies the request; keys of rows start with it where the caller sent none.
    bad_rows : str
        Whether a bad row refuses the whole ``request`` or only its own ``row``.

    Raises
    ------
    Refused
        If the request, or each of its rows, breaks the contract.
    """
    given, asked = None, None
    try:
        if protocol.read is None:
            request = served.request.validate_json(body)
        else:
            given, asked = protocol.read(body, content_type, served.model.columns)
            request = served.request.validate_python(given)
    except Unreadable as error:
        raise Refused([error.problem]) from error
    except ValidationError as error:
        problems = requests.problems(error, served.model.columns)
        if bad_rows == "request" or any(problem.row is None for problem in problems):
            raise Refused(problems) from error
        return _score_good_rows(served, given or from_json(body), problems, asked, request_id)
    rows = request["rows"]
    predicted, keys = served.predict(rows), request.get("keys")
    answer = Answer(
        predictions=predicted.predictions.tolist(),
        keys=keys or _keys(request_id, range(len(rows))),
        name=served.name,
        version=served.version,
        request_id=request_id,
        problems=[],
        asked=asked,
    )
    return Scored(answer, predicted, keys)


def _score_good_rows(
    served: ServedVersion, given: Request, problems: list[Problem], asked: object, request_id: str
) -> Scored:
    """Predict the rows without a problem; predictions of the others are None."""
    bad = {problem.row for problem in problems}
    n = len(given["rows"])
    good = [i for i in range(n) if i not in bad]
    if not good:
        raise Refused(problems)
    keys = given.get("keys") or _keys(request_id, range(n))
    accepted = {
        "rows": [given["rows"][i] for i in good],
        "keys": [keys[i] for i in good],
    }
    predicted = served.predict(served.request.validate_python(accepted)["rows"])
    predictions: list[float | None] = [None] * n
    for i, prediction in zip(good, predicted.predictions.tolist(), strict=True):
        predictions[i] = prediction
    answer = Answer(
        predictions=predictions,
        keys=keys,
        name=served.name,
        version=served.version,
        request_id=request_id,
        problems=problems,
        asked=asked,
    )
    return Scored(answer, predicted, accepted["keys"])


def _keys(request_id: str, places: range) -> list[str]:
    return [f"{request_id}-{i}" for i in places]
