"""What the texts of both protocols say, point by point, as docs/serving.md lists it."""

import json
import re
import time
from pathlib import Path

import httpx
import numpy as np
import pytest

from pipeline.config import Serving
from pipeline.serving.capturing import EVERY, Captures
from pipeline.serving.follower import load_exported
from pipeline.training.seals import seal

DOCS = Path(__file__).parents[3] / "docs" / "serving.md"
INFER = "/v2/models/flights/infer"


@pytest.fixture
def client(serve, tmp_path):
    with (
        Captures(tmp_path / "captures.db") as captures,
        serve(captures=captures) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        yield client


@pytest.fixture
def tensors(row):
    return [
        {
            "name": name,
            "shape": [1],
            "datatype": "BYTES" if isinstance(value, str) else "FP64",
            "data": [value],
        }
        for name, value in row.items()
    ]


def problem(answer, status):
    assert answer.status_code == status, answer.text
    [found] = answer.json()["problems"]
    return found


def test_every_row_of_the_tables_names_a_test_of_this_file():
    named = set(re.findall(r"\| `(test_\w+)` \|", DOCS.read_text()))

    assert len(named) >= 20
    assert named <= set(globals())


# Open Inference Protocol


def test_infer_answers_with_the_names_and_the_id_of_the_request(client, tensors):
    answer = client.post(INFER, json={"id": "mine", "inputs": tensors}).json()
    without = client.post(INFER, json={"inputs": tensors}).json()

    assert set(answer) == {"model_name", "model_version", "id", "outputs"}
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("flights", "3", "mine")
    assert without["id"]
    [output] = answer["outputs"]
    assert (output["name"], output["shape"], output["datatype"]) == ("prediction", [1], "FP64")


@pytest.mark.parametrize("part", ["", "/versions/3"])
def test_infer_metadata_and_ready_take_the_version_in_their_path(client, tensors, part):
    model = f"/v2/models/flights{part}"

    assert client.post(f"{model}/infer", json={"inputs": tensors}).status_code == 200
    assert client.get(f"{model}/ready").json() == {"name": "flights", "ready": True}
    metadata = client.get(model).json()
    assert set(metadata) == {"name", "versions", "platform", "inputs", "outputs"}
    assert metadata["versions"] == ["3"]


@pytest.mark.parametrize("path", ["other", "flights/versions/2"])
def test_unknown_models_and_versions_do_not_exist(client, tensors, path):
    answers = [
        client.get(f"/v2/models/{path}"),
        client.get(f"/v2/models/{path}/ready"),
        client.post(f"/v2/models/{path}/infer", json={"inputs": tensors}),
    ]

    assert {answer.status_code for answer in answers} == {404}
    assert all(isinstance(answer.json()["error"], str) for answer in answers)


def test_server_metadata_and_health_are_as_the_protocol_says(client):
    assert set(client.get("/v2").json()) == {"name", "version", "extensions"}
    assert client.get("/v2/health/live").status_code == 200
    assert client.get("/v2/health/ready").status_code == 200


@pytest.mark.parametrize(
    ("kind", "value", "accepted"),
    [
        ("INT8", 100, True),
        ("INT8", 128, False),
        ("INT8", -129, False),
        ("UINT8", -1, False),
        ("UINT64", 12, True),
        ("INT64", 1.0, False),
        ("INT64", True, False),
        ("INT64", 2**63, False),
        ("INT32", "1", False),
        ("INT32", None, True),
        ("FP32", 1.5, True),
        ("FP16", 1, True),
        ("BOOL", True, False),
        ("BYTES", "1", False),
        (5, 1, False),
        (None, 1, False),
        (["FP64"], 1, False),
    ],
)
def test_values_are_of_the_datatype_of_their_tensor(client, tensors, kind, value, accepted):
    tensors[1] |= {"datatype": kind, "data": [value]}

    answer = client.post(INFER, json={"inputs": tensors})

    assert answer.status_code == (200 if accepted else 400), answer.text
    if not accepted:
        assert "must be" in problem(answer, 400)["rule"]


@pytest.mark.parametrize("shape", [None, 1, [True], [1.0], ["1"], [2], [1, 2], [[1]], [], [-1]])
def test_a_shape_is_a_list_of_integers_that_fits_the_data(client, tensors, shape):
    tensors[0]["shape"] = shape

    found = problem(client.post(INFER, json={"inputs": tensors}), 400)

    assert found["rule"] == "the shape of a tensor must be [n] or [n, 1], in integers, for n values"


@pytest.mark.parametrize(
    ("outputs", "accepted"),
    [
        ([], True),
        ([{"name": "prediction"}], True),
        ([{"name": "prediction", "parameters": {"binary_data": False}}], True),
        (5, False),
        ({}, False),
        (None, False),
        (["prediction"], False),
        ([{}], False),
        ([{"name": 5}], False),
        ([{"name": "other"}], False),
        ([{"name": "decision"}], False),  # a version without costs has none
        ([{"name": "prediction"}, {"name": "prediction"}], False),
        ([{"name": "prediction", "parameters": {"binary_data": True}}], False),
        ([{"name": "prediction", "parameters": 5}], False),
    ],
)
def test_outputs_ask_for_the_prediction_or_for_nothing(client, tensors, outputs, accepted):
    answer = client.post(INFER, json={"inputs": tensors, "outputs": outputs})

    assert answer.status_code == (200 if accepted else 400), answer.text


@pytest.mark.parametrize("parameters", [5, [], None, {"a": []}, {"a": None}, {"a": {}}])
def test_parameters_are_objects_of_strings_numbers_and_booleans(client, tensors, parameters):
    fine = {"a": "x", "b": 1, "c": True}
    assert client.post(INFER, json={"inputs": tensors, "parameters": fine}).status_code == 200

    whole = client.post(INFER, json={"inputs": tensors, "parameters": parameters})
    tensors[0]["parameters"] = parameters
    one = client.post(INFER, json={"inputs": tensors})

    for answer in (whole, one):
        assert problem(answer, 400)["rule"].startswith("parameters must be an object of strings")


def test_the_binary_extension_is_refused(client, tensors):
    length = {"inference-header-content-length": "10"}
    binary = {"content-type": "application/octet-stream"}

    assert client.post(INFER, json={"inputs": tensors}, headers=length).status_code == 415
    assert client.post(INFER, content=b"{}", headers=binary).status_code == 415
    tensors[0]["parameters"] = {"binary_data_size": 8}
    found = problem(client.post(INFER, json={"inputs": tensors}), 400)
    assert found["rule"] == "the binary extension of the protocol is not supported"


@pytest.mark.parametrize(
    "body",
    [
        "{",
        "[]",
        "5",
        "{}",
        '{"inputs": []}',
        '{"inputs": 5}',
        '{"inputs": [5]}',
        '{"inputs": [{}], "rows": []}',
        '{"id": 5, "inputs": [{}]}',
        '{"inputs": [{"name": "temp", "shape": [0], "datatype": "FP64", "data": []}]}',
        '{"inputs": [{"name": "temp", "shape": [1], "datatype": "FP64", "data": [1], "x": 1}]}',
        '{"inputs": [{"name": "other", "shape": [1], "datatype": "FP64", "data": [1]}]}',
    ],
)
def test_an_infer_error_has_the_protocol_s_form_and_advises_no_other_protocol(client, body):
    answer = client.post(INFER, content=body, headers={"content-type": "application/json"})

    assert answer.status_code == 400
    assert isinstance(answer.json()["error"], str)
    for word in ("dataframe", "instances", '{"rows"', "keys"):
        assert word not in answer.text


@pytest.mark.parametrize(("length", "status"), [(200, 200), (201, 400)])
def test_an_id_that_is_sent_back_is_short(client, tensors, length, status):
    answer = client.post(INFER, json={"inputs": tensors, "id": "a" * length})

    assert answer.status_code == status


# MLflow's scoring protocol


@pytest.mark.parametrize("name", ["dataframe_split", "dataframe_records", "instances", "inputs"])
def test_the_four_forms_of_json_give_predictions(client, row, name):
    split = {"index": [0], "columns": list(row), "data": [list(row.values())]}
    table = {column: [value] for column, value in row.items()}
    forms = {"dataframe_split": split, "inputs": table}

    answer = client.post("/invocations", json={name: forms.get(name, [row]), "params": {}})

    assert set(answer.json()) == {"predictions"}


def test_csv_has_a_header_and_is_read_by_the_declared_types(client, row):
    header, line = ",".join(row), ",".join(map(str, row.values()))

    def post(text):
        return client.post("/invocations", content=text, headers={"content-type": "text/csv"})

    assert post(f"{header}\n{line}\n").status_code == 200
    assert "header that names declared columns" in problem(post(f"{line}\n{line}\n"), 422)["rule"]


@pytest.mark.parametrize("more", ["a" * 200_000, '"' + "a" * 200_000, '"' + "a\n" * 9_000])
def test_a_line_of_csv_that_is_too_long_is_refused(client, more):
    csv = {"content-type": "text/csv"}

    found = problem(client.post("/invocations", content=f"plan\n{more}", headers=csv), 422)

    assert found["code"] == "body"


@pytest.mark.parametrize(
    "text", ["\u0664\u0660", "4_0", " 40", "40 ", "4\uff10", "0x10", "1e", "infinity", "--1"]
)
def test_numbers_of_csv_are_ascii_without_blanks(client, text):
    body = f"hours-per-week,plan\n{text},pro\n"

    found = problem(
        client.post("/invocations", content=body, headers={"content-type": "text/csv"}), 422
    )

    assert (found["code"], found["rule"]) == ("type", "must be a number")


@pytest.mark.parametrize(
    ("more", "rule"),
    [
        ({"params": {"a": 1}}, "params must be empty, because this model takes none"),
        ({"signature_name": "serving_default"}, "signature_name is not supported"),
        ({"instances": [[40, 31.5, "pro", "BOS"]]}, "rows must be objects that name their columns"),
        ({"inputs": [[40, 31.5, "pro", "BOS"]]}, "rows must be objects that name their columns"),
        ({"other": 1}, "a request must hold one of dataframe_split"),
    ],
)
def test_forms_that_this_model_does_not_take_are_refused_by_name(client, row, more, rule):
    body = more if {"instances", "inputs"} & set(more) else {"instances": [row]} | more

    assert problem(client.post("/invocations", json=body), 422)["rule"].startswith(rule)


@pytest.mark.parametrize(
    "index", [5, {}, [1], [0, 0], [0, 1.5], [True, 2], [[0], [1]], ["a", None]]
)
def test_an_index_names_each_row_once(client, row, index):
    split = {"columns": list(row), "data": [list(row.values())] * 2, "index": index}

    found = problem(client.post("/invocations", json={"dataframe_split": split}), 422)

    assert found["rule"].startswith("the index of dataframe_split must be a list")


@pytest.mark.parametrize("route", ["/ping", "/version"])
def test_mlflow_s_other_routes_answer(client, route):
    assert client.get(route).status_code == 200


# All protocols


@pytest.mark.parametrize("route", ["/predict", "/invocations", INFER, "/labels"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("content-type", None),
        ("content-type", "text/plain"),
        ("content-type", "application/x-www-form-urlencoded"),
        ("content-type", "multipart/form-data; boundary=a"),
        ("content-type", "application/json; charset=utf-16"),
        ("content-encoding", "gzip"),
    ],
)
def test_a_body_has_a_type_that_the_route_reads(client, route, name, value):
    headers = {"content-type": "application/json"} | ({} if value is None else {name: value})
    if value is None:
        headers = {}

    answer = client.post(route, content=b"{}", headers=headers)

    assert answer.status_code == 415
    assert answer.json()["error"].endswith(".")


def test_json_may_name_its_charset_and_only_invocations_read_csv(client, row):
    body = json.dumps({"rows": [row]})
    kind = {"content-type": 'Application/JSON; Charset="UTF-8"'}

    assert client.post("/predict", content=body, headers=kind).status_code == 200
    assert (
        client.post("/predict", content=b"a", headers={"content-type": "text/csv"}).status_code
        == 415
    )


@pytest.mark.parametrize(
    ("origin", "status"),
    [("http://evil.example", 403), ("null", 403), ("http://{host}", 200), ("https://{host}", 200)],
)
def test_pages_of_other_sites_are_refused(client, row, origin, status):
    origin = origin.format(host=f"127.0.0.1:{client.base_url.port}")

    answer = client.post("/predict", json={"rows": [row]}, headers={"origin": origin})

    assert answer.status_code == status
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("path", ["/predict/", "/version/", "/nothing"])
def test_an_answer_never_names_the_host_that_a_caller_sent(client, path):
    answer = client.get(path, headers={"host": "evil.example"})

    assert answer.status_code == 404
    assert "evil.example" not in answer.text + str(answer.headers)


def test_labels_of_unknown_keys_are_counted(client, row):
    own = client.post("/predict", json={"rows": [row, row], "keys": ["a", "b"]})
    given = client.post("/predict", json={"rows": [row, row]}).json()["keys"]
    assert own.status_code == 200
    time.sleep(5 * EVERY)
    beyond = f"{given[0].partition('-')[0]}-2"
    keys = ["a", "b", *given, beyond, "c", "x" * 40]

    answer = client.post("/labels", json={"labels": [{"key": key, "target": 1} for key in keys]})

    assert answer.json() == {"stored": 7, "unknown": 3}


@pytest.mark.parametrize("key", ["a\0", "a\0b", "\0"])
def test_a_key_that_the_store_would_cut_off_is_refused(client, row, key):
    asked = client.post("/predict", json={"rows": [row], "keys": [key]})
    label = client.post("/labels", json={"labels": [{"key": key, "target": 1}]})

    assert (asked.status_code, label.status_code) == (422, 422)
    assert "NUL" in label.json()["problems"][0]["rule"]


def test_values_outside_of_the_training_rows_are_listed_when_asked(client, row):
    rows = [row, {**row, "temp": 500}, {**row, "dest": "XYZ"}]

    plain = client.post("/predict", json={"rows": rows}).json()
    asked = client.post("/predict?explain=ranges", json={"rows": rows}).json()

    assert "outside" not in plain
    assert asked["outside"] == {
        "columns": {"temp": 1, "dest": 1},
        "values": [
            {"row": 1, "column": "temp", "got": 500.0, "range": [-20.0, 120.0]},
            {"row": 2, "column": "dest", "got": "XYZ", "range": None},
        ],
    }
    assert client.post("/predict?explain=all", json={"rows": rows}).status_code == 400
    assert client.post("/invocations?a=b", json={"instances": rows}).status_code == 400


def test_places_of_listed_values_are_those_in_the_request(serve, row):
    rows = [{**row, "plan": "x"}, {**row, "temp": 500}]
    with serve(bad_rows="row") as port:
        address = f"http://127.0.0.1:{port}/predict?explain=ranges"
        answer = httpx.post(address, json={"rows": rows}).json()

    assert [one["row"] for one in answer["outside"]["values"]] == [1]


@pytest.mark.parametrize("token", ["", " ", "a b", "a\n", "é", "\t"])
def test_a_token_that_no_header_can_carry_is_refused(token):
    with pytest.raises(ValueError, match="must be printable ASCII without blanks"):
        Serving(token=token)


def test_contributions_sum_to_the_log_odds_of_a_prediction(serve, row):
    rows = [{**row, "plan": "x"}, row, {**row, "dest": "XYZ"}]
    with serve(bad_rows="row") as port:
        address = f"http://127.0.0.1:{port}/predict?explain=ranges,contributions"
        answer = httpx.post(address, json={"rows": rows}).json()

    assert answer["outside"]["columns"] == {"dest": 1}
    assert answer["contributions"][0] is None
    for chance, one in zip(answer["predictions"][1:], answer["contributions"][1:], strict=True):
        assert [*one["columns"]] == [*row]
        margin = one["base"] + sum(one["columns"].values())
        assert margin == pytest.approx(np.log(chance / (1 - chance)), abs=1e-4)


def test_an_explanation_that_cannot_be_given_is_refused_in_a_sentence(client, row):
    many = client.post("/predict?explain=contributions", json={"rows": [row] * 101})
    none = client.post("/predict?explain=interval", json={"rows": [row]})

    assert (many.status_code, none.status_code) == (400, 400)
    assert many.json()["error"].startswith("Contributions are computed of at most 100 rows")
    assert none.json()["error"].startswith("The served version has no intervals.")
    sets = client.post("/predict?explain=set", json={"rows": [row]})
    assert (sets.status_code, sets.json()["error"][:31]) == (
        400,
        "The served version has no sets.",
    )
    for query in ("explain=contributions,ranges", "explain=", "explain=ranges,ranges", "a=ranges"):
        assert client.post(f"/predict?{query}", json={"rows": [row]}).status_code == 400


def test_intervals_are_sent_for_predicted_rows(state, serve, row, bundle):
    manifest = json.loads((bundle / "manifest.json").read_text())
    interval = {"coverage": 0.9, "low": -0.1, "high": 0.2, "rows": 99}
    (bundle / "manifest.json").write_text(json.dumps(manifest | {"interval": interval}))
    seal(bundle)
    load_exported(bundle, state)
    with serve(bad_rows="row") as port:
        address = f"http://127.0.0.1:{port}/predict?explain=interval"
        answer = httpx.post(address, json={"rows": [row, {**row, "plan": "x"}]}).json()

    (low, high), nothing = answer["intervals"]
    assert nothing is None
    predicted = answer["predictions"][0]
    assert (low, high) == pytest.approx((predicted - 0.1, predicted + 0.2))


def test_sets_are_sent_for_predicted_rows(state, serve, row, bundle):
    manifest = json.loads((bundle / "manifest.json").read_text())
    sets = {"coverage": 0.9, "threshold": 0.25, "rows": 99}
    (bundle / "manifest.json").write_text(json.dumps(manifest | {"sets": sets}))
    seal(bundle)
    load_exported(bundle, state)
    rows = [row, {**row, "plan": "x"}, {**row, "hours-per-week": 90}]
    with serve(bad_rows="row") as port:
        address = f"http://127.0.0.1:{port}/predict"
        answer = httpx.post(f"{address}?explain=set", json={"rows": rows}).json()
        plain = httpx.post(address, json={"rows": rows}).json()

    low, _, high = answer["predictions"]
    expected = [
        [label for label, chance in enumerate((1 - one, one)) if chance >= 0.25]
        for one in (low, high)
    ]
    assert answer["sets"] == [expected[0], None, expected[1]]
    assert expected[0] != expected[1]
    assert "sets" not in plain


def test_decisions_at_the_threshold_are_sent_where_costs_are_stated(state, serve, row, bundle):
    manifest = json.loads((bundle / "manifest.json").read_text())
    costs = {"false_positive": 1, "false_negative": 3}
    (bundle / "manifest.json").write_text(json.dumps(manifest | {"costs": costs}))
    seal(bundle)
    load_exported(bundle, state)
    rows = [row, {**row, "plan": "x"}, {**row, "hours-per-week": 90}]
    tensors = [
        {"name": name, "shape": [3], "datatype": "BYTES", "data": [one[name] for one in rows]}
        if isinstance(row[name], str)
        else {"name": name, "shape": [3], "datatype": "FP64", "data": [one[name] for one in rows]}
        for name in row
    ]
    with serve(bad_rows="row") as port:
        address = f"http://127.0.0.1:{port}"
        answer = httpx.post(f"{address}/predict", json={"rows": rows}).json()
        infer = {
            asked: httpx.post(f"{address}{INFER}", json={"inputs": tensors, **more}).json()
            for asked, more in {
                "all": {},
                "one": {"outputs": [{"name": "decision"}]},
                "both": {"outputs": [{"name": "decision"}, {"name": "prediction"}]},
                "twice": {"outputs": [{"name": "decision"}] * 2},
            }.items()
        }
        metadata = httpx.get(f"{address}/v2/models/flights").json()
        invoked = httpx.post(f"{address}/invocations", json={"dataframe_records": rows}).json()
        contract = httpx.get(f"{address}/contract").json()
        described = httpx.get(f"{address}/openapi.json").json()

    low, _, high = answer["predictions"]
    assert answer["decisions"] == [int(low >= 0.25), None, int(high >= 0.25)]
    assert min(low, high) < 0.25 <= max(low, high)
    decision = {
        "name": "decision",
        "shape": [3],
        "datatype": "INT64",
        "data": answer["decisions"],
    }
    named = {name: [one["name"] for one in infer[name]["outputs"]] for name in ("all", "both")}
    assert named == {"all": ["prediction", "decision"], "both": ["decision", "prediction"]}
    assert infer["all"]["outputs"][1] == decision
    assert infer["one"]["outputs"] == [decision]
    assert infer["twice"]["problems"][0]["rule"].startswith("outputs must be some of")
    assert metadata["outputs"][1] == {"name": "decision", "datatype": "INT64", "shape": [-1]}
    assert invoked["predictions"] == answer["predictions"]
    assert contract["threshold"] == 0.25
    schema = described["paths"]["/predict"]["post"]["responses"]["200"]["content"]
    assert "decisions" in schema["application/json"]["schema"]["required"]


def test_a_version_without_costs_decides_nothing(client, row):
    answer = client.post("/predict", json={"rows": [row]}).json()

    assert "decisions" not in answer
    assert "threshold" not in client.get("/contract").json()
