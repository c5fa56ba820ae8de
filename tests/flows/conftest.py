import contextlib
import json
import logging
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow.tracking._tracking_service import utils
from prefect.client.orchestration import get_client
from prefect.settings import (
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW,
    temporary_settings,
)
from prefect.testing.utilities import prefect_test_harness

from flows.cli import main
from flows.judge import judge
from flows.monitor import next_batch
from flows.replay import replay
from flows.retrains import outstanding
from flows.steps import opened
from flows.train import train
from pipeline.registry import records
from pipeline.registry.answers import record_answer
from pipeline.registry.history import batch_name

WEEKS = 13
DRIFT = 8
"""The week from which `amount` is shifted, in rows of a shop and of claims."""
CLASSES = ["refund", "repair", "send on", "Rückfrage", "none"]
"""What claims end with."""


@pytest.fixture(scope="session")
def prefect(once, tmp_path_factory):
    # Each process of the tests has a server; their databases begin as copies of one, as Prefect's
    # migrations take 20 s. The heartbeat's thread takes a second to join at the end of each flow,
    # and recording the runs of tasks costs the server more than all else that it does for a flow.
    own = tmp_path_factory.mktemp("prefect")
    shutil.copytree(once("prefect", migrated), own, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("prefect.testing.utilities.mkdtemp", lambda: str(own))
        patch.setenv("PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_ENABLED", "false")
        settings = {
            PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
            PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW: "ignore",
        }
        with prefect_test_harness(server_startup_timeout=300), temporary_settings(settings):
            yield


def migrated(folder):
    """Puts a database of Prefect's newest schema where its test harness looks for one."""
    url = f"sqlite+aiosqlite:///{folder / 'prefect-test.db'}"
    subprocess.run(
        [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"],
        env=os.environ | {"PREFECT_SERVER_DATABASE_CONNECTION_URL": url},
        check=True,
        stdout=subprocess.DEVNULL,
    )


@pytest.fixture(scope="session")
def make_shop_rows():
    return shop_rows


@pytest.fixture(scope="session")
def write_shop(empty_store):
    """Writes conf and rows of a small shop into a folder; the path of the conf."""

    def write(folder):
        shop_rows().to_parquet(folder / "rows.parquet")
        empty_store(folder / "state")
        return write_conf(folder)

    return write


@pytest.fixture(scope="session")
def write_claims_conf():
    return write_conf_of_claims


@pytest.fixture(scope="session")
def write_claims(empty_store):
    """Writes conf and rows of claims, which end with one of five classes; the path of the conf."""

    def write(folder):
        claim_rows().to_parquet(folder / "rows.parquet")
        empty_store(folder / "state")
        return write_conf_of_claims(folder)

    return write


@pytest.fixture
def make_conf(tmp_path, prefect):
    del prefect
    return lambda **changes: write_conf(tmp_path, **changes)


@pytest.fixture
def shop(tmp_path, prefect, write_shop):
    """Conf and rows of a small shop that has no version yet; the path of the conf."""
    del prefect
    return write_shop(tmp_path)


@pytest.fixture
def trained(tmp_path, copy_shop):
    """Conf of a shop whose first version is champion."""
    return copy_shop("trained", tmp_path)


@pytest.fixture
def about_to_ask(tmp_path, copy_shop):
    """Conf of a shop whose next batch asks for a retrain."""
    return copy_shop("about_to_ask", tmp_path)


@pytest.fixture
def deploy_train(prefect):
    """Deploys train of the shop; the next test finds neither it nor its runs."""
    del prefect
    yield lambda: train.to_deployment(name="shop").apply()
    with get_client(sync_client=True) as client:
        client.delete_deployment(client.read_deployment_by_name("train/shop").id)


@pytest.fixture
def replayed(tmp_path, copy_shop):
    """Conf of a shop whose batches were all replayed; beside it, `story.json` tells of them."""
    return copy_shop("replayed", tmp_path)


@pytest.fixture
def retrained(tmp_path, copy_shop):
    """Conf of a shop with a second champion, which has judged a batch."""
    return copy_shop("retrained", tmp_path)


@pytest.fixture(scope="session")
def copy_shop(once, prefect, write_shop):
    """Copies a shop into a folder that was brought to a stage once in the session; its conf.

    A file of tests may have a stage of its own, with what brings a trained shop to it.
    """
    del prefect
    fill = {"trained": filled_by_training, "about_to_ask": filled_up_to_a_request}
    fill |= {"retrained": filled_by_retraining, "replayed": filled_by_replaying}

    def copied(stage, folder, filled=None):
        def brought(new):
            before = {"trained": None, "retrained": "about_to_ask"}.get(stage, "trained")
            (filled or fill[stage])(copied(before, new) if before else write_shop(new))

        made = once(stage, brought)
        shutil.copytree(made, folder, dirs_exist_ok=True)
        # MLflow keeps the place of a run's artifacts, which the runs of a copy share by id.
        utils._artifact_repos_cache.clear()
        return in_place(folder, made)

    return copied


def filled_by_training(conf):
    assert train(conf)["promoted"]


def filled_up_to_a_request(conf):
    settings, registry = opened(conf)
    state = settings.tracking.folder
    before = state.with_name("before")
    while outstanding(registry, records.read_history(registry)) is None:
        shutil.rmtree(before, ignore_errors=True)
        shutil.copytree(state, before)
        judge_next(settings, registry)
    shutil.rmtree(state)
    before.rename(state)


def filled_by_retraining(conf):
    settings, registry = opened(conf)
    judge_next(settings, registry)
    train(**outstanding(registry, records.read_history(registry)))
    judge_next(settings, registry)


def filled_by_replaying(conf):
    Path(conf).with_name("story.json").write_text(json.dumps(replay(conf)))


@pytest.fixture(scope="session")
def rewrite_paths():
    return in_place


def in_place(folder, old):
    """Make the conf and the store of a shop that was copied from `old` name `folder` instead.

    MLflow keeps absolute addresses of artifacts in its tables. The path of the conf.
    """
    conf = Path(folder) / "shop.yaml"
    conf.write_text(conf.read_text().replace(str(old), str(folder)))
    with contextlib.closing(sqlite3.connect(Path(folder) / "state" / "mlflow.db")) as store, store:
        tables = store.execute("select name from sqlite_master where type = 'table'").fetchall()
        for (table,) in tables:
            for _, column, *_ in store.execute(f"pragma table_info('{table}')").fetchall():
                store.execute(
                    f'update "{table}" set "{column}" = replace("{column}", ?, ?) '  # noqa: S608
                    f'where instr("{column}", ?)',
                    (str(old), str(folder), str(old)),
                )
    return str(conf)


def shop_rows(seed=0):
    random = np.random.default_rng(seed)
    at = pd.date_range("2026-01-05", periods=WEEKS * 7 * 24 * 2, freq="30min", unit="us")
    week = (at - at[0]).days // 7
    amount = random.normal(50, 10, len(at)) + np.where(week >= DRIFT, 25, 0)
    age = np.where(random.random(len(at)) < 0.1, np.nan, random.normal(40, 10, len(at)))
    plan = random.choice(["free", "pro"], len(at))
    # What amount means turns round with the drift, so that only a new model can follow.
    direction = np.where(week >= DRIFT, -1, 1)
    score = direction * (amount - np.where(week >= DRIFT, 75, 50)) / 10 + (plan == "pro")
    return pd.DataFrame(
        {
            "id": [f"r{i}" for i in range(len(at))],
            "at": at,
            "amount": amount,
            "age": age,
            "plan": plan,
            "churned": (score + random.normal(size=len(at)) > 0.5).astype(float),
        }
    )


def write_conf(folder, **changes):
    conf = {
        "name": "shop",
        "task": "classification",
        "data": {
            "train": {"kind": "file", "path": str(folder / "rows.parquet")},
            "key": "id",
            "time": "at",
            "target": "churned",
            "label_delay": "1D",
            "features": {
                "amount": {"type": "numeric", "min": -100, "max": 200},
                "age": {"type": "numeric", "nullable": True},
                "plan": {"type": "categorical", "values": ["free", "pro"]},
            },
        },
        "training": {
            "params": {"n_estimators": 20, "max_depth": 3, "n_jobs": 1},
            "until": "2026-02-16",
            "holdout": "7D",
        },
        "promotion": {"slices": ["plan", "age"]},
        "monitoring": {"cooldown": 2},
        "tracking": {"folder": str(folder / "state")},
    }
    path = Path(folder) / "shop.yaml"
    path.write_text(yaml.safe_dump(conf | changes))
    return str(path)


def claim_rows():
    """Claims every half hour; from week eight on, what the amount means is turned round."""
    random = np.random.default_rng(0)
    at = pd.date_range("2026-01-05", periods=WEEKS * 7 * 48, freq="30min", unit="us")
    late = (at - at[0]).days // 7 >= DRIFT
    amount = random.normal(50, 10, len(at)) + np.where(late, 25, 0)
    age = np.where(random.random(len(at)) < 0.1, np.nan, random.normal(40, 10, len(at)))
    plan = random.choice(["free", "pro"], len(at))
    turned = np.where(late, -1, 1) * (amount - np.where(late, 75, 50)) / 5
    parts = [turned, -turned, np.nan_to_num(age) / 20, 1.5 * (plan == "pro"), 0 * turned - 0.5]
    places = (np.stack(parts, axis=1) + random.gumbel(size=(len(at), 5))).argmax(axis=1)
    columns = {"at": at, "amount": amount, "age": age, "plan": plan}
    return pd.DataFrame(
        {"id": [f"r{i}" for i in range(len(at))], **columns, "kind": np.array(CLASSES)[places]}
    )


def write_conf_of_claims(folder, **changes):
    data = {
        "train": {"kind": "file", "path": str(folder / "rows.parquet")},
        "key": "id",
        "time": "at",
        "target": "kind",
        "classes": CLASSES,
        "label_delay": "1D",
        "features": {
            "amount": {"type": "numeric"},
            "age": {"type": "numeric", "nullable": True},
            "plan": {"type": "categorical"},
        },
    }
    conf = {
        "name": "claims",
        "task": "classification",
        "data": data | changes,
        "training": {
            "params": {"n_estimators": 20, "max_depth": 3, "n_jobs": 1},
            "until": "2026-02-16",
            "holdout": "7D",
        },
        "monitoring": {"cooldown": 2},
        "tracking": {"folder": str(folder / "state")},
    }
    (folder / "shop.yaml").write_text(yaml.safe_dump(conf))
    return str(folder / "shop.yaml")


@pytest.fixture(scope="session")
def judge_batch():
    """Judges the batch that starts at a moment, by default the next batch; returns it."""

    return judge_next


def judge_next(settings, registry, start=None, **reading):
    history = records.read_history(registry)
    start = next_batch(settings, registry, history) if start is None else pd.Timestamp(start)
    return judge(settings, registry, history, start, **reading).batch(batch_name(start))


@pytest.fixture(scope="session")
def answer():
    """Records what people answer for a batch; returns the batch with the answer."""

    def answered(registry, batch, answer, reason="a test"):
        history = records.read_history(registry)
        return record_answer(registry, history, batch, answer, reason)

    return answered


@pytest.fixture
def listen():
    """Starts a real HTTP server that hands each body posted to a function; its port."""
    running = []

    def start(take):
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                take(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_):
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        running.append((server, thread))
        return server.server_port

    yield start
    for server, thread in running:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def receiver(listen):
    """A real HTTP server; the pages it got, and its Apprise address."""
    got = []
    port = listen(lambda body: got.append(json.loads(body)))
    return got, f"json://127.0.0.1:{port}/page"


@pytest.fixture
def holdfast(prefect, monkeypatch, capfd):
    """Runs a command in this process; its exit code, stdout and stderr."""
    del prefect
    monkeypatch.setenv("PREFECT_HOME", "/nowhere")  # what a command sets is taken back
    root = logging.getLogger()
    before = root.handlers[:]

    def run(*arguments):
        capfd.readouterr()  # what fixtures said
        code = main(arguments)
        for handler in {*root.handlers} - {*before}:
            handler.close()
        return (code, *capfd.readouterr())

    yield run
    root.handlers[:] = before
    logging.captureWarnings(capture=False)


@pytest.fixture(scope="session")
def serve():
    """Serves a model's champion in processes of its own."""
    return served


@contextlib.contextmanager
def served(conf, workers=1):
    """A server in its own process, or in several, and its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    own = {"HOLDFAST__SERVING__PORT": str(port), "HOLDFAST__SERVING__POLL": "200ms"}
    command = [sys.executable, "-m", "flows.cli", "serve", conf, "--workers", str(workers)]
    root = Path(__file__).parents[2]
    server = subprocess.Popen(command, env=os.environ | own, cwd=root, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"

    def ready():
        assert server.poll() is None
        try:
            return httpx.get(f"{address}/ready").status_code == 200
        except httpx.HTTPError:
            return False

    try:
        end = time.monotonic() + 60
        while not ready():
            assert time.monotonic() < end
            time.sleep(0.1)
        yield server, address
    finally:
        server.kill()
        server.wait()
