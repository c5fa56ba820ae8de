"""One check by every tool on rows that did not drift: does each tool's environment work?"""

import tempfile
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd

from benchmarks.harness.command import Result, options, run
from benchmarks.peers import Name, worker


def main() -> int:
    parser = options("peers", __doc__, quick="a reference of 1,000 rows instead of 10,000")
    return run(parser, measure)


def measure(seed: int, *, quick: bool) -> Result:
    """CPU and verdict of the first check, which pays for late imports."""
    random = np.random.default_rng(seed)
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        reference, current = Path(place) / "reference.parquet", Path(place) / "current.parquet"
        draw(1_000 if quick else 10_000, random).to_parquet(reference, index=False)
        draw(1_000, random).to_parquet(current, index=False)
        for name in get_args(Name):
            with worker(name) as tool:
                fitted = tool.ask({"do": "reference", "path": reference})
                checked = tool.ask({"do": "check", "path": current})
            figures[name] = {"fit_cpu": fitted["cpu"], **checked}
            print(f"{name}: {figures[name]}", flush=True)
    return figures, []


def draw(rows: int, random: np.random.Generator) -> pd.DataFrame:
    numbers = {f"number_{i}": random.normal(size=rows) for i in range(40)}
    labels = {f"label_{i}": random.choice(list("abcde"), rows) for i in range(10)}
    return pd.DataFrame(numbers | labels)


if __name__ == "__main__":
    raise SystemExit(main())
