"""What serving costs beside MLflow's server and the usual FastAPI one, and what it survives."""

import http.client
import itertools
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import psutil
import yaml

from benchmarks import peers
from benchmarks.goals import Told, at_least, at_most, command, python
from pipeline.columns import encode, known_categories
from pipeline.config import Categorical, Columns, Numeric
from pipeline.data.captures import read_captures
from pipeline.training import parity
from pipeline.training.model import Model, build_estimator

PARAMS = {"n_estimators": 300, "max_depth": 6, "n_jobs": 1}
LABELS = ("north", "east", "south", "west")
SIZES = {1: 640, 100: 64, 1_000: 16}
"""Rows of a request, and requests in a round."""
CONNECTIONS = 16
"""Requests that are under way at once."""
ROUNDS = 7


def main() -> int:
    return command("serving", __doc__, PARTS, "fewer rounds and seconds")


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


CONNECTED = 16
MOVES, KILLS = 10, 10
BATCH = pd.Timedelta("1min")


class Load:
    """Requests of one row each on 16 connections, by threads; what was answered, by key."""

    def __init__(self, port: int, rows: list[dict[str, Any]]) -> None:
        self.answers: dict[str, str] = {}
        self.failed: list[str] = []
        self.seconds: list[float] = []
        self.last: dict[str, float] = {}
        self._port, self._rows, self._stop = port, rows, threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(i,)) for i in range(CONNECTED)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        for thread in self._threads:
            thread.join()

    def stop(self) -> None:
        self._stop.set()

    def _ask(self, thread: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        name = f"{self._port}-{time.monotonic_ns()}-{thread}"
        for i in itertools.count():
            if self._stop.is_set():
                break
            key, row = f"{name}-{i}", self._rows[(thread + i) % len(self._rows)]
            began = time.perf_counter()
            try:
                connection.request("POST", "/predict", json.dumps({"rows": [row], "keys": [key]}))
                answer = connection.getresponse()
                told = answer.read()
            except (OSError, http.client.HTTPException) as error:
                if not self._stop.is_set():
                    self.failed.append(repr(error))
                break
            self.seconds.append(time.perf_counter() - began)
            if answer.status == 200:
                self.answers[key] = json.loads(told)["version"]
                self.last[key] = time.time()
            else:
                self.failed.append(told.decode()[:200])
        connection.close()


def registered(folder: Path, seed: int, *, versions: int) -> Path:
    """The conf of a model whose versions all passed the gate, trained in a process of its own."""
    rows = rows_of(20_000, seed)
    after = np.arange(len(rows)) >= len(rows) // 2
    rows.loc[after, "x0"] += 6.0  # what is learned of the first half is of no use for the second
    rows.loc[after, "target"] = 1 - rows["target"]
    now = pd.Timestamp.now("UTC").tz_localize(None).floor("1min")
    at = pd.date_range(end=now, periods=len(rows) + 1, freq="300ms", unit="us")[:-1]
    rows.assign(key=[f"t{i}" for i in range(len(rows))], at=at).to_parquet(folder / "rows.parquet")
    conf = {
        "name": "bench",
        "task": "classification",
        "data": {
            "train": {"kind": "file", "path": str(folder / "rows.parquet")},
            "live": {"kind": "capture"},
            "key": "key",
            "time": "at",
            "target": "target",
            "label_delay": "1s",
            "features": {
                name: column.model_dump(mode="json") for name, column in columns_of(rows).items()
            },
        },
        "training": {"params": PARAMS | {"learning_rate": 0.05}, "holdout": "10min"},
        "monitoring": {"batch": "1min"},
        "tracking": {
            "folder": str(folder / "state"),
            "uri": f"sqlite:///{folder}/state/mlflow.db",
        },
    }
    path = folder / "bench.yaml"
    path.write_text(yaml.safe_dump(conf))
    until = [at[len(at) // 2], now][-versions:]
    calls = "; ".join(f"train({str(path)!r}, until={str(one)!r})" for one in until)
    python("-c", f"from flows.train import train; {calls}", folder=folder)
    return path


def _followed(conf: Path) -> Server:
    port = free_port()
    command = [sys.executable, "-m", "pipeline.serving", str(conf)]
    settings = {"HOLDFAST__SERVING__PORT": str(port), "HOLDFAST__SERVING__POLL": "200ms"}
    return Server(command, port, ready="/ready", **settings)


def swaps(seed: int, *, quick: bool) -> Told:
    """Ten moves of the champion in 30 s of requests on 16 connections."""
    from pipeline.config import Settings  # noqa: PLC0415 -- MLflow reads its settings at import
    from pipeline.registry.versions import Registry  # noqa: PLC0415

    seconds = 10 if quick else 30
    with tempfile.TemporaryDirectory() as temporary:
        conf = registered(Path(temporary), seed, versions=2)
        settings = Settings.load(str(conf))
        registry = Registry(settings)
        server = _followed(conf)
        with Load(
            server.port, rows_of(500, seed).drop(columns="target").to_dict("records")
        ) as load:
            for i in range(MOVES):
                time.sleep(seconds / (MOVES + 1))
                registry.point("champion", 1 + i % 2)
            time.sleep(seconds / (MOVES + 1))
        memory = server.memory()
        server.stop()
        kept = read_captures(settings.captures)
    captured = dict(zip(kept["key"], kept["version"], strict=True))
    versions = kept["version"].to_numpy()
    moves = int((versions[1:] != versions[:-1]).sum())
    figures = {
        "requests": len(load.answers),
        "failed": len(load.failed),
        "a_second": round(len(load.answers) / seconds),
        "moves": moves,
        "answered_and_captured_differ": sum(
            captured.get(key) != version for key, version in load.answers.items()
        )
        + len(captured.keys() - load.answers.keys()),
        "memory_mib": round(memory),
        "ms": {q: round(1e3 * float(np.quantile(load.seconds, q)), 2) for q in (0.5, 0.99, 1.0)},
    }
    return figures, [
        at_most("failed requests under load", figures["failed"], 0),
        at_least("moves of the champion under load", moves, MOVES),
        at_most(
            "rows captured otherwise than answered", figures["answered_and_captured_differ"], 0
        ),
    ]


def kills(seed: int, *, quick: bool) -> Told:
    """A server killed in the middle of its requests, again and again on one store."""
    lost, gone, seconds = [], 0, 1.0 if quick else 2.0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        conf = registered(folder, seed, versions=1)
        store = folder / "state" / "captures" / "bench.db"
        rows = rows_of(500, seed).drop(columns="target").to_dict("records")
        for _ in range(KILLS):
            server = _followed(conf)
            with Load(server.port, rows) as load:
                time.sleep(seconds)
                killed = time.time()
                server.process.kill()
                load.stop()
            server.process.wait()
            kept = read_captures(store)
            there = set(kept["key"])
            lost.append(1e3 * (killed - kept["captured_at"].max().timestamp()))
            gone += sum(at < killed - 0.25 and key not in there for key, at in load.last.items())
        start = kept["captured_at"].iloc[-1].floor(BATCH)
        time.sleep(max(0.0, (start + BATCH).timestamp() + 2 - time.time()))
        call = f"monitor({str(conf)!r}, batch={str(start)!r})"
        script = f"from flows.monitor import monitor; print({call}['rows'])"
        told = python("-c", script, folder=folder)
        judged = int(told.split()[-1])
        expected = len(read_captures(store, start=start, end=start + BATCH))
    figures = {
        "kills": len(lost),
        "lost_ms": [round(one) for one in lost],
        "answered_longer_ago_and_lost": gone,
        "rows_kept": len(kept),
        "rows_judged": judged,
        "rows_of_that_minute": expected,
    }
    return figures, [
        at_most("longest loss of a kill in ms", round(max(lost)), 250),
        at_most("rows answered more than 250 ms before a kill and lost", gone, 0),
        at_least("rows that the monitor judged afterwards, of those kept", judged / expected, 1),
    ]


PARTS = (cost, swaps, kills)

if __name__ == "__main__":
    raise SystemExit(main())
