"""What serving costs beside MLflow's server and the usual FastAPI one, and what it survives."""

import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil

from benchmarks import peers
from benchmarks.goals import Told, at_least, at_most, command
from pipeline import parity
from pipeline.columns import encode, known_categories
from pipeline.config import Categorical, Columns, Numeric
from pipeline.model import Model, build_estimator

PARAMS = {"n_estimators": 300, "max_depth": 6, "n_jobs": 1}
LABELS = ("north", "east", "south", "west")
SIZES = {1: 640, 100: 64, 1_000: 16}
"""Rows of a request, and requests in a round."""
CONNECTIONS = 16
"""Requests that are under way at once."""
ROUNDS = 7


def main() -> int:
    return command("serving", __doc__, PARTS, "fewer rounds")


def rows_of(n: int, seed: int) -> pd.DataFrame:
    """15 numbers and 5 columns of labels, and what they bring about."""
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(random.normal(size=(n, 15)), columns=[f"x{i}" for i in range(15)])
    for i in range(5):
        frame[f"c{i}"] = random.choice(LABELS, n)
    score = frame["x0"] + frame["x1"] * (frame["c0"] == "north") + random.normal(size=n)
    return frame.assign(target=(score > 0).astype(int))


def columns_of(frame: pd.DataFrame) -> Columns:
    features = [name for name in frame if name != "target"]
    return {
        str(name): Categorical(values=LABELS) if str(name).startswith("c") else Numeric()
        for name in features
    }


def write(folder: Path, seed: int) -> Model:
    """Our version of a model, exported."""
    rows = rows_of(20_000, seed)
    columns = columns_of(rows)
    categories = known_categories(rows, columns)
    estimator = build_estimator("xgboost.XGBClassifier", PARAMS, columns, seed=seed)
    estimator.fit(encode(rows, columns, categories), rows["target"])
    model = Model("classification", columns, categories, estimator)
    model.save(folder / "model")
    parity.make(model, rows).save(folder / "golden")
    numbers = [name for name, column in columns.items() if isinstance(column, Numeric)]
    ranges = {name: [rows[name].min(), rows[name].max()] for name in numbers}
    manifest = {"name": "bench", "version": "1", "ranges": ranges}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return model


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Server:
    """A server in processes of its own."""

    def __init__(self, arguments: list[str], port: int, *, ready: str, **settings: str) -> None:
        self.port, self.log = port, tempfile.TemporaryFile()  # noqa: SIM115 -- as long as this
        environment = os.environ | {"OMP_NUM_THREADS": "1"} | settings
        self.process = subprocess.Popen(  # noqa: S603
            arguments, env=environment, stdout=self.log, stderr=self.log
        )
        until = time.monotonic() + 120
        while not self._answers(ready):
            if self.process.poll() is not None or time.monotonic() > until:
                self.process.kill()
                self.log.seek(0)
                raise RuntimeError(self.log.read().decode()[-2000:])
            time.sleep(0.02)
        self.connections = [
            http.client.HTTPConnection("127.0.0.1", port, timeout=60) for _ in range(CONNECTIONS)
        ]

    def _answers(self, ready: str) -> bool:
        one = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            one.request("GET", ready)
            return one.getresponse().status < 500
        except OSError:
            return False
        finally:
            one.close()

    def family(self) -> list[psutil.Process]:
        one = psutil.Process(self.process.pid)
        return [one, *one.children(recursive=True)]

    def cpu(self) -> float:
        times = [one.cpu_times() for one in self.family()]
        return sum(one.user + one.system for one in times)

    def memory(self) -> float:
        """MiB of all its processes; pages that they share count once."""
        return sum(one.memory_full_info().pss for one in self.family()) / 2**20

    def ask(self, route: str, body: bytes) -> bytes:
        """Send a request on every connection; the last answer."""
        for one in self.connections:
            one.request("POST", route, body, {"content-type": "application/json"})
        for one in self.connections:
            answer = one.getresponse()
            told = answer.read()
            if answer.status != 200:
                raise RuntimeError(told[:500])
        return told

    def hang_up(self) -> None:
        """Close the connections; the next request opens them."""
        for one in self.connections:
            one.close()

    def stop(self) -> None:
        self.hang_up()
        family = self.family()
        self.process.terminate()
        _, alive = psutil.wait_procs(family, timeout=10)
        for one in alive:
            one.kill()
        self.process.wait()


@contextmanager
def serving(folder: Path, **settings: str) -> Iterator[Server]:
    """Our server of an exported model, capturing."""
    port = free_port()
    server = Server(
        [sys.executable, "-m", "pipeline.serving"],
        port,
        ready="/ready",
        MODEL_DIR=str(folder),
        HOLDFAST__SERVING__PORT=str(port),
        HOLDFAST__SERVING__CAPTURES=str(folder / "captures.db"),
        **settings,
    )
    try:
        yield server
    finally:
        server.stop()


def peer_servers(folder: Path) -> dict[str, tuple[Callable[[], Server], str]]:
    """How each other server is started, and where it predicts."""
    python = peers.environment("servers")
    script = str(Path(peers.__file__).with_name("servers.py"))

    def started(arguments: list[str], ready: str) -> Callable[[], Server]:
        def start() -> Server:
            port = free_port()
            filled = [one.replace("PORT", str(port)) for one in arguments]
            silent = {"MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONPATH": ""}
            path = f"{python.parent}:{os.environ['PATH']}"
            return Server(filled, port, ready=ready, PATH=path, **silent)

        return start

    mlflow = [str(python.parent / "mlflow"), "models", "serve", "-m", str(folder / "mlflow")]
    mlflow += ["--port", "PORT", "--env-manager", "local", "--workers", "1"]
    api = [str(python), script, "api", str(folder), "PORT"]
    echo = [str(python), script, "echo", str(folder), "PORT"]
    return {
        "mlflow models serve": (started(mlflow, "/ping"), "/invocations"),
        "FastAPI and a DataFrame": (started(api, "/docs"), "/predict"),
        "echo": (started(echo, "/"), "/"),
    }


def prepare(folder: Path, seed: int) -> pd.DataFrame:
    """Both sides' models of the same rows; rows to ask for."""
    rows = rows_of(20_000, seed)
    rows.to_parquet(folder / "rows.parquet")
    (folder / "params.json").write_text(json.dumps(PARAMS))
    columns = {
        name: list(column.values or ()) if isinstance(column, Categorical) else []
        for name, column in columns_of(rows).items()
    }
    (folder / "columns.json").write_text(json.dumps(columns))
    script = Path(peers.__file__).with_name("servers.py")
    subprocess.run(  # noqa: S603
        [peers.environment("servers"), script, "fit", folder], check=True, capture_output=True
    )
    return rows_of(1_000, seed + 1).drop(columns="target")


def cost(seed: int, *, quick: bool) -> Told:
    """CPU of a request, of a start, and memory; captures and metrics on, one worker each."""
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary)
        asked = prepare(folder, seed)
        ours = folder / "ours"
        model = write(ours, seed)
        others = peer_servers(folder)
        servers = {"holdfast": stack.enter_context(serving(ours))}
        routes = {"holdfast": "/predict"}
        for name, (start, route) in others.items():
            servers[name], routes[name] = start(), route
            stack.callback(servers[name].stop)
        bodies = {(name, size): _body(name, asked.head(size)) for name in servers for size in SIZES}
        for name, server in servers.items():
            server.ask(routes[name], bodies[name, 1])
            figures[name] = {"start_cpu_s": server.cpu(), "memory_mib": server.memory()}
        for size, n in SIZES.items():
            spent: dict[str, list[float]] = {name: [] for name in servers}
            for _ in range(2 if quick else ROUNDS):
                for name, server in servers.items():
                    spent[name].append(_spent(server, routes[name], bodies[name, size], n))
            for name, seconds in spent.items():
                figures[name][f"us_{size}"] = statistics.median(seconds[1:]) * 1e6
        predictions = _predictions(servers["holdfast"], bodies["holdfast", 1_000])
        matrix = encode(asked, model.columns, model.categories)
        figures["largest_difference"] = float(
            np.abs(predictions - model.predict_encoded(matrix)).max()
        )
    return figures, _goals(figures)


def _body(name: str, rows: pd.DataFrame) -> bytes:
    if name == "mlflow models serve":
        return json.dumps({"dataframe_split": rows.to_dict("split", index=False)}).encode()
    return json.dumps({"rows": rows.to_dict("records")}).encode()


def _spent(server: Server, route: str, body: bytes, n: int) -> float:
    server.hang_up()  # they may have been idle for too long
    server.ask(route, body)
    before = server.cpu()
    for _ in range(n // CONNECTIONS):
        server.ask(route, body)
    return (server.cpu() - before) / n


def _predictions(server: Server, body: bytes) -> np.ndarray:
    return np.array(json.loads(server.ask("/predict", body))["predictions"])


def _goals(figures: dict[str, Any]) -> list[dict[str, Any]]:
    def ratio(other: str, what: str) -> float:
        return round(figures[other][what] / figures["holdfast"][what], 2)

    mlflow, tutorial = "mlflow models serve", "FastAPI and a DataFrame"
    figures["over_echo"] = {
        size: round(figures["holdfast"][f"us_{size}"] / figures["echo"][f"us_{size}"], 2)
        for size in SIZES
    }
    return [
        at_least("CPU of MLflow over ours, 1 row", ratio(mlflow, "us_1"), 50),
        at_least("CPU of the tutorial over ours, 1 row", ratio(tutorial, "us_1"), 40),
        at_least("CPU of MLflow over ours, 100 rows", ratio(mlflow, "us_100"), 8),
        at_least("CPU of MLflow over ours, 1,000 rows", ratio(mlflow, "us_1000"), 2.5),
        at_least("CPU of a start, MLflow over ours", ratio(mlflow, "start_cpu_s"), 2),
        at_least("memory, MLflow over ours", ratio(mlflow, "memory_mib"), 2),
        at_most("largest difference of a prediction", figures["largest_difference"], 0),
    ]


PARTS: dict[str, Callable[..., Told]] = {"cost": cost}

if __name__ == "__main__":
    raise SystemExit(main())
