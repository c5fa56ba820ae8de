"""Limits that hold for every request: its token, and the size and time of its body."""

import asyncio
import hmac
import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.config import Serving
from pipeline.serving.metrics import Metrics
from pipeline.serving.responses import Failed, broken, failed

_LOG = logging.getLogger(__name__)
OPEN = frozenset({"/live", "/ready", "/ping", "/v2/health/live", "/v2/health/ready"})
"""Routes of probes, which are answered without a token."""


class Guard:
    """ASGI application around another: admits requests, answers failures and counts answers.

    Parameters
    ----------
    app : ASGI application
        Answers the admitted requests and notes the endpoint in the scope.
    options : Serving
        Token and limits.
    metrics : Metrics
        Counts answers by route and status.
    direct : mapping of str to ASGI application
        Endpoints by path that POST requests reach without a search through all routes.
    names : mapping of endpoint to str
        Route of each endpoint, as it is counted.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        options: Serving,
        metrics: Metrics,
        direct: Mapping[str, ASGIApp],
        names: Mapping[Any, str],
    ) -> None:
        self._app, self._metrics, self._direct, self._names = app, metrics, direct, names
        token = options.token
        self._token = None if token is None else token.get_secret_value().encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, as ASGI defines it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 0

        async def watched(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            self._admit(scope)
            app = self._app
            if scope["method"] == "POST":
                app = scope["endpoint"] = self._direct.get(scope["path"], app)
            await app(scope, receive, watched)
        except Failed as error:
            response = await failed(Request(scope), error)
            await response(scope, receive, watched)
        except Exception as error:  # noqa: BLE001 -- it is answered, without its trace
            _LOG.exception("A request to %s failed.", scope["path"])
            if not status:
                response = await broken(Request(scope), error)
                await response(scope, receive, watched)
        finally:
            route = self._names.get(scope.get("endpoint", watched), "(none)")
            self._metrics.answered(route, status)

    def _admit(self, scope: Scope) -> None:
        scope["trusted"] = self._token is not None and _sends(self._token, scope)
        if scope["path"] in OPEN:
            return
        if self._token is not None and not scope["trusted"]:
            sentence = "The token is missing or wrong. Send Authorization: Bearer <token>."
            raise Failed(HTTPStatus.UNAUTHORIZED, sentence)


def _sends(token: bytes, scope: Scope) -> bool:
    """Whether a request sends the token, as RFC 6750 says."""
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, given = value.partition(b" ")
            return scheme.lower() == b"bearer" and hmac.compare_digest(given.strip(b" "), token)
    return False


async def read_body(
    headers: Mapping[bytes, bytes], receive: Receive, *, max_bytes: int, seconds: float
) -> bytes:
    """Read the whole body of a request.

    Parameters
    ----------
    headers : mapping of bytes to bytes
        Headers of the request, names in lower case.
    receive : callable
        Gives the ASGI messages of the request.
    max_bytes : int
        Longest body that is read.
    seconds : float
        How long the body may take to arrive.

    Raises
    ------
    Failed
        If the body is too long, too slow, or cut off.
    """
    length = headers.get(b"content-length", b"0")
    if length.isdigit() and int(length) > max_bytes:
        raise _too_long(max_bytes)
    parts: list[bytes] = []
    size, more = 0, True
    try:
        async with asyncio.timeout(seconds):
            while more:
                message = await receive()
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > max_bytes:
                    raise _too_long(max_bytes)
                more = message.get("more_body", False)
    except TimeoutError as error:
        sentence = f"The body did not arrive within {seconds:g} seconds."
        raise Failed(HTTPStatus.REQUEST_TIMEOUT, sentence) from error
    if message["type"] == "http.disconnect":
        raise Failed(HTTPStatus.BAD_REQUEST, "The request ended before its body was complete.")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_long(max_bytes: int) -> Failed:
    sentence = f"A body must have at most {max_bytes:,} bytes. Send the rows in several requests."
    return Failed(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, sentence)
