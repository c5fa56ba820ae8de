"""Data sets that come with NannyML, from its environment: no threshold was chosen on them."""

import sys
from functools import cache

import pandas as pd

from benchmarks import peers

FILES = {
    "car_loan": "synthetic_car_loan",
    "work_from_home": "synthetic_sample",
    "car_price": "regression_synthetic",
    "credit_card": "mc",
}
"""Files of each set, whose names end in `_reference.csv` and `_analysis.csv`."""
NAMES = (*FILES, "employment")
_BLOCK, _KNOWN = 2_500, 20_000
_ROLES = {
    *("y_pred", "y_pred_proba", "y_true", "timestamp", "identifier", "period", "partition"),
    *(
        "work_home_actual",
        "repaid",
        "id",
        "prediction",
        "predicted_probability",
        "employed",
        "year",
    ),
    *(f"y_pred_proba_{card}_card" for card in ("prepaid", "highstreet", "upmarket")),
}
"""Columns that are no features, in lower case."""


@cache
def batches(name: str) -> tuple[pd.DataFrame, list[pd.DataFrame], int]:
    """Rows of the reference, the batches after it in order of time, and the rows of a batch."""
    before, after = _read(name)
    block = len(before) // 10 if name == "employment" else _BLOCK
    cut = [after[k : k + block] for k in range(0, len(after), block)]
    whole = [rows.reset_index(drop=True) for rows in cut if len(rows) >= block / 2]
    return before.reset_index(drop=True), whole, block


def _read(name: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    if name == "employment":
        sides = [pd.read_parquet(_path(f"employment_MA_{side}.pq")) for side in _SIDES]
    else:
        sides = [pd.read_csv(_path(f"{FILES[name]}_{side}.csv")) for side in _SIDES]
        sides[0] = sides[0][:_KNOWN]
    shared = [x for x in map(str, sides[0]) if x in sides[1] and x.lower() not in _ROLES]
    return sides[0][shared], sides[1][shared]


_SIDES = ("reference", "analysis")


@cache
def _path(file: str) -> str:
    python = peers.environment("nannyml")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = python.parents[1] / "lib" / version / "site-packages"
    return str(packages / "nannyml" / "datasets" / "data" / file)
