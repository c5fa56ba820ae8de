"""Drift checks of other tools beside ours: one process each, in an environment of its own.

The environments are made at first use and kept. A tool's first check pays for what it imports
late, so a benchmark leaves it out.
"""

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Self, cast

Name = Literal["ours", "evidently", "nannyml", "ks_loop"]

PYTHON = "3.11"
PINS = {
    "evidently": [
        "evidently==0.7.23",
        "numpy==2.4.6",
        "pandas==2.3.3",  # evidently cannot be imported with pandas 3
        "plotly==5.24.1",
        "pyarrow==26.0.1",
        "scikit-learn==1.9.1",
        "scipy==1.17.1",
        "statsmodels==0.15.0",
    ],
    "nannyml": [
        "nannyml==0.13.1",
        "numpy==2.4.6",
        "pandas==3.1.1",
        "pyarrow==26.0.1",
        "scikit-learn==1.9.1",
        "scipy==1.17.1",
        "statsmodels==0.15.0",  # nannyml imports it without asking for it
    ],
    "servers": [
        "fastapi==0.150.0",
        "httptools==0.9.0",
        "mlflow==3.17.2",
        "numpy==2.4.6",
        "pandas==3.1.1",
        "scikit-learn==1.9.1",
        "scipy==1.17.1",
        "uvicorn==0.54.0",
        "uvloop==0.23.0",
        "xgboost==3.2.0",
    ],
}

_HERE = Path(__file__).resolve().parent
_ROOT = _HERE.parents[1]
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
_SILENT = ("DO_NOT_TRACK", "NML_DISABLE_USAGE_LOGGING")


def folder() -> Path:
    """Where environments and logs are; `HOLDFAST_BENCH_ENVS` names another place."""
    return Path(os.environ.get("HOLDFAST_BENCH_ENVS", _ROOT / ".holdfast" / "peers")).resolve()


def environment(name: str) -> Path:
    """Python of a peer's environment, which is made unless a complete one is there.

    Other pins are another environment: their hash is in its name.

    Raises
    ------
    RuntimeError
        If it cannot be made.
    """
    pins = PINS[name]
    short = hashlib.sha256(" ".join(pins).encode()).hexdigest()[:8]
    place = folder() / f"{name}-{short}"
    python, complete = place / "bin" / "python", place / ".complete"
    if not complete.exists():
        shutil.rmtree(place, ignore_errors=True)
        uv = [sys.executable, "-m", "uv"] if importlib.util.find_spec("uv") else ["uv"]
        _run(name, [*uv, "venv", "--quiet", "--python", PYTHON, str(place)])
        _run(name, [*uv, "pip", "install", "--quiet", "--python", str(python), *pins])
        complete.touch()
    return python


def _run(name: str, command: list[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError) as error:
        reason = " ".join(str(getattr(error, "stderr", None) or error).split())
        message = f"The environment of {name} could not be made: {reason}"
        raise RuntimeError(message) from error


def worker(name: Name) -> "Worker":
    """The tool of this name, in its environment or, if it is not a peer's, in this one."""
    return Worker(name, environment(name) if name in PINS else Path(sys.executable))


class Worker:
    """A tool in a process of its own, which a `with` block starts and ends.

    Its libraries are held to one thread. What it writes is in `<name>.log` beside the
    environments.
    """

    def __init__(self, name: str, python: Path) -> None:
        self.name = name
        self.python = python
        self.log = folder() / f"{name}.log"

    def __enter__(self) -> Self:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        settings = {"PYTHONPATH": "" if self.name in PINS else str(_ROOT)}
        with self.log.open("w") as log:
            self._process = subprocess.Popen(  # noqa: S603
                [self.python, _HERE / f"{self.name}_worker.py"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=os.environ | dict.fromkeys((*_ONE_THREAD, *_SILENT), "1") | settings,
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
        """Have one parquet file read, then fitted or checked; the reading is not measured.

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
            resident before, None where the system does not tell. For a check also `alarm`,
            `columns` flagged and, from evidently, `dataset`.

        Raises
        ------
        RuntimeError
            If the tool failed, which ends the worker.
        """
        asked, told = cast("IO[str]", self._process.stdin), cast("IO[str]", self._process.stdout)
        try:
            asked.write(json.dumps(message, default=str) + "\n")
            asked.flush()
            line = told.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            sentence = f"The {self.name} worker ended without an answer; {self.log} says why."
            raise RuntimeError(sentence)
        answer: dict[str, Any] = json.loads(line)
        return answer
