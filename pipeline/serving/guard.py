"""Limits that hold for every request: its token, and the size and time of its body."""

import asyncio
import hmac
import logging
import re
from collections.abc import Mapping
from functools import lru_cache
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.config import Serving
from pipeline.serving.metrics import Metrics
from pipeline.serving.responses import Failed, broken, failed_response

_LOG = logging.getLogger(__name__)
OPEN = frozenset({"/live", "/ready", "/ping", "/v2/health/live", "/v2/health/ready"})
"""Routes of probes, which are answered without a token."""
CSV = frozenset({"/invocations"})
"""Routes that read CSV besides JSON."""
MOST_HELD = 4
"""Longest bodies that are held in memory at once, or as many bytes of shorter ones."""
HOST = re.compile(rb"(?:[\w.~!$&'()*+,;=%-]*|\[[\w.:~!$&'()*+,;=%-]+\])(?::\d*)?")
"""What RFC 9110 allows in Host: a name or an address, and a port."""
SHORT = 65_536
"""Bytes of a body that is held in any case: connections limit how many there are."""


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
        self.metrics = metrics
        self._app, self._direct, self._names = app, direct, names
        token = options.token
        self._token = None if token is None else token.get_secret_value().encode()
        self._max_bytes = options.max_bytes
        self._seconds = options.timeout.total_seconds()
        self._held = 0

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

        body = None
        try:
            headers = dict(scope["headers"])
            self._admit(scope, headers)
            app = self._app
            if scope["method"] == "POST":
                app = scope["endpoint"] = self._direct.get(scope["path"], app)
                scope["media"] = _media_type(headers, csv=scope["path"] in CSV)
                body = scope["body"] = await self._body(headers, receive)
            await app(scope, receive, watched)
        except Failed as error:
            # A body that was not read may be long: its connection is of no more use.
            await failed_response(error, close=body is None)(scope, receive, watched)
        except Exception as error:  # noqa: BLE001 -- it is answered, without its trace
            _LOG.exception("A request to %s failed.", scope["path"])
            if not status:
                response = await broken(Request(scope), error)
                await response(scope, receive, watched)
        finally:
            self._held -= len(body or b"")
            route = self._names.get(scope.get("endpoint", watched), "(none)")
            self.metrics.answered(route, status)

    def _admit(self, scope: Scope, headers: Mapping[bytes, bytes]) -> None:
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if (len(hosts) != 1 or not HOST.fullmatch(hosts[0])) and scope["http_version"] != "1.0":
            sentence = "A request must have one Host header, with a host and perhaps a port."
            raise Failed(HTTPStatus.BAD_REQUEST, sentence)
        scope["trusted"] = self._token is not None and _sends(self._token, headers)
        if scope["path"] in OPEN:
            return
        if self._token is not None and not scope["trusted"]:
            sentence = "The token is missing or wrong. Send Authorization: Bearer <token>."
            raise Failed(HTTPStatus.UNAUTHORIZED, sentence)
        origin, host = headers.get(b"origin"), headers.get(b"host", b"")
        if origin is not None and origin not in {b"http://" + host, b"https://" + host}:
            sentence = "Pages of other sites may not call this API. Call it from a server."
            raise Failed(HTTPStatus.FORBIDDEN, sentence)

    async def _body(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        """Read the whole body of a request, within the limits of one and of all bodies."""
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._max_bytes:
            raise _too_long(self._max_bytes)
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._seconds):
                while True:
                    message = await receive()
                    part = message.get("body", b"")
                    parts.append(part)
                    size += len(part)
                    self._held += len(part)
                    self._check(message, size)
                    if not message.get("more_body", False):
                        break
        except TimeoutError as error:
            self._held -= size
            sentence = f"The body did not arrive within {self._seconds:g} seconds."
            raise Failed(HTTPStatus.REQUEST_TIMEOUT, sentence) from error
        except BaseException:
            self._held -= size
            raise
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _check(self, message: Message, size: int) -> None:
        """Refuse a body that is cut off, too long, or one too many to hold."""
        if message["type"] == "http.disconnect":
            sentence = "The request ended before its body was complete."
            raise Failed(HTTPStatus.BAD_REQUEST, sentence)
        if size > self._max_bytes:
            raise _too_long(self._max_bytes)
        if size > SHORT and self._held > MOST_HELD * self._max_bytes:
            sentence = "The server is busy with long requests; retry in a second."
            raise Failed(HTTPStatus.SERVICE_UNAVAILABLE, sentence)


def _sends(token: bytes, headers: Mapping[bytes, bytes]) -> bool:
    """Whether a request sends the token, as RFC 6750 says."""
    scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
    return scheme.lower() == b"bearer" and hmac.compare_digest(given.strip(b" "), token)


def _media_type(headers: Mapping[bytes, bytes], *, csv: bool) -> str:
    """Media type of a body; browsers send others without asking, for the pages of any site.

    Raises
    ------
    Failed
        If it is missing or not one that the route reads, or if the body is encoded or binary.
    """
    kind, charset = _declared(headers.get(b"content-type", b""))
    if kind != "application/json" and not (csv and kind == "text/csv"):
        allowed = "application/json or text/csv" if csv else "application/json"
        sentence = f"Content-Type must be {allowed}. Got {kind[:80] or 'nothing'!r}."
        raise Failed(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, sentence)
    if charset not in {"", "utf-8", "us-ascii"}:
        sentence = f"A body must be in UTF-8. Got the charset {charset[:40]!r}."
        raise Failed(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, sentence)
    encoded = headers.get(b"content-encoding", b"identity").lower() != b"identity"
    if encoded or headers.get(b"transfer-encoding", b"chunked").lower() != b"chunked":
        sentence = "A body must be sent as it is. Leave Content-Encoding out, and codings as gzip."
        raise Failed(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, sentence)
    if b"inference-header-content-length" in headers:
        sentence = "The binary extension of the protocol is not supported. Send tensors as JSON."
        raise Failed(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, sentence)
    return kind


@lru_cache(maxsize=64)
def _declared(value: bytes) -> tuple[str, str]:
    """Media type and charset of a Content-Type, in lower case; empty where it has none."""
    kind, *parameters = value.decode("latin-1").lower().split(";")
    pairs = dict(one.strip().partition("=")[::2] for one in parameters)
    return kind.strip(), pairs.get("charset", "").strip('"')


def _too_long(max_bytes: int) -> Failed:
    sentence = f"A body must have at most {max_bytes:,} bytes. Send the rows in several requests."
    return Failed(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, sentence)
