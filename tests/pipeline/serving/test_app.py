import dataclasses
import json

import httpx
import numpy as np
import pandas as pd
import pytest

from pipeline.config import Numeric
from pipeline.errors import ConfigError
from pipeline.serving.app import create_app
from pipeline.serving.capture import Captures, read_captures

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


def client_of(model, captures):
    app = create_app(model=model, name="flights", version="3", captures=captures)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://test")


@pytest.fixture
async def client(model, captures):
    async with client_of(model, captures) as client:
        yield client


async def test_it_predicts_what_the_model_predicts(client, model, frame):
    rows = json.loads(frame.to_json(orient="records", double_precision=15))
    rows.append({"hours-per-week": 3, "plan": "free", "dest": "never seen"})

    answer = (await client.post("/predict", json={"rows": rows})).json()

    np.testing.assert_array_equal(answer["predictions"], model.predict(pd.DataFrame(rows)))
    assert answer["version"] == "3"


async def test_rows_without_keys_get_one_each(client, row):
    first = (await client.post("/predict", json={"rows": [row, row]})).json()
    second = (await client.post("/predict", json={"rows": [row]})).json()

    assert first["keys"] == [f"{first['request_id']}-0", f"{first['request_id']}-1"]
    assert not set(first["keys"]) & set(second["keys"])


async def test_answered_rows_are_captured(client, path, row):
    body = {"rows": [row, {**row, "temp": None}], "keys": ["a", "b"]}

    answer = (await client.post("/predict", json=body)).json()

    kept = read_captures(path, start=None, end=None)
    assert answer["keys"] == kept["key"].tolist() == ["a", "b"]
    assert kept["prediction"].tolist() == answer["predictions"]
    assert set(kept["version"]) == {"3"}
    assert set(kept["request_id"]) == {answer["request_id"]}
    assert kept[list(row)].iloc[0].to_dict() == row
    now = pd.Timestamp.now("UTC").tz_localize(None)
    assert (now - kept["captured_at"]).abs().max() < pd.Timedelta("1min")


async def test_a_model_without_captures_answers(model, row):
    async with client_of(model, None) as client:
        answer = await client.post("/predict", json={"rows": [row]})

    assert answer.status_code == 200


async def test_a_refused_request_names_every_problem_and_is_not_captured(client, path, row):
    rows = [{**row, "plan": "trial"}, row, {**row, "hours-per-week": -1, "temp": "hot"}]

    answer = await client.post("/predict", json={"rows": rows})

    assert answer.status_code == 422
    found = [(p["row"], p["column"], p["got"]) for p in answer.json()["problems"]]
    assert found == [(0, "plan", "'trial'"), (2, "hours-per-week", "-1"), (2, "temp", "'hot'")]
    assert len(read_captures(path, start=None, end=None)) == 0


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff", b'{"rows": ' + b"[" * 5000, b'{"rows": [{"temp": ' + b"9" * 9999 + b"}]}"],
    ids=["nothing", "open", "no utf-8", "deep", "long number"],
)
async def test_what_is_no_json_is_one_problem(client, body):
    answer = await client.post("/predict", content=body)

    assert answer.status_code == 422
    [problem] = answer.json()["problems"]
    assert problem["rule"] == "a request must be valid JSON"


async def test_text_that_is_no_unicode_is_refused(client, row):
    answer = await client.post(
        "/predict", content=json.dumps({"rows": [{**row, "dest": "\ud800"}]})
    )

    assert answer.status_code == 422


async def test_a_fault_of_the_server_shows_no_trace(model, row):
    broken = dataclasses.replace(model, estimator=object())
    async with client_of(broken, None) as client:
        answer = await client.post("/predict", json={"rows": [row]})

    assert answer.status_code == 500
    assert answer.json() == {
        "error": "The server must answer valid rows. Got AttributeError. See its log."
    }


async def test_a_row_that_cannot_be_captured_is_answered_and_told(client, captures, caplog, row):
    captures.close()

    answer = await client.post("/predict", json={"rows": [row]})

    assert answer.status_code == 200
    assert f"request {answer.json()['request_id']} is not captured" in caplog.text


async def test_it_tells_that_it_lives_and_what_it_serves(client):
    assert (await client.get("/live")).json() == {"status": "live"}
    assert (await client.get("/ready")).json() == {"status": "ready"}
    assert (await client.get("/version")).json() == {"name": "flights", "version": "3"}


async def test_its_documentation_shows_the_declared_columns(client, columns):
    document = (await client.get("/openapi.json")).json()

    body = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
    pointer = body["schema"]["properties"]["rows"]["items"]["$ref"]
    found = document
    for part in pointer.removeprefix("#/").split("/"):
        found = found[part.replace("~1", "/")]
    assert list(found["properties"]) == list(columns)


@pytest.mark.parametrize("name", ["captured_at", "key", "prediction", "version", "request_id"])
async def test_a_captured_feature_is_not_named_like_a_column_of_captures(model, captures, name):
    renamed = dataclasses.replace(model, columns={name: Numeric()}, categories={})

    with pytest.raises(ConfigError, match=rf"Got {name}\. Rename it"):
        client_of(renamed, captures)
