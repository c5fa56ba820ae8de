import dataclasses
import gc
import time
import tracemalloc

import httpx
import pytest

from pipeline.config import Categorical, Serving
from pipeline.serving.app import create_app
from pipeline.serving.capturing import Captures
from pipeline.serving.requests import Contract

pytestmark = pytest.mark.anyio
ROUTES = ["/predict", "/invocations", "/v2/models/flights/infer", "/labels"]
HUGE = {
    "unknown keys in one row": b'{"rows":[{%s}]}'
    % b",".join(b'"k%d":1' % i for i in range(600_000)),
    "empty lists for rows": b'{"rows":[%s]}' % b",".join([b"[]"] * 2_000_000),
    "numbers for rows": b'{"rows":[%s]}' % b",".join([b"1"] * 3_000_000),
    "wrong rows": b'{"rows":[%s]}' % b",".join([b"1"] * 10_000),
    "unknown keys of the request": b"{%s}" % b",".join(b'"k%d":1' % i for i in range(600_000)),
    "wrong keys": b'{"rows":[{}],"keys":[%s]}' % b",".join([b"1"] * 60_000),
    "a long text": b'{"rows":[{"dest":"%s"}]}' % (b"a" * 7_000_000),
    "open brackets": b"[" * 7_000_000,
    "lines of one column": b"temp\n" + b"1\n" * 3_900_000,
    "a header of commas": b"," * 7_000_000,
    "columns of many values": b'{"inputs":{"temp":[%s]}}' % b",".join([b"1"] * 90_000),
    "split rows": b'{"dataframe_split":{"columns":[],"data":[%s]}}' % b",".join([b"[]"] * 50_000),
    "labels": b'{"labels":[%s]}' % b",".join([b"{}"] * 50_000),
    "quotes": b'{"rows":[{"plan":"%s' % (b'\\"' * 3_000_000),
}


@pytest.fixture
def anyio_backend():
    return "asyncio"


def client_of(state, captures=None, **options):
    app = create_app(state=state, captures=captures, options=Serving(**options))
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="http://test",
        headers={"content-type": "application/json"},
    )


@pytest.fixture
async def client(state, tmp_path):
    with Captures(tmp_path / "captures.db") as captures:
        async with client_of(state, captures) as client:
            yield client


@pytest.fixture
def frozen():
    """What other tests left is no work for the garbage collector, as in a server that starts."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("frozen")
@pytest.mark.parametrize("name", HUGE)
@pytest.mark.parametrize("route", ROUTES)
async def test_a_refusal_costs_no_more_than_its_bytes_and_is_short(client, name, route):
    body = HUGE[name]
    kind = "text/csv" if route == "/invocations" and body[:1] in b"t," else "application/json"
    await client.post(route, content=body[:9_000], headers={"content-type": kind})  # imports
    tracemalloc.start()
    began = time.process_time()
    sum(range(100_000))
    usual = time.process_time() - began  # of this machine, at this moment
    began = time.process_time()

    answer = await client.post(route, content=body, headers={"content-type": kind})

    spent = time.process_time() - began
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert answer.status_code == (400 if "infer" in route else 422)
    assert len(answer.content) <= 16_384
    assert spent < 15 * usual
    assert most < 60_000_000 + 3 * len(body)


@pytest.mark.parametrize("policy", ["request", "row"])
async def test_problems_with_long_labels_and_names_fit_into_an_answer(state, policy):
    values = tuple(f"{i}{'é' * 200}" for i in range(50))
    contract = Contract.of({"x": Categorical(values=values)}, {})
    state.served = dataclasses.replace(state.served, contract=contract)
    async with client_of(state, bad_rows=policy) as client:
        rows = [{"\0" * 90: "\0" * 90, "x": "\x01"}] * 60
        answer = await client.post("/predict", json={"rows": rows})

    assert answer.status_code == 422
    assert 10_000 < len(answer.content) <= 16_384
    assert answer.json()["error"].endswith(" places and more.")


async def test_only_some_of_many_bad_rows_are_listed_where_bad_rows_is_row(state, row):
    async with client_of(state, bad_rows="row") as client:
        rows = [{**row, "plan": "x"}] * 3_000 + [row]
        answer = (await client.post("/predict", json={"rows": rows})).json()

    assert len(answer["problems"]) == 50
    assert answer["predictions"][:3_000] == [None] * 3_000
    assert 0 < answer["predictions"][3_000] < 1


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/predict", '{"rows": [{"plan": "pro", "plan": "free", "hours-per-week": 1}]}'),
        ("/predict", '{"rows": [{"plan": "x:y", "plan": "a:b"}]}'),
        ("/predict", '{"rows": [], "rows": [{"plan": "free", "hours-per-week": 1}]}'),
        ("/invocations", '{"instances": [{"plan": "pro", "pl\\u0061n": "free"}]}'),
        ("/v2/models/flights/infer", '{"inputs": [{"name": "temp", "name": "temp"}]}'),
        ("/labels", '{"labels": [{"key": "a", "target": 0, "target": 1}]}'),
    ],
)
async def test_a_key_that_stands_twice_is_refused(client, route, body):
    answer = await client.post(route, content=body)

    [problem] = answer.json()["problems"]
    assert problem["rule"] == "an object must name each key once"


async def test_colons_and_quotes_in_labels_are_not_taken_for_keys(client, row):
    for label in ("05:00", 'a":"b', "\\:", '\\":"'):
        answer = await client.post("/predict", json={"rows": [{**row, "dest": label}]})

        assert answer.status_code == 200, label


async def test_labels_that_contradict_each_other_are_refused(client):
    labels = [{"key": "a", "target": 1}, {"key": "b", "target": 0}, {"key": "a", "target": 0}]

    answer = await client.post("/labels", json={"labels": labels})
    equal = await client.post("/labels", json={"labels": [labels[0], labels[0]]})

    [problem] = answer.json()["problems"]
    assert (problem["row"], problem["rule"]) == (0, "the labels of a key must agree")
    assert equal.status_code == 200


@pytest.mark.parametrize("target", [2, -1, 0.9999999999, True, "1", None])
async def test_a_label_of_a_classification_is_exactly_a_class(client, target):
    answer = await client.post("/labels", json={"labels": [{"key": "a", "target": target}]})

    [problem] = answer.json()["problems"]
    assert problem["rule"] == "target must be 0 or 1"
