import dataclasses
import json

import httpx
import pandas as pd
import pytest
from pydantic import ValidationError

from pipeline.config import Derived, Serving
from pipeline.serving.app import create_app
from pipeline.serving.deriving import with_features
from pipeline.serving.follower import ServingState, load_exported
from pipeline.training import parity
from pipeline.training.seals import seal

pytestmark = pytest.mark.anyio

DERIVE = {"temp": Derived.parse("hour(departs)"), "plan": Derived.parse("bins(price, 10, 20)")}
ORIGINS = {"departs": "2026-01-01T07:30", "price": 12.5, "hours-per-week": 40}
FEATURES = {"temp": 7.0, "plan": "10 to 20", "hours-per-week": 40}


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def derived(model, frame, tmp_path):
    """A model of whose columns two are derived, exported and loaded."""
    names = {"free": "below 10", "pro": "10 to 20", "team": "20 and more"}
    plan = model.columns["plan"].model_copy(update={"values": tuple(names.values())})
    categories = {**model.categories, "plan": list(names.values())}
    columns = {**model.columns, "plan": plan}
    changed = dataclasses.replace(model, columns=columns, categories=categories, derive=DERIVE)
    changed.save(tmp_path / "model")
    rows = frame.assign(plan=frame["plan"].map(names))
    parity.make(changed, rows).save(tmp_path / "golden")
    (tmp_path / "manifest.json").write_text(json.dumps({"name": "flights", "version": "3"}))
    seal(tmp_path)
    state = ServingState()
    load_exported(tmp_path, state)
    return state


@pytest.fixture
async def client(derived):
    app = create_app(state=derived, captures=None, options=Serving())
    headers = {"content-type": "application/json"}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://test", headers=headers
    ) as client:
        yield client


async def test_rows_with_origins_are_predicted_as_the_model_predicts_them(client, derived):
    answer = await client.post("/predict", json={"rows": [ORIGINS, FEATURES]})

    served = derived.served
    whole = served.model.predict(pd.DataFrame([ORIGINS]).assign(temp=None, plan=None, dest=None))
    assert answer.status_code == 200
    assert answer.json()["predictions"] == pytest.approx([whole[0], whole[0]], rel=1e-6)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/invocations", {"dataframe_records": [ORIGINS]}),
        (
            "/v2/models/flights/infer",
            {
                "inputs": [
                    {"name": "departs", "shape": [1], "datatype": "BYTES", "data": ["2026-01-01"]},
                    {"name": "price", "shape": [1], "datatype": "FP64", "data": [12.5]},
                    {"name": "hours-per-week", "shape": [1], "datatype": "FP64", "data": [40]},
                ]
            },
        ),
    ],
)
async def test_other_protocols_take_origins_too(client, path, body):
    assert (await client.post(path, json=body)).status_code == 200


async def test_what_cannot_be_derived_is_refused_with_what_came(client):
    answer = await client.post("/predict", json={"rows": [{**ORIGINS, "departs": "yesterday"}]})

    (problem,) = answer.json()["problems"]
    assert answer.status_code == 422
    assert (problem["column"], problem["got"]) == ("temp", "'hour(yesterday)'")


@pytest.mark.parametrize("odd", [None, [], {}, {"rows": None}, {"rows": [1, None, []]}, "rows"])
def test_requests_of_other_forms_are_left_to_the_contract(derived, odd):
    assert with_features(odd, derived.served.model) == odd


def test_a_row_with_a_feature_and_its_origin_is_left_to_the_contract(derived):
    given = with_features({"rows": [{**ORIGINS, "temp": 1.0}]}, derived.served.model)

    with pytest.raises(ValidationError, match="departs"):
        derived.served.contract.request.validate_python(given)


async def test_the_contract_and_the_document_name_the_origins(client):
    contract = (await client.get("/contract")).json()
    row = (await client.get("/openapi.json")).json()["components"]["schemas"]["Row"]

    assert contract["derived"] == {"temp": "hour(departs)", "plan": "bins(price, 10, 20)"}
    assert {"departs", "price", "temp", "plan"} <= set(row["properties"])
    assert set(row["required"]) == {"hours-per-week"}
