"""What a team runs: Prefect server, MLflow server and a worker, as one foreground process.

Ctrl-C or SIGTERM stops everything that was started.
"""

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from types import FrameType
from typing import Final

import psutil

from flows import DEFAULTS
from flows.models import POOL, load
from pipeline.config import Settings
from pipeline.errors import ConfigError, UnavailableError
from pipeline.registry import stores

HOST: Final = "127.0.0.1"
NOW: Final = 2  # requests to end
SET_PDEATHSIG: Final = 1  # of prctl(2), as the next
SET_CHILD_SUBREAPER: Final = 36
PATIENCE: Final = 180.0  # seconds for a cold start on a busy machine
GRACE: Final = 40.0  # seconds to end; a worker gives its runs 30
KILLED: Final = 5.0  # seconds after which a killed process must be gone


class Stopped(Exception):  # noqa: N818 -- not an error
    """Somebody asked for the end."""


@dataclass
class Children:
    """Child processes, each with its own process group and log file."""

    logs: Path
    env: Mapping[str, str]
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    asked: int = 0  # how often somebody asked for the end; Ctrl-C a second time kills

    def __post_init__(self) -> None:
        # A child ignores signals that its parent ignores, and a shell makes `make up &` ignore
        # SIGINT: its worker would never stop. Signals that the parent handles are reset in a child.
        signal.signal(signal.SIGINT, self._hear)
        signal.signal(signal.SIGTERM, self._hear)
        if sys.platform == "linux":  # orphans, such as a killed worker's runs, become children
            ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def start(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        """Start `python -m <command>`."""
        with self._log(name).open("wb") as log:
            self.running[name] = subprocess.Popen(  # noqa: S603 -- our own commands
                [sys.executable, "-m", *command],
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent,  # noqa: PLW1509 -- there is one thread
            )
        return self.running[name]

    def run(self, name: str, *command: str) -> None:
        """Run `python -m <command>` until it ends with exit code 0."""
        process = self.start(name, *command)
        self.wait(name, lambda: process.poll() == 0)
        del self.running[name]

    def said(self, name: str) -> str:
        """What a child has printed so far."""
        return self._log(name).read_text(errors="replace")

    def wait(self, name: str, ready: Callable[[], bool], patience: float = PATIENCE) -> None:
        """Wait until a child is ready; raise if any child dies or somebody asks for the end."""
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
        message = f"{name} is not ready after {patience:g} seconds. See {self._log(name)}."
        raise UnavailableError(message)

    def stop(self) -> None:
        """Ask all children to end, the youngest first, then kill all descendants that are left."""
        for process in reversed(self.running.values()):
            _signal_group(process.pid, signal.SIGTERM)
            deadline = time.monotonic() + GRACE
            while process.poll() is None and self.asked < NOW and time.monotonic() < deadline:
                time.sleep(0.1)
        for process in self.running.values():
            _signal_group(process.pid, signal.SIGKILL)
        _kill_descendants()

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        self.asked = self.asked + 1 if number == signal.SIGINT else max(self.asked, 1)

    def _log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def _obituary(self, name: str) -> str:
        last = self._log(name).read_text(errors="replace").splitlines()[-15:]
        code = self.running[name].returncode
        return "\n  ".join([f"{name} ended with exit code {code}. Its last lines:", *last])


def up(conf: Sequence[str] = ()) -> None:
    """Start everything, wait for Ctrl-C, SIGTERM or a failure, and stop everything.

    Parameters
    ----------
    conf : sequence of str
        The models' YAML files; by default all of the folder ``conf``. State is kept in the folder
        of the first model.

    Raises
    ------
    ConfigError
        If a file or a port cannot be used; nothing is started then.
    UnavailableError
        If a server does not start, or ends.
    """
    models = load(conf)
    ports = _free_port("PREFECT", 4200), _free_port("MLFLOW", 5000)
    state = models[0].tracking.folder.resolve()
    (state / "logs").mkdir(parents=True, exist_ok=True)
    children = Children(state / "logs", _environment(state, *ports))
    try:
        _start(children, state, *ports)
        children.run("deploy", "flows.cli", "deploy", *(model.conf for model in models))
        children.start("watch", "flows.cli", "watch", *(model.conf for model in models))
        print(_welcome(children, models, *ports), flush=True)  # noqa: T201 -- for the person who started it
        children.wait("the end", lambda: False, inf)
    except Stopped:
        print("Stopping.", flush=True)  # noqa: T201 -- for the person who stopped it
    finally:
        children.stop()


def _start(children: Children, state: Path, prefect: int, mlflow: int) -> None:
    api, listen = f"http://{HOST}:{prefect}/api", ("--host", HOST, "--port")
    database = state / "mlflow.db"
    if database.is_file():
        stores.follow(database)
    store = f"--backend-store-uri=sqlite:///{database}"
    # Plain paths, so that the runs can be read without a server as well.
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
    _bury_runs(api)
    name = f"up-{time.time_ns()}"  # an earlier worker still counts as online for a while
    pool = (f"--pool={POOL}", "--type=process", f"--name={name}")
    children.start("worker", "prefect", "worker", "start", *pool)
    workers = f"{api}/work_pools/{POOL}/workers/filter"
    children.wait("worker", lambda: name.encode() in _ask(workers, b"{}"))
    children.wait("mlflow", lambda: bool(_ask(f"http://{HOST}:{mlflow}/health")))


def _bury_runs(api: str) -> None:
    # Runs that an earlier worker left unfinished are dead, and would block their deployments.
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
        **DEFAULTS,
        "PREFECT_HOME": f"{state}/prefect",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
    }
    ours = {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_TRACKING_URI": f"http://{HOST}:{mlflow}",
        "PREFECT_API_URL": f"http://{HOST}:{prefect}/api",
        "PYTHONPATH": os.pathsep.join(
            [str(Path.cwd()), *filter(None, [os.environ.get("PYTHONPATH")])]
        ),
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


def _kill_descendants() -> None:
    deadline = time.monotonic() + KILLED
    while time.monotonic() < deadline:  # a process may start another one before it is killed
        left = psutil.Process().children(recursive=True)
        if not left:
            return
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=1)


def _end_with_parent() -> None:
    """Let this process be asked to end when its parent is killed, which can stop nothing itself."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)


def _welcome(children: Children, models: Sequence[Settings], prefect: int, mlflow: int) -> str:
    names = [f"{flow}/{model.name}" for model in models for flow in ("train", "monitor")]
    runs = "\n".join(f"  {_beside('prefect')} deployment run {name} --watch" for name in names)
    return f"""\
Prefect  http://{HOST}:{prefect}
MLflow   http://{HOST}:{mlflow}
{children.said("deploy")}Ctrl-C stops everything. In another terminal:
  export PREFECT_API_URL=http://{HOST}:{prefect}/api
{runs}"""


def _beside(command: str) -> str:
    """A command of this environment as it has to be typed in the current folder."""
    if Path(shutil.which(command) or "").parent == Path(sys.executable).parent:
        return command
    path = Path(sys.executable).with_name(command)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
