import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from pipeline.config import Settings

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
MODELS = sorted(CONF.glob("*.yaml"))


def stored_schema():
    return json.loads((CONF / "schema.json").read_text())


def test_the_stored_schema_is_that_of_the_settings():
    assert stored_schema() == Settings.model_json_schema()


def test_the_command_line_prints_the_stored_schema():
    command = [sys.executable, "-m", "flows.cli", "schema"]

    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)

    assert printed.stdout == (CONF / "schema.json").read_text()


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_a_shipped_model_is_named_like_its_file(path):
    assert Settings.load(path).name == path.stem


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_an_editor_finds_no_mistake_in_a_shipped_model(path):
    assert path.read_text().startswith("# yaml-language-server: $schema=schema.json\n")
    jsonschema.validate(yaml.safe_load(path.read_text()), stored_schema())


def test_an_editor_finds_a_misspelled_setting():
    model = yaml.safe_load(MODELS[0].read_text())
    model["data"]["taget"] = model["data"].pop("target")

    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(model, stored_schema())
