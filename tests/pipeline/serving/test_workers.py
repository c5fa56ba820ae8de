import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException

import psutil
import pytest

from pipeline.data.captures import read_captures

pytestmark = pytest.mark.integration


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def is_worker(process):
    try:
        return "spawn_main" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # or it has ended, and its parent does not know it yet
        return False


class Workers:
    """A server of the model with two workers, in processes of its own."""

    def __init__(self, bundle, store, log, **environment):
        self.port, self.log = free_port(), log
        own = {
            "MODEL_DIR": str(bundle),
            "HOLDFAST__SERVING__PORT": str(self.port),
            "HOLDFAST__SERVING__CAPTURES": str(store),
            "HOLDFAST__SERVING__WORKERS": "2",
        }
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pipeline.serving"],
                env=os.environ | own | environment,
                stderr=file,
            )

    @property
    def workers(self):
        """Processes that answer; a helper of multiprocessing is not one of them."""
        return [one for one in psutil.Process(self.process.pid).children() if is_worker(one)]

    def listening(self):
        found = [
            one.pid
            for one in self.workers
            if any(place.status == "LISTEN" for place in one.net_connections())
        ]
        assert self.process.poll() is None, self.log.read_text()
        return found

    def ask(self, method, path, content=None):
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        body = None if content is None else json.dumps(content)
        connection.request(method, path, body, {"content-type": "application/json"})
        answer = connection.getresponse()
        read = answer.read()
        connection.close()
        return answer.status, read

    def metric(self, name):
        _, page = self.ask("GET", "/metrics")
        return sum(float(one) for one in re.findall(rf"(?m)^{name} (\S+)$", page.decode()))


@pytest.fixture
def start(bundle, tmp_path):
    @contextmanager
    def starting(**environment):
        server = Workers(bundle, tmp_path / "captures.db", tmp_path / "log", **environment)
        try:
            until(lambda: len(server.listening()) == 2)
            yield server
        finally:
            family = server.workers if server.process.poll() is None else []
            server.process.kill()
            server.process.wait()
            psutil.wait_procs(family, timeout=20)

    return starting


class Clients:
    """Clients that send one row at a time; what was answered, and what failed."""

    def __init__(self, port, row, n=6):
        self.keys, self.failed, self.stop = [], [], threading.Event()
        self.threads = [threading.Thread(target=self.send, args=(port, row, i)) for i in range(n)]

    def send(self, port, row, client):
        connection, i = HTTPConnection("127.0.0.1", port, timeout=30), 0
        while not self.stop.is_set():
            key, i = f"{client}-{i}", i + 1
            try:
                body = json.dumps({"rows": [row], "keys": [key]})
                connection.request("POST", "/predict", body, {"content-type": "application/json"})
                answer = connection.getresponse()
                answer.read()
            except (OSError, HTTPException) as error:
                connection.close()
                self.failed.append((key, repr(error)))
                time.sleep(0.01)
                continue
            if answer.status == 200:
                self.keys.append(key)
            else:
                self.failed.append((key, answer.status))
        connection.close()

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join()


def stored(tmp_path):
    return list(read_captures(tmp_path / "captures.db")["holdfast-key"])


def test_two_workers_store_each_answered_row_once_and_count_all_of_them(start, row, tmp_path):
    with start() as server:
        with Clients(server.port, row) as clients:
            until(lambda: len(clients.keys) > 300)
        by_worker = [one.cpu_times().user for one in server.workers]
        time.sleep(1.5)  # each worker tells its counts once a second
        counted = {server.metric("holdfast_rows_total") for _ in range(8)}
        ready = {server.ask("GET", "/ready")[0] for _ in range(4)}
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=30) == 0

    assert clients.failed == []
    assert counted == {len(clients.keys)}
    assert ready == {200}
    assert min(by_worker) > 0
    assert sorted(stored(tmp_path)) == sorted(clients.keys)


def test_labels_that_another_worker_stores_are_of_known_keys(start, row):
    with start() as server:
        for i in range(8):  # a connection each, so that both workers answer some
            server.ask("POST", "/predict", {"rows": [row], "keys": [f"k{i}"]})
        time.sleep(1)
        answers = [
            server.ask("POST", "/labels", {"labels": [{"key": f"k{i}", "target": 1}]})
            for i in range(8)
        ]

    assert {(status, read) for status, read in answers} == {(200, b'{"stored":1,"unknown":0}')}


def test_a_killed_worker_is_started_again_and_loses_no_more_than_a_killed_server(
    start, row, tmp_path
):
    with start() as server:
        killed, kept = server.listening()
        with Clients(server.port, row) as clients:
            until(lambda: len(clients.keys) > 100)
            early = set(clients.keys)
            time.sleep(2)  # rows are written after a quarter of a second; this machine may be busy
            before = server.metric("holdfast_rows_total")
            os.kill(killed, signal.SIGKILL)
            until(lambda: len(server.listening()) == 2 and killed not in server.listening())
        assert kept in server.listening()
        time.sleep(1.5)
        after = server.metric("holdfast_rows_total")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=30) == 0

    there = stored(tmp_path)
    assert len(there) == len(set(there))
    assert early <= set(there)
    # What a client was answered last by the killed worker is lost at most, without a gap.
    failed = dict(key.split("-") for key, _ in clients.failed)
    for client, i in [key.split("-") for key in clients.keys if key not in set(there)]:
        answered = [f"{client}-{j}" for j in range(int(i), int(failed[client]))]
        assert not set(answered) & set(there)
    assert len(clients.failed) <= 6  # each client had one request under way at most
    assert before <= after <= len(clients.keys) + len(clients.failed)
    assert "A worker ended (-9); another one starts." in (tmp_path / "log").read_text()


def test_workers_end_when_their_parent_is_killed(start):
    with start() as server:
        workers = server.workers
        server.process.kill()
        _, alive = psutil.wait_procs(workers, timeout=30)

    assert alive == []
    with socket.create_server(("127.0.0.1", server.port)):
        pass


def test_the_first_worker_that_cannot_serve_ends_the_command_with_its_sentence(bundle, tmp_path):
    (bundle / "manifest.json").write_text("{}")

    server = Workers(bundle, tmp_path / "captures.db", tmp_path / "log")

    assert server.process.wait(timeout=60) == 1
    said = (tmp_path / "log").read_text()
    assert said.count("must be those that were stored") == 1
    assert "Traceback" not in said


def test_a_second_server_does_not_share_the_address(start, bundle, tmp_path):
    with start() as server:
        own = {"HOLDFAST__SERVING__PORT": str(server.port)}
        second = Workers(bundle, tmp_path / "captures.db", tmp_path / "second", **own)
        assert second.process.wait(timeout=60) == 1

    assert "must be an address that is free" in (tmp_path / "second").read_text()


def test_one_server_has_no_parent(bundle, tmp_path):
    server = Workers(
        bundle, tmp_path / "captures.db", tmp_path / "log", HOLDFAST__SERVING__WORKERS="1"
    )
    try:
        listens = psutil.Process(server.process.pid).net_connections
        until(lambda: any(one.status == "LISTEN" for one in listens()))
        assert psutil.Process(server.process.pid).children() == []
    finally:
        server.process.kill()
        server.process.wait()
