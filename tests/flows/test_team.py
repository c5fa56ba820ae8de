"""The services of `compose.yaml` as processes: train, serve, drift, retrain."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psutil
import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from deploy.written import ROOT, composed, last, stages, variables
from flows.steps import opened
from pipeline.registry import champions

pytestmark = [pytest.mark.integration, pytest.mark.team]

PATIENCE = 240
DRIFTED = "2026-03-02"
"""Where the drift of the shop begins; the champion is trained on all that was before."""
HOSTS = re.compile(r"\b(?:postgres|prefect|mlflow|api):(\d{4})\b|0\.0\.0\.0")
PLACES = re.compile(r"(?<![\w/])(?:/run/secrets|/tmp|/state)\b")
PORTS = ("3000", "4200", "5000", "5432", "8000", "8080", "9090")


class Stack:
    """Services of `compose.yaml` on this host: ports are free ones, volumes and secrets folders."""

    def __init__(self, folder):
        self.folder, self.app = folder, folder / "app"
        self.services, self.stages = composed("shop")["services"], stages()
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self.running = {}
        for name in ("flows", "pipeline"):
            shutil.copytree(ROOT / name, self.app / name)
        program = folder / "deploy" / "make-secrets"
        program.parent.mkdir()
        shutil.copy(ROOT / "deploy" / "make-secrets", program)
        subprocess.run([program], check=True)
        for path in (folder / "secrets").glob("*-database"):
            path.write_text(self.here(path.read_text()))

    def here(self, text, state=""):
        """What is written for containers, as it is on this host."""
        text = HOSTS.sub(lambda found: "127.0.0.1" + (f":{found[1]}" if found[1] else ""), text)
        text = re.sub(r"\b\d{4}\b", lambda found: self.ports.get(found[0], found[0]), text)
        places = {"/run/secrets": "secrets", "/tmp": "tmp", "/state": f"volumes/{state}"}  # noqa: S108 -- theirs
        return PLACES.sub(lambda found: str(self.folder / places[found[0]]), text)

    def stage(self, name):
        return self.stages[self.services[name]["image"].removeprefix("holdfast-")]

    def environment(self, name):
        service = self.services[name]
        stage = self.stage(name)
        given = variables(stage) | service.get("environment", {})
        volumes = [one.split(":")[0] for one in service.get("volumes", ()) if ":/state" in one]
        state = volumes[0] if volumes else name
        path = [str(Path(sys.executable).parent), str(ROOT / "deploy"), os.environ["PATH"]]
        own = {"PATH": os.pathsep.join(path), "HOME": "/dev/null/nowhere", "OMP_NUM_THREADS": "1"}
        own["PYTHONPATH"] = str(self.app)
        for folder in (self.folder / "tmp", self.folder / "volumes" / state):
            folder.mkdir(parents=True, exist_ok=True)
        return own | {key: self.here(value, state) for key, value in given.items()}, state

    def start(self, *names):
        for name in names:
            stage = self.stage(name)
            words = self.services[name].get("command") or yaml.safe_load(last(stage, "CMD"))
            environment, state = self.environment(name)
            command = [*yaml.safe_load(last(stage, "ENTRYPOINT"))]
            command += [self.here(word, state) for word in words]
            with (self.folder / f"{name}.log").open("wb") as log:
                self.running[name] = subprocess.Popen(
                    command, cwd=self.app, env=environment, stdout=log, stderr=log
                )

    def until_healthy(self, *names):
        for name in names:
            _, *check = self.services[name]["healthcheck"]["test"]
            command = [self.here(word) for word in check]
            environment, _ = self.environment(name)

            def healthy(command=command, environment=environment):
                done = subprocess.run(command, env=environment, capture_output=True, check=False)
                return done.returncode == 0

            self.until(healthy, name)

    def until(self, done, *names):
        deadline = time.monotonic() + PATIENCE
        while not done():
            for name in names:
                assert self.running[name].poll() is None, self.said(name)
            assert time.monotonic() < deadline, [self.said(name) for name in self.running]
            time.sleep(0.3)

    def said(self, name):
        return f"{name}: {(self.folder / f'{name}.log').read_text(errors='replace')[-3000:]}"

    def end(self):
        for process in self.running.values():
            if process.poll() is None:
                parent = psutil.Process(process.pid)
                for one in [parent, *parent.children(recursive=True)]:
                    with contextlib.suppress(psutil.NoSuchProcess):  # it has ended by itself
                        one.kill()
            process.wait()


def free_ports(number):
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [str(one.getsockname()[1]) for one in taken]
    for one in taken:
        one.close()
    return ports


@contextlib.contextmanager
def postgresql(port, password):
    """A PostgreSQL with its extensions that listens, as the image's; the environment of `psql`."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))  # Debian has it apart
    found = shutil.which("initdb") or (str(installed[-1]) if installed else None)
    assert found, "PostgreSQL is missing: .ci/postgresql installs it."
    folder, binaries = Path(tempfile.mkdtemp(prefix="holdfast-")), Path(found).parent
    user = "postgres" if os.geteuid() == 0 else None
    if user:
        shutil.chown(folder, user)

    def run(program, *words):
        command = [binaries / program, "-D", folder / "data", *words]
        subprocess.run(command, check=True, user=user, cwd=folder, stdout=subprocess.DEVNULL)

    (folder / "password").write_text(password)
    names = ("--username=postgres", f"--pwfile={folder}/password")
    run("initdb", *names, "--auth-local=trust", "--auth-host=scram-sha-256")
    options = f"-h 127.0.0.1 -p {port} -k {folder} -c fsync=off"
    run("pg_ctl", "start", "-w", "-l", folder / "log", "-o", options)
    try:
        path = os.pathsep.join([str(binaries), os.environ["PATH"]])
        yield {"PATH": path, "PGHOST": str(folder), "PGPORT": port}
    finally:
        run("pg_ctl", "stop", "-w", "-m", "immediate")
        shutil.rmtree(folder)


@pytest.fixture
def stack(tmp_path):
    found = Stack(tmp_path)
    secrets = tmp_path / "secrets"
    password = (secrets / "postgres-password").read_text()
    with postgresql(found.ports["5432"], password) as environment:
        subprocess.run(
            [ROOT / "deploy" / "make-databases"],
            env=environment | {"SECRETS": str(secrets)},
            check=True,
        )
        yield found
        found.end()


def make_due_every_half_minute(deployment):
    with get_client(sync_client=True) as client:
        found = client.read_deployment_by_name(deployment)
        # A busy scheduler may come after one moment; it cannot miss all of them.
        often = {"anchor_date": datetime.now(UTC), "interval": timedelta(seconds=30)}
        due = found.schedules[0].schedule.model_copy(update=often)
        client.update_deployment_schedule(found.id, found.schedules[0].id, schedule=due)


def test_a_team_trains_serves_and_retrains_when_a_batch_is_due(stack, write_shop, monkeypatch):
    (stack.folder / "shop").mkdir()
    (stack.app / "conf").mkdir()
    shutil.copy(write_shop(stack.folder / "shop"), stack.app / "conf" / "shop.yaml")
    stack.start("prefect", "mlflow")
    stack.until_healthy("mlflow", "prefect")
    environment, _ = stack.environment("worker")
    for variable, value in environment.items():
        if variable.startswith(("HOLDFAST", "MLFLOW")):
            secret = variable.endswith("__FILE")
            name = variable.removesuffix("__FILE")
            monkeypatch.setenv(name, Path(value).read_text() if secret else value)
    monkeypatch.chdir(stack.app)
    url, account = environment["PREFECT_API_URL"], stack.folder / "secrets" / "prefect-account"
    assert httpx.get(f"{url}/admin/version").status_code == 401
    with temporary_settings({PREFECT_API_URL: url, PREFECT_API_AUTH_STRING: account.read_text()}):
        command = ["with-secrets", "holdfast", "train", "conf/shop.yaml", "--until", DRIFTED]
        subprocess.run(command, cwd=stack.app, env=environment, check=True)
        stack.start("deploy", "worker", "api")
        stack.until(lambda: stack.running["deploy"].poll() == 0)
        stack.until_healthy("worker", "api")
        token = {"Authorization": f"Bearer {(stack.folder / 'secrets/api-token').read_text()}"}
        with httpx.Client(base_url=f"http://127.0.0.1:{stack.ports['8000']}", timeout=30) as api:
            assert api.get("/contract").status_code == 401
            row = api.get("/contract", headers=token).json()["example"]
            before = api.post("/predict", json={"rows": [row]}, headers=token).json()
            make_due_every_half_minute("monitor/shop")

            def retrained():
                return api.get("/version", headers=token).json()["version"] == "2"

            stack.until(retrained, "worker", "api")
            after = api.post("/predict", json={"rows": [row]}, headers=token).json()

    _, registry = opened("conf/shop.yaml")
    assert (before["version"], after["version"]) == ("1", "2")
    assert [change.version for change in champions.changes(registry)][:2] == [1, 2]
    volumes = stack.folder / "volumes"
    assert list((volumes / "artifacts").rglob("golden.parquet"))
    assert not list((volumes / "state").rglob("artifacts/*"))
    secrets = [path.read_text() for path in (stack.folder / "secrets").iterdir()]
    for name in stack.running:
        log = (stack.folder / f"{name}.log").read_text(errors="replace")
        assert "/dev/null" not in log
        assert not [one for one in secrets if one != "[]" and one in log]
