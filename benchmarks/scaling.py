"""Peak memory and CPU of the work on tables of more and more rows, and what one row adds to them.

Tables are drawn: 12 numbers with gaps, three labels of 16, 3 and 105 values, a key, a time and a
binary target. Each step runs in a process of its own, with one thread.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from benchmarks.harness.command import Figures, Result, at_most, options, run_parts
from benchmarks.harness.processes import last_json, output, own_prefect
from benchmarks.harness.scaled import write_conf, write_table

GIGABYTE: Final = 1024
"""Megabytes."""
MILLION: Final = 1_000_000


def main() -> int:
    parser = options("scaling", __doc__, quick="a tenth of the rows")
    return run_parts(parser, PARTS)


def train(seed: int, *, quick: bool) -> Result:
    """Reading, validation, `Reference.fit`, `train` and `monitor`, of 200,000 and a million rows.

    The training window is nine tenths of the rows, the batch that is compared one tenth.
    """
    few, many = (20_000, 100_000) if quick else (200_000, MILLION)
    figures: Figures = {}
    for rows in (few, many):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            _drawn(folder, rows, seed)
            figures[str(rows)] = {
                **_step("read", folder),
                "train": _step("train", folder),
                "monitor": _step("monitor", folder),
            }
    steps = ("read", "validate", "reference", "train", "monitor")
    figures["a row adds"] = {step: _added(figures, step, few, many) for step in steps}
    return figures, []


def score(seed: int, *, quick: bool) -> Result:
    """`score` of one and of five million rows, beside `Booster.predict` of all rows at once."""
    few, many = (100_000, 500_000) if quick else (MILLION, 5 * MILLION)
    trained = 20_000 if quick else 200_000
    figures: Figures = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _drawn(folder, trained, seed)
        _step("train", folder)
        for rows in (few, many):
            write_table(folder / "rows.parquet", rows, seed)
            figures[str(rows)] = {step: _step(step, folder) for step in ("score", "booster")}
    figures["a row adds"] = {
        step: _added(figures, step, few, many) for step in ("score", "booster")
    }
    peak = round(figures[str(many)]["score"]["peak_mb"] / GIGABYTE, 2)
    return figures, [at_most(f"GB at the peak of a score of {many:,} rows", peak, 1)]


PARTS: Final = (train, score)


def _drawn(folder: Path, rows: int, seed: int) -> None:
    write_table(folder / "rows.parquet", rows, seed)
    write_conf(folder)


def _step(what: str, folder: Path) -> dict[str, Any]:
    command = (sys.executable, "-m", "benchmarks.harness.scaled", what, str(folder))
    found: dict[str, Any] = last_json(output(*command, **own_prefect(folder)))
    return found


def _added(figures: Figures, step: str, few: int, many: int) -> dict[str, float]:
    """Bytes at the peak and microseconds of CPU of one more row of the table."""
    less, more = (figures[str(rows)][step] for rows in (few, many))
    return {
        "bytes": round((more["peak_mb"] - less["peak_mb"]) * 1024**2 / (many - few)),
        "cpu_us": round((more["cpu"] - less["cpu"]) * 1e6 / (many - few), 1),
    }


if __name__ == "__main__":
    raise SystemExit(main())
