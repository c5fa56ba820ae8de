"""What the API tells of itself, with rows of the training data as examples."""

from typing import Any

from pydantic import TypeAdapter

from pipeline.serving.labels import label_type
from pipeline.serving.requests import Problem
from pipeline.serving.served_version import ServedVersion

_JSON = "application/json"
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string", "description": "What is wrong, in a sentence."}},
}
_PREDICTED = {"type": "array", "items": {"type": ["number", "null"]}}
_TEXTS = {"type": "array", "items": {"type": "string"}}


def document(served: ServedVersion, *, protected: bool) -> dict[str, Any]:
    """The OpenAPI 3.1 document of a version's API.

    Parameters
    ----------
    served : ServedVersion
        Gives columns and examples.
    protected : bool
        Whether requests must bear a token.
    """
    parts = _parts(served)
    told: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": served.name, "version": served.version},
        "paths": _predicting(served) | _telling(served),
        "components": {"schemas": parts},
    }
    if protected:
        told["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        told["security"] = [{"token": []}]
    return told


def _parts(served: ServedVersion) -> dict[str, Any]:
    where = "#/components/schemas/{model}"
    request: dict[str, Any] = served.request.json_schema(ref_template=where)
    labels: dict[str, Any] = label_type(served.model.task).json_schema(ref_template=where)
    problem = TypeAdapter(Problem).json_schema()
    refusal = {
        "type": "object",
        "required": ["error", "problems", "request_id"],
        "properties": {
            **_ERROR["properties"],  # type: ignore[dict-item]
            "problems": {"type": "array", "items": {"$ref": "#/components/schemas/Problem"}},
            "request_id": {"type": "string"},
        },
    }
    nested: dict[str, Any] = request.pop("$defs", {}) | labels.pop("$defs", {})
    return nested | {
        "Request": request,
        "Labels": labels,
        "Problem": problem,
        "Refusal": refusal,
        "Error": _ERROR,
    }


def _predicting(served: ServedVersion) -> dict[str, Any]:
    row = served.example
    split = {"columns": list(row), "data": [list(row.values())]}
    tensors = [
        {
            "name": name,
            "shape": [1],
            "datatype": "BYTES" if isinstance(value, str) else "FP64",
            "data": [value],
        }
        for name, value in row.items()
    ]
    answer = {
        "predictions": _PREDICTED,
        "keys": _TEXTS,
        "version": {"type": "string"},
        "request_id": {"type": "string"},
        "problems": {"type": "array", "items": {"$ref": "#/components/schemas/Problem"}},
    }
    outputs = {
        "model_name": {"type": "string"},
        "model_version": {"type": "string"},
        "id": {"type": "string"},
        "outputs": {"type": "array", "items": {"type": "object"}},
    }
    own = {"$ref": "#/components/schemas/Request"}
    anything = {"type": "object"}
    return {
        "/predict": _post("Predict rows", own, {"rows": [row], "keys": ["order-1"]}, answer),
        "/invocations": _post(
            "Predict rows by MLflow's scoring protocol",
            anything,
            {"dataframe_split": split},
            {"predictions": _PREDICTED},
        ),
        f"/v2/models/{served.name}/infer": _post(
            "Predict rows by the Open Inference Protocol", anything, {"inputs": tensors}, outputs
        ),
        "/labels": _post(
            "Send the labels of rows that were answered",
            {"$ref": "#/components/schemas/Labels"},
            {"labels": [{"key": "order-1", "target": 1}]},
            {"stored": {"type": "integer"}},
        ),
    }


def _telling(served: ServedVersion) -> dict[str, Any]:
    name = f"/v2/models/{served.name}"
    routes = {
        "/live": "Whether the process answers",
        "/ready": "Whether requests should come here",
        "/version": "What answers",
        "/contract": "What a row must hold",
        "/v2": "The server, by the Open Inference Protocol",
        "/v2/health/live": "The same as /live",
        "/v2/health/ready": "The same as /ready",
        name: "The model, by the Open Inference Protocol",
        f"{name}/ready": "Whether the model answers",
    }
    told = {route: {"get": {"summary": text, "responses": _OK}} for route, text in routes.items()}
    text = {"description": "Metrics", "content": {"text/plain": {"schema": {"type": "string"}}}}
    metrics = {"get": {"summary": "What Prometheus scrapes", "responses": {"200": text}}}
    return told | {"/metrics": metrics}


_OK = {
    "200": {"description": "So it is", "content": {_JSON: {"schema": {"type": "object"}}}},
    "503": {"description": "Not now", "content": {_JSON: {"schema": {"type": "object"}}}},
}


def _post(summary: str, schema: Any, example: Any, answer: dict[str, Any]) -> dict[str, Any]:
    required = [name for name in answer if name != "problems"]
    ok = {"type": "object", "required": required, "properties": answer}
    failed = {"$ref": "#/components/schemas/Error"}
    responses = {
        "200": {"description": "Answered", "content": {_JSON: {"schema": ok}}},
        "422": {
            "description": "Every problem of the request",
            "content": {_JSON: {"schema": {"$ref": "#/components/schemas/Refusal"}}},
        },
    }
    for status, told in (
        ("400", "The request ended early"),
        ("401", "The token is missing"),
        ("408", "The body came too slowly"),
        ("413", "The body is too long"),
        ("503", "Too many requests, or no champion yet"),
    ):
        responses[status] = {"description": told, "content": {_JSON: {"schema": failed}}}
    body = {"required": True, "content": {_JSON: {"schema": schema, "example": example}}}
    return {"post": {"summary": summary, "requestBody": body, "responses": responses}}
