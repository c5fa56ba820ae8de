"""Processes that benchmarks start, and what a process said when it failed."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

WORKERS: Final = 2
SHOWN: Final = 3_000
"""Characters at the end of a failed process's output that are shown."""


class ChildError(RuntimeError):
    """A process that a benchmark started failed; the message ends with what it said last."""

    def __init__(self, what: str, said: str) -> None:
        super().__init__(f"{what}\n{said.strip()[-SHOWN:] or 'It said nothing.'}")


def output(*command: str | Path, **environment: str) -> str:
    """What a command prints on standard output.

    Raises
    ------
    ChildError
        If it cannot be started or fails.
    """
    words = [str(word) for word in command]
    failed = f"`{' '.join(words)}` failed."
    try:
        done = subprocess.run(  # noqa: S603 -- our own commands
            words, env=os.environ | environment, check=False, capture_output=True, text=True
        )
    except OSError as error:
        raise ChildError(failed, str(error)) from error
    if done.returncode:
        raise ChildError(failed, done.stderr)
    return done.stdout


def holdfast(*arguments: object, folder: Path, **environment: str) -> Any:
    """Result of a Holdfast command, which keeps Prefect's state in a folder of the benchmark.

    Raises
    ------
    ChildError
        If the command fails.
    """
    command = ["-m", "flows.cli", *map(str, arguments), "--json", "--verbose"]
    return last_json(output(sys.executable, *command, **own_prefect(folder), **environment))


def own_prefect(folder: Path) -> dict[str, str]:
    """Environment in which Prefect keeps its state below a folder."""
    return {"PREFECT_HOME": str(folder / "prefect")}


def last_json(printed: str) -> Any:
    """The JSON value on the last line of what a process printed."""
    return json.loads(printed.splitlines()[-1])


def side_by_side(work: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """Results of some work on each item, by two processes."""
    return list(_pool().map(work, items))


@cache
def _pool() -> ProcessPoolExecutor:
    """Workers that import libraries anew, as these read the number of threads when imported."""
    return ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn"))


def shut_down() -> None:
    """End the workers of `side_by_side`, if there are any."""
    if _pool.cache_info().currsize:
        _pool().shutdown()
        _pool.cache_clear()
