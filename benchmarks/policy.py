"""What the shipped default keeps of retraining at every batch, by `holdfast backtest`."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks import performance
from benchmarks.batches import labelled
from benchmarks.batches.histories import FOLDER
from benchmarks.harness.command import Result, at_least, at_most, name_some, options, run
from benchmarks.harness.processes import holdfast
from pipeline.backtest import fits, policies

FLIGHTS: Final = "flights"
SETS: Final = ("bike_hourly", "hotel_bookings", "bank_marketing", "elec2", FLIGHTS)
KEPT, RETRAINS, WORSE = 0.9, 0.25, 0.01
"""Goals: mean share of the gain that is kept, mean share of the retrains that are made, and most
loss beyond that of the first model left alone, on any set."""


def main() -> int:
    parser = options("policy", __doc__, quick="a simulated table of four live weeks")
    name_some(parser, "sets", SETS)
    return run(parser, measure)


def measure(seed: int, *, quick: bool, sets: list[str]) -> Result:
    """Shares of gain and retrains of each set, and their means."""
    figures: dict[str, Any] = {}
    chosen = ["simulated"] if quick else _available(sets or list(SETS))
    for name in chosen:
        with tempfile.TemporaryDirectory() as folder:
            figures[name] = _compared(Path(folder), name, seed)
        print(name, figures[name], flush=True)
    own = list(figures.values())
    # A set on which retrains gain nothing has no share, and JSON says null for nan.
    kept = float(np.array([one["kept"] for one in own], dtype=np.float64).mean())
    made = float(np.mean([one["retrains"] / one["every_batch"] for one in own]))
    worst = max(one["worse_than_never_by"] for one in own)
    figures |= {"kept": kept, "retrains_made": made, "worst": worst}
    return figures, [
        at_least("mean share of the gain kept", kept, KEPT),
        at_most("mean share of the retrains made", made, RETRAINS),
        at_most("loss beyond the first model left alone", worst, WORSE),
    ]


def _available(sets: list[str]) -> list[str]:
    """Sets that can be read here; the others are named."""
    here = [name for name in sets if name == FLIGHTS or FOLDER in os.environ]
    for name in [name for name in sets if name not in here]:
        print(f"{name} is left out: {FOLDER} names no folder.", flush=True)
    return here


def _compared(folder: Path, name: str, seed: int) -> dict[str, Any]:
    conf = "conf/flights.yaml"
    given = {"HOLDFAST__TRACKING__FOLDER": str(folder / "state")}
    given["HOLDFAST__TRAINING__SEED"] = str(seed)
    if name == "simulated":
        rows = performance.simulated(seed, performance.TRAINED + 4)
        conf = str(performance.written(folder, rows, delay=1))
    elif name != FLIGHTS:
        conf = str(performance.conf_of(folder, labelled.TABLES[name](), seed))
    result = holdfast("backtest", conf, folder=folder, **given)
    return _figures(result, next(_folders(folder)))


def _folders(folder: Path) -> Iterator[Path]:
    """Folders of fits that were kept."""
    return (path.parent for path in folder.glob("state/backtest/*/*/fits"))


def _figures(result: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    own = {one["policy"]: one for one in result["policies"]}
    default, never = own[policies.CONFIGURED], own[policies.NEVER]
    losses = fits.matrix(folder, result["batches"])
    rows = np.array(result["rows"], dtype=np.float64)
    periodic = policies.evenly(losses, default["retrains"])
    (evenly, _) = policies.outcomes([periodic], losses, rows)
    return {
        "batches": result["batches"],
        "set_aside": len(result["set_aside"]),
        "kept": default["kept"],
        "retrains": default["retrains"],
        "every_batch": own[policies.ALWAYS]["retrains"],
        "pages": default["pages"],
        "worse_than_never_by": default["loss"] / never["loss"] - 1,
        "kept_evenly": evenly.kept,
        "kept_by_the_oracle": default["best"],
        "others": {
            name: [one["kept"], one["retrains"]]
            for name, one in own.items()
            if name not in {policies.CONFIGURED, policies.NEVER, policies.ALWAYS}
        },
        "sentence": result["sentence"],
    }


if __name__ == "__main__":
    raise SystemExit(main())
