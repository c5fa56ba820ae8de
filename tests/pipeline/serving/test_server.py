import dataclasses
import json
import subprocess
import sys

import pytest

from pipeline.errors import ConfigError, PipelineError
from pipeline.serving.server import serve
from pipeline.training import parity


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
    golden = parity.Golden.load(bundle / "golden")
    dataclasses.replace(golden, predictions=golden.predictions + 0.01).save(bundle / "golden")
    monkeypatch.setenv("MODEL_DIR", str(bundle))

    assert "golden rows differently than at training" in refusal()


@pytest.mark.parametrize("part", ["model/model.json", "golden/golden.parquet", "manifest.json"])
def test_a_folder_that_lacks_a_part_is_refused(monkeypatch, bundle, part):
    (bundle / part).unlink()
    monkeypatch.setenv("MODEL_DIR", str(bundle))

    assert str((bundle / part).parent) in refusal()


@pytest.mark.parametrize("manifest", ["{", "[]", '{"name": "flights"}'])
def test_a_manifest_without_a_version_is_refused(monkeypatch, bundle, manifest):
    (bundle / "manifest.json").write_text(manifest)
    monkeypatch.setenv("MODEL_DIR", str(bundle))

    assert "manifest.json must hold name and version" in refusal()


def test_a_capture_store_that_is_not_a_database_is_refused(monkeypatch, bundle, tmp_path):
    (tmp_path / "captures.db").write_text("no database at all" * 100)
    monkeypatch.setenv("MODEL_DIR", str(bundle))
    monkeypatch.setenv("HOLDFAST__SERVING__CAPTURES", str(tmp_path / "captures.db"))

    assert "captures.db must be a writable SQLite file" in refusal()


@pytest.mark.integration
def test_an_exported_model_needs_no_mlflow():
    program = (
        "import sys, json, pipeline.serving.server;"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )

    loaded = json.loads(subprocess.check_output([sys.executable, "-c", program]))

    assert "starlette" in loaded
    assert not {"fastapi", "mlflow", "prefect", "sqlalchemy"} & set(loaded)
