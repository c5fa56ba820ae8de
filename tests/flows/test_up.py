import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import httpx
import pandas as pd
import psutil
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.paging import event_of
from flows.retrains import outstanding
from flows.steps import opened
from pipeline.registry import champions, records
from pipeline.registry.history import batch_name
from pipeline.registry.versions import CHAMPION
from pipeline.reporting import written_pages

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
CATCH_UP = 1_800
"""Seconds for all runs of a shop on a busy machine."""
UNFINISHED = ["SCHEDULED", "PENDING", "RUNNING", "CANCELLING"]

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
            with contextlib.suppress(ProcessLookupError):
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


def wait(ready, patience=PATIENCE):
    deadline = time.monotonic() + patience
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


class Shop:
    """A shop whose flows `holdfast up` runs; somebody asks for the next run, again and again."""

    def __init__(self, conf, end):
        self.end = pd.Timestamp(end)
        settings, self.registry = opened(str(conf))
        self.outbox = settings.tracking.folder / "pages.db"

    def judged(self):
        """Batches that are recorded; None: no version is champion yet."""
        return records.read_history(self.registry) if self.champion() else None

    def champion(self):
        return self.registry.alias(CHAMPION)

    def goes_on(self, addresses):
        """Ask for the next run unless one is on its way; whether all batches are judged."""
        with (
            temporary_settings({PREFECT_API_URL: f"{addresses['Prefect']}/api"}),
            get_client(sync_client=True) as client,
        ):
            due = {"state": {"type": {"any_": UNFINISHED}}}
            due |= {"expected_start_time": {"before_": datetime.now(UTC)}}
            if client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(due)):
                return False
            history = self.judged()
            if history is not None and history.last is not None and history.last.end >= self.end:
                return outstanding(self.registry, history) is None and not self.waiting()
            flow = "train" if history is None else "monitor"
            found = client.read_deployment_by_name(f"{flow}/shop")
            client.create_flow_run_from_deployment(found.id)
            return False

    def waiting(self):
        """Whether a page is not delivered yet."""
        return bool(written_pages.undelivered(self.outbox, "shop"))


def killed_at_random(shop, up, chance):
    """Kill one process of the tree at a random moment; what it was, if any was there."""
    begun, ready = time.monotonic(), chance.random() < 0.8
    moment = chance.uniform(0, 25 if ready else 12)
    addresses = up.addresses() if ready else {}
    begun = time.monotonic() if ready else begun
    while time.monotonic() < begun + moment and up.process.poll() is None:
        if addresses:
            with contextlib.suppress(httpx.HTTPError):  # a part of it may be on its way down
                shop.goes_on(addresses)
        time.sleep(0.3)
    for pid in chance.sample(found := up.pids(), len(found)):
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            command = " ".join(psutil.Process(pid).cmdline()[1:5])
            os.kill(pid, signal.SIGKILL)
            return command
    return ""


@pytest.mark.parametrize(
    ("kills", "end"), [(2, "2026-03-09"), pytest.param(12, "2026-04-06", marks=pytest.mark.night)]
)
def test_kills_at_random_moments_lose_and_double_nothing(folder, write_shop, receive, kills, end):
    shutil.rmtree(folder / "conf")
    (folder / "conf").mkdir()
    conf = shutil.move(write_shop(folder), folder / "conf")
    receiver, shop = receive(), Shop(conf, end)
    alerts = {"HOLDFAST__ALERTS__URLS": json.dumps([receiver.url])}
    alerts["HOLDFAST__ALERTS__PER_HOUR"] = "1000"  # no page waits for the next hour
    seed = random.randrange(10**6)  # noqa: S311 -- no secret
    chance, done = random.Random(seed), 0  # noqa: S311 -- the same
    print(f"seed {seed}")  # noqa: T201 -- shown if it fails

    while done < kills:
        with Up(folder, **alerts) as up:
            while done < kills and up.process.poll() is None:
                killed = killed_at_random(shop, up, chance)
                print("killed", killed)  # noqa: T201 -- to repeat a failure
                done += bool(killed)
                with contextlib.suppress(subprocess.TimeoutExpired):  # it may not need the process
                    up.process.wait(5)
                if "Its last lines" in up.said:
                    up.process.wait(PATIENCE)
            if up.process.poll() is not None:
                wait(lambda up=up: up.pids() == [])
    with Up(folder, **alerts) as up:
        addresses = up.addresses()
        wait(lambda: shop.goes_on(addresses), CATCH_UP)

    registry, history = shop.registry, shop.judged()
    made = champions.changes(registry)
    assert [change.version for change in made] == [*range(1, len(made) + 1)]
    assert shop.champion().number == len(made)
    runs = [run for run in registry.search("tags.kind != ''") if run.info.status != "KILLED"]
    tags = [run.data.tags for run in runs]
    starts = pd.date_range(made[0].since, end, freq="7D", inclusive="left")
    judged = sorted(one["batch"] for one in tags if one["kind"] == "batch")
    assert judged == [batch_name(start) for start in starts]
    decided = [batch.verdict.decision for batch in history.batches]
    asked = [one.episode for one in decided if one.action == "retrain"]
    trained = sorted(one.get("episode", "") for one in tags if one["kind"] == "training")
    assert trained == ["", *asked]
    pages = written_pages.since(shop.outbox, "shop")
    owed = {f"shop/champion/{change.place:05d}" for change in made}
    due = [one for one in history.batches if one.verdict.decision.action != "none"]
    paged = [event_of(registry, history, one) for one in due if one.verdict.decision.due]
    owed |= {f"shop/{event.kind}/{event.about}" for event in paged}
    assert len(paged) >= 1
    assert owed <= {page["id"] for page in pages}
    arrived = "\n".join(page["message"] for page in receiver.taken)
    assert [page["id"] for page in pages if page["id"] not in arrived] == []
