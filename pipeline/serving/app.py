"""The HTTP side of serving: the only file that knows status codes."""

import logging
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated
from uuid import uuid4

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError

from pipeline.errors import ConfigError, UnavailableError
from pipeline.model import Model
from pipeline.serving import contract
from pipeline.serving.capture import CAPTURED, Captures

_LOG = logging.getLogger(__name__)
# A schema inside an OpenAPI document refers to its own parts from the document's root.
_REFERENCE = "#/paths/~1predict/post/requestBody/content/application~1json/schema/$defs/{model}"


class Answer(BaseModel):
    """Predictions in the order of the rows, and what to call them later."""

    predictions: list[float]
    keys: list[str]
    version: str
    request_id: str


class Refusal(BaseModel):
    """Every problem of a refused request."""

    problems: list[contract.Problem]


class _Refused(Exception):  # noqa: N818 -- the answer's name, not an error's
    def __init__(self, problems: list[contract.Problem]) -> None:
        self.problems = problems


def create_app(*, model: Model, name: str, version: str, captures: Captures | None) -> FastAPI:
    """The API of one model.

    Parameters
    ----------
    model : Model
        Loaded, and replayed by `parity.replay`.
    name, version : str
        The registered model and the version that is served.
    captures : Captures or None
        Where answered rows are kept; None keeps none. The caller closes it.

    Raises
    ------
    ConfigError
        If captures are kept and a feature is named like one of their columns.
    """
    if captures is not None:
        _check_names(model)
    service = _Service(model, version, captures)
    body = contract.request_body(model.columns).model_json_schema(ref_template=_REFERENCE)
    app = FastAPI(title=name, version=version)
    app.exception_handler(_Refused)(_refuse)
    app.exception_handler(Exception)(_fail)
    app.post(
        "/predict",
        responses={HTTPStatus.UNPROCESSABLE_ENTITY.value: {"model": Refusal}},
        openapi_extra={"requestBody": {"content": {"application/json": {"schema": body}}}},
    )(service.predict)

    @app.get("/live")
    async def live() -> dict[str, str]:
        return {"status": "live"}

    @app.get("/ready")
    async def ready() -> dict[str, str]:
        return {"status": "ready"}

    @app.get("/version")
    async def served() -> dict[str, str]:
        return {"name": name, "version": version}

    return app


def _check_names(model: Model) -> None:
    taken = [name for name in model.columns if name in CAPTURED]
    if taken:
        message = (
            f"A captured feature must not be named like one of {', '.join(CAPTURED)}. "
            f"Got {', '.join(taken)}. Rename it in data.features."
        )
        raise ConfigError(message)


async def _body(request: Request) -> bytes:
    return await request.body()


class _Service:
    """What a request needs, made once."""

    def __init__(self, model: Model, version: str, captures: Captures | None) -> None:
        self._model = model
        self._version = version
        self._captures = captures
        self._request = contract.request_body(model.columns)
        self._encode = contract.encoder(model.columns, model.categories)

    def predict(self, body: Annotated[bytes, Depends(_body)]) -> Answer:
        """Predict every row of the request, or refuse all of them with every problem."""
        request = self._read(body)
        rows = [row.model_dump(by_alias=True) for row in request.rows]
        request_id = uuid4().hex
        answer = Answer(
            predictions=self._model.predict_encoded(self._encode(rows)).tolist(),
            keys=request.keys or [f"{request_id}-{i}" for i in range(len(rows))],
            version=self._version,
            request_id=request_id,
        )
        self._capture(rows, answer)
        return answer

    def _read(self, body: bytes) -> contract.Request:
        try:
            return self._request.model_validate_json(body)
        except ValidationError as error:
            raise _Refused(contract.problems(error, self._model.columns)) from error

    def _capture(self, rows: list[contract.Row], answer: Answer) -> None:
        if self._captures is None:
            return
        try:
            self._captures.append(rows=rows, at=datetime.now(UTC), **answer.model_dump())
        except UnavailableError as error:
            # An answer is worth more than its record; the monitor sees fewer rows.
            _LOG.error("request %s is not captured: %s", answer.request_id, error)


async def _refuse(_: Request, error: _Refused) -> JSONResponse:
    content = Refusal(problems=error.problems).model_dump()
    return JSONResponse(content, HTTPStatus.UNPROCESSABLE_ENTITY)


async def _fail(_: Request, error: Exception) -> JSONResponse:
    sentence = f"The server must answer valid rows. Got {type(error).__name__}. See its log."
    return JSONResponse({"error": sentence}, HTTPStatus.INTERNAL_SERVER_ERROR)
