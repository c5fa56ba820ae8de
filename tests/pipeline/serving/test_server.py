import dataclasses
import json
import os
import re
import socket
import subprocess
import sys

import numpy as np
import pytest

from pipeline.errors import ConfigError, PipelineError, RegistryError
from pipeline.serving.served_version import ServedVersion
from pipeline.serving.server import serve
from pipeline.training.golden import Golden
from pipeline.training.seals import files_of, seal


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    monkeypatch.delenv("MODEL_DIR", raising=False)


def refusal():
    with pytest.raises(PipelineError) as refused:
        serve(None)
    return str(refused.value)


def test_serving_without_a_model_says_what_to_name():
    assert refusal().startswith("No model is named. Run `holdfast serve conf/<model>.yaml`")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        serve(str(tmp_path / "none.yaml"))


@pytest.mark.parametrize("port", ["http", "65536", "-1"])
def test_an_invalid_port_is_refused(monkeypatch, bundle, port):
    monkeypatch.setenv("MODEL_DIR", str(bundle))
    monkeypatch.setenv("HOLDFAST__SERVING__PORT", port)

    assert "HOLDFAST__SERVING__... must hold valid settings. Got serving.port:" in refusal()


def test_a_model_that_predicts_differently_is_refused(monkeypatch, bundle):
    golden = Golden.load(bundle / "golden")
    dataclasses.replace(golden, predictions=golden.predictions + 0.01).save(bundle / "golden")
    seal(bundle)
    monkeypatch.setenv("MODEL_DIR", str(bundle))

    assert "golden rows differently than at training" in refusal()


@pytest.mark.parametrize("part", ["model/model.json", "golden/golden.parquet", "manifest.json"])
def test_a_folder_that_lacks_a_part_is_refused(monkeypatch, bundle, part):
    (bundle / part).unlink()
    seal(bundle)
    monkeypatch.setenv("MODEL_DIR", str(bundle))

    assert str((bundle / part).parent) in refusal()


@pytest.mark.parametrize(
    "manifest",
    [
        *("{", "[]", '{"name": "flights"}', '{"name": 1, "version": 1}'),
        '{"name": "flights", "version": []}',
        '{"name": "flights", "version": 1, "until": "yesterday morning"}',
        '{"name": "flights", "version": 1, "ranges": {"temp": 5}}',
        '{"name": "flights", "version": 1, "indicators": {"mean_prediction": 5}}',
    ],
)
def test_a_manifest_without_a_version_is_refused(monkeypatch, bundle, manifest):
    (bundle / "manifest.json").write_text(manifest)
    seal(bundle)
    monkeypatch.setenv("MODEL_DIR", str(bundle))

    assert "manifest.json must hold name and version" in refusal()


def test_a_capture_store_that_is_not_a_database_is_refused(monkeypatch, bundle, tmp_path):
    (tmp_path / "captures.db").write_text("no database at all" * 100)
    monkeypatch.setenv("MODEL_DIR", str(bundle))
    monkeypatch.setenv("HOLDFAST__SERVING__CAPTURES", str(tmp_path / "captures.db"))

    assert "captures.db must be a writable SQLite file" in refusal()


@pytest.mark.integration
def test_a_served_export_imports_nothing_of_training_and_tracking(bundle):
    program = f"""
import json, sys
from pathlib import Path
from pipeline.config import Serving
from pipeline.serving import server
from pipeline.serving.follower import ServingState, load_exported
state = ServingState()
load_exported(Path({str(bundle)!r}), state)
server.create_app(state=state, captures=None, options=Serving())
state.served.predict([state.served.example])
print(json.dumps(sorted({{name.split(".")[0] for name in sys.modules}})))
"""

    loaded = json.loads(subprocess.check_output([sys.executable, "-c", program]))

    assert {"starlette", "xgboost"} <= set(loaded)
    unwanted = {"fastapi", "flask", "matplotlib", "mlflow", "prefect", "skops", "sqlalchemy"}
    unwanted.add("opentelemetry")
    assert not unwanted & set(loaded)


@pytest.mark.integration
def test_an_exported_model_needs_no_mlflow():
    program = (
        "import sys, json, pipeline.serving.server;"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )

    loaded = json.loads(subprocess.check_output([sys.executable, "-c", program]))

    assert "starlette" in loaded
    unwanted = {"fastapi", "mlflow", "opentelemetry", "prefect", "scipy", "sqlalchemy"}
    assert not unwanted & set(loaded)


@pytest.mark.integration
def test_a_server_logs_json_where_asked(bundle):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    asked = {"SERVING__LOG_FORMAT": "json", "SERVING__PORT": port}
    own = {"MODEL_DIR": str(bundle)} | {f"HOLDFAST__{k}": v for k, v in asked.items()}
    command = [sys.executable, "-m", "pipeline.serving"]
    with subprocess.Popen(command, env=os.environ | own, stderr=subprocess.PIPE) as server:
        lines = [server.stderr.readline()]
        while lines[-1] and b"running on" not in lines[-1]:
            lines.append(server.stderr.readline())
        server.terminate()
        lines += server.stderr.readlines()

    records = [json.loads(line) for line in lines]
    assert all({"time", "level", "logger", "message"} <= {*one} for one in records)
    assert any(one["message"].startswith("serving flights, version ") for one in records)


def edits():
    """Edits by hand of the JSON files of a version: where, and what is put there."""
    nonsense = [None, 5, -1, "", "x", [], {}, True, [None], {"a": 1}]
    for key in ("task", "columns", "categories", "estimator"):
        yield from [("model/model.json", key, value) for value in nonsense]
    for key in ("name", "version", "until", "ranges", "indicators"):
        yield from [("manifest.json", key, value) for value in nonsense]


def outcome(folder):
    """The sentence with which a folder is refused; empty if it is served."""
    try:
        ServedVersion.load(folder)
    except RegistryError as error:
        return str(error)
    return ""


def test_edited_json_is_refused_or_served_and_never_crashes(bundle):
    kept = {name: (bundle / name).read_text() for name in ("model/model.json", "manifest.json")}
    refused = 0
    for name, key, value in edits():
        (bundle / name).write_text(json.dumps(json.loads(kept[name]) | {key: value}))
        with pytest.raises(RegistryError, match=r"must be those that were stored\. Got changed: "):
            ServedVersion.load(bundle)
        seal(bundle)
        said = outcome(bundle)
        refused += bool(said)
        assert not said or re.search(r"(Export|Register|Train) .*again|again from", said)
        (bundle / name).write_text(kept[name])
        seal(bundle)

    assert refused >= 60
    ServedVersion.load(bundle)


def test_flipped_bytes_are_refused_before_they_are_parsed(bundle):
    random = np.random.default_rng(0)
    names = files_of(bundle)
    for _ in range(500):
        file = bundle / names[random.integers(len(names))]
        whole = file.read_bytes()
        changed = bytearray(whole)
        changed[random.integers(len(whole))] ^= 1 << random.integers(8)
        file.write_bytes(changed)
        with pytest.raises(RegistryError, match=r"Export the model again"):
            ServedVersion.load(bundle)
        file.write_bytes(whole)


@pytest.mark.parametrize("name", ["sha256.json", "model/estimator.ubj"])
def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(bundle, name):
    (bundle / name).unlink()
    os.mkfifo(bundle / name)

    with pytest.raises(RegistryError, match="must be a plain file"):
        ServedVersion.load(bundle)


def test_a_linked_file_is_refused(bundle, tmp_path):
    file = bundle / "model" / "estimator.ubj"
    file.rename(tmp_path / "elsewhere.ubj")
    file.symlink_to(tmp_path / "elsewhere.ubj")

    with pytest.raises(RegistryError, match="must be a plain file"):
        ServedVersion.load(bundle)
