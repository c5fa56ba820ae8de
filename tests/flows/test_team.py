"""The services of `compose.yaml` as processes: train, serve, drift, retrain, and each is killed."""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from secrets import token_hex

import boto3
import httpx
import psutil
import pytest
import yaml
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from prefect.states import Crashed
from werkzeug.exceptions import Forbidden
from werkzeug.serving import make_server

from deploy.written import ROOT, composed, last, stages, variables
from flows.steps import opened
from pipeline.registry import champions, records

pytestmark = [pytest.mark.integration, pytest.mark.team]

PATIENCE = 240
CALM = ["2026-02-16T00:00", "2026-02-23T00:00"]
DRIFTED = "2026-03-02T00:00"
"""Batches before the drift of the shop, and the batch with which it begins."""
PAGED = {
    "[info] shop: version 1 is the new champion",
    "[warning] shop: performance was lost, retrain requested",
    "[info] shop: version 2 is the new champion",
}
HOSTS = re.compile(r"\b(?:postgres|prefect|mlflow|api):(\d{4})\b|0\.0\.0\.0")
PLACES = re.compile(r"(?<![\w/])(?:/run/secrets|/tmp|/state)\b")
PORTS = ("3000", "4200", "5000", "5432", "8000", "8080", "8081", "9090")
WORKERS = ("worker", "worker-elsewhere")
"""Two hosts: each has a state folder of its own."""
SOONER = {
    "PREFECT_WORKER_QUERY_SECONDS": "2",
    "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "2",
}
"""What keeps the test short: how often is looked for due runs, and for runs that wait."""


class Stack:
    """Services of `compose.yaml` on this host: ports are free ones, volumes and secrets folders."""

    def __init__(self, folder):
        self.folder, self.app = folder, folder / "app"
        self.services = composed("shop", ARTIFACTS="s3://artifacts/team")["services"]
        self.services["worker-elsewhere"] = elsewhere(self.services["worker"])
        self.stages = stages()
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self.running = {}
        for name in ("flows", "pipeline"):
            shutil.copytree(ROOT / name, self.app / name)
        program = folder / "deploy" / "make-secrets"
        program.parent.mkdir()
        shutil.copy(ROOT / "deploy" / "make-secrets", program)
        subprocess.run([program], check=True)
        for path in (folder / "secrets").iterdir():
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
        own |= {"PYTHONPATH": str(self.app)} | SOONER
        for folder in (self.folder / "tmp", self.folder / "volumes" / state):
            folder.mkdir(parents=True, exist_ok=True)
        return own | {key: self.here(value, state) for key, value in given.items()}, state

    def start(self, *names):
        for name in names:
            written = self.services[name].get("command")
            self.run(name, written or yaml.safe_load(last(self.stage(name), "CMD")), on=name)

    def run(self, name, words, *, on):
        """Start a command where a service runs; the process."""
        environment, state = self.environment(on)
        command = [*yaml.safe_load(last(self.stage(on), "ENTRYPOINT"))]
        command += [self.here(word, state) for word in words]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                command, cwd=self.app, env=environment, stdout=log, stderr=log
            )
        return self.running[name]

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

    def secret(self, name):
        return (self.folder / "secrets" / name).read_text()

    def kill(self, name):
        kill(self.running[name].pid)
        self.running[name].wait()

    def restart(self, name):
        self.kill(name)
        self.start(name)
        self.until_healthy(name)

    def end(self):
        for name in self.running:
            self.kill(name)


def elsewhere(worker):
    """A worker on another host: with a state folder of its own."""
    volumes = [one.replace("state:", "state-elsewhere:") for one in worker["volumes"]]
    return yaml.safe_load(yaml.safe_dump(worker | {"volumes": volumes}).replace("8080", "8081"))


def kill(pid):
    """Kill a process and those that it has started, as the end of a container does."""
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        for one in [parent, *parent.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):  # it has ended by itself
                one.kill()


def free_ports(number):
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [str(one.getsockname()[1]) for one in taken]
    for one in taken:
        one.close()
    return ports


class Postgresql:
    """A PostgreSQL with its extensions that listens, as the image's."""

    def __init__(self, port, password):
        installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))  # Debian has it apart
        found = shutil.which("initdb") or (str(installed[-1]) if installed else None)
        assert found, "PostgreSQL is missing: .ci/postgresql installs it."
        self.folder, self.port = Path(tempfile.mkdtemp(prefix="holdfast-")), port
        self.binaries, self.user = Path(found).resolve().parent, None
        if os.geteuid() == 0:
            self.user = "postgres"
            shutil.chown(self.folder, self.user)
        (self.folder / "password").write_text(password)
        names = ("--username=postgres", f"--pwfile={self.folder}/password")
        made = self._run(
            "initdb",
            "--auth-local=trust",
            "--auth-host=scram-sha-256",
            *names,
            stdout=subprocess.DEVNULL,
        )
        assert made.wait() == 0
        self.start()

    def start(self):
        options = ("-h", "127.0.0.1", "-p", self.port, "-k", self.folder, "-c", "fsync=off")
        with (self.folder / "log").open("ab") as log:
            self.process = self._run("postgres", *options, stdout=log, stderr=log)
        ready = [
            self.binaries / "pg_isready",
            "--quiet",
            "--host",
            "127.0.0.1",
            "--port",
            self.port,
        ]
        while subprocess.run(ready, check=False).returncode != 0:
            assert self.process.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.1)

    def kill(self):
        kill(self.process.pid)
        self.process.wait()

    def restart(self):
        self.kill()
        self.start()

    def end(self):
        self.kill()
        shutil.rmtree(self.folder)

    def make_databases(self, secrets):
        path = os.pathsep.join([str(self.binaries), os.environ["PATH"]])
        environment = {"PATH": path, "PGHOST": str(self.folder), "PGPORT": self.port}
        subprocess.run(
            [ROOT / "deploy" / "make-databases"],
            env=environment | {"SECRETS": str(secrets)},
            check=True,
        )

    def _run(self, program, *words, **output):
        command = [self.binaries / program, "-D", self.folder / "data", *words]
        return subprocess.Popen(command, user=self.user, cwd=self.folder, **output)


@pytest.fixture
def bucket():
    """An S3-compatible store that knows one account: the file with it, and what is stored."""
    key, secret = token_hex(8), token_hex(16)
    answer = DomainDispatcherApplication(create_backend_app)

    def known(environ, start):
        signed = environ.get("HTTP_AUTHORIZATION", "") + environ["QUERY_STRING"]
        return (answer if f"Credential={key}" in signed else Forbidden())(environ, start)

    server = make_server("127.0.0.1", 0, known, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.port}"
    client = boto3.client(
        "s3", endpoint_url=address, aws_access_key_id=key, aws_secret_access_key=secret
    )
    client.create_bucket(Bucket="artifacts")
    account = {
        "aws_access_key_id": key,
        "aws_secret_access_key": secret,
        "endpoint_url": address,
    }
    file = "\n".join(["[default]", *(f"{name} = {value}" for name, value in account.items())])
    yield file, lambda: client.list_objects_v2(Bucket="artifacts", Prefix="team/")["Contents"]
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def stack(tmp_path, bucket, receiver):
    found = Stack(tmp_path)
    secrets = tmp_path / "secrets"
    (secrets / "s3-account").write_text(bucket[0])
    (secrets / "alerts").write_text(json.dumps([receiver[1]]))
    found.postgres = Postgresql(found.ports["5432"], found.secret("postgres-password"))
    try:
        found.postgres.make_databases(secrets)
        yield found
    finally:
        found.end()
        found.postgres.end()


def make_due_every_half_minute(deployment):
    with get_client(sync_client=True) as client:
        found = client.read_deployment_by_name(deployment)
        # A busy scheduler may come after one moment; it cannot miss all of them.
        often = {"anchor_date": datetime.now(UTC), "interval": timedelta(seconds=30)}
        due = found.schedules[0].schedule.model_copy(update=often)
        client.update_deployment_schedule(found.id, found.schedules[0].id, schedule=due)


def running(flow):
    """The run of a flow of the shop, if there is one."""
    wanted = {
        "flows": {"name": {"any_": [flow]}},
        "flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}},
    }
    with get_client(sync_client=True) as client, contextlib.suppress(httpx.HTTPError):
        found = client.request("POST", "/flow_runs/filter", json=wanted).json()
        return found[0] if found else None


def test_a_team_loses_nothing_when_each_of_its_services_is_killed_in_turn(
    stack, write_shop, bucket, receiver, monkeypatch
):
    (stack.folder / "shop").mkdir()
    (stack.app / "conf").mkdir()
    shutil.copy(write_shop(stack.folder / "shop"), stack.app / "conf" / "shop.yaml")
    stack.start("prefect", "mlflow")
    stack.until_healthy("mlflow", "prefect")
    monkeypatch.chdir(stack.app)
    with temporary_settings(environment_of_a_worker(stack, monkeypatch)):
        assert httpx.get(f"{PREFECT_API_URL.value()}/admin/version").status_code == 401
        train = ["holdfast", "train", "conf/shop.yaml"]
        assert stack.run("train", train, on="worker").wait() == 0, stack.said("train")
        stack.start("deploy", *WORKERS, "api")
        assert judged_at_once(stack) == CALM
        assert may_move_the_champion(stack) == {None: 401, "ada": 403}
        stack.until(lambda: stack.running["deploy"].poll() == 0)
        stack.until_healthy(*WORKERS, "api")
        token = {"Authorization": f"Bearer {stack.secret('api-token')}"}
        _, registry = opened("conf/shop.yaml")
        with httpx.Client(base_url=f"http://127.0.0.1:{stack.ports['8000']}", timeout=30) as api:
            assert api.get("/contract").status_code == 401
            row = api.get("/contract", headers=token).json()["example"]
            before = api.post("/predict", json={"rows": [row]}, headers=token).json()
            make_due_every_half_minute("monitor/shop")
            with registry.exclusive("monitor"):
                stack.until(lambda: running("monitor"))
                stack.restart("prefect")
                renew_slot(running("monitor"))
                kill_host_of(running("monitor"), stack)
                stack.restart("api")
                stack.until(lambda: running("monitor"))
                stack.kill("mlflow")
            stack.start("mlflow")
            stack.until(lambda: running("train"), *WORKERS)
            stack.postgres.restart()

            def retrained():
                return api.get("/version", headers=token).json()["version"] == "2"

            stack.until(retrained, "prefect", "mlflow", *WORKERS, "api")
            after = api.post("/predict", json={"rows": [row]}, headers=token).json()

    assert (before["version"], after["version"]) == ("1", "2")
    assert [change.version for change in champions.changes(registry)] == [1, 2]
    judged = sorted(run.data.tags["batch"] for run in registry.search(records.BATCHES))
    assert judged[:3] == [*CALM, DRIFTED]
    assert len(judged) == len(set(judged))
    stack.until(lambda: {page["title"] for page in receiver[0]} >= PAGED)
    assert any(one["Key"].endswith("golden.parquet") for one in bucket[1]())
    assert not list((stack.folder / "volumes").rglob("artifacts/*"))
    assert said_in_logs(stack) == []


def environment_of_a_worker(stack, monkeypatch):
    """Have this process ask MLflow as a worker does; the settings with which one asks Prefect."""
    environment, _ = stack.environment("worker")
    for variable, value in environment.items():
        if variable.startswith(("HOLDFAST", "MLFLOW")):
            secret = variable.endswith("__FILE")
            name = variable.removesuffix("__FILE")
            monkeypatch.setenv(name, Path(value).read_text() if secret else value)
    account = stack.secret("prefect-account")
    return {PREFECT_API_URL: environment["PREFECT_API_URL"], PREFECT_API_AUTH_STRING: account}


def judged_at_once(stack):
    """Batches that two hosts judge when they begin at the same time."""
    command = ["holdfast", "monitor", "conf/shop.yaml"]
    names = [f"monitor-on-{host}" for host in WORKERS]
    for name, host in zip(names, WORKERS, strict=True):
        stack.run(name, command, on=host)
    assert [stack.running[name].wait() for name in names] == [0, 0]
    logs = [(stack.folder / f"{name}.log").read_text() for name in names]
    return sorted(re.findall(r"^Batch (\S+) of shop", "".join(logs), re.MULTILINE))


def may_move_the_champion(stack):
    """What MLflow answers to nobody, and to a person who was given an account."""
    address = f"http://127.0.0.1:{stack.ports['5000']}/api/2.0/mlflow"
    ada = {"username": "ada", "password": token_hex(8)}
    owner = ("holdfast", stack.secret("mlflow-password"))
    httpx.post(f"{address}/users/create", json=ada, auth=owner).raise_for_status()
    person = tuple(ada.values())
    alias = {"name": "shop", "alias": "champion", "version": "1"}
    read = httpx.get(f"{address}/registered-models/alias", params=alias, auth=person)
    assert read.json()["model_version"]["version"] == "1"
    asked = {None: None, "ada": person}
    path = f"{address}/registered-models/alias"
    return {name: httpx.post(path, json=alias, auth=who).status_code for name, who in asked.items()}


def renew_slot(run):
    """Do what a long run does every few minutes, and is ended by Prefect if it cannot."""
    lease = run["state"]["state_details"]["deployment_concurrency_lease_id"]
    with get_client(sync_client=True) as client:
        client.request("POST", f"/v2/concurrency_limits/leases/{lease}/renew")


def kill_host_of(run, stack):
    """Kill a run with its worker, say so in Prefect, and start the worker again."""
    (host,) = (name for name in WORKERS if psutil.Process(stack.running[name].pid).children())
    stack.kill(host)
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run["id"], Crashed(message="Its host died."), force=True)
    stack.start(host)


def said_in_logs(stack):
    """Which logs hold a secret, or say that a program looked for its home."""
    files = [path.read_text() for path in (stack.folder / "secrets").iterdir()]
    unsaid = ["/dev/null", *re.findall(r'[0-9a-f]{32,}|json://[^"]+', "\n".join(files))]
    logs = [*stack.folder.glob("*.log"), *stack.folder.glob("volumes/*/logs/*.log")]
    texts = {file.name: file.read_text(errors="replace") for file in logs}
    return [name for name, text in texts.items() if any(one in text for one in unsaid)]
