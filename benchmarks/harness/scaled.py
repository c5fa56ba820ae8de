"""One step of the work on a large table, in a process of its own: its peak memory and CPU."""

import json
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from benchmarks.peers.protocol import measured, status

START: Final = pd.Timestamp("2025-01-01")
DAYS: Final = 100
UNTIL: Final = START + pd.Timedelta("90D")
"""The last tenth of the rows is the batch that is compared."""
BATCH: Final = "10D"
GROUP: Final = 200_000
"""Rows that are drawn at once, and of a row group."""
NUMBERS: Final = [f"x{i:02}" for i in range(12)]
LABELS: Final = {"region": 16, "plan": 3, "product": 105}
"""Categorical columns, and how many labels each has."""
MEGABYTE: Final = 1024
"""Kilobytes, in which Linux counts."""


def main() -> int:
    """Run `what folder`: a step of `STEPS` on the table of the folder."""
    what, folder = sys.argv[1], Path(sys.argv[2])
    print(json.dumps(STEPS[what](folder)))
    return 0


def write_table(path: Path, rows: int, seed: int) -> None:
    """A table of 12 numbers with gaps, three labels, a key, a time and a binary target."""
    schema = pa.schema(
        [("id", pa.string()), ("at", pa.timestamp("us"))]
        + [(name, pa.float32()) for name in NUMBERS]
        + [(name, pa.string()) for name in LABELS]
        + [("late", pa.int8())]
    )
    with pq.ParquetWriter(path, schema) as writer:
        for first in range(0, rows, GROUP):
            part = _drawn(first, min(first + GROUP, rows), rows, seed)
            writer.write_table(pa.Table.from_pandas(part, schema, preserve_index=False))


def _drawn(first: int, last: int, rows: int, seed: int) -> pd.DataFrame:
    random, places = np.random.default_rng([seed, first]), np.arange(first, last)
    x = random.normal(size=(len(places), len(NUMBERS))).astype(np.float32)
    codes = {name: random.integers(0, n, len(places)) for name, n in LABELS.items()}
    score = x[:, 0] - x[:, 1] * (codes["plan"] == 1) + codes["region"] / 16
    x[random.random(x.shape) < 0.03] = np.nan
    shares = places / rows
    return pd.DataFrame(
        {
            "id": [f"r{place:010}" for place in places],
            "at": START + pd.to_timedelta(shares * DAYS, unit="D").as_unit("us"),
            **dict(zip(NUMBERS, x.T, strict=True)),
            **{name: [f"{name} {code}" for code in codes[name]] for name in LABELS},
            "late": (score + random.normal(size=len(places)) > 0.5).astype(np.int8),
        }
    )


def write_conf(folder: Path) -> None:
    """The file of a model of the table in the folder."""
    number = {"type": "numeric", "nullable": True}
    labels = {
        name: {"type": "categorical", "values": [f"{name} {code}" for code in range(n)]}
        for name, n in LABELS.items()
    }
    values = {
        "name": "scaled",
        "task": "classification",
        "data": {
            "train": {"kind": "file", "path": str(folder / "rows.parquet")},
            "key": "id",
            "time": "at",
            "target": "late",
            "features": {**dict.fromkeys(NUMBERS, number), **labels},
        },
        "training": {
            "estimator": "xgboost.XGBClassifier",
            "params": {"n_estimators": 100, "max_depth": 6},
            "until": str(UNTIL),
            "holdout": BATCH,
        },
        "monitoring": {"batch": BATCH},
        "tracking": {"folder": str(folder / "state")},
    }
    (folder / "scaled.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def _settings(folder: Path) -> Any:
    from pipeline.config import Settings  # noqa: PLC0415 -- a bare booster needs none of it

    return Settings.load(folder / "scaled.yaml")


def _peak(call: Callable[..., Any], *given: Any, **named: Any) -> tuple[Any, dict[str, Any]]:
    """What a call returns, its CPU seconds, and the peak of this process in MB."""
    result, cost = measured(lambda: call(*given, **named))
    return result, {"cpu": cost["cpu"], "peak_mb": status("VmHWM") / MEGABYTE}


def _recorded(flow: Callable[..., Any], folder: Path) -> dict[str, Any]:
    """The cost of a flow, with the rows and bytes that it adds to MLflow's store."""
    before = _stored(folder / "state")
    _, cost = _peak(flow, str(folder / "scaled.yaml"))
    after = _stored(folder / "state")
    return cost | {name: after[name] - before[name] for name in after}


def _stored(state: Path) -> dict[str, int]:
    """Rows of MLflow's database, and bytes of its artifacts."""
    database = state / "mlflow.db"
    if not database.exists():
        return {"mlflow_rows": 0, "artifact_bytes": 0}
    with closing(sqlite3.connect(database)) as store:
        tables = store.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        counts = [
            store.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0]  # noqa: S608 -- its own
            for (name,) in tables
        ]
    files = [path.stat().st_size for path in state.rglob("*") if path.is_file()]
    return {
        "mlflow_rows": sum(counts),
        "artifact_bytes": sum(files) - database.stat().st_size,
    }


def read(folder: Path) -> dict[str, Any]:
    """Read and validate the training window, then describe it."""
    from pipeline.data import tables, validation  # noqa: PLC0415 -- a bare booster needs none of it
    from pipeline.reference import Reference  # noqa: PLC0415

    data = _settings(folder).data
    idle = status("VmRSS") / MEGABYTE
    rows, reading = _peak(tables.read, data.train, data, end=UNTIL)
    checked, validating = _peak(validation.validate, rows, data)
    del rows
    _, describing = _peak(
        Reference.fit, checked.valid, data.features, time=data.time, block=pd.Timedelta(BATCH)
    )
    return {"idle_mb": idle, "read": reading, "validate": validating, "reference": describing}


def train(folder: Path) -> dict[str, Any]:
    """`holdfast train`."""
    from flows.train import train as flow  # noqa: PLC0415 -- Prefect reads the environment

    return _recorded(flow, folder)


def monitor(folder: Path) -> dict[str, Any]:
    """`holdfast monitor` of the batch after the training window, a tenth of the rows."""
    from flows.monitor import monitor as flow  # noqa: PLC0415 -- Prefect reads the environment

    return _recorded(flow, folder)


def score(folder: Path) -> dict[str, Any]:
    """`holdfast score` of the whole table."""
    from flows.score import score as flow  # noqa: PLC0415 -- Prefect reads the environment

    output, table = str(folder / "scores.parquet"), str(folder / "rows.parquet")
    result, cost = _peak(flow, str(folder / "scaled.yaml"), output, table)
    return cost | {"predicted": result["predicted"]}


def booster(folder: Path) -> dict[str, Any]:
    """XGBoost's own `Booster.predict` of the whole table at once, without checks or keys."""
    import xgboost  # noqa: PLC0415 -- the other steps import it where they need it

    model = xgboost.Booster(model_file=next(folder.rglob("model/estimator.ubj")))

    def predict() -> None:
        table = pq.read_table(folder / "rows.parquet", columns=[*NUMBERS, *LABELS])
        frame = table.to_pandas()
        for name, n in LABELS.items():
            known = sorted(f"{name} {code}" for code in range(n))
            frame[name] = pd.Categorical(frame[name], categories=known).codes.astype("float32")
        kinds = ["q"] * len(NUMBERS) + ["c"] * len(LABELS)
        rows = xgboost.DMatrix(frame.to_numpy(), feature_types=kinds, enable_categorical=True)
        pd.DataFrame({"prediction": model.predict(rows)}).to_parquet(folder / "bare.parquet")

    return _peak(predict)[1]


STEPS: Final = {step.__name__: step for step in (read, train, monitor, score, booster)}

if __name__ == "__main__":
    raise SystemExit(main())
