"""Several servers behind one address: a parent that listens, and workers that answer.

Each worker is a whole server in a process of its own. On Linux each listens for itself, and the
system spreads connections over them; of workers that share one socket, one may take them all.
Other systems do not spread them, so there they share the parent's.
"""

import logging
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from multiprocessing.context import SpawnProcess
from pathlib import Path
from threading import Thread
from typing import NoReturn

from pipeline.errors import PipelineError, UnavailableError

_LOG = logging.getLogger(__name__)
_PAUSE = 1.0
"""Seconds before a worker that has ended is started again."""
_SPAWN = get_context("spawn")  # a fork of a process with threads may stop for good


@dataclass(frozen=True)
class Worker:
    """What a worker has from its parent.

    Attributes
    ----------
    address : socket
        Is bound to the address, so that no other program takes it.
    page : Path
        File in which it keeps its metrics, beside those of the other workers.
    """

    address: socket.socket
    page: Path
    _parent: connection.Connection

    def listen(self) -> socket.socket:
        """Take connections from now on, and tell the parent so."""
        listener = self.address
        if sys.platform == "linux":
            place, family = listener.getsockname()[:2], listener.family
            listener = socket.create_server(place, family=family, reuse_port=True)
        with suppress(OSError):  # it waits for the first worker only
            self._parent.send(None)
        return listener

    def has_failed(self, error: PipelineError) -> None:
        """Tell the parent why this worker cannot serve, or else the log."""
        try:
            self._parent.send(error)
        except OSError:
            _LOG.error("%s", error)


Serve = Callable[[Worker], None]


def supervise(n: int, place: tuple[str, int], serve: Serve) -> NoReturn:
    """Run workers until SIGTERM or Ctrl-C; start those again that end before.

    Parameters
    ----------
    n : int
        Number of workers.
    place : tuple of str and int
        Host and port.
    serve : callable
        What a worker does; it can be pickled.

    Raises
    ------
    PipelineError
        If the first worker cannot serve. The others start after it.
    """
    with tempfile.TemporaryDirectory(prefix="holdfast-") as folder, _bound(place) as address:
        pages = [Path(folder) / f"{i}.prom" for i in range(n)]
        workers: list[SpawnProcess] = []
        try:
            workers.append(_first(address, pages[0], serve))
            workers += [_started(address, page, serve)[0] for page in pages[1:]]
            while True:
                connection.wait([worker.sentinel for worker in workers])
                time.sleep(_PAUSE)
                for i, worker in enumerate(workers):
                    if worker.exitcode is not None:
                        _LOG.error("A worker ended (%s); another one starts.", worker.exitcode)
                        workers[i], _ = _started(address, pages[i], serve)
        finally:
            for worker in workers:
                worker.terminate()
            for worker in workers:
                worker.join()


def _bound(place: tuple[str, int]) -> socket.socket:
    """A socket that is bound to a place and does not listen."""
    address = socket.socket(socket.AF_INET6 if ":" in place[0] else socket.AF_INET)
    address.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if sys.platform == "linux":
        address.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    address.bind(place)
    return address


def _first(address: socket.socket, page: Path, serve: Serve) -> SpawnProcess:
    """Start a worker and wait until it is ready."""
    worker, heard = _started(address, page, serve)
    try:
        error = heard.recv()
    except EOFError:
        worker.join()
        message = (
            f"The first worker ended ({worker.exitcode}) before it was ready. The log above may "
            "say why; `--workers 1` serves without workers."
        )
        raise UnavailableError(message) from None
    if error is not None:
        raise error
    return worker


def _started(
    address: socket.socket, page: Path, serve: Serve
) -> tuple[SpawnProcess, connection.Connection]:
    heard, said = _SPAWN.Pipe(duplex=False)
    worker = Worker(address, page, said)
    # Daemons are ended with their parent, wherever a signal meets it.
    process = _SPAWN.Process(target=_work, args=(serve, worker), daemon=True)
    process.start()
    said.close()
    return process, heard


def _work(serve: Serve, worker: Worker) -> None:
    Thread(target=_end_with_parent, daemon=True).start()
    try:
        serve(worker)
    except PipelineError as error:
        worker.has_failed(error)
        raise SystemExit(1) from None


def _end_with_parent() -> None:
    """Stop serving when the parent was killed: the address would stay taken."""
    parent = parent_process()
    assert parent is not None  # noqa: S101 -- only workers call this
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
