"""Work in processes of its own, two at a time, each with one thread and no server."""

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from pipeline import errors

Say = Callable[[], None]
WORKERS: Final = 2
_COMMAND: Final = (sys.executable, "-c", "from flows.processes import main; main()")
_SERVERS: Final = ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
_SHOWN: Final = 300
"""Characters of what a process wrote last that an error shows."""


class Work(NamedTuple):
    """What a process does.

    Attributes
    ----------
    call : callable
        Called with a function to call after each step; what it returns has to be plain JSON.
    folder : Path
        Where Prefect keeps its state, and where `log` keeps what the process writes.
    """

    call: Callable[[Say], Any]
    folder: Path


def side_by_side(works: Sequence[Work], say: Say) -> list[Any]:
    """Do works in processes of their own, two at a time, and return their results.

    If one fails, the others are ended. Processes that are ended leave what they kept on disk.

    Parameters
    ----------
    works : sequence of Work
        What to do.
    say : callable
        Called after each step of any of them.

    Raises
    ------
    PipelineError
        As the first work that failed raised it.
    RuntimeError
        If a process ended without a result; the message ends with what it wrote last.
    """
    running: list[subprocess.Popen[bytes]] = []
    with ThreadPoolExecutor(WORKERS) as pool, _ended(running):
        futures = [pool.submit(_finished, work, say, running) for work in works]
        done, waiting = wait(futures, return_when=FIRST_EXCEPTION)
        for future in waiting:
            future.cancel()
        for future in done:
            future.result()
        return [future.result() for future in futures]


@contextmanager
def _ended(running: list[subprocess.Popen[bytes]]) -> Iterator[None]:
    """End all processes at the end, whatever happened."""
    try:
        yield
    finally:
        for process in running:
            with suppress(OSError):
                process.terminate()


def _finished(work: Work, say: Say, running: list[subprocess.Popen[bytes]]) -> Any:
    work.folder.mkdir(parents=True, exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if name not in _SERVERS}
    own = {"OMP_NUM_THREADS": "1", "PREFECT_HOME": str(work.folder / "prefect")}
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), kept.get("PYTHONPATH")]))
    log = work.folder / "log"
    with (
        log.open("w") as written,
        subprocess.Popen(  # noqa: S603 -- our own command
            _COMMAND,
            env=kept | own | {"PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=written,
        ) as process,
    ):
        running.append(process)
        assert process.stdin is not None  # noqa: S101 -- a pipe, as asked for
        assert process.stdout is not None  # noqa: S101
        with process.stdin as given:
            pickle.dump(work.call, given)
        last = b""
        for line in process.stdout:
            last = line.strip()
            if not last:
                say()
    if not last:
        said = " ".join(log.read_text(errors="replace").split())[-_SHOWN:]
        message = f"A process ended with code {process.returncode}: {said}"
        raise RuntimeError(message)
    answer = json.loads(last)
    if "error" in answer:
        raise getattr(errors, answer["kind"])(answer["error"])
    return answer["result"]


def main() -> None:
    """Do the work that standard input holds; a line for each step, and the result at the end."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # libraries print as well
    call = pickle.load(sys.stdin.buffer)  # noqa: S301 -- written by the process above
    try:
        answer = {"result": call(lambda: print(file=answers))}
    except errors.PipelineError as error:
        answer = {"error": str(error), "kind": type(error).__name__}
    print(json.dumps(answer), file=answers)
