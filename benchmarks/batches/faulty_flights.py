"""A source of flights whose rows have a fault for three weeks, as `benchmarks.outages` reads it."""

import os
from functools import cache, partial

import numpy as np
import pandas as pd

from benchmarks.batches.faults import (
    Apply,
    Names,
    affine,
    clipped,
    frozen,
    nulls,
    permuted,
    recode,
    rounded,
    sentinel,
    shifted,
    shuffled,
    sign,
    stuck,
    swapped,
    text,
)
from examples import flights

FAULT = "HOLDFAST_BENCH_FAULT"
FIRST, AFTER = pd.Timestamp("2013-05-21"), pd.Timestamp("2013-06-11")
"""Weeks 20 to 22."""
WEATHER = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure")

FLIGHTS: dict[str, tuple[Names, Apply]] = {
    "unit": (("temp",), partial(affine, factor=5 / 9, offset=-160 / 9)),
    "sign": (("dewp",), sign),
    "stuck": (("hour",), stuck),
    "frozen": ((), partial(frozen, runs=6)),
    "nulls": (("temp",), nulls),
    "sentinel": (("temp",), partial(sentinel, value=0)),
    "clipped": (("distance",), partial(clipped, at=0.8)),
    "rounded": (("temp",), partial(rounded, to=-1)),
    "recode": (("carrier",), partial(recode, how="lower case")),
    "permuted": (("carrier",), permuted),
    "swapped": (("temp", "humid"), swapped),
    "shuffled": (("distance",), shuffled),
    "shifted": (("hour",), partial(shifted, by=5)),
    "schema": (("temp",), partial(text, how="comma and unit")),
    "join": (WEATHER, nulls),
    "duplicate": ((), nulls),
    "volume": ((), nulls),
}
"""A fault of each cause that validation accepts; `_year` makes the last two itself."""


def faulty_flights(start: pd.Timestamp | None, end: pd.Timestamp | None) -> pd.DataFrame:
    """Flights with a fault in the rows of three weeks; `FAULT` holds its `name:seed`."""
    fault, _, seed = os.environ.get(FAULT, "").partition(":")
    rows = _year(fault, int(seed or 0))
    inside = np.ones(len(rows), dtype=bool)
    if start is not None:
        inside &= (rows["scheduled"] >= start).to_numpy()
    if end is not None:
        inside &= (rows["scheduled"] < end).to_numpy()
    return rows[inside].reset_index(drop=True)


@cache
def _year(fault: str, seed: int) -> pd.DataFrame:
    rows = flights.rows(None, None)
    if not fault:
        return rows
    random = np.random.default_rng(20 + seed)
    inside = ((rows["scheduled"] >= FIRST) & (rows["scheduled"] < AFTER)).to_numpy()
    if fault == "volume":  # 4% arrive
        return rows[~inside | (random.random(len(rows)) < 0.04)].reset_index(drop=True)
    if fault == "duplicate":  # the week before, sent again three times
        return pd.concat([rows[~inside], *_again(rows)]).sort_values(
            ["scheduled", "flight_id"], ignore_index=True
        )
    names, apply = FLIGHTS[fault]
    if fault == "sentinel":  # half of the values
        inside = inside & (random.random(len(rows)) < 0.5)
    given = ["scheduled", "flight_id", "late", "arrival_delay"]
    damaged = apply(rows.drop(columns=given), names, inside, random)
    return rows[given].join(damaged)[list(rows)]


def _again(rows: pd.DataFrame) -> list[pd.DataFrame]:
    week = pd.Timedelta("7D")
    last = rows[(rows["scheduled"] >= FIRST - week) & (rows["scheduled"] < FIRST)]
    return [
        last.assign(scheduled=last["scheduled"] + k * week, flight_id=last["flight_id"] + f"-{k}")
        for k in (1, 2, 3)
    ]
