import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import httpx
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.monitor import monitor
from flows.steps import opened
from flows.train import train
from pipeline.registry import champions, records

pytestmark = [pytest.mark.integration, pytest.mark.team]

PATIENCE = 300
CUT_OFF = """
import os, signal, sys
from flows import retrains
from flows.monitor import monitor
from pipeline.errors import UnavailableError

conf, moment, server = sys.argv[1:]
sent = retrains._dispatched

def dispatched(*given):
    if moment == "before":
        os.killpg(int(server), signal.SIGKILL)
        return sent(*given)
    for _ in range(9):  # a server that is busy may not answer at once
        try:
            run = sent(*given)
            break
        except UnavailableError:
            continue
    os.killpg(int(server), signal.SIGKILL)
    return run

if moment != "never":
    retrains._dispatched = dispatched
monitor(conf)
"""


class Server:
    """A server with one database, that may be killed and started again."""

    def __init__(self, folder, health, *command, **env):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.health, self.log = self.url + health, folder / "server.log"
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT", "MLFLOW"))}
        self.env = kept | {"PREFECT_HOME": str(folder / "prefect"), "DO_NOT_TRACK": "1"} | env
        address = ["--host", "127.0.0.1", "--port", str(self.port)]
        self.command = [sys.executable, "-m", *command, *address]
        self.start()

    def start(self):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, env=self.env, stdout=log, stderr=log, start_new_session=True
            )
        wait(self.answers)

    def answers(self):
        try:
            with urllib.request.urlopen(self.health, timeout=5) as response:  # noqa: S310 -- http
                return response.status == 200
        except OSError:
            return False

    def kill(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def wait(ready):
    deadline = time.monotonic() + PATIENCE
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.fixture
def mlflow_server(tmp_path):
    store = f"--backend-store-uri=sqlite:///{tmp_path}/mlflow.db"
    artifacts = f"--default-artifact-root={tmp_path}/artifacts"
    options = ("--workers=1", "--no-serve-artifacts", store, artifacts)
    server = Server(tmp_path, "/health", "mlflow", "server", *options)
    yield server
    server.kill()


@pytest.fixture
def prefect_server(tmp_path):
    quiet = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    server = Server(tmp_path, "/api/health", "prefect", "server", "start", **quiet)
    yield server
    server.kill()


def test_a_run_waits_for_mlflow_and_goes_on_when_it_is_back(
    shop, mlflow_server, monkeypatch, caplog
):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.url)
    train(shop)
    start = opened(shop)[1].champion().until
    mlflow_server.kill()

    def waits():
        return any(" - Retry 1/" in record.getMessage() for record in caplog.records)

    def start_again():
        wait(waits)
        mlflow_server.start()

    starting = threading.Thread(target=start_again)
    starting.start()
    result = monitor(shop)
    starting.join()

    _, registry = opened(shop)
    assert waits()
    assert result["batch"] == f"{start:%Y-%m-%dT%H:%M}"
    assert len(registry.search("tags.kind = 'batch'")) == 1
    assert [change.place for change in champions.changes(registry)] == [1]


@pytest.mark.parametrize("moment", ["after", pytest.param("before", marks=pytest.mark.night)])
def test_prefect_killed_around_a_request_neither_loses_nor_doubles_it(
    about_to_ask, prefect_server, moment
):
    conf, api = about_to_ask, f"{prefect_server.url}/api"
    with temporary_settings({PREFECT_API_URL: api}):
        train.to_deployment(name="shop").apply()
    environment = prefect_server.env | {"PREFECT_API_URL": api, "OMP_NUM_THREADS": "1"}

    def monitored(moment, **env):
        command = [sys.executable, "-c", CUT_OFF, conf, moment, str(prefect_server.process.pid)]
        return subprocess.run(
            command,
            env=environment | env,
            check=False,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    _, registry = opened(conf)
    before = len(records.read_history(registry).batches)
    cut_off = monitored(moment, PREFECT_CLIENT_MAX_RETRIES="0")
    assert cut_off.returncode == 1
    unavailable = "UnavailableError: Prefect's API does not answer" in cut_off.stderr
    assert unavailable == (moment == "before"), cut_off.stderr[-3000:]
    asking = records.read_history(registry).last
    prefect_server.kill()
    prefect_server.start()
    went_on = monitored("never")

    assert went_on.returncode == 0, went_on.stderr[-2000:]
    assert asking.verdict.decision.action == "retrain"
    assert len(registry.search("tags.kind = 'batch'")) == before + 2
    found = httpx.post(f"{api}/flow_runs/filter", json={}).json()
    (retrain,) = [run for run in found if run["deployment_id"]]
    assert retrain["parameters"]["episode"] == asking.verdict.decision.episode
