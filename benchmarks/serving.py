"""What serving costs beside MLflow's server and the usual FastAPI one, and what it survives."""

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import yaml

from benchmarks import peers
from benchmarks.harness.command import (
    Figures,
    Goal,
    Result,
    at_least,
    at_most,
    options,
    run_parts,
)
from benchmarks.harness.processes import holdfast, output
from benchmarks.harness.servers import CONNECTIONS, Load, Row, Server, free_port
from pipeline.columns import encode, known_categories
from pipeline.config import Categorical, Columns, Numeric, Settings
from pipeline.data.captures import read_captures
from pipeline.training import parity
from pipeline.training.estimators import build_estimator
from pipeline.training.model import Model
from pipeline.training.seals import seal

PARAMS: Final = {"n_estimators": 300, "max_depth": 6, "n_jobs": 1}
LABELS: Final = ("north", "east", "south", "west")
SIZES: Final = {1: 640, 100: 64, 1_000: 16}
"""Rows of a request, and requests in a round."""
ROUNDS: Final = 7
MOVES, KILLS = 10, 10
"""How often the champion moves under load, and how often a server is killed."""
BATCH: Final = pd.Timedelta("1min")
SERVE: Final = (sys.executable, "-m", "flows.cli", "serve")
OURS, MLFLOW, TUTORIAL, ECHO = "holdfast", "mlflow models serve", "FastAPI and a DataFrame", "echo"


def main() -> int:
    parser = options("serving", __doc__, quick="two rounds, few requests, moves and kills")
    return run_parts(parser, PARTS)


def rows_of(n: int, seed: int) -> pd.DataFrame:
    """15 numeric columns, 5 columns of labels, and a target that depends on them."""
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(random.normal(size=(n, 15)), columns=[f"x{i}" for i in range(15)])
    for i in range(5):
        frame[f"c{i}"] = random.choice(LABELS, n)
    score = frame["x0"] + frame["x1"] * (frame["c0"] == "north") + random.normal(size=n)
    return frame.assign(target=(score > 0).astype(int))


def columns_of(frame: pd.DataFrame) -> Columns:
    features = [str(name) for name in frame if name != "target"]
    return {
        name: Categorical(values=LABELS) if name.startswith("c") else Numeric() for name in features
    }


def requests_of(frame: pd.DataFrame) -> list[Row]:
    """Rows without their target, as the API takes them."""
    rows = frame.drop(columns="target", errors="ignore").to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def cost(seed: int, *, quick: bool) -> Result:
    """CPU of a start and of a request, and memory: each server runs alone, with one worker.

    Ours captures and counts metrics meanwhile.
    """
    figures: Figures = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = rows_of(20_000, seed)
        python = prepare(folder, rows)
        model = export(folder / "ours", rows, seed)
        asked = rows_of(1_000, seed + 1).drop(columns="target")
        starts = {OURS: exported(folder / "ours"), **peer_servers(python, folder)}
        for server_name, (start, route) in starts.items():
            bodies = {size: _body(server_name, asked.head(size)) for size in SIZES}
            with start() as server:
                figures[server_name] = _costs(server, route, bodies, quick=quick)
                if server_name == OURS:
                    answer = json.loads(server.ask(route, bodies[1_000]))
                    predictions = np.array(answer["predictions"])
        expected = model.predict_encoded(encode(asked, model.columns, model.categories))
    figures["largest_difference"] = float(np.abs(predictions - expected).max())
    return figures, _goals(figures)


Start = tuple[Callable[[], Server], str]
"""How a server is started, and the route that predicts."""


def prepare(folder: Path, rows: pd.DataFrame) -> Path:
    """Save the other servers' model of some rows in a folder; the Python that serves it."""
    rows.to_parquet(folder / "rows.parquet")
    (folder / "params.json").write_text(json.dumps(PARAMS))
    columns = {
        name: list(column.values or ()) if isinstance(column, Categorical) else []
        for name, column in columns_of(rows).items()
    }
    (folder / "columns.json").write_text(json.dumps(columns))
    python = peers.environment("servers")
    output(python, peers.HERE / "servers.py", "fit", folder, PYTHONPATH="")
    return python


def export(folder: Path, rows: pd.DataFrame, seed: int) -> Model:
    """Write our model of some rows to a folder, as `holdfast export` does."""
    columns = columns_of(rows)
    categories = known_categories(rows, columns)
    estimator = build_estimator("xgboost.XGBClassifier", PARAMS, columns, seed=seed)
    estimator.fit(encode(rows, columns, categories), rows["target"])
    model = Model("classification", columns, categories, estimator)
    model.save(folder / "model")
    parity.make(model, rows).export(folder / "golden")
    numbers = [name for name, column in columns.items() if isinstance(column, Numeric)]
    ranges = {name: [rows[name].min(), rows[name].max()] for name in numbers}
    manifest = {"name": "bench", "version": "1", "ranges": ranges}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    seal(folder)
    return model


def install(seed: int, *, quick: bool) -> Result:
    """The packages that only serve an exported model: their size, a start, and memory."""
    starts, count = [], 10 if quick else 1_000
    python = peers.serving()
    with tempfile.TemporaryDirectory() as name:
        folder, asked = Path(name), rows_of(1, seed + 1).drop(columns="target")
        export(folder, rows_of(20_000, seed), seed)
        begin, route = exported(folder, str(python), "-m", "pipeline.serving")
        body = _body(OURS, asked)
        for _ in range(2 if quick else 6):  # the first compiles what is imported
            with begin() as server:
                server.ask(route, body)
                starts.append(server.cpu())
                for _ in range(count // CONNECTIONS):
                    server.ask(route, body)
                memory = server.memory()
    size = sum(file.stat().st_size for file in python.parents[1].rglob("*") if file.is_file())
    figures = {
        "packages_mib": round(size / 2**20),
        "start_cpu_s": round(statistics.median(starts[1:]), 2),
        "memory_mib": round(memory),
    }
    return figures, [
        at_most("CPU seconds from a start to its first answers", figures["start_cpu_s"], 1.2),
        at_most("MiB resident after 1,000 requests", figures["memory_mib"], 160),
    ]


def workers(seed: int, *, quick: bool) -> Result:
    """Hundred rows a request on all connections, answered by one worker and by two."""
    figures: Figures = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        export(folder, rows_of(20_000, seed), seed)
        body = _body(OURS, rows_of(100, seed + 1).drop(columns="target"))
        for n in (1, 2):
            begin, route = exported(folder, *SERVE, "--workers", str(n))
            with begin() as server:
                server.wait_for(n)
                taken = [server.spent(route, body, 64) for _ in range(3 if quick else 2 * ROUNDS)]
            cpu, wall = np.median(taken[1:], axis=0)
            figures[str(n)] = {"answers_a_second": round(1 / wall), "us": round(1e6 * cpu)}
    gain = figures["2"]["answers_a_second"] / figures["1"]["answers_a_second"]
    figures["cpu_of_a_request"] = round(figures["2"]["us"] / figures["1"]["us"], 2)
    return figures, [at_least("answers a second, two workers over one", round(gain, 2), 1.7)]


def exported(folder: Path, *command: str) -> Start:
    """Our server of an exported model, as another command starts it if one is given."""
    words = list(command or SERVE)

    def start() -> Server:
        port = free_port()
        environment = {
            "MODEL_DIR": str(folder),
            "HOLDFAST__SERVING__PORT": str(port),
            "HOLDFAST__SERVING__CAPTURES": str(folder / "captures.db"),
        }
        return Server(words, port, ready="/ready", **environment)

    return start, "/predict"


def peer_servers(python: Path, folder: Path) -> dict[str, Start]:
    """The other servers, of the model in a folder."""
    environment = {"PYTHONPATH": "", "PATH": f"{python.parent}:{os.environ['PATH']}"}

    def starting(ready: str, *command: str | Path) -> Callable[[], Server]:
        def start() -> Server:
            port = free_port()
            words = [str(word).replace("PORT", str(port)) for word in (python, *command)]
            return Server(words, port, ready=ready, **environment)

        return start

    mlflow = (python.parent / "mlflow", "models", "serve", "-m", folder / "mlflow")
    one = ("--port", "PORT", "--env-manager", "local", "--workers", "1")
    script = peers.HERE / "servers.py"
    return {
        MLFLOW: (starting("/ping", *mlflow, *one), "/invocations"),
        TUTORIAL: (starting("/docs", script, "api", folder, "PORT"), "/predict"),
        ECHO: (starting("/", script, "echo", folder, "PORT"), "/"),
    }


def _body(server_name: str, rows: pd.DataFrame) -> bytes:
    if server_name == MLFLOW:
        return json.dumps({"dataframe_split": rows.to_dict("split", index=False)}).encode()
    return json.dumps({"rows": requests_of(rows)}).encode()


def _costs(server: Server, route: str, bodies: dict[int, bytes], *, quick: bool) -> Figures:
    """Costs of a start and of requests; the first round of requests warms up."""
    server.ask(route, bodies[1])
    costs = {"start_cpu_s": server.cpu(), "memory_mib": round(server.memory())}
    for size, n in SIZES.items():
        count = max(n // 4, CONNECTIONS) if quick else n
        rounds = 2 if quick else ROUNDS
        spent = [server.spent(route, bodies[size], count)[0] for _ in range(rounds)]
        costs[f"us_{size}"] = statistics.median(spent[1:]) * 1e6
    return costs


def _goals(figures: Figures) -> list[Goal]:
    def ratio(one: str, what: str, other: str = OURS) -> float:
        """Compare two servers' figures; nan if CPU time is too coarse to show one of them."""
        below = figures[other][what]
        return round(figures[one][what] / below, 2) if below else float("nan")

    figures["over_echo"] = {size: ratio(OURS, f"us_{size}", ECHO) for size in SIZES}
    return [
        at_least("CPU of MLflow over ours, 1 row", ratio(MLFLOW, "us_1"), 50),
        at_least("CPU of the tutorial over ours, 1 row", ratio(TUTORIAL, "us_1"), 40),
        at_least("CPU of MLflow over ours, 100 rows", ratio(MLFLOW, "us_100"), 8),
        at_least("CPU of MLflow over ours, 1,000 rows", ratio(MLFLOW, "us_1000"), 2.5),
        at_least("CPU of a start, MLflow over ours", ratio(MLFLOW, "start_cpu_s"), 2),
        at_least("memory, MLflow over ours", ratio(MLFLOW, "memory_mib"), 2),
        at_most("largest difference of a prediction", figures["largest_difference"], 0),
    ]


def registered(folder: Path, seed: int, *, versions: int) -> Path:
    """Configuration of a model with one or two registered versions that passed the gate."""
    rows = rows_of(20_000, seed)
    after = np.arange(len(rows)) >= len(rows) // 2
    rows.loc[after, "x0"] += 6.0  # what the first half teaches is useless for the second
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
    for until in [at[len(at) // 2], now][-versions:]:
        holdfast("train", path, "--until", until.isoformat(), folder=folder)
    return path


def following(conf: Path) -> Server:
    """Our server of a registered model's champion, which it asks for five times a second."""
    port = free_port()
    settings = {"HOLDFAST__SERVING__PORT": str(port), "HOLDFAST__SERVING__POLL": "200ms"}
    return Server([*SERVE, str(conf)], port, ready="/ready", **settings)


def swaps(seed: int, *, quick: bool) -> Result:
    """The champion moves again and again under requests on all connections."""
    from pipeline.registry.versions import Registry  # noqa: PLC0415 -- MLflow reads the environment

    seconds, moves = (6, 3) if quick else (30, MOVES)
    with tempfile.TemporaryDirectory() as temporary:
        conf = registered(Path(temporary), seed, versions=2)
        settings = Settings.load(conf)
        registry = Registry(settings.name, settings.tracking)
        with following(conf) as server:
            with Load(server.port, requests_of(rows_of(500, seed))) as load:
                for i in range(moves):
                    time.sleep(seconds / (moves + 1))
                    registry.point("champion", 1 + i % 2)
                time.sleep(seconds / (moves + 1))
            memory = server.memory()
        kept = read_captures(settings.captures)
    captured = dict(zip(kept["holdfast-key"], kept["holdfast-version"], strict=True))
    versions = kept["holdfast-version"].to_numpy()
    seen = int((versions[1:] != versions[:-1]).sum())
    differing = sum(captured.get(key) != version for key, version in load.versions.items())
    differing += len(captured.keys() - load.versions.keys())
    quantiles = {"median": 0.5, "p99": 0.99, "longest": 1.0}
    figures = {
        "requests": len(load.versions),
        "failed": len(load.failed),
        "failures": load.failed[:3],
        "a_second": round(len(load.versions) / seconds),
        "moves": seen,
        "answered_and_captured_differ": differing,
        "memory_mib": round(memory),
        "ms": {
            name: round(1e3 * float(np.quantile(load.seconds, q)), 2)
            for name, q in quantiles.items()
        },
    }
    return figures, [
        at_most("failed requests under load", len(load.failed), 0),
        at_least("moves of the champion under load", seen, moves),
        at_most("rows captured differently than answered", differing, 0),
    ]


def kills(seed: int, *, quick: bool) -> Result:
    """A server is killed under load, again and again on one store, and its batch judged then."""
    lost, gone = [], 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        conf = registered(folder, seed, versions=1)
        store = Settings.load(conf).captures
        rows = requests_of(rows_of(500, seed))
        for _ in range(2 if quick else KILLS):
            load, killed = _killed(conf, rows, 1.0 if quick else 2.0)
            kept = read_captures(store)
            there = set(kept["holdfast-key"])
            lost.append(1e3 * (killed - kept["holdfast-captured_at"].max().timestamp()))
            gone += sum(
                at < killed - 0.25 and key not in there for key, at in load.answered.items()
            )
        start = kept["holdfast-captured_at"].iloc[-1].floor(BATCH)
        time.sleep(max(0.0, (start + BATCH).timestamp() + 2 - time.time()))
        given = ("--batch", start.isoformat())
        judged = holdfast("monitor", conf, *given, folder=folder)["rows"]
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
        at_least("share of the kept rows that the monitor judged then", judged / expected, 1),
    ]


def _killed(conf: Path, rows: list[Row], seconds: float) -> tuple[Load, float]:
    """Load on a server up to its end, and when it was killed."""
    with following(conf) as server, Load(server.port, rows) as load:
        time.sleep(seconds)
        killed = time.time()
        server.kill()
        load.stop()
    return load, killed


PARTS: Final[tuple[Callable[..., Result], ...]] = (cost, install, workers, swaps, kills)

if __name__ == "__main__":
    raise SystemExit(main())
