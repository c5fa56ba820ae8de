"""What a team runs: Prefect server, MLflow server and a worker, as one foreground process.

``python -m flows.up conf/flights.yaml``; Ctrl-C or SIGTERM stops everything that it started.
"""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from argparse import ArgumentParser
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from types import FrameType
from typing import Final

from pipeline.config import Settings
from pipeline.errors import ConfigError, UnavailableError

ROOT: Final = Path(__file__).resolve().parents[1]
HOST: Final = "127.0.0.1"
POOL: Final = "holdfast"
NOW: Final = 2  # requests to end
SET_CHILD_SUBREAPER: Final = 36  # of prctl(2)
PATIENCE: Final = 180.0  # seconds for a cold start on a busy machine
GRACE: Final = 40.0  # seconds to end; a worker gives its runs 30


class Stopped(Exception):  # noqa: N818 -- no error: somebody asked for the end
    """The end was asked for."""


@dataclass
class Children:
    """The processes this one answers for, each with its own group and log."""

    logs: Path
    env: Mapping[str, str]
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    asked: int = 0  # to end: once is please, Ctrl-C after that is now

    def __post_init__(self) -> None:
        # A child ignores what its parent ignores, as `make up &` in a script ignores SIGINT, and
        # then a worker never stops. What the parent handles, the child gets back as default.
        signal.signal(signal.SIGINT, self._hear)
        signal.signal(signal.SIGTERM, self._hear)
        if sys.platform == "linux":  # orphans, such as a killed worker's runs, become ours
            ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def start(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        """Start `python -m <command>`."""
        with self._log(name).open("wb") as log:
            self.running[name] = subprocess.Popen(  # noqa: S603 -- our own commands
                [sys.executable, "-m", *command],
                cwd=ROOT,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self.running[name]

    def run(self, name: str, *command: str) -> None:
        """Run `python -m <command>` to its good end."""
        process = self.start(name, *command)
        self.wait(name, lambda: process.poll() == 0)
        del self.running[name]

    def wait(self, name: str, ready: Callable[[], bool], patience: float = PATIENCE) -> None:
        """Wait for one child, unless somebody asks for the end or any child dies."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            dead = [n for n, process in self.running.items() if process.poll() is not None]
            if self.asked:
                raise Stopped
            if ready():
                return
            if dead:
                raise UnavailableError(self._obituary(dead[0]))
            time.sleep(0.2)
        message = f"{name} must be ready within {patience:g} s, and is not."
        raise UnavailableError(f"{message} See {self._log(name)}.")

    def stop(self) -> None:
        """Ask all to end, the youngest first, then kill whatever is left of them."""
        for process in reversed(self.running.values()):
            _signal_group(process.pid, signal.SIGTERM)
            deadline = time.monotonic() + GRACE
            while process.poll() is None and self.asked < NOW and time.monotonic() < deadline:
                time.sleep(0.1)
        for group in _groups_below(os.getpid()) | {p.pid for p in self.running.values()}:
            _signal_group(group, signal.SIGKILL)

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        self.asked = self.asked + 1 if number == signal.SIGINT else max(self.asked, 1)

    def _log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def _obituary(self, name: str) -> str:
        last = self._log(name).read_text(errors="replace").splitlines()[-15:]
        code = self.running[name].returncode
        return "\n  ".join([f"{name} ended with exit code {code}. Its last lines:", *last])


def main() -> int:
    """Start everything, wait for the end, stop everything."""
    parser = ArgumentParser(prog="python -m flows.up", description=__doc__)
    parser.add_argument("conf", nargs="*", default=["conf/flights.yaml"])
    try:
        models = [Settings.load(path) for path in parser.parse_args().conf]
        ports = _free_port("PREFECT", 4200), _free_port("MLFLOW", 5000)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    state = (ROOT / models[0].tracking.folder).resolve()
    (state / "logs").mkdir(parents=True, exist_ok=True)
    children = Children(state / "logs", _environment(state, *ports))
    try:
        _start(children, state, *ports)
        print(_welcome(models, *ports), flush=True)  # noqa: T201 -- for the person who started it
        children.wait("the end", lambda: False, inf)
    except UnavailableError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except Stopped:
        print("Stopping.", flush=True)  # noqa: T201 -- the same
    finally:
        children.stop()
    return 0


def _start(children: Children, state: Path, prefect: int, mlflow: int) -> None:
    api, listen = f"http://{HOST}:{prefect}/api", ("--host", HOST, "--port")
    store = f"--backend-store-uri=sqlite:///{state}/mlflow.db"
    # Plain paths, so that the same runs can be read without a server as well.
    artifacts = f"--default-artifact-root={(state / 'artifacts').as_uri()}"
    children.start("prefect", "prefect", "server", "start", *listen, str(prefect))
    children.start(
        "mlflow",
        "mlflow",
        "server",
        *listen,
        str(mlflow),
        "--workers=1",
        store,
        artifacts,
        "--no-serve-artifacts",
    )
    children.wait("prefect", lambda: bool(_ask(f"{api}/health")))
    pool = ("work-pool", "create", POOL, "--type=process", "--overwrite")
    children.run("pool", "prefect", "--no-prompt", *pool)
    children.run("deploy", "prefect", "--no-prompt", "deploy", "--all")
    _bury_runs(api)
    name = f"up-{time.time_ns()}"  # an earlier worker counts as online for a while
    children.start("worker", "prefect", "worker", "start", f"--pool={POOL}", f"--name={name}")
    workers = f"{api}/work_pools/{POOL}/workers/filter"
    children.wait("worker", lambda: name.encode() in _ask(workers, b"{}"))
    children.wait("mlflow", lambda: bool(_ask(f"http://{HOST}:{mlflow}/health")))


def _bury_runs(api: str) -> None:
    # Whatever an earlier worker left unfinished is dead, and would keep its deployment's only slot.
    states = {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}}
    query = {"flow_runs": states, "work_pools": {"name": {"any_": [POOL]}}}
    crashed = {"state": {"type": "CRASHED", "message": "It ended with its worker."}}
    for run in json.loads(_ask(f"{api}/flow_runs/filter", json.dumps(query).encode()) or b"[]"):
        _ask(f"{api}/flow_runs/{run['id']}/set_state", json.dumps(crashed).encode())


def _ask(url: str, body: bytes | None = None) -> bytes:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 -- http, ours
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with suppress(OSError), direct.open(request, timeout=5) as response:
        return bytes(response.read())
    return b""


def _environment(state: Path, prefect: int, mlflow: int) -> dict[str, str]:
    defaults = {
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PREFECT_HOME": f"{state}/prefect",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "pipeline",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
    }
    ours = {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_TRACKING_URI": f"http://{HOST}:{mlflow}",
        "PREFECT_API_URL": f"http://{HOST}:{prefect}/api",
        "PYTHONPATH": str(ROOT),
    }
    return defaults | os.environ | ours


def _free_port(server: str, default: int) -> int:
    variable = f"HOLDFAST_{server}_PORT"
    given = os.environ.get(variable) or str(default)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, int(given)))
            return int(probe.getsockname()[1])
        except (OSError, OverflowError, ValueError) as error:
            message = f"{variable} must be a free port. Got {given} ({error})."
            raise ConfigError(f"{message} Free it, or set {variable} to another.") from error


def _groups_below(pid: int) -> set[int]:
    below: dict[int, list[tuple[int, int]]] = {}  # nothing where there is no /proc
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent, group = map(int, stat.read_text().rpartition(")")[2].split()[1:3])
            below.setdefault(parent, []).append((int(stat.parent.name), group))
    groups: set[int] = set()
    todo = [pid]
    while todo:
        for child, group in below.get(todo.pop(), []):
            groups.add(group)
            todo.append(child)
    return groups - {os.getpgid(0)}


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)


def _welcome(models: list[Settings], prefect: int, mlflow: int) -> str:
    run = ".venv/bin/prefect deployment run"
    names = [f"{flow}/{model.name}" for model in models for flow in ("train", "monitor")]
    runs = "\n".join(f"  {run} {name} --watch" for name in names)
    return f"""\
Prefect  http://{HOST}:{prefect}
MLflow   http://{HOST}:{mlflow}
Ctrl-C stops everything. In another terminal:
  export PREFECT_API_URL=http://{HOST}:{prefect}/api
{runs}"""


if __name__ == "__main__":
    sys.exit(main())
