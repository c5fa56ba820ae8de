import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

ROOT = Path(__file__).parents[2]
PATIENCE = 240
HELLO = """
import os, time
from pathlib import Path
from prefect import flow

@flow
def hello(conf: str) -> None:
    Path("said").write_text(os.environ["MLFLOW_TRACKING_URI"])
    time.sleep(600)
"""

CONF = ("--param", "conf=conf/flights.yaml")

pytestmark = [pytest.mark.integration, pytest.mark.team]


class Up:
    """A copy of the project with `holdfast up` running in it."""

    def __init__(self, folder, *conf, **env):
        self.folder = folder
        self.mark = uuid4().hex
        self.out = folder / "out"
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT", "MLFLOW"))}
        ports = {"HOLDFAST_PREFECT_PORT": "0", "HOLDFAST_MLFLOW_PORT": "0"}
        self.env = kept | ports | env | {"PREFECT_HOME": str(folder / "prefect")}
        with self.out.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "flows.cli", "up", *conf],
                cwd=folder,
                env=self.env | {"UP_TEST": self.mark},
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for pid in self.pids():
            os.kill(pid, signal.SIGKILL)
        self.process.wait()

    @property
    def said(self):
        return self.out.read_text()

    def addresses(self):
        wait(lambda: "Ctrl-C stops everything" in self.said or self.process.poll() is not None)
        words = [line.split() for line in self.said.splitlines()]
        return {line[0]: line[1] for line in words if line[0] in {"Prefect", "MLflow"}}

    def pids(self, command=""):
        """Processes alive that inherited the environment of `holdfast up`."""
        found = []
        for process in psutil.process_iter():
            try:
                inherited = process.environ().get("UP_TEST") == self.mark
                if inherited and command in " ".join(process.cmdline()):
                    found.append(process.pid)
            except psutil.Error:  # gone, or somebody else's
                continue
        return found


@pytest.fixture
def folder(tmp_path):
    for name in ("conf", "examples", "flows", "pipeline"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "flows" / "hello.py").write_text(HELLO)
    return tmp_path


def wait(ready):
    deadline = time.monotonic() + PATIENCE
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def status(url):
    with urllib.request.urlopen(url, timeout=30) as response:  # noqa: S310 -- http, local
        return response.status


def prefect(up, addresses, *words):
    subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", *words],
        env=up.env | {"PREFECT_API_URL": f"{addresses['Prefect']}/api"},
        cwd=up.folder,
        check=True,
        timeout=PATIENCE,
    )


def start_hello(up, addresses):
    limit = ("--pool", "holdfast", "--concurrency-limit", "1")
    prefect(up, addresses, "deploy", "flows/hello.py:hello", "-n", "flights", *limit, *CONF)
    prefect(up, addresses, "deployment", "run", "hello/flights")
    wait((up.folder / "said").exists)


@pytest.mark.night
def test_when_a_child_dies_it_says_which_and_stops_the_others(folder):
    with Up(folder) as up:
        start_hello(up, up.addresses())
        (worker,) = up.pids("prefect worker start")

        os.kill(worker, signal.SIGKILL)

        assert up.process.wait(PATIENCE) == 1
        assert "worker ended with exit code -9. Its last lines:\n" in up.said
        wait(lambda: up.pids() == [])


@pytest.mark.night
def test_a_kill_of_the_parent_alone_leaves_no_orphan(folder):
    with Up(folder) as up:
        up.addresses()

        up.process.kill()

        wait(lambda: up.pids() == [])


def test_after_a_crash_it_serves_deploys_and_runs_and_sigterm_leaves_nothing_behind(
    folder, receive
):
    receiver = receive()
    with Up(folder) as up:
        start_hello(up, up.addresses())
        for pid in up.pids():
            os.kill(pid, signal.SIGKILL)
    (folder / "said").unlink()

    with Up(folder, HOLDFAST__ALERTS__URLS=json.dumps([receiver.url])) as up:
        addresses = up.addresses()
        assert addresses.keys() == {"Prefect", "MLflow"}, up.said
        assert "monitor/flights  every 7 days, next 20" in up.said
        assert status(f"{addresses['Prefect']}/api/health") == 200
        assert status(f"{addresses['MLflow']}/health") == 200
        assert f"export PREFECT_API_URL={addresses['Prefect']}/api" in up.said
        start_hello(up, addresses)  # the run that died with its worker does not hold it up
        assert (folder / "said").read_text() == addresses["MLflow"]
        wait(lambda: receiver.taken)
        (page,) = receiver.taken
        assert page["title"] == "[failure] flights: hello crashed"
        assert "Why: It ended with its worker." in page["message"].split("\n")

        up.process.send_signal(signal.SIGTERM)

        assert up.process.wait(PATIENCE) == 0
        assert up.pids() == []


def test_a_second_interrupt_does_not_wait(folder):
    with Up(folder) as up:
        wait(lambda: len(up.pids()) > 2)
        for pid in up.pids():
            if pid != up.process.pid:
                os.kill(pid, signal.SIGSTOP)  # deaf to a polite request

        up.process.send_signal(signal.SIGINT)
        wait(lambda: "Stopping" in up.said)
        up.process.send_signal(signal.SIGINT)

        assert up.process.wait(10) == 0
        wait(lambda: up.pids() == [])


@pytest.mark.parametrize("server", ["PREFECT", "MLFLOW"])
def test_a_taken_port_is_one_sentence_before_anything_starts(folder, server):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        variable = f"HOLDFAST_{server}_PORT"

        with Up(folder, **{variable: str(port)}) as up:
            assert up.process.wait(PATIENCE) == 2

    assert up.said.startswith(f"{variable} must be a free port. Got {port} (")
    assert up.said.count("\n") == 1
    assert not (folder / ".holdfast").exists()


def test_a_port_that_is_no_number_is_one_sentence(folder):
    with Up(folder, HOLDFAST_MLFLOW_PORT="five thousand") as up:
        assert up.process.wait(PATIENCE) == 2

    assert up.said.startswith("HOLDFAST_MLFLOW_PORT must be a free port. Got five thousand (")
