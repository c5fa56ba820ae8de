"""The OpenAPI document of a served version, with golden rows as examples."""

from itertools import combinations
from typing import Any, get_args

from pydantic import TypeAdapter

from pipeline.derivation import Derivations
from pipeline.serving.answering import Extra
from pipeline.serving.labels import Asked, label_type
from pipeline.serving.problems import Problem
from pipeline.serving.served_version import ServedVersion
from pipeline.training.contributions import is_explainable

_JSON = "application/json"
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string", "description": "What is wrong, in one sentence."}},
}
_PREDICTED = {"type": "array", "items": {"type": ["number", "null"]}}
_TEXTS = {"type": "array", "items": {"type": "string"}}


def document(served: ServedVersion, *, protected: bool) -> dict[str, Any]:
    """Write the OpenAPI 3.1 document of the API.

    Parameters
    ----------
    served : ServedVersion
        Gives columns and examples.
    protected : bool
        Whether requests need a token.
    """
    content: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": served.name, "version": served.version},
        "paths": _post_routes(served) | _get_routes(served),
        "components": {"schemas": _schemas(served)},
    }
    if protected:
        content["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        content["security"] = [{"token": []}]
    return content


def _schemas(served: ServedVersion) -> dict[str, Any]:
    where = "#/components/schemas/{model}"
    request: dict[str, Any] = served.contract.request.json_schema(ref_template=where)
    kind = label_type(_asked(served))
    labels: dict[str, Any] = kind.json_schema(ref_template=where)
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
    _add_origins(nested["Row"], served.model.derive)
    return nested | {
        "Request": request,
        "Labels": labels,
        "Problem": problem,
        "Refusal": refusal,
        "Error": _ERROR,
    }


def _asked(served: ServedVersion) -> Asked:
    return Asked(served.model.task, served.model.classes)


def _add_origins(row: dict[str, Any], derivations: Derivations) -> None:
    """Let a row hold what features are derived from, instead of these."""
    for name, derived in derivations.items():
        for column in derived.columns:
            what = {"description": f"Instead of {name}, which is {derived}."}
            row["properties"].setdefault(column, what)
    row["required"] = [name for name in row.get("required", []) if name not in derivations]


def _post_routes(served: ServedVersion) -> dict[str, Any]:
    row, classes = served.example, served.model.classes
    anything = {"type": "object"}
    return {
        "/predict": _post(
            "Predict rows",
            {"$ref": "#/components/schemas/Request"},
            {"rows": [row], "keys": ["order-1"]},
            _of_classes(classes) | ({} if served.costs is None else _DECIDED) | _ANSWER,
            parameters=[_explain(served)],
        ),
        "/invocations": _post(
            "Predict rows by MLflow's scoring protocol",
            anything,
            {"dataframe_split": {"columns": list(row), "data": [list(row.values())]}},
            {"predictions": _rows_of_chances(len(classes)) if classes else _PREDICTED},
        ),
        f"/v2/models/{served.name}/infer": _post(
            "Predict rows by the Open Inference Protocol",
            anything,
            {"inputs": [_tensor(name, value) for name, value in row.items()]},
            _INFERENCE,
        ),
        "/labels": _post(
            "Send the labels of predicted rows",
            {"$ref": "#/components/schemas/Labels"},
            {"labels": [{"key": "order-1", "target": classes[0] if classes else 1}]},
            {"stored": {"type": "integer"}, "unknown": {"type": "integer"}},
        ),
    }


def _explain(served: ServedVersion) -> dict[str, Any]:
    """The parameter that asks for more than predictions, of what the version can give."""
    able = {
        "interval": served.margins is not None,
        "set": served.sets is not None,
        "contributions": is_explainable(served.model),
    }
    known = [one for one in get_args(Extra) if able.get(one, True)]
    some = [",".join(few) for n in range(len(known)) for few in combinations(known, n + 1)]
    return {
        "name": "explain",
        "in": "query",
        "description": "What the answer shall hold of each row beside its prediction.",
        "schema": {"enum": some},
        "allowReserved": True,  # the comma between two of them
    }


def _of_classes(classes: tuple[str, ...]) -> dict[str, Any]:
    """What an answer holds of predictions: numbers, or classes and their probabilities."""
    if not classes:
        return {"predictions": _PREDICTED}
    chance = {"type": "number", "minimum": 0, "maximum": 1}
    chances = {
        "type": ["object", "null"],
        "required": list(classes),
        "properties": dict.fromkeys(classes, chance),
    }
    return {
        "predictions": {"type": "array", "items": {"enum": [*classes, None]}},
        "probabilities": {"type": "array", "items": chances},
    }


def _rows_of_chances(n: int) -> dict[str, Any]:
    row = {"type": ["array", "null"], "items": {"type": "number"}, "minItems": n, "maxItems": n}
    return {"type": "array", "items": row}


_DECIDED = {"decisions": {"type": "array", "items": {"enum": [0, 1, None]}}}
_ANSWER = {
    "keys": _TEXTS,
    "version": {"type": "string"},
    "request_id": {"type": "string"},
    "problems": {"type": "array", "items": {"$ref": "#/components/schemas/Problem"}},
    "outside": {"type": "object"},
    "intervals": {"type": "array", "items": {"type": ["array", "null"]}},
    "sets": {"type": "array", "items": {"type": ["array", "null"]}},
    "contributions": {"type": "array", "items": {"type": ["object", "null"]}},
}
_ON_REQUEST = {"problems", "outside", "intervals", "sets", "contributions"}
_INFERENCE = {
    "model_name": {"type": "string"},
    "model_version": {"type": "string"},
    "id": {"type": "string"},
    "outputs": {"type": "array", "items": {"type": "object"}},
}


def _tensor(name: str, value: Any) -> dict[str, Any]:
    kind = "BYTES" if isinstance(value, str) else "FP64"
    return {"name": name, "shape": [1], "datatype": kind, "data": [value]}


def _get_routes(served: ServedVersion) -> dict[str, Any]:
    name = f"/v2/models/{served.name}"
    routes = {
        "/live": "Whether the process answers",
        "/ready": "Whether requests should be sent here",
        "/version": "The served version",
        "/contract": "Declared columns, known labels and an example row",
        "/v2": "The server, by the Open Inference Protocol",
        "/v2/health/live": "Whether the process answers, as /live",
        "/v2/health/ready": "Whether requests should be sent here, as /ready",
        name: "The model, by the Open Inference Protocol",
        f"{name}/ready": "Whether the model answers",
    }
    failed = _failures(_OF_ANY)
    ok = _OK | failed
    paths = {route: {"get": {"summary": text, "responses": ok}} for route, text in routes.items()}
    text = {"description": "Metrics", "content": {"text/plain": {"schema": {"type": "string"}}}}
    metrics = {"get": {"summary": "Metrics for Prometheus", "responses": {"200": text} | failed}}
    return paths | {"/metrics": metrics}


_OK = {
    "200": {"description": "Success", "content": {_JSON: {"schema": {"type": "object"}}}},
    "503": {"description": "Not now", "content": {_JSON: {"schema": {"type": "object"}}}},
}
_OF_ANY = {
    "400": "The request is cut off, its Host or its query is not valid, or it breaks the protocol",
    "401": "The token is missing or wrong",
    "403": "The page of another site sent the request",
    "404": "The route or the model does not exist, or no labels are stored here",
    "405": "The route does not have this method",
    "408": "The request arrived too slowly",
    "431": "The headers are too long",
    "500": "The server failed; its log has the details",
}
"""What any request can be answered with."""
_OF_POSTS = {
    "413": "The body is too long",
    "415": "The body is not of a type that the route reads",
    "503": "Too many requests at once, or no champion is loaded yet",
}


def _failures(texts: dict[str, str]) -> dict[str, Any]:
    content = {_JSON: {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {status: {"description": text, "content": content} for status, text in texts.items()}


def _post(
    summary: str, schema: Any, example: Any, answer: dict[str, Any], **more: Any
) -> dict[str, Any]:
    required = [name for name in answer if name not in _ON_REQUEST]
    ok = {"type": "object", "required": required, "properties": answer}
    responses = {
        "200": {"description": "Success", "content": {_JSON: {"schema": ok}}},
        "422": {
            "description": "The request breaks the contract; all problems are listed",
            "content": {_JSON: {"schema": {"$ref": "#/components/schemas/Refusal"}}},
        },
    } | _failures(_OF_ANY | _OF_POSTS)
    body = {"required": True, "content": {_JSON: {"schema": schema, "example": example}}}
    return {"post": {"summary": summary, "requestBody": body, "responses": responses} | more}
