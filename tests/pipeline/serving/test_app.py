import asyncio
import dataclasses
import json
import re
import sqlite3
from pathlib import Path
from urllib.parse import quote

import httpx
import numpy as np
import pandas as pd
import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipeline.config import Serving
from pipeline.data.captures import read_captures, read_labels, read_refusals
from pipeline.serving.app import create_app
from pipeline.serving.capturing import EVERY, Captures
from pipeline.serving.follower import ServingState
from pipeline.serving.problems import MAX_ROWS, MOST_PROBLEMS

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "captures.db"


@pytest.fixture
def captures(path):
    with Captures(path) as captures:
        yield captures


TENSOR = {"name": "temp", "shape": [1], "datatype": "FP64", "data": [1]}


def client_of(state, captures, **options):
    app = create_app(state=state, captures=captures, options=Serving(**options))
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="http://test",
        headers={"content-type": "application/json"},
    )


@pytest.fixture
async def client(state, captures):
    async with client_of(state, captures) as client:
        yield client


def metrics(text):
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_predictions_equal_those_of_the_model(client, model, frame):
    rows = json.loads(frame.to_json(orient="records", double_precision=15))
    rows.append({"hours-per-week": 3, "plan": "free", "dest": "never seen"})
    expected = model.predict(pd.DataFrame(rows))

    answer = (await client.post("/predict", json={"rows": rows})).json()
    alone = [await client.post("/predict", json={"rows": [row]}) for row in rows[-50:]]

    np.testing.assert_array_equal(answer["predictions"], expected)
    single = [one_row.json()["predictions"][0] for one_row in alone]
    np.testing.assert_allclose(single, expected[-50:], rtol=0, atol=1e-6)
    assert answer["version"] == "3"


async def test_all_protocols_give_equal_predictions(client, row):
    records = [row, {"hours-per-week": 7, "plan": "free"}]
    full = [{"temp": None, "dest": None} | record for record in records]
    names = list(full[0])
    lines = [",".join("" if r[n] is None else str(r[n]) for n in names) for r in full]
    kinds = {"hours-per-week": "INT64", "temp": "FP64", "plan": "BYTES", "dest": "BYTES"}
    tensors = [
        {"name": n, "shape": [2], "datatype": kinds[n], "data": [r[n] for r in full]} for n in names
    ]
    table = {n: [r[n] for r in full] for n in names}
    split = {"columns": names, "data": [[r[n] for n in names] for r in full]}

    own = (await client.post("/predict", json={"rows": records})).json()["predictions"]

    for body in (
        {"dataframe_records": records},
        {"instances": records},
        {"inputs": table},
        {"dataframe_split": split},
        {"dataframe_split": split | {"index": [0, 1]}},
    ):
        answer = await client.post("/invocations", json=body)
        assert answer.json() == {"predictions": own}, body
    text = "\n".join([",".join(names), *lines])
    answer = await client.post("/invocations", content=text, headers={"content-type": "text/csv"})
    assert answer.json() == {"predictions": own}
    asked = {"id": "mine", "inputs": tensors, "outputs": [{"name": "prediction"}]}
    inferred = (await client.post("/v2/models/flights/infer", json=asked)).json()
    output = {"name": "prediction", "shape": [2], "datatype": "FP64", "data": own}
    assert inferred == {
        "model_name": "flights",
        "model_version": "3",
        "id": "mine",
        "outputs": [output],
    }


@pytest.mark.parametrize(
    ("route", "body", "rule"),
    [
        ("/invocations", {}, "must hold one of dataframe_split"),
        ("/invocations", {"instances": [], "inputs": []}, "must hold one of dataframe_split"),
        ("/invocations", {"instances": [{}], "more": {}}, "besides it only params"),
        ("/invocations", {"dataframe_split": {"columns": ["a"]}}, "must hold columns, and data"),
        (
            "/invocations",
            {"dataframe_split": {"columns": ["a", "a"], "data": [[1, 2]]}},
            "must hold columns, and data",
        ),
        (
            "/invocations",
            {"dataframe_split": {"columns": ["a"], "data": [[1, 2]]}},
            "one value per column in each row",
        ),
        (
            "/invocations",
            {"dataframe_split": {"columns": "ab", "data": [[1, 2]]}},
            "must hold columns, and data",
        ),
        ("/invocations", {"inputs": {"a": [1], "b": [1, 2]}}, "lists of equal length"),
        ("/invocations", [1], "must be an object"),
        ("/v2/models/flights/infer", {}, "must hold inputs"),
        ("/v2/models/flights/infer", {"inputs": [{"name": "temp"}]}, "must be a list"),
        (
            "/v2/models/flights/infer",
            {"inputs": [{"name": "temp", "shape": [2], "datatype": "FP64", "data": [1]}]},
            "shape of a tensor",
        ),
        (
            "/v2/models/flights/infer",
            {"inputs": [{"name": "temp", "shape": [1], "datatype": "BYTES", "data": ["1"]}]},
            "datatype of temp must be one of FP64",
        ),
        ("/v2/models/flights/infer", {"inputs": [{"shape": [1]}]}, "must have a name"),
        (
            "/v2/models/flights/infer",
            {"inputs": [TENSOR, TENSOR]},
            "different names and the same number of rows",
        ),
        ("/v2/models/flights/infer", {"inputs": [TENSOR], "outputs": 5}, "outputs must be"),
        ("/v2/models/flights/infer", {"inputs": [TENSOR], "outputs": ["x"]}, "outputs must be"),
    ],
)
async def test_a_malformed_body_is_one_problem(client, route, body, rule):
    answer = await client.post(route, json=body)

    assert answer.status_code == (400 if "infer" in route else 422)
    [problem] = answer.json()["problems"]
    assert rule in problem["rule"]
    assert problem["cure"]


@pytest.mark.parametrize(
    ("line", "code"),
    [("x,1,pro,", "type"), ("nan,1,pro,", "range"), ("1_0,1,pro,", "type"), (",1,pro,", "null")],
)
async def test_a_csv_field_is_read_by_the_type_of_its_column(client, line, code):
    text = f"hours-per-week,temp,plan,dest\n{line}\n"

    answer = await client.post("/invocations", content=text, headers={"content-type": "text/csv"})

    [problem] = answer.json()["problems"]
    assert (problem["code"], problem["column"]) == (code, "hours-per-week")


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        (b"temp\n\xff\n", "must be CSV in UTF-8"),
        (b'temp\n"1\n', "must be CSV in UTF-8"),
        (b"", "must be CSV in UTF-8 with a header"),
        (b"temp,plan\n1\n", "one value per column"),
        (b"temp,temp\n1,2\n", "name each column once"),
    ],
)
async def test_malformed_csv_is_one_problem(client, body, rule):
    answer = await client.post("/invocations", content=body, headers={"content-type": "text/csv"})

    [problem] = answer.json()["problems"]
    assert rule in problem["rule"]


async def test_a_tensor_may_be_one_column_wide(client, row):
    tensors = [
        {
            "name": name,
            "shape": [1, 1],
            "datatype": "BYTES" if isinstance(value, str) else "FP64",
            "data": [[value]],
        }
        for name, value in row.items()
    ]

    answer = await client.post("/v2/models/flights/infer", json={"inputs": tensors})

    assert answer.status_code == 200


async def test_rows_without_keys_are_given_unique_keys(client, row):
    first = (await client.post("/predict", json={"rows": [row, row]})).json()
    second = (await client.post("/predict", json={"rows": [row]})).json()

    assert first["keys"] == [f"{first['request_id']}-0", f"{first['request_id']}-1"]
    assert not set(first["keys"]) & set(second["keys"])


async def test_answered_rows_are_captured(client, captures, path, row):
    body = {"rows": [row, {**row, "temp": None}], "keys": ["a", "b"]}

    answer = (await client.post("/predict", json=body)).json()
    again = (await client.post("/invocations", json={"instances": [row]})).json()

    captures.close()
    kept = read_captures(path)
    assert kept["holdfast-key"].tolist()[:2] == answer["keys"] == ["a", "b"]
    assert kept["holdfast-prediction"].tolist() == answer["predictions"] + again["predictions"]
    assert set(kept["holdfast-version"]) == {"3"}
    assert set(kept["holdfast-request_id"][:2]) == {answer["request_id"]}
    assert kept[list(row)].iloc[0].to_dict() == row
    assert kept["holdfast-latency"].between(0, 10, inclusive="neither").all()
    now = pd.Timestamp.now("UTC").tz_localize(None)
    assert (now - kept["holdfast-captured_at"]).abs().max() < pd.Timedelta("1min")


async def test_a_server_without_captures_predicts_but_takes_no_labels(state, row):
    async with client_of(state, None) as client:
        answer = await client.post("/predict", json={"rows": [row]})
        labels = await client.post("/labels", json={"labels": [{"key": "a", "target": 1}]})

    assert answer.status_code == 200
    assert labels.status_code == 404


async def test_a_refused_request_lists_every_problem_and_is_stored(client, captures, path, row):
    rows = [{**row, "plan": "trial"}, row, {**row, "hours-per-week": -1, "temp": "hot"}]

    answer = await client.post("/predict", json={"rows": rows}, headers={"user-agent": "me"})

    assert answer.status_code == 422
    found = [(p["row"], p["column"], p["got"]) for p in answer.json()["problems"]]
    assert found == [(0, "plan", "'trial'"), (2, "hours-per-week", "-1"), (2, "temp", "'hot'")]
    captures.close()
    assert len(read_captures(path)) == 0
    [kept] = read_refusals(path).to_dict("records")
    assert kept["problems"] == answer.json()["problems"]
    assert json.loads(kept["body"]) == {"rows": rows}
    assert (kept["route"], kept["caller"]) == ("/predict", "127.0.0.1 me")


@pytest.mark.parametrize("route", ["/predict", "/invocations", "/v2/models/flights/infer"])
async def test_only_bad_rows_are_rejected_where_bad_rows_is_row(state, captures, path, row, route):
    rows = [{**row, "plan": "trial"}, row]
    data = {name: [r[name] for r in rows] for name in row}
    kinds = {"hours-per-week": "FP64", "temp": "FP64", "plan": "BYTES", "dest": "BYTES"}
    tensors = [
        {"name": n, "shape": [2], "datatype": kinds[n], "data": values}
        for n, values in data.items()
    ]
    bodies = {"/predict": {"rows": rows, "keys": ["a", "b"]}, "/invocations": {"instances": rows}}
    async with client_of(state, captures, bad_rows="row") as client:
        answer = await client.post(route, json=bodies.get(route, {"inputs": tensors}))
        hopeless = await client.post("/predict", json={"rows": rows[:1]})

    content = answer.json()
    predictions = content.get("predictions") or content["outputs"][0]["data"]
    assert predictions[0] is None
    assert 0 < predictions[1] < 1
    assert hopeless.status_code == 422
    captures.close()
    kept = read_captures(path)
    assert kept["holdfast-prediction"].tolist() == predictions[1:]
    if route == "/predict":
        assert kept["holdfast-key"].tolist() == ["b"]
        assert [problem["column"] for problem in content["problems"]] == ["plan"]
    assert read_refusals(path)["problems"].str.len().tolist() == [1, 1]


async def test_a_refusal_lists_the_first_problems_and_says_that_there_are_more(client):
    answer = await client.post("/predict", json={"rows": [{}] * MAX_ROWS})

    assert len(answer.json()["problems"]) == MOST_PROBLEMS
    assert answer.json()["error"].endswith("in 50 places and more.")


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff", b'{"rows": ' + b"[" * 5000, b'{"rows": [{"temp": ' + b"9" * 9999 + b"}]}"],
    ids=["nothing", "open", "no utf-8", "deep", "long number"],
)
@pytest.mark.parametrize("route", ["/predict", "/invocations", "/v2/models/flights/infer"])
async def test_invalid_json_is_one_problem(client, route, body):
    answer = await client.post(route, content=body)

    assert answer.status_code == (400 if "infer" in route else 422)
    [problem] = answer.json()["problems"]
    assert problem["rule"] == "a request must be valid JSON"


async def test_a_string_of_invalid_unicode_is_refused(client, row):
    answer = await client.post(
        "/predict", content=json.dumps({"rows": [{**row, "dest": "\ud800"}]})
    )

    assert answer.status_code == 422


async def test_an_unexpected_error_is_answered_without_its_trace(state, row):
    def fail(_):
        raise RuntimeError(row)

    state.served = dataclasses.replace(state.served, _predict=fail)
    async with client_of(state, None) as client:
        answer = await client.post("/predict", json={"rows": [row]})

    assert answer.status_code == 500
    assert answer.json() == {
        "error": "The server failed with RuntimeError. Its log has the details."
    }


async def test_a_server_without_a_champion_is_live_but_not_ready(captures, row):
    async with client_of(ServingState(), captures) as client:
        answer = await client.post("/predict", json={"rows": [row]})
        ready = await client.get("/ready")
        live = await client.get("/live")

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert (ready.status_code, live.status_code) == (503, 200)


async def test_labels_that_cannot_be_written_are_to_be_sent_again(state, captures, path):
    sqlite3.connect(path, isolation_level=None).execute("DROP TABLE labels")
    async with client_of(state, captures) as client:
        answer = await client.post("/labels", json={"labels": [{"key": "a", "target": 1}]})

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["error"].startswith("The capture store cannot be written: no such table")


async def test_a_request_that_is_cut_off_is_a_bad_request(state):
    sent = []

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    app = create_app(state=state, captures=None, options=Serving())
    headers = [(b"host", b"a"), (b"content-type", b"application/json")]
    scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": "/predict"}
    scope["headers"] = headers
    await app(scope, receive, send)

    assert sent[0]["status"] == 400


async def test_a_server_exports_metrics_before_it_has_a_champion():
    async with client_of(ServingState(), None) as client:
        counted = metrics((await client.get("/metrics")).text)

    assert counted["holdfast_rows_total",] == 0
    assert not [name for name, *_ in counted if name.startswith("holdfast_prediction")]


@pytest.mark.parametrize(("policy", "status"), [("required", 503), ("best_effort", 200)])
async def test_a_server_that_cannot_write_captures_says_so(state, path, row, policy, status):
    captures = Captures(path)
    sqlite3.connect(path, isolation_level=None).execute("DROP TABLE answers")
    async with client_of(state, captures, capture=policy) as client:
        answer = await client.post("/predict", json={"rows": [row]})
        await asyncio.sleep(5 * EVERY)
        ready = await client.get("/ready")
        counted = metrics((await client.get("/metrics")).text)

    assert answer.status_code == 200
    assert ready.status_code == status
    assert ready.json()["problems"] == ["captures"]
    assert counted["holdfast_capture_failing",] == 1
    assert counted["holdfast_capture_lag_seconds",] > 0
    captures.close()


async def test_labels_are_stored_by_key(client, captures, path):
    labels = [{"key": "a", "target": 1}, {"key": "b", "target": 0}]

    answer = await client.post("/labels", json={"labels": labels})

    assert answer.json() == {"stored": 2, "unknown": 2}
    assert read_labels(path)[["key", "target"]].to_dict("records") == labels
    bad = [{"key": "", "target": 1}, {"key": "b", "target": 0.5}, {"key": "c"}, 1]
    refused = await client.post("/labels", json={"labels": bad})
    assert refused.status_code == 422
    assert [(p["row"], p["got"]) for p in refused.json()["problems"]] == [
        (0, "''"),
        (1, "0.5"),
        (2, "nothing"),
        (3, "1"),
    ]
    assert len(read_labels(path)) == 2
    captures.close()
    assert read_refusals(path)["route"].tolist() == ["/labels"]


async def test_requests_but_probes_need_the_token(state, row):
    state.problem = "MLflow does not answer at http://mlflow."
    async with client_of(state, None, token="s3cret") as client:  # noqa: S106 -- a test's
        bare = await client.post("/predict", json={"rows": [row]})
        wrong = await client.get("/metrics", headers={"authorization": "Bearer other"})
        good = {"authorization": "Bearer s3cret"}
        right = await client.post("/predict", json={"rows": [row]}, headers=good)
        spelled = await client.get("/version", headers={"authorization": "bEARER  s3cret"})
        probes = [await client.get(route) for route in ("/ready", "/ping", "/v2/health/ready")]
        live = await client.get("/live")
        details = await client.get("/ready", headers=good)

    assert (bare.status_code, wrong.status_code, right.status_code) == (401, 401, 200)
    assert (spelled.status_code, live.status_code) == (200, 200)
    for probe in probes:
        assert probe.json() == {"status": "ready", "problems": ["champion"]}
    assert bare.headers["www-authenticate"] == "Bearer"
    assert details.json()["details"] == ["MLflow does not answer at http://mlflow."]


async def test_a_body_that_is_too_long_is_refused(state, captures, row):
    async def chunks():
        for _ in range(100):
            yield b" " * 100

    async with client_of(state, captures, max_bytes=1_000) as client:
        declared = await client.post("/predict", json={"rows": [row] * 100})
        streamed = await client.post("/predict", content=chunks())

    assert (declared.status_code, streamed.status_code) == (413, 413)
    assert "at most 1,000 bytes" in declared.json()["error"]


async def test_a_body_that_arrives_too_slowly_is_refused(state):
    async def slowly():
        yield b"{"
        await asyncio.sleep(30)

    async with client_of(state, None, timeout="50ms") as client:
        answer = await client.post("/predict", content=slowly())

    assert answer.status_code == 408


async def test_a_busy_server_asks_clients_with_long_requests_to_retry(state, row):
    long = {"rows": [row] * 9_000}
    async with client_of(state, None, max_requests=2) as client:
        under_way = [asyncio.ensure_future(client.post("/predict", json=long)) for _ in "abc"]
        await asyncio.sleep(0.01)
        short = await client.post("/predict", json={"rows": [row]})
        waited = [request.done() for request in under_way]
        answers = [await request for request in under_way]

    assert short.status_code == 200
    assert not all(waited)
    assert [answer.status_code for answer in answers] == [200, 200, 503]
    assert answers[2].headers["retry-after"] == "1"


async def test_the_routes_describe_the_served_version(client, columns):
    assert (await client.get("/live")).json() == {"status": "live"}
    assert (await client.get("/ready")).json() == {"status": "ready", "problems": []}
    version = (await client.get("/version")).json()
    assert (version["name"], version["version"], version["task"]) == (
        "flights",
        "3",
        "classification",
    )
    contract = (await client.get("/contract")).json()
    assert list(contract["columns"]) == list(columns)
    assert contract["known"]["plan"] == ["free", "pro", "team"]
    answer = await client.post("/predict", json={"rows": [contract["example"]]})
    assert answer.status_code == 200
    assert (await client.get("/v2/models/flights")).json()["inputs"][2] == {
        "name": "plan",
        "datatype": "BYTES",
        "shape": [-1],
    }
    assert (await client.get("/v2/models/flights/ready")).json()["ready"]
    assert (await client.get("/v2/models/other")).status_code == 404
    assert (await client.get("/nothing")).json()["error"].startswith("This route does not exist")
    assert (await client.get("/predict")).status_code == 405


async def test_every_answer_has_the_headers_of_an_api(client, row):
    asked = [
        await client.post("/predict", json={"rows": [row]}),
        await client.post("/predict", json={}),
        await client.get("/version"),
        await client.get("/nothing"),
    ]

    for answer in asked:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["content-type"] == "application/json"


async def test_the_openapi_document_has_the_columns_and_examples_that_work(client, columns):
    document = (await client.get("/openapi.json")).json()

    assert list(document["components"]["schemas"]["Row"]["properties"]) == list(columns)
    for route, methods in document["paths"].items():
        for method, operation in methods.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json")
            answer = await client.request(method, route, json=content and content["example"])
            assert answer.status_code == 200, (route, answer.text)
            assert str(answer.status_code) in operation["responses"]


async def test_the_openapi_document_has_every_status_that_is_documented(client):
    page = (Path(__file__).parents[3] / "docs/serving.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d{3}(?:, \d{3})*) \|", page, re.MULTILINE)
    paths = (await client.get("/openapi.json")).json()["paths"]

    for route in ("/predict", "/invocations", "/v2/models/flights/infer", "/labels"):
        assert {*paths[route]["post"]["responses"]} == {"200", *", ".join(rows).split(", ")}
    for route in ("/version", "/v2/models/flights", "/metrics"):
        assert {"400", "401", "404", "405", "500"} <= {*paths[route]["get"]["responses"]}


async def test_every_explanation_that_the_openapi_document_has_can_be_asked_for(client, row):
    predict = (await client.get("/openapi.json")).json()["paths"]["/predict"]["post"]
    (explain,) = predict["parameters"]

    assert explain["schema"]["enum"] == ["ranges", "contributions", "ranges,contributions"]
    for values in explain["schema"]["enum"]:
        for query in (f"explain={values}", f"explain={quote(values)}"):
            answer = await client.post(f"/predict?{query}", json={"rows": [row]})
            assert answer.status_code == 200
            assert ("contributions" in values) == ("contributions" in answer.json())


async def test_metrics_count_requests_rows_and_problems(client, row):
    rows = [row, {**row, "hours-per-week": 99, "temp": 500}, {**row, "dest": "never seen"}]
    await client.post("/predict", json={"rows": rows})
    await client.post("/predict", json={"rows": [{**row, "plan": "x", "made up": 1}]})
    await client.post("/predict", json={"rows": [{**row, "plan": "x"}]})
    await client.post("/predict", content=b"{")

    counted = metrics((await client.get("/metrics")).text)

    route = ("route", "/predict")
    assert counted["holdfast_requests_total", route, ("status", "200")] == 1
    assert counted["holdfast_requests_total", route, ("status", "422")] == 3
    assert counted["holdfast_rows_total",] == 3
    assert counted["holdfast_outside_rows_total", ("column", "temp")] == 1
    assert counted["holdfast_outside_rows_total", ("column", "dest")] == 1
    refused = {name[1:]: n for name, n in counted.items() if name[0].startswith("holdfast_refused")}
    assert refused == {
        (("column", "plan"), ("rule", "label")): 2,
        (("column", "(undeclared)"), ("rule", "undeclared")): 1,
        (("column", ""), ("rule", "body")): 1,
    }
    assert counted["holdfast_prediction_count",] == counted["holdfast_confidence_count",] == 3
    assert counted["holdfast_training_mean", ("of", "mean_prediction")] == 0.25
    assert counted["holdfast_training_deviation", ("of", "mean_confidence")] == 0.02
    assert counted["holdfast_predict_seconds_count",] == 1
    assert counted["holdfast_champion_info", ("name", "flights"), ("version", "3")] == 1
    assert counted["holdfast_champion_age_seconds",] > 0
