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

from benchmarks.harness.command import Figures, Result, at_most, options, run_parts
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
    parser = options("growth", __doc__, quick="2,000 batches, 10 models, a replay of 8 and 16")
    return run_parts(parser, PARTS)


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


def batches(seed: int, *, quick: bool) -> Result:
    """A run after 100 batches, and after 10,000."""
    many = 2_000 if quick else MANY
    figures: Figures = {}
    with tempfile.TemporaryDirectory() as name:
        conf = _begun(Path(name), seed, SETTLED)
        recorded = SETTLED
        for count in (FEW, many):
            add_batches(conf, count - recorded, LENGTH)
            figures[str(count)] = _monitored(conf, SETTLED)
            recorded = count + SETTLED + MEASURED
        figures["differs from a real record"] = differing(conf)
    copied = "tags and metrics in which a copy differs from a real record"
    return figures, [
        *_within("batches", figures, few=FEW, many=many),
        at_most(copied, len(figures["differs from a real record"]), 0),
    ]


def models(seed: int, *, quick: bool) -> Result:
    """A run of one of 1, 10 and 100 models in a store, each with 100 batches."""
    figures: Figures = {}
    counts = (1, 10) if quick else (1, 10, 100)
    with tempfile.TemporaryDirectory() as name:
        conf = _begun(Path(name), seed, SETTLED)
        add_batches(conf, FEW - SETTLED, LENGTH)
        _monitored(conf, SETTLED)
        there = 1
        for count in counts:
            add_models(conf, range(there, count))
            figures[str(count)] = _monitored(conf, 1)
            there = count
    return figures, _within("models", figures, few=1, many=counts[-1])


def replays(seed: int, *, quick: bool) -> Result:
    """A batch of a replay of 50 batches, and of one of 200."""
    figures: Figures = {}
    few, many = (8, 16) if quick else (50, 200)
    for count in (few, many):
        with tempfile.TemporaryDirectory() as name:
            conf = _begun(Path(name), seed, 1)
            found = _worker("replayed", conf, count)
            figures[str(count)] = found | {"cpu": found["cpu"] / count}
    return figures, _within("batches replayed, by batch", figures, few=few, many=many)[:1]


PARTS: Final = (batches, models, replays)


def _begun(folder: Path, seed: int, judged: int) -> Path:
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
    _worker("monitored", conf, judged)
    return conf


def _monitored(conf: Path, before: int) -> dict[str, Any]:
    """CPU and searches of monitor runs, after some that are not counted."""
    found = _worker("monitored", conf, before + MEASURED)["runs"][-MEASURED:]
    return {
        "cpu": median(one["cpu"] for one in found),
        "searches": max(one["searches"] for one in found),
    }


def _worker(what: str, conf: Path, count: int) -> dict[str, Any]:
    command = (sys.executable, "-m", "benchmarks.harness.counted", what, str(conf), str(count))
    found: dict[str, Any] = last_json(output(*command, **own_prefect(conf.parent)))
    return found


def _within(what: str, found: Figures, *, few: int, many: int) -> list[dict[str, Any]]:
    goals = []
    for key, limit in (("cpu", MORE), ("searches", 1.0)):
        ratio = round(found[str(many)][key] / found[str(few)][key], 2)
        of = f"{key} with {many:,} {what}, in multiples of that with {few}"
        goals.append(at_most(of, ratio, limit))
    return goals


if __name__ == "__main__":
    raise SystemExit(main())
