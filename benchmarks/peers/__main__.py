"""Ask every tool once about 1,000 rows that did not drift: `python -m benchmarks.peers`."""

import tempfile
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd

from benchmarks.peers import Name, worker


def main() -> None:
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as place:
        reference, current = Path(place) / "reference.parquet", Path(place) / "current.parquet"
        draw(10_000, random).to_parquet(reference, index=False)
        draw(1_000, random).to_parquet(current, index=False)
        for name in get_args(Name):
            with worker(name) as tool:
                fitted = tool.ask({"do": "reference", "path": reference})
                told = tool.ask({"do": "check", "path": current})
            print(f"{name}: fit {fitted['cpu']:.3f} s; check {told}", flush=True)


def draw(rows: int, random: np.random.Generator) -> pd.DataFrame:
    numbers = {f"number_{i}": random.normal(size=rows) for i in range(40)}
    labels = {f"label_{i}": random.choice(list("abcde"), rows) for i in range(10)}
    return pd.DataFrame(numbers | labels)


if __name__ == "__main__":
    main()
