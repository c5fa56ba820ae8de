"""Drift checks of other tools beside ours: a process for each, in an environment of its own.

The folders beside this file that hold a pyproject.toml and a uv.lock are the environments. uv
makes them at first use, as the lock files say. A tool's first check pays for what it imports
late, so benchmarks leave it out.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Self, cast

from benchmarks.harness.processes import ChildError, output

Name = Literal["ours", "evidently", "nannyml", "ks_loop"]

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = sorted(lock.parent.name for lock in HERE.glob("*/uv.lock"))
"""Names of the environments that are locked here."""

ROOT = HERE.parents[1]
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
_SILENT = ("DO_NOT_TRACK", "NML_DISABLE_USAGE_LOGGING")
QUIET = dict.fromkeys((*_ONE_THREAD, *_SILENT), "1")
"""Environment of other tools: one thread, and no word to their makers."""


def folder() -> Path:
    """Folder of environments and logs: `.holdfast/peers` unless HOLDFAST_BENCH_ENVS names one."""
    return Path(os.environ.get("HOLDFAST_BENCH_ENVS", ROOT / ".holdfast" / "peers")).resolve()


def environment(name: str) -> Path:
    """Python of a peer's environment, made or changed to what its lock file says.

    Raises
    ------
    ChildError
        If uv fails.
    """
    place = folder() / name
    command = ("sync", "--frozen", "--quiet", "--project", HERE / name, "--python", sys.executable)
    output(sys.executable, "-m", "uv", *command, UV_PROJECT_ENVIRONMENT=str(place))
    return place / "bin" / "python"


def serving() -> Path:
    """Python of an environment with the packages that serve an exported model, and no others.

    Raises
    ------
    ChildError
        If uv fails.
    """
    place = folder() / "serving"
    command = ("sync", "--frozen", "--quiet", "--only-group", "serve", "--project", ROOT)
    python = ("--python", sys.executable)
    compiled = {"UV_COMPILE_BYTECODE": "1", "UV_PROJECT_ENVIRONMENT": str(place)}  # as the image
    output(sys.executable, "-m", "uv", *command, *python, **compiled)
    return place / "bin" / "python"


def varied(name: str, constraints: Iterable[str]) -> Path:
    """Python of an environment that serves any model, with other versions than the lock file's.

    Parameters
    ----------
    name : str
        Of the environment.
    constraints : iterable of str
        Requirements such as ``pandas==3.0.*`` within what the group ``serve-sklearn`` allows; the
        newest that they allow are taken, and all else is as in the lock file where it can be.

    Raises
    ------
    ChildError
        If the group does not allow them, or uv fails.
    """
    place = folder() / "varied" / name.replace(" ", "-")
    place.mkdir(parents=True, exist_ok=True)
    pins, wanted = place / "pins.txt", place / "constraints.txt"
    wanted.write_text("\n".join(constraints))
    group, uv = "serve-sklearn", (sys.executable, "-m", "uv", "--quiet", "--directory", ROOT)
    locked = ("export", "--frozen", "--only-group", group, "--no-hashes", "--output-file", pins)
    output(*uv, *locked)
    newer = ("pip", "compile", "--group", group, "--constraints", wanted, "--output-file", pins)
    output(*uv, *newer, "--python", sys.executable)
    output(*uv, "venv", "--allow-existing", "--python", sys.executable, place / "venv")
    output(*uv, "pip", "sync", "--python", place / "venv", pins)
    return place / "venv" / "bin" / "python"


def worker(name: Name) -> "Worker":
    """A tool's worker, in the tool's environment if it has one and else in this one."""
    return Worker(name, environment(name) if name in ENVIRONMENTS else Path(sys.executable))


class Worker:
    """A tool in a process of its own, which a `with` block starts and ends.

    Its libraries are held to one thread. What it writes to standard error is in `<name>.log`
    beside the environments.
    """

    def __init__(self, name: str, python: Path) -> None:
        self.name = name
        self.python = python
        self.log = folder() / f"{name}.log"

    def __enter__(self) -> Self:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        settings = {"PYTHONPATH": "" if self.name in ENVIRONMENTS else str(ROOT)}
        with self.log.open("w") as log:
            self._process = subprocess.Popen(  # noqa: S603 -- our own script
                [self.python, HERE / f"{self.name}_worker.py"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=os.environ | QUIET | settings,
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Fit the tool to a parquet file's rows or check them; reading them is not measured.

        Parameters
        ----------
        message : dict
            `do` ("reference" or "check") and `path`. A reference may carry options: `block`
            (ours), `chunk` (nannyml: rows of a chunk), `count_only` (evidently: the verdicts
            without the report's plots).

        Returns
        -------
        dict
            `cpu` in seconds of all threads, and `extra_mb`, the peak above the memory that was
            resident before, None where the system does not measure it. For a check also
            `alarm`, `columns` flagged and, from evidently, `dataset`.

        Raises
        ------
        ChildError
            If the tool failed, which ends the worker.
        """
        asked, answers = cast("IO[str]", self._process.stdin), cast("IO[str]", self._process.stdout)
        try:
            asked.write(json.dumps(message, default=str) + "\n")
            asked.flush()
            line = answers.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._process.wait()
            raise ChildError(f"The worker of {self.name} ended.", self.log.read_text())
        answer: dict[str, Any] = json.loads(line)
        return answer
