"""What a server under attack does to honest clients, to its memory and to its secrets."""

import http.client
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import psutil

from benchmarks import peers
from benchmarks.harness.attacks import attacks
from benchmarks.harness.command import Figures, Goal, Result, at_least, at_most, options, run
from benchmarks.harness.processes import ChildError, last_json
from benchmarks.harness.servers import Row, Server, free_port
from benchmarks.serving import export, requests_of, rows_of
from pipeline.data.captures import read_captures

TOKEN: Final = "s3cret-token"  # noqa: S105 -- looked for in answers and logs
PLANTED: Final = f"http://me:s3cret-password@127.0.0.1:9/?key={TOKEN}"
SECONDS: Final = 6.0
"""How long an attack lasts."""
PAUSE: Final = 0.02
"""Seconds between the requests of an honest client."""
HONEST: Final = 2
PATIENCE: Final = 60.0
MOST_MIB, LATEST, SLOWER = 150, 30, 0.2


def main() -> int:
    parser = options("abuse", __doc__, quick="a second for each attack")
    return run(parser, measure)


class Honest:
    """Clients that send one row at a time during a `with` block.

    Attributes
    ----------
    seconds : list of float
        How long answers took.
    failed : list of str
        What went wrong.
    keys : list of str
        Keys of the rows that were predicted.
    """

    names = itertools.count()

    def __init__(self, port: int, row: Row) -> None:
        self.seconds: list[float] = []
        self.failed: list[str] = []
        self.keys: list[str] = []
        self._port, self._row, self._stop = port, row, threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(HONEST)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        while not self._stop.wait(PAUSE):
            key = f"honest-{next(self.names)}"
            began = time.perf_counter()
            try:
                status = ask(connection, {"rows": [self._row], "keys": [key]})
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                self.failed.append(repr(error))
                continue
            self.seconds.append(time.perf_counter() - began)
            if status == 200:
                self.keys.append(key)
            else:
                self.failed.append(str(status))
        connection.close()


def ask(connection: http.client.HTTPConnection, content: Any) -> int:
    """Send a request of an honest client; the status of its answer."""
    headers = {"content-type": "application/json", "authorization": f"Bearer {TOKEN}"}
    connection.request("POST", "/predict", json.dumps(content), headers)
    answer = connection.getresponse()
    answer.read()
    return answer.status


def measure(seed: int, *, quick: bool) -> Result:
    """Make each attack on our server and then on an echo server, with honest clients beside.

    What else the machine does meanwhile slows both down.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        export(folder, rows_of(5_000, seed), seed)
        [row] = requests_of(rows_of(1, seed + 1))
        seconds = 1.0 if quick else SECONDS
        arguments = (json.dumps(row), TOKEN, str(seed))
        found: dict[str, dict[str, Any]] = {}
        with ours(folder) as server, echo(folder) as other:
            start = server.memory()
            for attack in attacks():
                found[attack] = attacked(server, attack, row, seconds, *arguments)
                found[attack]["echo"] = attacked(other, attack, row, seconds, *arguments)
            time.sleep(1)
            end = server.memory()
            log = os.pread(server.log.fileno(), 100_000_000, 0)
        stored = set(read_captures(folder / "captures.db")["holdfast-key"])
    keys = [key for one in found.values() for key in one.pop("keys")]
    for one in found.values():
        one["slower"] = one["p99"] - one["echo"].pop("p99")
        one["echo"] = {"failed": one["echo"]["failed"]}
    figures: Figures = {
        "attacks": found,
        "memory_mib": {"start": round(start), "end": round(end)},
        "honest": len(keys),
        "lost": len(set(keys) - stored),
        "log_bytes": len(log),
        "log_leaks": log.count(b"s3cret"),
    }
    return figures, goals(figures)


def attacked(
    server: Server, name: str, row: Row, seconds: float, *arguments: str
) -> dict[str, Any]:
    """Run an attack, and measure what it does to a server and its honest clients."""
    command = [sys.executable, "-m", "benchmarks.harness.attacks", name, str(server.port)]
    attack = subprocess.Popen(  # noqa: S603 -- our own command
        [*command, str(seconds), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process, most = psutil.Process(server.process.pid), 0
    with Honest(server.port, row) as honest:
        while attack.poll() is None:
            most = max(most, process.memory_info().rss)
            time.sleep(0.05)
    said, wrong = attack.communicate()
    if attack.returncode:
        raise ChildError(f"The attack {name!r} failed.", wrong)
    report = last_json(said)
    return {
        "p99": float(np.quantile(honest.seconds or [PATIENCE], 0.99)),
        "failed": honest.failed[:5],
        "keys": honest.keys,
        "most_mib": round(most / 2**20),
        "back_s": back(server.port, row),
        **report,
    }


def back(port: int, row: Row) -> float:
    """Seconds until a new client is answered quickly."""
    began = time.monotonic()
    while time.monotonic() - began < PATIENCE:
        asked = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            if ask(connection, {"rows": [row]}) == 200 and time.monotonic() - asked < SLOWER:
                return time.monotonic() - began
        except (OSError, http.client.HTTPException):
            time.sleep(0.1)
        finally:
            connection.close()
    return PATIENCE


def ours(folder: Path) -> Server:
    port = free_port()
    environment = {
        "MODEL_DIR": str(folder),
        "MLFLOW_TRACKING_URI": PLANTED,
        "HOLDFAST__SERVING__PORT": str(port),
        "HOLDFAST__SERVING__TOKEN": TOKEN,
        "HOLDFAST__SERVING__CAPTURES": str(folder / "captures.db"),
    }
    return Server([sys.executable, "-m", "flows.cli", "serve"], port, ready="/ready", **environment)


def echo(folder: Path) -> Server:
    port = free_port()
    command = [sys.executable, str(peers.HERE / "servers.py"), "echo", str(folder), str(port)]
    return Server(command, port, ready="/")


def goals(figures: Figures) -> list[Goal]:
    found = figures["attacks"].values()

    def worst(value: Callable[[dict[str, Any]], float]) -> float:
        return max(map(value, found))

    statuses = sum((Counter(one["statuses"]) for one in found), Counter())
    broken = sum(n for status, n in statuses.items() if int(status) >= 500 and status != "503")
    leaks = sum(sum(one["leaks"].values()) for one in found)
    grown = worst(lambda one: one["most_mib"]) - figures["memory_mib"]["start"]
    return [
        at_least("attacks", len(found), 45),
        at_most("answers with a status of 500 or more, besides 503", broken, 0),
        at_most("secrets and traces in answers and in the log", leaks + figures["log_leaks"], 0),
        at_most("bytes of the longest refusal", worst(lambda one: one["largest"]), 16_384),
        at_most("MiB that the resident set grew, at most", grown, MOST_MIB),
        at_most("seconds until the server was back", worst(lambda one: one["back_s"]), LATEST),
        at_most("honest requests that failed", worst(lambda one: len(one["failed"])), 0),
        at_most("seconds of the honest p99 above echo's", worst(lambda one: one["slower"]), SLOWER),
        at_most("honest rows that were not captured", figures["lost"], 0),
    ]


if __name__ == "__main__":
    sys.exit(main())
