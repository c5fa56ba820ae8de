import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from string import Template

import httpx
import numpy as np
import pandas as pd
import pytest

from pipeline.columns import encode, known_categories
from pipeline.config import Categorical, Numeric
from pipeline.data.captures import read_captures
from pipeline.training import parity
from pipeline.training.estimators import build_estimator
from pipeline.training.model import Model
from pipeline.training.seals import seal

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[1]
ROWS = [{"hour": 7, "origin": "JFK"}, {"hour": None, "origin": "EWR"}]


def read_stages():
    """Instructions of each stage, those of the stage it is made from first."""
    stages, name = {"python:3.11-slim": []}, None
    for line in (ROOT / "Dockerfile").read_text().replace("\\\n", "").splitlines():
        word, _, rest = line.partition(" ")
        if word == "FROM":
            origin, _, name = rest.partition(" AS ")
            stages[name] = list(stages[origin])
        elif word and word != "#":
            stages[name].append((word, rest.strip()))
    return stages


STAGES = read_stages()
SERVE = STAGES["serve"]


def last(stage, word):
    return [rest for found, rest in stage if found == word][-1]


def copied(stage):
    """Paths that a stage takes from the folder of the project."""
    lines = [rest.split() for word, rest in stage if word == "COPY"]
    return [path for line in lines if not line[0].startswith("--") for path in line[:-1]]


def settings():
    pairs = [pair.split("=", 1) for word, rest in SERVE if word == "ENV" for pair in rest.split()]
    return {name: value for name, value in pairs if name.startswith(("MODEL", "HOLDFAST"))}


def health_check():
    return json.loads(last(SERVE, "HEALTHCHECK").partition("CMD ")[2])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    columns = {"hour": Numeric(min=0, max=23, nullable=True), "origin": Categorical()}
    rows = pd.DataFrame({"hour": np.arange(48.0) % 24, "origin": ["EWR", "JFK", "LGA"] * 16})
    categories = known_categories(rows, columns)
    estimator = build_estimator("xgboost.XGBClassifier", {"n_estimators": 10}, columns, seed=0)
    estimator.fit(encode(rows, columns, categories), rows["hour"] > 12)
    model = Model("classification", columns, categories, estimator)
    folder = tmp_path_factory.mktemp("bundle")
    model.save(folder / "model")
    parity.make(model, rows).export(folder / "golden")
    (folder / "manifest.json").write_text(json.dumps({"name": "flights", "version": "3"}))
    seal(folder)
    return folder


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def answer_as_the_image_would(bundle, tmp_path, *, app, binaries):
    given = {"MODEL_DIR": str(bundle), "HOLDFAST__SERVING__CAPTURES": str(tmp_path / "captures.db")}
    port = str(free_port())
    path = f"{binaries}{os.pathsep}{os.environ['PATH']}"
    environment = {"PATH": path, **settings(), **given, "HOLDFAST__SERVING__PORT": port}
    command, check = json.loads(last(SERVE, "CMD")), health_check()
    assert command[0] == check[0] == "python"
    command[0] = check[0] = str(binaries / "python")
    server = subprocess.Popen(
        command, cwd=app, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        end = time.monotonic() + 60
        while subprocess.run(check, env=environment, capture_output=True, check=False).returncode:
            assert server.poll() is None, server.communicate()
            assert time.monotonic() < end, "not ready within a minute"
        answer = httpx.post(f"http://127.0.0.1:{port}/predict", json={"rows": ROWS})
        server.send_signal(signal.SIGTERM)
        output = "".join(server.communicate(timeout=20))
    finally:
        server.kill()
        server.communicate()
    assert server.returncode == 0, output
    assert "Traceback" not in output
    expected = Model.load(bundle / "model").predict(pd.DataFrame(ROWS))
    np.testing.assert_allclose(answer.json()["predictions"], expected, rtol=0, atol=1e-6)
    kept = read_captures(tmp_path / "captures.db")
    assert kept["holdfast-key"].tolist() == answer.json()["keys"]


@pytest.mark.parametrize("name", ["build", "build-serve", "flows", "serve"])
def test_every_copied_path_exists_and_is_not_ignored(name):
    patterns = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = [pattern.removeprefix("!") for pattern in patterns if pattern.startswith("!")]

    for path in copied(STAGES[name]):
        assert (ROOT / path).exists()
        assert any(fnmatch(path, pattern) for pattern in allowed)


@pytest.mark.parametrize("name", ["flows", "serve"])
def test_the_last_user_is_not_root(name):
    assert last(STAGES[name], "USER") not in {"root", "0"}


def test_the_health_check_fails_when_nobody_answers():
    environment = {"HOLDFAST__SERVING__PORT": str(free_port())}
    command = [sys.executable, *health_check()[1:]]

    assert subprocess.run(command, env=environment, capture_output=True, check=False).returncode


def test_the_image_serves_an_exported_model(bundle, tmp_path):
    answer_as_the_image_would(bundle, tmp_path, app=ROOT, binaries=Path(sys.executable).parent)


def installed(stage, app):
    """Copy what a stage copies, install what it installs, and give the folder of its binaries."""
    app.mkdir()
    for path in copied(STAGES[stage]):
        source = ROOT / path
        (shutil.copytree if source.is_dir() else shutil.copy)(source, app / path)
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in {"VIRTUAL_ENV", "PYTHONPATH"}
    }
    arguments = dict(rest.split("=") for word, rest in STAGES[stage] if word == "ARG")
    syncs = [rest for word, rest in STAGES[stage] if word == "RUN" and rest.startswith("uv sync")]
    words = Template(syncs[-1]).substitute(arguments).split()
    command = [uv, *words[1:], "--python", sys.executable]
    subprocess.run(command, cwd=app, env=environment, check=True, capture_output=True)
    return app / ".venv" / "bin"


def test_the_image_serves_from_the_files_and_packages_that_it_installs(bundle, tmp_path):
    app = tmp_path / "app"
    binaries = installed("build-serve", app)
    answer_as_the_image_would(bundle, tmp_path, app=app, binaries=binaries)
    needless = ["mlflow", "prefect", "sklearn", "pandera", "pyarrow", "matplotlib", "sqlalchemy"]
    find = f"import importlib.util as u; print([n for n in {needless} if u.find_spec(n)])"
    found = subprocess.run([binaries / "python", "-c", find], capture_output=True, check=True)
    assert found.stdout == b"[]\n"


def test_the_image_of_flows_has_their_commands(tmp_path):
    binaries = installed("build", tmp_path / "app")
    command = last(STAGES["flows"], "CMD")
    for name in (json.loads(command)[0], "holdfast"):
        subprocess.run([binaries / name, "--version"], check=True, capture_output=True)


def test_what_only_serves_is_a_part_of_what_is_installed_to_train_or_older():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = project["dependency-groups"]
    served = [one for name in ("serve", "serve-sklearn") for one in groups[name]]

    assert {"include-group": "serve"} in served
    trains = set(map(without_minimum, project["project"]["dependencies"]))
    assert {without_minimum(one) for one in served if isinstance(one, str)} <= trains


def without_minimum(requirement):
    """A requirement without its oldest version, which may be older where a model only serves."""
    return re.sub(r">=[\d.]+,?", "", requirement)
