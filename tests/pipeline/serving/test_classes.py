"""A model of five classes behind the API: answers, labels, captures and metrics."""

import json
import sqlite3

import httpx
import jsonschema
import numpy as np
import pandas as pd
import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipeline.config import CaptureSource, Serving, Training
from pipeline.data import sources
from pipeline.data.captures import read_captures, read_labels
from pipeline.serving.app import create_app
from pipeline.serving.capturing import Captures
from pipeline.serving.follower import ServingState, load_exported
from pipeline.serving.trees import FEW, predictor
from pipeline.training import parity
from pipeline.training.fitting import fit
from pipeline.training.seals import seal

pytestmark = pytest.mark.anyio
KEYS = ["claim-1", "claim-2", "claim-3"]
KINDS = {
    "shallow": {"max_depth": 1},
    "several trees a round": {"num_parallel_tree": 3, "subsample": 0.5},
    "a given base score": {"base_score": 0.9},
    "other trees": {"booster": "dart", "rate_drop": 0.5},
}


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="module")
def model(fit_claims):
    return fit_claims(n_estimators=8, max_depth=3, n_jobs=1)


@pytest.fixture(scope="module")
def state(model, claims, tmp_path_factory):
    folder = tmp_path_factory.mktemp("claims")
    model.save(folder / "model")
    parity.make(model, claims).save(folder / "golden")
    (folder / "manifest.json").write_text(json.dumps({"name": "claims", "version": "3"}))
    seal(folder)
    state = ServingState()
    load_exported(folder, state)
    return state


@pytest.fixture
def path(tmp_path):
    return tmp_path / "captures.db"


@pytest.fixture
def captures(path):
    with Captures(path) as captures:
        yield captures


@pytest.fixture
async def client(state, captures):
    app = create_app(state=state, captures=captures, options=Serving())
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="http://test",
        headers={"content-type": "application/json"},
    ) as client:
        yield client


@pytest.fixture(scope="module")
def rows(claims):
    wanted = claims.loc[:2, ["amount", "age", "plan", "city"]].to_dict("records")
    return [{name: one for name, one in row.items() if not pd.isna(one)} for row in wanted]


@pytest.fixture(scope="module")
def expected(model, claims):
    return model.predict(claims[:3])


@pytest.mark.parametrize("kind", KINDS)
def test_walked_trees_of_classes_predict_as_xgboost_does(fit_claims, claims, kind):
    params = {"n_estimators": 10, "max_depth": 4, "n_jobs": 1} | KINDS[kind]
    model = fit_claims(**params)
    matrix = np.ascontiguousarray(model.encode(claims))
    wanted = model.estimator.predict_proba(matrix)

    predict = predictor(model)
    many = predict(matrix)
    few = np.concatenate([predict(matrix[i : i + 5]) for i in range(0, 300, 5)])
    one = np.concatenate([predict(matrix[i : i + 1]) for i in range(100)])

    assert len(wanted) > FEW
    np.testing.assert_array_equal(many, wanted)
    np.testing.assert_allclose(few, wanted[:300], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(one, wanted[:100], rtol=1e-6, atol=1e-6)


def test_trees_whose_leaves_are_vectors_are_left_to_xgboost(claims, claims_data):
    numbers = {name: claims_data.features[name] for name in ("amount", "age")}
    data = claims_data.model_copy(update={"features": numbers})
    params = {"n_estimators": 10, "max_depth": 4, "multi_strategy": "multi_output_tree"}
    model = fit(claims, data, Training(params=params), "classification")
    matrix = np.ascontiguousarray(model.encode(claims))

    predict = predictor(model)

    wanted = model.estimator.predict_proba(matrix)
    np.testing.assert_array_equal(predict(matrix), wanted)
    np.testing.assert_array_equal(predict(matrix[:5]), wanted[:5])


def test_classes_that_no_fitted_row_had_are_served_with_no_chance(fit_claims, claims):
    some = claims[claims["kind"] != 1]
    model = fit_claims(rows=some, n_estimators=5, max_depth=3, n_jobs=1)

    predicted = predictor(model)(model.encode(claims[:3]))

    assert (predicted[:, 1] == 0).all()
    np.testing.assert_array_equal(predicted, model.predict(claims[:3]))


async def test_an_answer_holds_the_likeliest_class_and_the_chance_of_each(
    client, model, rows, expected
):
    answer = (await client.post("/predict", json={"rows": rows, "keys": KEYS})).json()

    assert answer["predictions"] == [model.classes[place] for place in expected.argmax(axis=1)]
    assert [list(row) for row in answer["probabilities"]] == [list(model.classes)] * 3
    found = [list(row.values()) for row in answer["probabilities"]]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    document = (await client.get("/openapi.json")).json()
    route = document["paths"]["/predict"]["post"]["responses"]["200"]
    schema = route["content"]["application/json"]["schema"]
    jsonschema.validate(answer, schema | {"components": document["components"]})


async def test_a_refused_row_among_others_has_neither_class_nor_chances(state, rows):
    app = create_app(state=state, captures=None, options=Serving(bad_rows="row"))
    bad = [rows[0], {"amount": "x"}]
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://test"
    ) as client:
        answer = (await client.post("/predict", json={"rows": bad})).json()
        tensor = (
            await client.post(
                "/v2/models/claims/infer",
                json={
                    "inputs": [
                        {"name": name, "shape": [2], "datatype": kind, "data": data}
                        for name, kind, data in (
                            ("amount", "FP64", [50, 5000]),
                            ("plan", "BYTES", ["pro", "pro"]),
                        )
                    ]
                },
            )
        ).json()["outputs"][0]

    assert answer["predictions"][1] is answer["probabilities"][1] is None
    assert answer["predictions"][0] is not None
    assert (tensor["shape"], len(tensor["data"])) == ([2, 5], 10)
    assert tensor["data"][5:] == [None] * 5


async def test_mlflow_s_protocol_answers_with_rows_of_chances(client, rows, expected):
    answer = await client.post("/invocations", json={"dataframe_records": rows})

    np.testing.assert_allclose(answer.json()["predictions"], expected, atol=1e-6)


async def test_open_inference_answers_with_a_tensor_whose_columns_are_named(
    client, model, rows, expected
):
    tensors = [
        {
            "name": name,
            "shape": [3],
            "datatype": "BYTES" if name in {"plan", "city"} else "FP64",
            "data": [row.get(name) for row in rows],
        }
        for name in model.columns
    ]
    answer = await client.post("/v2/models/claims/infer", json={"inputs": tensors})
    described = (await client.get("/v2/models/claims")).json()["outputs"][0]

    (output,) = answer.json()["outputs"]
    assert (output["shape"], output["datatype"]) == ([3, 5], described["datatype"])
    np.testing.assert_allclose(np.reshape(output["data"], (3, 5)), expected, atol=1e-6)
    assert described["shape"] == [-1, 5]
    assert json.loads(described["parameters"]["labels"]) == list(model.classes)


async def test_the_contract_names_the_classes(client, model):
    contract = (await client.get("/contract")).json()

    assert contract["classes"] == list(model.classes)


async def test_labels_are_the_classes_and_nothing_else(client, path, rows, claims_data):
    await client.post("/predict", json={"rows": rows, "keys": KEYS})
    good = [{"key": "claim-1", "target": "Rückfrage"}, {"key": "claim-2", "target": "0"}]

    taken = await client.post("/labels", json={"labels": good})
    bad = [*good, {"key": "claim-3", "target": "refnud"}, {"key": "claim-3", "target": 0}]
    refused = await client.post("/labels", json={"labels": bad})

    assert taken.json()["stored"] == 2
    assert [one["row"] for one in refused.json()["problems"]] == [2, 3]
    rule = "target must be one of refund, repair, send on, Rückfrage, 0"
    assert refused.json()["problems"][0]["rule"] == rule
    assert '"target": "refund"' in refused.json()["problems"][0]["cure"]
    read = sources.read(
        CaptureSource(kind="capture"),
        time=None,
        key="id",
        target="kind",
        classes=claims_data.classes,
        captures=path,
    )
    assert read[["id", "kind"]].to_numpy().tolist() == [["claim-1", 3], ["claim-2", 4]]
    examples = (await client.get("/openapi.json")).json()["paths"]["/labels"]["post"]
    example = examples["requestBody"]["content"]["application/json"]["example"]
    assert (await client.post("/labels", json=example)).status_code == 200


async def test_captures_hold_the_chances_and_know_their_rows(
    client, captures, path, rows, expected
):
    answer = (await client.post("/predict", json={"rows": rows})).json()
    captures.close()
    with Captures(path) as again:
        known = [(f"{answer['request_id']}-{row}", "refund") for row in (0, 2, 3)]
        unknown = again.label(known, at=1)

    captured = read_captures(path)

    assert unknown == 1
    np.testing.assert_allclose(np.stack(captured["holdfast-prediction"]), expected, atol=1e-6)
    np.testing.assert_allclose(captured["holdfast-confidence"], expected.max(axis=1), atol=1e-6)
    assert captured["plan"].tolist() == [row["plan"] for row in rows]
    assert captured["holdfast-key"].tolist() == answer["keys"]


async def test_metrics_count_the_likeliest_classes_and_how_likely_they_are(
    client, model, rows, expected
):
    await client.post("/predict", json={"rows": rows})
    page = (await client.get("/metrics")).text

    found = {
        (sample.name, sample.labels.get("class") or sample.labels.get("le")): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }
    for place, label in enumerate(model.classes):
        count = int((expected.argmax(axis=1) == place).sum())
        assert found.get(("holdfast_predicted_class_rows_total", label), 0) == count
    assert found["holdfast_confidence_count", None] == 3
    below = found["holdfast_confidence_bucket", "0.5"]
    assert below == (expected.max(axis=1) <= 0.5).sum()
    assert ("holdfast_prediction_count", None) not in found


def test_a_store_of_before_takes_classes_as_labels_and_keeps_its_own(path):
    with sqlite3.connect(path) as store:
        store.execute(
            "CREATE TABLE labels (at INTEGER NOT NULL, key TEXT NOT NULL, target REAL NOT NULL)"
            " STRICT"
        )
        store.execute("INSERT INTO labels VALUES (1, 'a', 1), (2, 'b', 0)")

    for _ in range(2):
        with Captures(path) as captures:
            captures.label([("c", "refund")], at=3)

    assert read_labels(path)["target"].tolist() == [1.0, 0.0, "refund", "refund"]
    assert read_labels(path)["key"].tolist() == ["a", "b", "c", "c"]
