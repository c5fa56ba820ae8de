import asyncio
import json

import httpx
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pandera.errors import SchemaErrors

from pipeline.columns import conform
from pipeline.config import Serving
from pipeline.data.contract import pandera_schema
from pipeline.serving.app import create_app
from pipeline.serving.follower import ServingState, load_exported

pytestmark = pytest.mark.slow

NAMES = ["hours-per-week", "temp", "plan", "dest"]
FIELDS = [
    *("rows", "keys", "labels", "instances", "dataframe_split", "dataframe_records"),
    *("inputs", "outputs", "id", "parameters"),
]
numbers = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False), st.integers(-(10**30), 10**30), st.just(-0.0)
)
scalars = st.one_of(
    st.none(), st.booleans(), numbers, st.text(max_size=8), st.sampled_from(["pro", "BOS", "NaN"])
)
anything = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.sampled_from(NAMES), st.text(max_size=6)), inner, max_size=4),
    ),
    max_leaves=12,
)
likely = st.fixed_dictionaries(
    {"hours-per-week": st.one_of(st.integers(-1, 101), st.floats(0, 100)), "plan": scalars},
    optional={"temp": st.one_of(scalars, st.floats(-50, 150)), "dest": scalars, "more": scalars},
)


def plain(text):
    """Whether text has no blanks or control characters around it, and no NUL."""
    ends = text[:1] + text[-1:]
    return bool(text) and "\0" not in text and not any(s <= "\x1f" or s.isspace() for s in ends)


valid = st.fixed_dictionaries(
    {"hours-per-week": st.floats(0, 100), "plan": st.sampled_from(["free", "pro", "team"])},
    optional={
        "temp": st.none() | st.floats(width=32, allow_nan=False, allow_infinity=False),
        "dest": st.none() | st.text(max_size=8).filter(plain),
    },
)
requests = st.dictionaries(st.sampled_from(FIELDS), anything, min_size=1, max_size=3)
rows = st.lists(st.one_of(likely, valid), min_size=1, max_size=5)
bounded = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture
def client(bundle):
    state = ServingState()
    load_exported(bundle, state)
    return Client(create_app(state=state, captures=None, options=Serving()))


JSON = {"content-type": "application/json"}


class Client:
    """Sends requests to an app in this process, each on its own connection."""

    def __init__(self, app):
        self.transport = httpx.ASGITransport(app)

    def post(self, route, *, content):
        async def ask():
            async with httpx.AsyncClient(transport=self.transport, base_url="http://t") as client:
                return await client.post(route, content=content, headers=JSON)

        return asyncio.run(ask())


def tensors(asked):
    kinds = {"hours-per-week": "FP64", "temp": "FP64", "plan": "BYTES", "dest": "BYTES"}
    return [
        {
            "name": name,
            "shape": [len(asked)],
            "datatype": kinds[name],
            "data": [row.get(name) for row in asked],
        }
        for name in kinds
    ]


def sendable(value):
    """A value as JSON in ASCII, because not all strings can be written in UTF-8."""
    return json.dumps(value).encode()


@settings(bounded, max_examples=300)
@given(
    route=st.sampled_from(["/predict", "/invocations", "/v2/models/flights/infer", "/labels"]),
    body=requests.map(sendable) | anything.map(sendable) | st.binary(max_size=60),
)
def test_no_body_causes_a_server_error(client, route, body):
    answer = client.post(route, content=body)

    assert answer.status_code in {200, 400, 404, 422}, answer.text
    if answer.status_code in {400, 422}:
        assert answer.json()["problems"]


@bounded
@given(asked=rows)
def test_exactly_the_rows_that_obey_the_training_schema_are_accepted(client, columns, asked):
    answers = [
        client.post("/predict", content=sendable({"rows": asked})),
        client.post("/invocations", content=sendable({"dataframe_records": asked})),
    ]
    frame = pd.DataFrame([{name: row.get(name) for name in NAMES} for row in asked])
    typed = all(
        isinstance(row.get(name), kind) and not isinstance(row.get(name), bool)
        for row in asked
        for name, kind in zip(
            NAMES, [(int, float), (int, float, type(None)), str, (str, type(None))], strict=True
        )
    )
    obeys = typed and not any("more" in row for row in asked)
    obeys = obeys and all(row.get("dest") is None or plain(row["dest"]) for row in asked)
    if obeys:
        try:
            pandera_schema(columns).validate(conform(frame, columns), lazy=True)
        except SchemaErrors:
            obeys = False

    assert {answer.status_code for answer in answers} == {200 if obeys else 422}
    if obeys:
        predictions = [answer.json()["predictions"] for answer in answers]
        assert predictions[0] == predictions[1]
        assert np.isfinite(predictions).all()


@bounded
@given(asked=st.lists(valid, min_size=1, max_size=6))
def test_all_protocols_predict_valid_rows_alike(client, asked):
    own = client.post("/predict", content=sendable({"rows": asked})).json()["predictions"]
    infer = client.post(
        "/v2/models/flights/infer", content=sendable({"inputs": tensors(asked)})
    ).json()
    data = [[row.get(name) for name in NAMES] for row in asked]
    split = sendable({"dataframe_split": {"columns": NAMES, "data": data}})

    assert infer["outputs"][0]["data"] == own
    assert client.post("/invocations", content=split).json()["predictions"] == own
