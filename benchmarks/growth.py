"""What a monitor run costs as batches and models add up, and whether a replay is linear.

A store is filled with copies of a batch that was recorded by a real run, which a later real run is
compared with, tag by tag and metric by metric.
"""

import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import pandas as pd
import yaml

from benchmarks.harness.command import Figures, Result, at_most, options, run
from benchmarks.harness.filled import add_batches, add_models, differing
from benchmarks.harness.processes import last_json, output, own_prefect

START: Final = pd.Timestamp("2010-01-01")
LENGTH: Final = pd.Timedelta("6h")
EVERY: Final = pd.Timedelta("6min")
DAY: Final = pd.Timedelta("1D")
TRAINED: Final = pd.Timedelta("45D")
SETTLED: Final = 14
"""Real runs before the measured ones: labels of more batches than these are not looked for."""
MEASURED: Final = 5
FEW, MANY = 100, 10_000
MORE: Final = 1.3
"""What a run may cost with many batches, or models, in multiples of that with few."""


def main() -> int:
    return run(options("growth", __doc__, quick="2,000 batches, no models, no replay"), measure)


def rows(start: pd.Timestamp | None, end: pd.Timestamp | None) -> pd.DataFrame:
    """Rows of a window, of two numbers and a label; the relation stays."""
    first = START if start is None else max(start.floor("D"), START)
    last = START + TRAINED if end is None else end.ceil("D")
    days = pd.date_range(first, last, inclusive="left")
    at = pd.date_range(first, last, freq=EVERY, inclusive="left")
    place = ((at - START) // EVERY).to_numpy()
    drawn = [np.random.default_rng([11, day.value]).normal(size=(DAY // EVERY, 3)) for day in days]
    x = np.concatenate(drawn)
    found = pd.DataFrame(
        {
            "id": [f"r{one}" for one in place],
            "at": at,
            "x0": x[:, 0],
            "x1": x[:, 1],
            "won": (1.5 * x[:, 0] - x[:, 1] + x[:, 2] > 0.5).astype(float),
        }
    )
    inside = (found["at"] >= (start or first)) & (found["at"] < (end or last))
    return found[inside].reset_index(drop=True)


def measure(seed: int, *, quick: bool) -> Result:
    many = 2_000 if quick else MANY
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        conf = _begun(folder, seed)
        figures: Figures = {"batches": {}, "models": {}, "replay": {}}
        recorded = SETTLED
        for batches in (FEW, many):
            add_batches(conf, batches - recorded, LENGTH)
            figures["batches"][batches] = _monitored(conf, folder)
            recorded = batches + SETTLED + MEASURED
        figures["differs_from_a_real_record"] = differing(conf)
        goals = [
            _within("CPU", "cpu", figures["batches"], few=FEW, many=many),
            _within("searches", "searches", figures["batches"], few=FEW, many=many, limit=1.0),
            at_most(
                "tags and metrics in which a copy differs from a real record",
                len(figures["differs_from_a_real_record"]),
                0,
            ),
        ]
    if quick:
        return figures, goals
    for models in (1, 10, 100):
        with tempfile.TemporaryDirectory() as name:
            conf = _begun(Path(name), seed)
            add_batches(conf, FEW, LENGTH)
            add_models(conf, models - 1)
            figures["models"][models] = _monitored(conf, Path(name))
    for batches in (50, 200):
        with tempfile.TemporaryDirectory() as name:
            conf = _begun(Path(name), seed)
            found = _worker("replayed", conf, Path(name), batches)
            figures["replay"][batches] = found | {"cpu_a_batch": found["cpu"] / batches}
    return figures, [
        *goals,
        _within("CPU of a run", "cpu", figures["models"], few=1, many=100),
        _within("searches", "searches", figures["models"], few=1, many=100, limit=1.0),
        _within("CPU of a batch", "cpu_a_batch", figures["replay"], few=50, many=200),
    ]


def _begun(folder: Path, seed: int) -> Path:
    """Conf of a model with a champion and some judged batches."""
    conf = folder / "grown.yaml"
    number = {"type": "numeric"}
    values = {
        "name": "grown",
        "task": "classification",
        "data": {
            "train": {"kind": "function", "function": "benchmarks.growth:rows"},
            "key": "id",
            "time": "at",
            "target": "won",
            "features": {"x0": number, "x1": number},
        },
        "training": {
            "estimator": "sklearn.linear_model.LogisticRegression",
            "until": str(START + TRAINED),
            "window": "45D",
            "holdout": "10D",
            "seed": seed,
        },
        "monitoring": {"batch": "6h"},
        "tracking": {"folder": str(folder / "state")},
    }
    conf.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    _worker("monitored", conf, folder, SETTLED)
    return conf


def _monitored(conf: Path, folder: Path) -> dict[str, Any]:
    """CPU and searches of monitor runs, once labels are settled."""
    found = _worker("monitored", conf, folder, SETTLED + MEASURED)["runs"][-MEASURED:]
    return {
        "cpu": median(one["cpu"] for one in found),
        "searches": max(one["searches"] for one in found),
    }


def _worker(what: str, conf: Path, folder: Path, batches: int) -> dict[str, Any]:
    command = (sys.executable, "-m", "benchmarks.harness.counted", what, str(conf), str(batches))
    found: dict[str, Any] = last_json(output(*command, **own_prefect(folder), OMP_NUM_THREADS="1"))
    return found


def _within(
    what: str, key: str, found: dict[int, Any], *, few: int, many: int, limit: float = MORE
) -> dict[str, Any]:
    ratio = round(found[many][key] / found[few][key], 2)
    return at_most(f"{what} with {many:,}, in multiples of that with {few}", ratio, limit)


if __name__ == "__main__":
    raise SystemExit(main())
