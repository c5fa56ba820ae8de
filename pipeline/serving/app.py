"""The routes of the API: predictions, labels, probes, and what a model says about itself."""

import asyncio
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from http import HTTPStatus
from secrets import token_hex
from typing import Any, TypeVar, get_args
from urllib.parse import unquote

import pandas as pd
from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from pipeline import tracing
from pipeline.config import Serving
from pipeline.errors import ConfigError, UnavailableError
from pipeline.serving import labels
from pipeline.serving.answering import Extra, Refused, Scored, score
from pipeline.serving.bodies import is_long
from pipeline.serving.capturing import Captures
from pipeline.serving.follower import ServingState
from pipeline.serving.guard import Guard
from pipeline.serving.inference import INFERENCE, metadata
from pipeline.serving.invocations import INVOCATIONS
from pipeline.serving.memory import give_back
from pipeline.serving.metrics import Metrics
from pipeline.serving.openapi import document
from pipeline.serving.problems import Found, Problem
from pipeline.serving.protocols import NATIVE, Protocol
from pipeline.serving.responses import (
    HEADERS,
    SAFE,
    Failed,
    broken,
    failed,
    json_response,
    no_route,
    refusal,
)
from pipeline.serving.served_version import ServedVersion
from pipeline.serving.sums import Sums
from pipeline.training.contributions import check_explainable

_LONG = ThreadPoolExecutor(2, "long")
"""Threads for long bodies: half of their time holds the interpreter, so more would not help."""
T = TypeVar("T")
_MODEL = "/v2/models/{name}"
_VERSION = "/v2/models/{name}/versions/{version}"


def create_app(
    *,
    state: ServingState,
    captures: Captures | None,
    options: Serving,
    sums: Sums | None = None,
) -> Guard:
    """Build the API of one model.

    Parameters
    ----------
    state : ServingState
        Holds the version that answers; it may change while the app runs.
    captures : Captures or None
        Where requests and answers are stored; None stores none. The caller closes it.
    options : Serving
        Limits, token and policies.
    sums : Sums or None
        The metrics of all workers, where this server is one of several.
    """
    api = _Api(state, captures, options, sums)
    direct: dict[str, ASGIApp] = {
        "/predict": _Predict(api, NATIVE),
        "/invocations": _Predict(api, INVOCATIONS),
    }
    infer = _Predict(api, INFERENCE)
    routes = [
        *(Route(path, endpoint, methods=["POST"]) for path, endpoint in direct.items()),
        *(Route(f"{model}/infer", infer, methods=["POST"]) for model in (_MODEL, _VERSION)),
        Route("/labels", api.labels, methods=["POST"]),
        Route("/live", api.live),
        Route("/ready", api.ready),
        Route("/version", api.version),
        Route("/contract", api.contract),
        Route("/metrics", api.metrics_page),
        Route("/openapi.json", api.openapi),
        Route("/ping", api.ready),  # MLflow's name for it
        Route("/v2", api.server),
        Route("/v2/health/live", api.live),
        Route("/v2/health/ready", api.ready),
        *(Route(model, api.model) for model in (_MODEL, _VERSION)),
        *(Route(f"{model}/ready", api.model) for model in (_MODEL, _VERSION)),
    ]
    handlers = {Failed: failed, HTTPException: no_route, Exception: broken}
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.router.redirect_slashes = False  # a redirect names whatever host the caller sent
    # Where several routes share an endpoint, answers count under the first of them.
    names = {route.endpoint: route.path for route in reversed(routes)}
    return Guard(app, options=options, metrics=api.metrics, direct=direct, names=names)


class _Api:
    """Endpoints of one model, and what they share."""

    def __init__(
        self,
        state: ServingState,
        captures: Captures | None,
        options: Serving,
        sums: Sums | None,
    ) -> None:
        self.state, self.captures, self.options = state, captures, options
        self.metrics = Metrics(state, captures, sums)
        self.waiting = 0
        self._described: tuple[ServedVersion | None, bytes] = (None, b"")
        self.label_type = lru_cache(labels.label_type)

    @property
    def served(self) -> ServedVersion:
        """The version that answers a request, even if another one replaces it meanwhile."""
        served = self.state.served
        if served is None:
            sentence = "No champion is loaded yet; retry shortly."
            raise Failed(HTTPStatus.SERVICE_UNAVAILABLE, sentence)
        return served

    async def run(self, work: Callable[[], T], body: bytes, *, slow: bool = False) -> T:
        """Do the work of a request, in a thread if its body is long or its work is slow.

        Short ones are done at once, so that long ones never make them wait for their turn.
        """
        if not slow and not is_long(body):
            return work()
        if self.waiting >= self.options.max_requests:
            sentence = "The server is busy with long requests; retry in a second."
            raise Failed(HTTPStatus.SERVICE_UNAVAILABLE, sentence)
        self.waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(_LONG, _thrifty, work)
        finally:
            self.waiting -= 1

    def refuse(
        self,
        scope: Scope,
        served: ServedVersion,
        problems: list[Problem],
        *,
        request_id: str,
        body: bytes,
    ) -> None:
        """Count and store a refused request."""
        self.metrics.refused(served, problems)
        if self.captures is not None:
            self.captures.refusal(
                at=_now(),
                request_id=request_id,
                version=served.version,
                route=scope["path"],
                caller=_caller(scope),
                problems=to_json(problems).decode(),
                body=body,
            )

    async def labels(self, request: Request) -> Response:
        """Store labels of predicted rows, by the keys of the rows."""
        served, body = self.served, request.scope["body"]
        if self.captures is None:
            sentence = "This server stores no labels, because serving.captures names no file."
            raise Failed(HTTPStatus.NOT_FOUND, sentence)
        asked = labels.Asked(served.model.task, served.model.classes)
        read = partial(labels.read_labels, body, asked, self.label_type(asked))
        given = await self.run(read, body)
        if isinstance(given, Found):
            name = token_hex(16)
            self.refuse(request.scope, served, given.problems, request_id=name, body=body)
            return refusal(given, name)
        try:
            unknown = await asyncio.to_thread(self.captures.label, list(given.items()), at=_now())
        except UnavailableError as error:
            raise Failed(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from error
        return json_response({"stored": len(given), "unknown": unknown})

    async def live(self, _: Request) -> Response:
        """Say that the process answers."""
        return json_response({"status": "live"})

    async def ready(self, request: Request) -> Response:
        """Say whether requests should be sent here, with codes of all problems either way.

        Their sentences name files and servers, so that only callers with the token read them.
        """
        state, capture = self.state, "" if self.captures is None else self.captures.problem
        away = "registry" if state.reachable is False else "champion"
        found = {
            code: text for code, text in ((away, state.problem), ("captures", capture)) if text
        }
        ready = state.served is not None and not (capture and self.options.capture == "required")
        content: dict[str, Any] = {
            "status": "ready" if ready else "not ready",
            "problems": list(found),
        }
        if request.scope["trusted"]:
            content["details"] = list(found.values())
        status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
        return json_response(content, status)

    async def version(self, _: Request) -> Response:
        """Name the served version, and when it was trained and loaded."""
        served = self.served
        loaded = pd.Timestamp(self.state.since or 0, unit="s").isoformat(timespec="seconds")
        return json_response(
            {
                "name": served.name,
                "version": served.version,
                "task": served.model.task,
                "trained_until": served.trained_until,
                "loaded": f"{loaded}Z",
            }
        )

    async def contract(self, _: Request) -> Response:
        """Give the declared columns, the known labels and an example row."""
        served = self.served
        columns = {name: column.model_dump() for name, column in served.model.columns.items()}
        content: dict[str, Any] = {
            "columns": columns,
            "known": served.model.categories,
            "example": served.example,
            "derived": {name: str(one) for name, one in served.model.derive.items()},
        }
        if served.model.classes:
            content["classes"] = served.model.classes
        if served.costs is not None:
            content["threshold"] = served.costs.threshold
        return json_response(content)

    async def metrics_page(self, _: Request) -> Response:
        """Give the page that Prometheus scrapes."""
        return Response(self.metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def openapi(self, _: Request) -> Response:
        """Give the OpenAPI document of the served version."""
        served = self.served
        if self._described[0] is not served:
            content = to_json(document(served, protected=self.options.token is not None))
            self._described = (served, content)
        return Response(self._described[1], headers=dict(SAFE), media_type="application/json")

    async def server(self, _: Request) -> Response:
        """Give the server metadata of the Open Inference Protocol."""
        return json_response({"name": "holdfast", "version": "2", "extensions": []})

    async def model(self, request: Request) -> Response:
        """Give the model metadata of the Open Inference Protocol, or whether it is ready."""
        served = self.named(**request.path_params)
        if request.url.path.endswith("/ready"):
            return json_response({"name": served.name, "ready": True})
        model = served.model
        decides = served.costs is not None
        return json_response(metadata(served.name, served.version, model, decides=decides))

    def named(self, name: str, version: str | None = None) -> ServedVersion:
        """The served version, if its model has this name and it is this version."""
        served = self.served
        if name != served.name:
            sentence = f"This server has no model {name[:40]!r}. It serves {served.name!r}."
            raise Failed(HTTPStatus.NOT_FOUND, sentence)
        if version not in {None, served.version}:
            sentence = f"Version {version[:40]!r} is not served. Version {served.version!r} is."
            raise Failed(HTTPStatus.NOT_FOUND, sentence)
        return served


def _thrifty(work: Callable[[], T]) -> T:
    """Do the work of a long request, and give its memory back to the system."""
    try:
        return work()
    finally:
        give_back()


def _now() -> int:
    """Microseconds since 1970, as captures store times."""
    return time.time_ns() // 1_000


def _caller(scope: Scope) -> str:
    agent = dict(scope["headers"]).get(b"user-agent", b"").decode("latin-1")
    host = (scope.get("client") or ("",))[0]
    return f"{host} {agent[:80]}".strip()


class _Predict:
    """Endpoint that predicts the rows of a request; plain ASGI, because it is called most.

    Raises
    ------
    Failed
        If the request cannot be answered.
    """

    def __init__(self, api: _Api, protocol: Protocol) -> None:
        self._api, self._protocol = api, protocol

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        api, request_id = self._api, token_hex(16)
        body, named = scope["body"], scope.get("path_params")
        served = api.named(**named) if named else api.served
        explain = self._asked(scope.get("query_string", b""), served)
        about = {"holdfast.model": served.name, "holdfast.version": served.version}
        tracing.annotate(about | {"holdfast.request_id": request_id})
        work = partial(
            self._answer,
            served,
            body=body,
            content_type=scope["media"],
            request_id=request_id,
            explain=explain,
        )
        try:
            scored, content = await api.run(work, body, slow="contributions" in explain)
        except Refused as error:
            api.refuse(scope, served, error.found.problems, request_id=request_id, body=body)
            await refusal(error.found, request_id, self._protocol.refused)(scope, receive, send)
            return
        if scored.answer.problems:
            api.refuse(scope, served, scored.answer.problems, request_id=request_id, body=body)
        seconds = time.perf_counter() - began
        api.metrics.predicted(served, scored.predicted, seconds)
        if api.captures is not None:
            _capture(api.captures, served, scored, seconds)
        length = (b"content-length", b"%d" % len(content))
        start = {"type": "http.response.start", "status": 200, "headers": [*HEADERS, length]}
        await send(start)
        await send({"type": "http.response.body", "body": content})

    def _asked(self, query: bytes, served: ServedVersion) -> Collection[Extra]:
        """What a request asks for beside predictions."""
        if not query:
            return ()
        name, _, values = unquote(query.decode("latin-1")).partition("=")
        asked = [one for one in get_args(Extra) if one in values.split(",")]
        if (
            not asked
            or name != "explain"
            or ",".join(asked) != values
            or self._protocol is not NATIVE
        ):
            sentence = (
                "A query must be empty, or for /predict explain= and some of "
                f"{','.join(get_args(Extra))}, in this order."
            )
            raise Failed(HTTPStatus.BAD_REQUEST, sentence)
        if "interval" in asked and served.margins is None:
            sentence = (
                "The served version has no intervals. They need a regression and "
                "training.intervals."
            )
            raise Failed(HTTPStatus.BAD_REQUEST, sentence)
        if "set" in asked and served.sets is None:
            sentence = (
                "The served version has no sets. They need a classification and training.intervals."
            )
            raise Failed(HTTPStatus.BAD_REQUEST, sentence)
        if "contributions" in asked:
            try:
                check_explainable(served.model)
            except ConfigError as error:
                raise Failed(HTTPStatus.BAD_REQUEST, str(error)) from error
        return asked

    def _answer(self, served: ServedVersion, **request: Any) -> tuple[Scored, bytes]:
        bad_rows = self._api.options.bad_rows
        scored = score(served, self._protocol, bad_rows=bad_rows, **request)
        return scored, to_json(self._protocol.write(scored.answer))


def _capture(captures: Captures, served: ServedVersion, scored: Scored, seconds: float) -> None:
    captures.answer(
        at=_now(),
        request_id=scored.answer.request_id,
        layout=served.layout,
        version=served.version,
        latency=round(seconds * 1e6),
        features=scored.predicted.features,
        unseen=scored.predicted.unseen,
        keys=scored.keys,
        predictions=scored.predicted.predictions,
    )
