import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import tomllib
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from string import Template
from threading import Thread

import httpx
import numpy as np
import pandas as pd
import pytest

from deploy.written import last, stages, variables
from pipeline.columns import encode, known_categories
from pipeline.config import Categorical, Numeric
from pipeline.data.captures import SCHEMA, read_captures
from pipeline.training import parity
from pipeline.training.estimators import build_estimator
from pipeline.training.model import Model
from pipeline.training.seals import seal

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[1]
ROWS = [{"hour": 7, "origin": "JFK"}, {"hour": None, "origin": "EWR"}]


STAGES = stages()
SERVE = STAGES["serve"]


def copied(stage):
    """Paths that a stage takes from the folder of the project."""
    lines = [rest.split() for word, rest in stage if word == "COPY" and "--from" not in rest]
    return [path for line in lines for path in line[:-1] if not path.startswith("--")]


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


@contextmanager
def served(bundle, tmp_path, *, app, binaries):
    """The process that the image would start, when its health check is passed; its environment."""
    path = os.pathsep.join([str(binaries), str(ROOT / "deploy"), os.environ["PATH"]])
    environment = {
        "PATH": path,
        **variables(SERVE),
        "MODEL_DIR": str(bundle),
        "HOLDFAST__SERVING__CAPTURES": str(tmp_path / "captures.db"),
        "HOLDFAST__SERVING__PORT": str(free_port()),
    }
    python, *rest = json.loads(last(SERVE, "CMD"))
    assert python == "python"
    command = [*json.loads(last(SERVE, "ENTRYPOINT")), str(binaries / "python"), *rest]
    server = subprocess.Popen(
        command, cwd=app, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        until_healthy(environment, server)
        yield server, environment
    finally:
        server.kill()
        server.communicate()


def until_healthy(environment, server):
    end = time.monotonic() + 60
    while not healthy(environment):
        assert server.poll() is None, server.communicate()
        assert time.monotonic() < end, "not ready within a minute"


def healthy(environment):
    done = subprocess.run(
        health_check(), env=environment, capture_output=True, check=False, timeout=30
    )
    assert done.returncode in {0, 1}, done  # Docker knows no other
    return done.returncode == 0


def test_the_health_check_follows_a_server_that_cannot_store_can_again_and_ends(bundle, tmp_path):
    binaries = Path(sys.executable).parent
    with served(bundle, tmp_path, app=ROOT, binaries=binaries) as (server, environment):
        address = f"http://127.0.0.1:{environment['HOLDFAST__SERVING__PORT']}"
        store = sqlite3.connect(tmp_path / "captures.db", isolation_level=None)
        store.execute("DROP TABLE answers")
        httpx.post(f"{address}/predict", json={"rows": ROWS})
        end = time.monotonic() + 60
        while httpx.get(f"{address}/ready").status_code == 200:
            assert time.monotonic() < end
        assert not healthy(environment)

        store.executescript(SCHEMA)
        store.close()
        until_healthy(environment, server)

    assert not healthy(environment)


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 2", b"HTTP/1.1 200"])
def test_the_health_check_of_a_server_that_stops_in_its_answer_ends(sent):
    with socket.create_server(("127.0.0.1", 0)) as server:
        environment = {"HOLDFAST__SERVING__PORT": str(server.getsockname()[1])}
        environment["PATH"] = os.pathsep.join([str(ROOT / "deploy"), os.environ["PATH"]])
        found = []
        asking = Thread(target=lambda: found.append(healthy(environment)))
        asking.start()
        connection, _ = server.accept()
        connection.sendall(sent)
        asking.join()
        connection.close()

    assert found == [False]


@pytest.mark.parametrize("name", STAGES)
def test_every_copied_path_exists_and_is_not_ignored(name):
    patterns = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = [pattern.removeprefix("!") for pattern in patterns if pattern.startswith("!")]

    for path in copied(STAGES[name]):
        assert (ROOT / path).exists()
        assert any(fnmatch(path, pattern) for pattern in allowed)


@pytest.mark.parametrize("name", ["flows", "mlflow", "serve"])
def test_the_user_is_not_root_and_has_a_number_which_kubernetes_can_check(name):
    assert int(last(STAGES[name], "USER")) > 0


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
    with served(bundle, tmp_path, app=app, binaries=binaries) as (server, environment):
        port = environment["HOLDFAST__SERVING__PORT"]
        answer = httpx.post(f"http://127.0.0.1:{port}/predict", json={"rows": ROWS})
        server.send_signal(signal.SIGTERM)
        output = "".join(server.communicate(timeout=20))
    assert server.returncode == 0, output
    assert "Traceback" not in output
    expected = Model.load(bundle / "model").predict(pd.DataFrame(ROWS))
    np.testing.assert_allclose(answer.json()["predictions"], expected, rtol=0, atol=1e-6)
    kept = read_captures(tmp_path / "captures.db")
    assert kept["holdfast-key"].tolist() == answer.json()["keys"]
    needless = ["mlflow", "prefect", "sklearn", "pandera", "pyarrow", "matplotlib", "sqlalchemy"]
    find = f"import importlib.util as u; print([n for n in {needless} if u.find_spec(n)])"
    found = subprocess.run([binaries / "python", "-c", find], capture_output=True, check=True)
    assert found.stdout == b"[]\n"


@pytest.mark.parametrize(
    ("image", "stage", "names"),
    [("flows", "build", {"prefect", "holdfast"}), ("mlflow", "build-mlflow", {"mlflow"})],
)
def test_an_image_has_its_commands_and_the_driver_of_postgresql(tmp_path, image, stage, names):
    assert json.loads(last(STAGES[image], "CMD"))[0] in names
    binaries = installed(stage, tmp_path / "app")
    for name in names:
        subprocess.run([binaries / name, "--version"], check=True, capture_output=True)
    subprocess.run([binaries / "python", "-c", "import pg8000"], check=True)


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
