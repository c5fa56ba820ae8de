"""Every documented command runs, as a reader would type it, on a small model in its own folder."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient

from docs.documented import (
    BASH,
    ROOT,
    TOOLS,
    answer,
    commands,
    free_port,
    replayed,
    run,
    wait_for,
    without_variables,
)
from pipeline.columns import encode, known_categories
from pipeline.config import Data, Numeric
from pipeline.serving.capturing import Captures
from pipeline.training import parity
from pipeline.training.estimators import build_estimator
from pipeline.training.model import Model
from pipeline.training.seals import seal

pytestmark = pytest.mark.integration

STANDS_FOR = {
    r"conf/[\w<>*]+\.yaml|<conf>": "conf/shop.yaml",
    r"\b(flights|<model>)/": "shop/",
    r"<time>": "2026-02-16T00:00",
    r"<name>": "ada",
    r"(?<=\s)/backups/|(?<==)/tmp/": "kept/",
    r"(?<=--trials )\d+": "2",
    r"(?<=--minutes )\d+": "1",
}
"""What stands in the test for what documents write: the models, times and folders of a reader."""

OF_TWO_CHAMPIONS = {"review", "rollback", "page"}
"""Commands on a model with a second champion; all others find its first version trained."""

BEFORE = {
    "page": "train conf/shop.yaml --until 2026-03-30",
    "restore": "backup conf/shop.yaml kept/2026-11-26.tar.gz",
}
"""What a reader has typed before a command."""

ENDLESS = re.compile(r"(python -m pipeline\.serving|holdfast serve|holdfast watch (?!.*--once))")
"""Commands that run until they are ended."""

ELSEWHERE = {
    "holdfast replay": "a whole history; tests/flows/test_cli.py replays one batch of another",
    "holdfast backtest": "minutes; tests/flows/test_backtest.py compares policies, at night",
    "holdfast upgrade-check": "environments; tests/flows/test_upgrade_check.py makes two, at night",
    "holdfast promote": "two environments; tests/flows/test_environments.py promotes from one",
    "holdfast replay-captures": "two servers; tests/flows/test_replay_captures.py sends to one",
    "holdfast up ": "a server; tests/flows/test_up.py starts it",
    "holdfast register": "waits for a person; tests/flows/test_decisions.py approves versions",
    "holdfast init postgresql": "a company's database; tests/flows/test_init.py drafts from SQLite",
    "make ": "tests/test_documents.py: targets exist, and take their commands",
    "docker ": "no container engine: what images and services start is run by tests/test_image.py "
    "and tests/flows/test_team.py; pull, upgrade, dump and restore are not run at all",
    "prefect ": "tests/flows/test_up.py runs deployments through a worker; `prefect deployment "
    "schedule` and `prefect deploy` are not run",
    "mlflow models serve": "a name here; python -m benchmarks.serving runs it",
    "mlflow db upgrade": "a server's database; not run",
    "mlflow experiments restore": "run by a test below",
    "uv sync": "tests/test_image.py installs the group that serves; the extra is not installed",
    "uv lock": "asks the registry of packages, and is not run",
    ".venv/bin/python -m uv ": "asks the registry too; tests/benchmarks/peers reads stored locks",
    ".venv/bin/pre-commit ": "changes the hooks of git; tests/test_english.py and "
    "tests/test_schema.py do what two of the five hooks do",
    "python -m pytest": "this runs the tests",
    "python -m benchmarks.": "minutes to hours; tests/benchmarks/test_entry_points.py parses each",
}
"""Commands that are not run here, by how they begin, and why, or what runs them."""


def typed(line):
    return without_variables(line).removeprefix(".venv/bin/")


def is_whole(line):
    """Whether a command is written with all that it needs, and not only named.

    Two words alone are a name. Of these `holdfast up` and `deploy` are whole; test_up.py runs both.
    """
    words = typed(line).split()
    named = len(line.split()) < 3 and words[0] in {"holdfast", "prefect"} and "--" not in line
    return not named and "..." not in words and not {"KEY", "CONF", "ID"} & {*words}


LINES = {line: page for line, page in commands().items() if page != "CHANGELOG.md"}
PROGRAMS = ("holdfast ", "python -m ", "prefect ", "docker ", "uv ", "mlflow ", "make ")
WHOLE = [line for line in LINES if typed(line).startswith(PROGRAMS) and is_whole(line)]
HERE = [line for line in WHOLE if not line.startswith(tuple(ELSEWHERE))]
HERE = [line for line in HERE if not typed(line).startswith(tuple(ELSEWHERE))]


def in_the_test(line):
    for written, meant in STANDS_FOR.items():
        line = re.sub(written, meant, line)
    return line


SHORT = {in_the_test(line).replace(".venv/bin/", ""): line for line in HERE}
"""Commands by what the test types: two that differ in the names of models are one."""


@pytest.fixture
def world(tmp_path, copy_shop, monkeypatch):
    """A reader's folder in which a model reached a stage, with the tables that documents name."""

    def made(stage):
        conf = Path(copy_shop(stage, tmp_path))
        for name in ("conf", "data", "kept", "lake/sales", "shop"):
            (tmp_path / name).mkdir(parents=True)
        shutil.copy(conf, tmp_path / "conf/shop.yaml")
        rows = pd.read_parquet(tmp_path / "rows.parquet")
        rows.to_csv(tmp_path / "data/churn.csv", index=False)
        rows.rename(columns={"churned": "sold"}).to_parquet(tmp_path / "lake/sales/1.parquet")
        (tmp_path / "shop/rows.py").write_text(ORDERS)
        with Captures(
            tmp_path / "state/captures/shop.db", keep=pd.Timedelta("1D"), max_bytes=10**9
        ):
            pass  # a server was there
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(tmp_path)
        return tmp_path

    return made


ORDERS = """
import pandas as pd


def orders(start, end):
    return pd.read_parquet("rows.parquet").rename(columns={"churned": "returned"})
"""


def test_commands_that_are_not_run_here_are_run_where_it_says():
    unused = [
        start
        for start in ELSEWHERE
        if not any(line.startswith(start) or typed(line).startswith(start) for line in LINES)
    ]
    lost = [
        path
        for reason in ELSEWHERE.values()
        for path in re.findall(r"tests/[\w/.]+", reason)
        if not (ROOT / path).exists()
    ]

    assert (unused, lost) == ([], [])


def test_a_deleted_experiment_is_back_after_the_command_that_operating_names(
    tmp_path, empty_store, monkeypatch
):
    empty_store(tmp_path / ".holdfast")
    (line,) = (line for line in LINES if typed(line).startswith("mlflow experiments restore"))
    monkeypatch.chdir(tmp_path)
    address, command = line.split(" ", 1)
    client = MlflowClient(address.removeprefix("MLFLOW_TRACKING_URI="))
    number = client.create_experiment("shop")
    client.delete_experiment(number)

    run(f"{address} python -m {command.replace('<id>', number)}", tmp_path)

    assert client.get_experiment(number).lifecycle_stage == "active"


def quick_start():
    return (ROOT / "docs/quick-start.md").read_text(encoding="utf-8")


def test_the_quick_start_prints_what_it_shows_up_to_the_first_version(
    tmp_path, holdfast, empty_store, monkeypatch
):
    text = quick_start().partition("## Batches")[0]
    empty_store(tmp_path / ".holdfast")
    monkeypatch.chdir(tmp_path)

    def typed_here(line):
        if not line.startswith("holdfast "):
            return run(line, tmp_path)
        code, out, err = holdfast(*shlex.split(line)[1:])
        assert code == 0, f"{line}: {err}"
        return out

    assert replayed(text, typed_here) == text, "Run python docs/generate.py quick-start."


@pytest.mark.night
def test_the_quick_start_prints_what_it_shows(tmp_path):
    text = quick_start()

    shown = replayed(text, partial(run, folder=tmp_path))

    assert shown == text, "Run python docs/generate.py quick-start."


@pytest.mark.parametrize("line", [one for one in SHORT if not ENDLESS.search(one)])
def test_a_documented_command_does_what_it_says(line, world, holdfast, receive, monkeypatch):
    variables, words = line.split("holdfast ")[0], shlex.split(without_variables(line))[1:]
    world("retrained" if words[0] in OF_TWO_CHAMPIONS else "trained")
    monkeypatch.setenv("HOLDFAST__ALERTS__URLS", json.dumps([receive().url]))
    if words[0] in BEFORE:
        assert holdfast(*BEFORE[words[0]].split())[0] == 0
    if words[0] == "restore":
        shutil.rmtree("state")
    for name, _, value in (one.partition("=") for one in variables.split()):
        monkeypatch.setenv(name, value)

    code, out, err = holdfast(*words)

    assert (code, out) != (0, "") or words[0] in {"watch", "schema"}
    assert code == 0, f"{SHORT[line]} ({LINES[SHORT[line]]}): {err}"


@pytest.mark.parametrize("line", [one for one in SHORT if ENDLESS.search(one)])
def test_a_documented_command_that_never_ends_runs_until_it_is_ended(line, world, holdfast):
    folder = world("trained")
    assert holdfast("export", "conf/shop.yaml", "model")[0] == 0
    port = free_port()
    env = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
    env |= {"PYTHONPATH": str(ROOT), "HOLDFAST__SERVING__PORT": str(port)}
    with subprocess.Popen(
        [BASH, "-c", TOOLS + line], cwd=folder, env=env, stderr=subprocess.DEVNULL
    ) as process:
        if "watch" in line:
            time.sleep(1)
        else:
            wait_for(f"http://127.0.0.1:{port}/ready")
        assert process.poll() is None
        for _ in range(60):  # a library that is being imported may swallow one
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(2)
                break
        else:
            process.kill()

    assert process.returncode in {0, -signal.SIGINT, 130}


def test_the_readme_shows_what_a_server_answers_to_its_request(tmp_path):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    line, shown = re.search(
        r"^\$ (curl .*?\}\]\}')\n(.*?)^```", text, re.MULTILINE | re.DOTALL
    ).groups()
    save_flights(tmp_path)

    answered = answer(line, tmp_path)

    pattern = re.escape(re.sub(r"\n *", "", shown)).replace(r"\.\.\.", ".*?")
    assert re.fullmatch(pattern, answered), answered


def save_flights(folder):
    """An exported model of the columns of conf/flights.yaml, fitted on made-up rows."""
    conf = yaml.safe_load((ROOT / "conf/flights.yaml").read_text(encoding="utf-8"))
    columns = Data.model_validate(conf["data"]).features
    random, n = np.random.default_rng(0), 200
    labels = {"carrier": ["UA", "AA"], "origin": ["EWR", "JFK", "LGA"]}
    frame = pd.DataFrame(
        {
            name: (column.min or 0) + random.integers(0, 7, n).astype(float)
            if isinstance(column, Numeric)
            else random.choice(labels.get(name, ["ORD", "BOS"]), n)
            for name, column in columns.items()
        }
    )
    categories = known_categories(frame, columns)
    estimator = build_estimator("xgboost.XGBClassifier", {"n_estimators": 2}, columns, seed=0)
    estimator.fit(encode(frame, columns, categories), random.integers(0, 2, n))
    model = Model("classification", columns, categories, estimator)
    model.save(folder / "model")
    parity.make(model, frame).save(folder / "golden")
    manifest = {"name": "flights", "version": "1", "until": "2013-02-26", "ranges": {}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    seal(folder)
