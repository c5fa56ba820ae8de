"""From a table to a judged batch: `init`, `train` and `monitor` on each table, without an edit.

Each table has a folder of its own, and each command is a process of its own. Scores are those of
the version on rows held out in time, beside a trivial baseline.
"""

import importlib
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd

from benchmarks.harness.command import Figures, Goal, Result, at_least, at_most, options, run
from benchmarks.harness.processes import ChildError, holdfast

MINUTES: Final = 5
"""Minutes that a table may take, from the first command to the first judged batch."""
QUICK: Final = ("breast_cancer",)


@dataclass(frozen=True)
class Case:
    """A table, what is predicted, and the columns that would give it away.

    Attributes
    ----------
    target : str
        The column to predict.
    leaks : tuple of str
        Columns that are known only after the event, and from which this can be seen in the rows.
    """

    target: str
    leaks: tuple[str, ...] = ()


TABLES: Final = {
    "hotel_bookings": Case("is_canceled", ("reservation_status", "reservation_status_date")),
    "bank_marketing": Case("y"),
    "bike_hourly": Case("cnt", ("casual", "registered")),
    "uci_credit_default": Case("default.payment.next.month"),
    "evidently_adult": Case("class"),
    "noaa_weather": Case("target"),
    "elec2": Case("class"),
    "chicago_taxi_tfx": Case("big_tip", ("tips",)),
    "nannyml_california": Case("clf_target", ("y_pred", "y_pred_proba")),
}
"""Tables that are read from the folder that `HOLDFAST_BENCH_DATA` names."""
TOYS: Final = {
    "breast_cancer": Case("target"),
    "wine": Case("target"),
    "diabetes": Case("target"),
}
"""Tables that come with scikit-learn, without time and key."""


def main() -> int:
    return run(options("adoption", __doc__, quick="one small table"), measure)


def measure(seed: int, *, quick: bool) -> Result:
    """What three commands make of each table."""
    figures: Figures = {}
    with tempfile.TemporaryDirectory() as name:
        for table, case in _cases(quick=quick).items():
            folder = Path(name) / table
            folder.mkdir()
            file = _written(table, folder, seed)
            figures[table] = _adopted(file, case, folder)
            print(f"{table}: {figures[table]}", flush=True)
    return figures, _goals(figures)


def _cases(*, quick: bool) -> dict[str, Case]:
    data = os.environ.get("HOLDFAST_BENCH_DATA")
    if data is None:
        print(f"Left out without HOLDFAST_BENCH_DATA: {', '.join(TABLES)}.", flush=True)
    tables = {} if data is None else TABLES
    flights = {"flights": Case("late")}
    every = {**tables, **flights, **TOYS}
    return {name: every[name] for name in QUICK} if quick else every


def _written(table: str, folder: Path, seed: int) -> Path:
    """The table as a CSV file; rows of flights are those of some months."""
    if table in TOYS:
        rows = getattr(importlib.import_module("sklearn.datasets"), f"load_{table}")(as_frame=True)
        rows = rows.frame
        if table == "wine":  # three kinds; one of them is to be recognised
            rows["target"] = (rows["target"] == 0).astype(int)
    elif table == "flights":
        flights = importlib.import_module("examples.flights")
        rows = flights.rows(None, pd.Timestamp("2013-07-01")).sample(60_000, random_state=seed)
        rows = rows.sort_values("scheduled")
    else:
        rows = pd.read_parquet(Path(os.environ["HOLDFAST_BENCH_DATA"]) / f"{table}.parquet")
    file = folder / f"{table}.csv"
    rows.to_csv(file, index=False)
    return file


def _adopted(file: Path, case: Case, folder: Path) -> dict[str, Any]:
    """Figures of one table; the commands that fail are named."""
    started = time.perf_counter()
    here = {"HOLDFAST__TRACKING__FOLDER": str(folder / "state")}
    conf = Path("conf") / f"{file.stem.replace('_', '-')}.yaml"
    before = Path.cwd()
    os.chdir(folder)
    environment = {"PYTHONPATH": str(before), **here}
    try:
        drafted = holdfast("init", file, "--target", case.target, folder=folder, **environment)
        version = holdfast("train", conf, folder=folder, **environment)
        batch = holdfast("monitor", conf, folder=folder, **environment)
    except ChildError as error:
        return {"failed": str(error)[-300:]}
    finally:
        os.chdir(before)
    return {
        "minutes": round((time.perf_counter() - started) / 60, 2),
        "commands": 3,
        "lines": len((folder / conf).read_text(encoding="utf-8").splitlines()),
        "features": len(drafted["features"]),
        "left_out": sorted(drafted["left_out"]),
        "leaks_used": sorted(set(case.leaks) & set(drafted["features"])),
        "promoted": version["promoted"],
        "gain": version["reason"],
        "batch_rows": batch["rows"],
        "verdict": f"{batch['action']}: {batch['reason']}",
    }


def _goals(figures: Figures) -> list[Goal]:
    done = [one for one in figures.values() if "failed" not in one]
    judged = [one for one in done if one["batch_rows"]]
    better = [one for one in done if one["promoted"]]
    leaks = sum(len(one["leaks_used"]) for one in done)
    slowest = max((one["minutes"] for one in done), default=float("nan"))
    return [
        at_least("tables with a judged batch, without an edit", len(judged), len(figures)),
        at_least("tables whose version beats the trivial baseline", len(better), len(figures)),
        at_most("leaks used that the rows give away", leaks, 0),
        at_most("minutes of the slowest table", slowest, MINUTES),
    ]


if __name__ == "__main__":
    raise SystemExit(main())
