"""Secrets in every place that takes one: nothing that a whole lifecycle keeps or says shows one."""

import base64
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa
import yaml

pytestmark = [pytest.mark.integration, pytest.mark.team]

ROOT = Path(__file__).parents[2]
PATIENCE = 240
SECRETS = {
    "of the tracking address": "Ml/flow-7q@uri",
    "of the tracking token": "mlflow-t0ken-kw9x",
    "of the account": "prefect-Zq71-auth",
    "of the rows": "rows/Zq72#pw",
    "of rows that are away": "qzvwkxjplm",
    "of the scores": "scores-Zq73-pw",
    "of the locks": "locks-Zq74-pw",
    "of a webhook": "hook-Zq75-pw",
    "in a webhook's path": "T0LDYOUTIiajkdnlazkcOXrId",
    "of a route in the file": "route-Zq76-token",
    "of the API": "api-Zq77-token",
    "of the proxy": "proxy-Zq78@pw",
    "of the object store": "aws/Zq79+secret+key0",
    "of a stranger": "stranger-Zq70-token",
}
"""Values that no other text holds; that of rows that are away is a word that its place tells."""


def forms(secret):
    """The secret as text, quoted for addresses, in JSON, and in base 64 at each place of three."""
    plain = {secret, urllib.parse.quote(secret, safe=""), urllib.parse.quote(secret)}
    plain |= {json.dumps(secret)[1:-1], secret.replace("/", "\\/")}
    encoded = {
        base64.b64encode(b"x" * i + secret.encode() + b"xxx")[4 : 4 * (len(secret) // 3)]
        for i in range(3)
    }
    return {one.encode() for one in plain} | encoded


def shown(data):
    """Names of the secrets that bytes hold, also where they are compressed."""
    texts = [data]
    place = -1
    while (place := data.find(b"\x1f\x8b", place + 1)) >= 0:
        with contextlib.suppress(zlib.error):
            texts.append(zlib.decompressobj(31).decompress(data[place:]))
    return {
        name
        for name, secret in SECRETS.items()
        if any(form in text for text in texts for form in forms(secret))
    }


def shown_in(folder):
    """Names of secrets by the file below a folder that holds them."""
    found = {path: shown(path.read_bytes()) for path in folder.rglob("*") if path.is_file()}
    return {str(path.relative_to(folder)): names for path, names in found.items() if names}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


class Place:
    """A folder in which servers and commands run, and what they said."""

    def __init__(self, folder, postgres):
        self.kept = folder / "kept"
        self.kept.mkdir()
        self.conf = folder / "shop.yaml"
        self.running = {}
        self.ports = {name: free_port() for name in ("mlflow", "prefect", "api")}
        quoted = {name: urllib.parse.quote(one, safe="") for name, one in SECRETS.items()}

        def database(name):
            return postgres.replace("postgres@", f"postgres:{quoted[name]}@")

        self.rows_away = f"postgresql+pg8000://me:{quoted['of rows that are away']}@127.0.0.1:9/db"
        inherited = ("PREFECT", "MLFLOW", "HOLDFAST")
        self.bare = {k: v for k, v in os.environ.items() if not k.startswith(inherited)} | {
            "DO_NOT_TRACK": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "NO_PROXY": "127.0.0.1,localhost",
            "PREFECT_HOME": str(self.kept / "prefect"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PYTHONPATH": str(ROOT),
        }
        account = f"admin:{SECRETS['of the account']}"
        mlflow = f"http://me:{quoted['of the tracking address']}@127.0.0.1"
        self.mlflow_away = f"{mlflow}:9"
        self.environment = self.bare | {
            "AWS_SECRET_ACCESS_KEY": SECRETS["of the object store"],
            "HTTPS_PROXY": f"http://me:{quoted['of the proxy']}@127.0.0.1:9",
            "HOLDFAST__DATA__SCORES__URL": database("of the scores"),
            "HOLDFAST__DATA__TRAIN__URL": database("of the rows"),
            "HOLDFAST__SERVING__PORT": str(self.ports["api"]),
            "HOLDFAST__SERVING__TOKEN": SECRETS["of the API"],
            "HOLDFAST__TRACKING__LOCKS": database("of the locks"),
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
            "MLFLOW_TRACKING_TOKEN": SECRETS["of the tracking token"],
            "MLFLOW_TRACKING_URI": f"{mlflow}:{self.ports['mlflow']}",
            "PREFECT_API_AUTH_STRING": account,
            "PREFECT_API_URL": f"http://127.0.0.1:{self.ports['prefect']}/api",
        }
        self.account = {"PREFECT_SERVER_API_AUTH_STRING": account}

    def start(self, name, health, environment, *command):
        with (self.kept / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *command], cwd=ROOT, env=environment, stdout=log, stderr=log
            )
        self.running[name] = process
        deadline = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"http://127.0.0.1:{self.ports[name]}{health}").is_success:
                    return
            assert process.poll() is None, name
            assert time.monotonic() < deadline, name
            time.sleep(0.2)

    def start_servers(self):
        store = f"--backend-store-uri=sqlite:///{self.kept}/mlflow.db"
        artifacts = f"--artifacts-destination={self.kept}/artifacts"
        for name, health, more, command in (
            ("mlflow", "/health", {}, ("mlflow", "server", "--workers=1", store, artifacts)),
            ("prefect", "/api/health", self.account, ("prefect", "server", "start")),
        ):
            where = ("--host", "127.0.0.1", "--port", str(self.ports[name]))
            self.start(name, health, self.bare | more, *command, *where)

    def run(self, *words, **environment):
        """Run a command; its exit code. What it says is kept."""
        done = subprocess.run(
            [sys.executable, "-m", "flows.cli", *words],
            cwd=ROOT,
            env=self.environment | environment,
            capture_output=True,
            check=False,
        )
        said = b" ".join([word.encode() for word in words[:1]]) + b"\n" + done.stdout + done.stderr
        with (self.kept / "said.txt").open("ab") as file:
            file.write(said)
        return done.returncode

    def keep(self, answer):
        with (self.kept / "answers.txt").open("a") as file:
            file.write(f"{answer.status_code} {answer.headers}\n{answer.text}\n")
        return answer.status_code

    def end(self, *names):
        for name in names or tuple(self.running):
            process = self.running.pop(name)
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)


@pytest.fixture
def place(tmp_path, postgres, make_shop_rows, write_shop, receive):
    write_shop(tmp_path)
    found = Place(tmp_path, postgres)
    values = yaml.safe_load(found.conf.read_text())
    rows = {"kind": "sql", "query": "SELECT * FROM shop", "url": "sqlite://"}
    values["data"] |= {"train": rows, "scores": {"kind": "sql", "url": "sqlite://", "table": "s"}}
    values["tracking"] = {"folder": str(found.kept / "state")}
    found.hook = receive("answers 500")
    hook = f"127.0.0.1:{found.hook.server_port}"
    path, route = SECRETS["in a webhook's path"], SECRETS["of a route in the file"]
    values["alerts"] = {"routes": [{"url": f"json://me:{route}@{hook}/x?token={route}"}]}
    found.conf.write_text(yaml.safe_dump(values))
    url = f"json://user:{SECRETS['of a webhook']}@{hook}/{path}"
    found.environment["HOLDFAST__ALERTS__URLS"] = json.dumps([url])
    engine = sa.create_engine(postgres)
    make_shop_rows().to_sql("shop", engine, index=False, if_exists="replace")
    engine.dispose()
    yield found
    found.end()


def ask(place):
    """Requests good and bad to the API."""
    address, row = f"http://127.0.0.1:{place.ports['api']}", None
    token = {"Authorization": f"Bearer {SECRETS['of the API']}"}
    stranger = {"Authorization": f"Bearer {SECRETS['of a stranger']}"}
    with httpx.Client(base_url=address, timeout=60) as api:
        contract = api.get("/contract", headers=token)
        row = contract.json()["example"]
        for path in ("/contract", "/version", "/metrics", "/openapi.json", "/ready"):
            place.keep(api.get(path, headers=token))
            place.keep(api.get(path))
        good = api.post("/predict", json={"rows": [row], "keys": ["k"]}, headers=token)
        assert place.keep(good) == 200
        wrong = api.post("/predict", json={"rows": [{**row, "amount": "x"}]}, headers=token)
        assert place.keep(wrong) == 422
        assert place.keep(api.post("/predict", json={"rows": [row]}, headers=stranger)) == 401
        asked = f"/nothing?token={SECRETS['of a stranger']}"
        assert place.keep(api.get(asked, headers=token)) == 404
        place.end("mlflow")
        time.sleep(3)  # the server finds its registry away
        place.keep(api.get("/ready", headers=token))
        place.keep(api.get("/metrics", headers=token))


def test_no_byte_that_a_lifecycle_keeps_or_says_shows_a_secret(place):
    conf = str(place.conf)
    place.start_servers()

    assert place.run("check", conf) == 0
    assert place.run("train", conf, "--verbose") == 0
    assert place.run("deploy", conf) == 0
    assert place.run("replay", conf) == 0  # drift, a retrain, and pages that nobody takes
    assert place.run("score", conf, "--start", "2026-03-01") == 0
    away = {"HOLDFAST__DATA__TRAIN__URL": place.rows_away}
    gone = {"MLFLOW_TRACKING_URI": place.mlflow_away}
    with ThreadPoolExecutor() as pool:  # they retry for two minutes
        failing = pool.submit(place.run, "train", conf, "--verbose", **away)
        waiting = pool.submit(place.run, "monitor", conf, "--verbose", **gone)
        assert place.run("page", conf, "--test") == 1
        assert place.run("doctor", conf, "--json") == 0
        assert place.run("train", conf, "--token", SECRETS["of the API"]) == 2
        assert (failing.result(), waiting.result()) == (1, 1)
    place.environment["HOLDFAST__SERVING__POLL"] = "1s"
    place.start("api", "/live", place.environment, "flows.cli", "serve", conf)
    ask(place)
    place.end("prefect")
    assert place.run("monitor", conf) == 1
    place.end()

    assert place.hook.got
    kept = {path.name for path in place.kept.rglob("*")}
    assert {"mlflow.db", "prefect.db", "holdfast.log", "shop.db", "said.txt", "card.html"} <= kept
    assert shown_in(place.kept) == {}


def test_the_search_finds_a_planted_secret_in_every_form(tmp_path):
    secret = SECRETS["of the tracking address"]
    account = base64.b64encode(f"me:{secret}".encode())
    texts = {
        "plain": secret.encode(),
        "quoted": urllib.parse.quote(secret, safe="").encode(),
        "account": b"Authorization: Basic " + account,
        "packed": b"head" + zlib.compress(b"x " + secret.encode(), wbits=31),
    }
    for name, text in texts.items():
        (tmp_path / name).write_bytes(b"before " + text + b" after")
    (tmp_path / "none").write_bytes(b"Ml/flow-7q***")

    assert shown_in(tmp_path) == {name: {"of the tracking address"} for name in texts}
