"""Reads and checks a request, and predicts its rows or refuses it with every problem."""

from collections.abc import Collection, Sequence
from contextlib import suppress
from http import HTTPStatus
from itertools import compress
from typing import Any, Literal, NamedTuple

from pydantic import ValidationError

from pipeline.serving.bodies import check_keys, is_long, read_json
from pipeline.serving.deriving import with_features
from pipeline.serving.problems import SHAPE, Found, Unreadable
from pipeline.serving.protocols import Answer, Protocol
from pipeline.serving.requests import Request
from pipeline.serving.responses import Failed
from pipeline.serving.served_version import Predicted, ServedVersion
from pipeline.training.costs import decide

Extra = Literal["ranges", "interval", "set", "contributions"]
"""What a request may ask for beside predictions."""
MOST_EXPLAINED = 100
"""Rows of a request whose contributions are computed, which takes a millisecond a row and more."""


class Refused(Exception):  # noqa: N818 -- an answer, not an error
    """Raised for a request that breaks the contract.

    Attributes
    ----------
    found : Found
        The problems of the request.
    """

    def __init__(self, found: Found) -> None:
        super().__init__(f"{len(found.problems)} problems")
        self.found = found


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
    explain: Collection[Extra] = (),
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
    explain : collection of str
        What the answer holds beside predictions: values outside of the training ``ranges``, the
        ``interval`` or the ``set`` of classes of each row, or ``contributions`` of columns to each
        prediction.

    Raises
    ------
    Refused
        If the request, or each of its rows, breaks the contract.
    """
    try:
        request, given, asked = _read(protocol, body, content_type, served)
    except Unreadable as error:
        raise Refused(Found([error.problem])) from error
    if request is None:
        found = served.contract.problems(given, every_row=bad_rows == "row")
        if bad_rows == "request" or found.whole:
            raise Refused(found)
        return _score_good_rows(served, given, found, asked, request_id, explain=explain)
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
        classes=served.model.classes,
        **_beside(served, predicted, range(len(rows)), len(rows), explain),
    )
    return Scored(answer, predicted, keys)


def _read(
    protocol: Protocol, body: bytes, content_type: str, served: ServedVersion
) -> tuple[Request | None, Any, Any]:
    """Read a request: None if it breaks the contract, what it holds, and what `write` needs.

    A short request of our own protocol is checked while it is read, which is fastest. Of what
    it refuses then, pydantic makes copies: the whole row for each column that it lacks.
    """
    contract = served.contract
    if protocol.read is None and not is_long(body):
        with suppress(ValidationError):
            request = contract.request.validate_json(body)
            check_keys(body, len(request) + sum(map(len, request["rows"])), SHAPE)
            return request, None, None
    if protocol.read is None:
        given, asked = read_json(body, len(contract.columns), SHAPE), None
    else:
        decides = served.costs is not None
        given, asked = protocol.read(body, content_type, contract.columns, decides=decides)
    given = with_features(given, served.model)
    try:
        return contract.request.validate_python(given), given, asked
    except ValidationError:
        return None, given, asked


def _score_good_rows(
    served: ServedVersion,
    given: Request,
    found: Found,
    asked: object,
    request_id: str,
    *,
    explain: Collection[Extra],
) -> Scored:
    """Predict the rows without a problem; predictions of the others are None."""
    n = len(given["rows"])
    good = [i for i in range(n) if i not in found.bad]
    if not good:
        raise Refused(found)
    keys = given.get("keys") or _keys(request_id, range(n))
    accepted = {
        "rows": [given["rows"][i] for i in good],
        "keys": [keys[i] for i in good],
    }
    predicted = served.predict(served.contract.request.validate_python(accepted)["rows"])
    predictions: list[Any] = [None] * n
    for i, prediction in zip(good, predicted.predictions.tolist(), strict=True):
        predictions[i] = prediction
    answer = Answer(
        predictions=predictions,
        keys=keys,
        name=served.name,
        version=served.version,
        request_id=request_id,
        problems=found.problems,
        asked=asked,
        classes=served.model.classes,
        **_beside(served, predicted, good, n, explain),
    )
    return Scored(answer, predicted, accepted["keys"])


def _beside(
    served: ServedVersion,
    predicted: Predicted,
    places: Sequence[int],
    n: int,
    asked: Collection[Extra],
) -> dict[str, Any]:
    """Fields of an answer beside predictions: decisions, and what a request asked for.

    They are None for those of `n` rows without a place.

    Raises
    ------
    Failed
        If contributions are asked for of too many rows.
    """

    def of_all(values: Sequence[Any]) -> list[Any]:
        found: list[Any] = [None] * n
        for place, value in zip(places, values, strict=True):
            found[place] = value
        return found

    fields: dict[str, Any] = {"outside": None}
    if "ranges" in asked:
        fields["outside"] = served.outside(predicted, places)
    if served.costs is not None:
        fields["decisions"] = of_all(decide(served.costs, predicted.predictions).tolist())
    if "interval" in asked and served.margins is not None:
        fields["intervals"] = of_all(served.margins.around(predicted.predictions).tolist())
    if "set" in asked and served.sets is not None:
        labels = served.model.classes or (0, 1)
        held = served.sets.holding(predicted.predictions).tolist()
        fields["sets"] = of_all([list(compress(labels, row)) for row in held])
    if "contributions" in asked:
        if len(places) > MOST_EXPLAINED:
            sentence = (
                f"Contributions are computed of at most {MOST_EXPLAINED} rows of a request. Got "
                f"{len(places)}. Send fewer, or use `--explain` of `holdfast score`."
            )
            raise Failed(HTTPStatus.BAD_REQUEST, sentence)
        fields["contributions"] = of_all(served.contributions(predicted))
    return fields


def _keys(request_id: str, places: range) -> list[str]:
    return [f"{request_id}-{i}" for i in places]
