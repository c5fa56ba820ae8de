"""The HTTP side of serving: the only file that knows status codes."""

import asyncio
import hmac
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import lru_cache, partial
from http import HTTPStatus
from typing import Any
from uuid import uuid4

import pandas as pd
from pydantic import ValidationError
from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.config import Serving
from pipeline.errors import UnavailableError
from pipeline.serving import labels, protocols
from pipeline.serving.answering import Refused, Scored, score
from pipeline.serving.capturing import Captures
from pipeline.serving.follower import ServingState
from pipeline.serving.metrics import Metrics
from pipeline.serving.openapi import document
from pipeline.serving.protocols import Protocol
from pipeline.serving.requests import Problem
from pipeline.serving.served_version import ServedVersion

_LOG = logging.getLogger(__name__)
INLINE = 50_000
"""Bytes of a body up to which a request is answered at once; a longer one gets a thread."""
_LONG = ThreadPoolExecutor(2, "long")
"""For those: half of their time is the interpreter's, which more than two would fight for."""
MOST_PROBLEMS = 1_000
"""Problems that one answer names."""
OPEN = frozenset({"/live", "/ready", "/ping", "/v2/health/live", "/v2/health/ready"})
"""Routes that need no token."""
_INFER = "/v2/models/{name}/infer"
_SAFE = {"x-content-type-options": "nosniff", "cache-control": "no-store"}
_HEADERS = [
    (name.encode(), value.encode())
    for name, value in ({"content-type": "application/json"} | _SAFE).items()
]


class _Failed(Exception):  # noqa: N818 -- an answer, not an error
    """A request that cannot be answered, in one sentence."""

    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


def create_app(*, champion: ServingState, captures: Captures | None, options: Serving) -> ASGIApp:
    """The API of one model.

    Parameters
    ----------
    champion : ServingState
        What is served; it may change.
    captures : Captures or None
        Where requests and answers are kept; None keeps none. The caller closes it.
    options : Serving
        Limits, token and policies.
    """
    api = _Api(champion, captures, options)
    routes = [
        Route("/predict", _Predict(api, protocols.NATIVE), methods=["POST"]),
        Route("/invocations", _Predict(api, protocols.INVOCATIONS), methods=["POST"]),
        Route(_INFER, _Predict(api, protocols.INFERENCE), methods=["POST"]),
        Route("/labels", api.labels, methods=["POST"]),
        Route("/live", api.live),
        Route("/ready", api.ready),
        Route("/version", api.version),
        Route("/contract", api.contract),
        Route("/metrics", api.metrics_page),
        Route("/openapi.json", api.openapi),
        Route("/ping", api.ready),  # MLflow's name of it
        Route("/v2", api.server),
        Route("/v2/health/live", api.live),
        Route("/v2/health/ready", api.ready),
        Route("/v2/models/{name}", api.model),
        Route("/v2/models/{name}/ready", api.model),
    ]
    handlers = {_Failed: _failed, HTTPException: _no_route, Exception: _broken}
    app = Starlette(routes=routes, exception_handlers=handlers)
    direct = {route.path: route.endpoint for route in routes[:2]}
    names = {route.endpoint: route.path for route in reversed(routes)}
    return _Guard(app, api, direct=direct, names=names)


async def _failed(_: Request, error: Exception) -> Response:
    assert isinstance(error, _Failed)  # noqa: S101 -- what it is registered for
    headers = {"retry-after": "1"} if error.status == HTTPStatus.SERVICE_UNAVAILABLE else None
    return _json({"error": error.sentence}, error.status, headers)


async def _broken(_: Request, error: Exception) -> Response:
    sentence = f"The server must answer valid rows. Got {type(error).__name__}. See its log."
    return _json({"error": sentence}, HTTPStatus.INTERNAL_SERVER_ERROR)


async def _no_route(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 -- what it is registered for
    sentence = "There is no such route for this method. See /openapi.json."
    return _json({"error": sentence}, error.status_code, error.headers)


def _json(content: Any, status: int = 200, headers: Any = None) -> Response:
    return Response(to_json(content), status, _SAFE | dict(headers or {}), "application/json")


class _Api:
    """What requests share."""

    def __init__(self, champion: ServingState, captures: Captures | None, options: Serving) -> None:
        self.champion, self.captures, self.options = champion, captures, options
        self.metrics = Metrics(champion, captures)
        self.timeout = options.timeout.total_seconds()
        token = options.token
        self.token = None if token is None else b"Bearer " + token.get_secret_value().encode()
        self.label_type = lru_cache(labels.label_type)

    @property
    def served(self) -> ServedVersion:
        """The version that answers this request, whatever is swapped meanwhile."""
        if self.champion.served is None:
            sentence = "There must be a champion to answer. There is none yet. Come again."
            raise _Failed(HTTPStatus.SERVICE_UNAVAILABLE, sentence)
        return self.champion.served

    async def body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        """The whole body, if it is neither too long nor too slow."""
        most = self.options.max_bytes
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > most:
            raise _too_long(most)
        try:
            async with asyncio.timeout(self.timeout):
                message = await receive()
                body = message.get("body", b"")
                parts = [body]
                while message.get("more_body"):
                    message = await receive()
                    parts.append(message.get("body", b""))
                    if sum(map(len, parts)) > most:
                        raise _too_long(most)
        except TimeoutError as error:
            sentence = f"The body of a request must arrive within {self.options.timeout}."
            raise _Failed(HTTPStatus.REQUEST_TIMEOUT, sentence) from error
        if message["type"] == "http.disconnect":
            raise _Failed(HTTPStatus.BAD_REQUEST, "The request ended before its body did.")
        return body if len(parts) == 1 else b"".join(parts)

    def refuse(
        self,
        scope: Scope,
        served: ServedVersion,
        problems: list[Problem],
        *,
        request_id: str,
        route: str,
        body: bytes,
    ) -> None:
        """Count and keep a refused request."""
        self.metrics.refused(served, problems)
        if self.captures is not None:
            self.captures.refusal(
                at=time.time_ns() // 1_000,
                request_id=request_id,
                version=served.version,
                route=route,
                caller=_caller(scope),
                problems=to_json([asdict(one) for one in problems[:MOST_PROBLEMS]]).decode(),
                body=body,
            )

    async def labels(self, request: Request) -> Response:
        """Labels of rows that were answered, by key."""
        headers, served = dict(request.scope["headers"]), self.served
        body = await self.body(headers, request.receive)
        if self.captures is None:
            sentence = "Labels are kept with captures. This server keeps none."
            raise _Failed(HTTPStatus.NOT_FOUND, sentence)
        task = served.model.task
        try:
            told = self.label_type(task).validate_json(body)["labels"]
        except ValidationError as error:
            problems = labels.problems(error, task)
            request_id = uuid4().hex
            self.refuse(
                request.scope, served, problems, request_id=request_id, route="/labels", body=body
            )
            return _refusal(problems, request_id)
        try:
            at = time.time_ns() // 1_000
            pairs = [(one["key"], one["target"]) for one in told]
            await asyncio.to_thread(self.captures.label, pairs, at=at)
        except UnavailableError as error:
            raise _Failed(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from error
        return _json({"stored": len(told)})

    async def live(self, _: Request) -> Response:
        """Whether the process answers at all."""
        return _json({"status": "live"})

    async def ready(self, _: Request) -> Response:
        """Whether requests should come here, and what is amiss even so."""
        capture = "" if self.captures is None else self.captures.problem
        problems = [told for told in (self.champion.problem, capture) if told]
        broken = bool(capture) and self.options.capture == "required"
        if self.champion.served is None or broken:
            status = HTTPStatus.SERVICE_UNAVAILABLE
            return _json({"status": "not ready", "problems": problems}, status)
        return _json({"status": "ready", "problems": problems})

    async def version(self, _: Request) -> Response:
        """What answers."""
        served = self.served
        told = {"name": served.name, "version": served.version, "task": served.model.task}
        loaded = pd.Timestamp(self.champion.since or 0, unit="s").isoformat(timespec="seconds")
        return _json(told | {"trained_until": served.trained_until, "loaded": f"{loaded}Z"})

    async def contract(self, _: Request) -> Response:
        """What a row must hold."""
        served = self.served
        columns = {name: one.model_dump() for name, one in served.model.columns.items()}
        known = served.model.categories
        return _json({"columns": columns, "known": known, "example": served.example})

    async def metrics_page(self, _: Request) -> Response:
        """What Prometheus scrapes."""
        return Response(self.metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def openapi(self, _: Request) -> Response:
        """Everything that can be asked."""
        return _json(document(self.served, protected=self.token is not None))

    async def server(self, _: Request) -> Response:
        """The Open Inference Protocol's question for the server."""
        return _json({"name": "holdfast", "version": "2", "extensions": []})

    async def model(self, request: Request) -> Response:
        """The Open Inference Protocol's questions for the model."""
        served = self.named(request.path_params["name"])
        if request.url.path.endswith("/ready"):
            return _json({"name": served.name, "ready": True})
        return _json(protocols.metadata(served.name, served.version, served.model.columns))

    def named(self, name: str) -> ServedVersion:
        """What is served, if it is called that."""
        if name != self.served.name:
            sentence = f"The model must be {self.served.name}. Got {name[:40]!r}."
            raise _Failed(HTTPStatus.NOT_FOUND, sentence)
        return self.served


def _too_long(most: int) -> _Failed:
    sentence = f"A request must hold at most {most:,} bytes. Send its rows in several requests."
    return _Failed(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, sentence)


def _caller(scope: Scope) -> str:
    agent = dict(scope["headers"]).get(b"user-agent", b"").decode("latin-1")
    host = (scope.get("client") or ("",))[0]
    return f"{host} {agent[:80]}".strip()


def _refusal(problems: list[Problem], request_id: str) -> Response:
    named = problems[:MOST_PROBLEMS]
    rest = "" if len(named) == len(problems) else f" The first {len(named):,} are named."
    places = "1 place" if len(problems) == 1 else f"{len(problems):,} places"
    sentence = f"The request breaks the contract in {places}.{rest}"
    content = {"error": sentence, "problems": named, "request_id": request_id}
    return _json(content, HTTPStatus.UNPROCESSABLE_ENTITY)


class _Predict:
    """A route that predicts; plain ASGI, since it is what is asked most.

    Raises
    ------
    _Failed
        If the request cannot be answered.
    """

    def __init__(self, api: _Api, protocol: Protocol) -> None:
        self._api, self._protocol = api, protocol

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        api, request_id = self._api, uuid4().hex
        headers = dict(scope["headers"])
        body = await api.body(headers, receive)
        name = scope.get("path_params", {}).get("name")
        served = api.served if name is None else api.named(name)
        kind = headers.get(b"content-type", b"").decode("latin-1")
        asked: dict[str, Any] = {
            "body": body,
            "content_type": kind.partition(";")[0].strip().lower(),
            "request_id": request_id,
            "bad_rows": api.options.bad_rows,
        }
        kept = {"request_id": request_id, "route": scope["path"], "body": body}
        try:
            if len(body) > INLINE:
                run = partial(score, served, self._protocol, **asked)
                scored = await asyncio.get_running_loop().run_in_executor(_LONG, run)
            else:
                scored = score(served, self._protocol, **asked)
        except Refused as error:
            api.refuse(scope, served, error.problems, **kept)
            await _refusal(error.problems, request_id)(scope, receive, send)
            return
        if scored.answer.problems:
            api.refuse(scope, served, scored.answer.problems, **kept)
        seconds = time.perf_counter() - began
        api.metrics.predicted(served, scored.predicted, seconds)
        if api.captures is not None:
            _keep(api.captures, served, scored, seconds)
        content = to_json(self._protocol.write(scored.answer))
        length = (b"content-length", b"%d" % len(content))
        start = {"type": "http.response.start", "status": 200, "headers": [*_HEADERS, length]}
        await send(start)
        await send({"type": "http.response.body", "body": content})


def _keep(captures: Captures, served: ServedVersion, scored: Scored, seconds: float) -> None:
    captures.answer(
        at=time.time_ns() // 1_000,
        request_id=scored.answer.request_id,
        contract=served.kept,
        version=served.version,
        latency=round(seconds * 1e6),
        features=scored.predicted.features,
        unseen=scored.predicted.unseen,
        keys=scored.keys,
        predictions=scored.predicted.predictions,
    )


class _Guard:
    """What holds for every request: token, load, errors without their traces, and counting."""

    def __init__(
        self,
        app: ASGIApp,
        api: _Api,
        *,
        direct: dict[str, ASGIApp],
        names: dict[Callable[..., Any], str],
    ) -> None:
        self._app, self._api, self._direct, self._names = app, api, direct, names
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 0

        async def watched(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        self._running += 1
        try:
            self._admit(scope)
            app = self._app
            if scope["method"] == "POST":  # what is asked most needs no search for its route
                app = scope["endpoint"] = self._direct.get(scope["path"], app)
            await app(scope, receive, watched)
        except _Failed as error:
            response = await _failed(Request(scope), error)
            await response(scope, receive, watched)
        except Exception as error:  # noqa: BLE001 -- it is answered, without its trace
            _LOG.exception("A request to %s failed.", scope["path"])
            if not status:
                await (await _broken(Request(scope), error))(scope, receive, watched)
        finally:
            self._running -= 1
            route = self._names.get(scope.get("endpoint", watched), "(none)")
            self._api.metrics.answered(route, status)

    def _admit(self, scope: Scope) -> None:
        token = self._api.token
        if token is not None and scope["path"] not in OPEN:
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(given, token):
                sentence = "A request must bear the server's token: Authorization: Bearer ..."
                raise _Failed(HTTPStatus.UNAUTHORIZED, sentence)
        if self._running > self._api.options.max_requests and scope["path"] not in OPEN:
            sentence = f"At most {self._api.options.max_requests} requests are answered at once."
            raise _Failed(HTTPStatus.SERVICE_UNAVAILABLE, f"{sentence} Come again.")
