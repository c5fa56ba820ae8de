"""Model servers as processes, what they cost, and load on them."""

import http.client
import itertools
import json
import os
import socket
import subprocess
import tempfile
import threading
import time
from types import TracebackType
from typing import Any, Final, Self

import psutil

from benchmarks.harness.processes import ChildError

CONNECTIONS: Final = 16
"""Requests that are under way at once."""
PATIENCE: Final = 120.0
"""Seconds that a server may take to start."""
Row = dict[str, Any]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _listens(process: psutil.Process) -> bool:
    return any(one.status == psutil.CONN_LISTEN for one in process.net_connections())


class Server:
    """A server in processes of its own, ready once constructed; a `with` block stops it.

    Raises
    ------
    ChildError
        If it ends or is not ready in time.
    """

    def __init__(self, command: list[str], port: int, *, ready: str, **environment: str) -> None:
        self.port, self.log = port, tempfile.TemporaryFile()  # noqa: SIM115 -- lives as long as self
        settings = os.environ | {"OMP_NUM_THREADS": "1"} | environment
        self.process = subprocess.Popen(  # noqa: S603 -- our own commands
            command, env=settings, stdout=self.log, stderr=self.log
        )
        until = time.monotonic() + PATIENCE
        while not self._answers(ready):
            if self.process.poll() is not None or time.monotonic() > until:
                self.kill()
                with self.log:
                    self.log.seek(0)
                    said = self.log.read().decode()
                raise ChildError(f"`{' '.join(command)}` did not start.", said)
            time.sleep(0.02)
        self.connections = [
            http.client.HTTPConnection("127.0.0.1", port, timeout=60) for _ in range(CONNECTIONS)
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _answers(self, ready: str) -> bool:
        one = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            one.request("GET", ready)
            return one.getresponse().status < 500
        except (OSError, http.client.HTTPException):
            return False
        finally:
            one.close()

    def family(self) -> list[psutil.Process]:
        """Its process and all that descend from it; none once it has ended."""
        try:
            one = psutil.Process(self.process.pid)
            return [one, *one.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def wait_for(self, n: int) -> None:
        """Wait until so many of its processes take connections."""
        until = time.monotonic() + PATIENCE
        while sum(map(_listens, self.family())) < n and time.monotonic() < until:
            time.sleep(0.1)

    def cpu(self) -> float:
        """CPU seconds of its processes so far."""
        times = [one.cpu_times() for one in self.family()]
        return float(sum(one.user + one.system for one in times))

    def memory(self) -> float:
        """MiB of its resident set; memory that several processes of it share counts once."""
        sizes = [one.memory_full_info() for one in self.family()]
        shared = max(size.rss - size.uss for size in sizes)
        return float(sum(size.uss for size in sizes) + shared) / 2**20

    def ask(self, route: str, body: bytes) -> bytes:
        """Send a request on every connection at once; the last answer."""
        for one in self.connections:
            one.request("POST", route, body, {"content-type": "application/json"})
        for one in self.connections:
            answer = one.getresponse()
            read = answer.read()
            if answer.status != 200:
                raise ChildError(f"{route} answered {answer.status}.", read.decode())
        return read

    def spent(self, route: str, body: bytes, n: int) -> tuple[float, float]:
        """Seconds of CPU and on the clock that each of `n` requests takes on new connections."""
        self.hang_up()  # idle connections may have been closed by the server
        self.ask(route, body)
        cpu, began = self.cpu(), time.perf_counter()
        for _ in range(n // CONNECTIONS):
            self.ask(route, body)
        return (self.cpu() - cpu) / n, (time.perf_counter() - began) / n

    def hang_up(self) -> None:
        """Close the connections; the next request opens them again."""
        for one in self.connections:
            one.close()

    def kill(self) -> None:
        """End it and its processes at once, as if the machine had failed."""
        for one in self.family():
            one.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it and its processes, killing those that go on for ten seconds."""
        self.hang_up()
        family = self.family()
        self.process.terminate()
        _, alive = psutil.wait_procs(family, timeout=10)
        for one in alive:
            one.kill()
        self.process.wait()
        self.log.close()


class Load:
    """Requests of one row each on all connections, by threads, during a `with` block.

    Attributes
    ----------
    versions : dict
        Version that answered, by the key of the request.
    answered : dict
        When each key was answered, in seconds since the epoch.
    failed : list of str
        What went wrong with requests.
    seconds : list of float
        How long requests took.
    """

    def __init__(self, port: int, rows: list[Row]) -> None:
        self.versions: dict[str, str] = {}
        self.answered: dict[str, float] = {}
        self.failed: list[str] = []
        self.seconds: list[float] = []
        self._port, self._rows, self._stop = port, rows, threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(i,)) for i in range(CONNECTIONS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        for thread in self._threads:
            thread.join()

    def stop(self) -> None:
        """Send no more requests; what fails from now on is not counted."""
        self._stop.set()

    def _ask(self, thread: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        name = f"{self._port}-{time.monotonic_ns()}-{thread}"
        for i in itertools.count():
            if self._stop.is_set():
                break
            key, row = f"{name}-{i}", self._rows[(thread + i) % len(self._rows)]
            began = time.perf_counter()
            try:
                body = json.dumps({"rows": [row], "keys": [key]})
                connection.request("POST", "/predict", body, {"content-type": "application/json"})
                answer = connection.getresponse()
                read = answer.read()
            except (OSError, http.client.HTTPException) as error:
                if not self._stop.is_set():
                    self.failed.append(repr(error))
                break
            self.seconds.append(time.perf_counter() - began)
            if answer.status == 200:
                self.versions[key] = json.loads(read)["version"]
                self.answered[key] = time.time()
            else:
                self.failed.append(read.decode()[:200])
        connection.close()
