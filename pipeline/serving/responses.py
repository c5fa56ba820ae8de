"""HTTP responses as JSON: refused requests, failures, and the headers of every answer."""

from http import HTTPStatus
from typing import Any

from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from pipeline.serving.problems import Found

SAFE = {"x-content-type-options": "nosniff", "cache-control": "no-store"}
HEADERS = [
    (name.encode(), value.encode())
    for name, value in ({"content-type": "application/json"} | SAFE).items()
]
"""Headers of every JSON answer, as ASGI sends them."""


class Failed(Exception):  # noqa: N818 -- an answer, not an error
    """Ends a request with an error status and one sentence for the client.

    Attributes
    ----------
    status : HTTPStatus
        Status of the answer.
    sentence : str
        What is wrong, and what to do about it.
    """

    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


def json_response(content: Any, status: int = 200, headers: Any = None) -> Response:
    """Send anything that pydantic can write as JSON."""
    return Response(to_json(content), status, SAFE | dict(headers or {}), "application/json")


def refusal(found: Found, request_id: str, status: int = 422) -> Response:
    """Answer with the problems that were found in a request."""
    n = len(found.problems)
    places = "1 place" if n == 1 else f"{n} places"
    more = " and more" if found.more else ""
    sentence = f"The request breaks the contract in {places}{more}."
    content = {"error": sentence, "problems": found.problems, "request_id": request_id}
    return json_response(content, status)


async def failed(_: Request, error: Exception) -> Response:
    """Answer a request whose endpoint raised `Failed`."""
    assert isinstance(error, Failed)  # noqa: S101 -- registered for this class only
    return failed_response(error, close=False)


def failed_response(error: Failed, *, close: bool) -> Response:
    """Answer that ends a request, and its connection as well if `close`."""
    headers = {"connection": "close"} if close else {}
    if error.status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["retry-after"] = "1"
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["www-authenticate"] = "Bearer"
    return json_response({"error": error.sentence}, error.status, headers)


async def no_route(_: Request, error: Exception) -> Response:
    """Answer a request for an unknown route, or with a method that the route does not have."""
    assert isinstance(error, HTTPException)  # noqa: S101 -- registered for this class only
    sentence = "This route does not exist for this method. See /openapi.json."
    return json_response({"error": sentence}, error.status_code, error.headers)


async def broken(_: Request, error: Exception) -> Response:
    """Answer a request that raised anything unexpected, without its trace."""
    sentence = f"The server failed with {type(error).__name__}. Its log has the details."
    return json_response({"error": sentence}, HTTPStatus.INTERNAL_SERVER_ERROR)
