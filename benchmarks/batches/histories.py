"""Real and simulated histories, cut into references and live batches."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache, partial
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.batches import foreign, many, natural
from examples import flights
from pipeline.columns import infer_columns
from pipeline.config import Settings
from pipeline.monitoring.drift import compare
from pipeline.monitoring.findings import Cause
from pipeline.reference import Reference
from pipeline.reference.summaries import Summary

FOLDER = "HOLDFAST_BENCH_DATA"
YEAR = pd.Timestamp("2013-01-01")
CHANGE = 17_424
"""Row of elec2 at which Victoria joins the market."""
Block = str | int


@dataclass(frozen=True)
class Verdict:
    """Outcome, causes and notes of a comparison, or the error in which it ended."""

    outcome: str
    causes: tuple[Cause, ...]
    error: str = ""
    seconds: float = 0.0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Case:
    """A clean batch, the rows it is compared with, and the clean batches between them.

    Attributes
    ----------
    key : str
        `set/number`, from which `case` builds the case.
    before, current : DataFrame
        Features of the reference's rows and of the batch.
    earlier : list of DataFrame
        Up to three batches between the reference and the batch, oldest first.
    times : Series or None
        Times of the reference's rows; None if the rows are in order.
    block : str or int
        Length of a batch: a pandas offset or a number of rows.
    """

    key: str
    before: pd.DataFrame = field(repr=False)
    current: pd.DataFrame = field(repr=False)
    earlier: list[pd.DataFrame] = field(repr=False)
    times: pd.Series | None
    block: Block

    @property
    def set(self) -> str:
        return self.key.rsplit("/", 1)[0]

    @cached_property
    def reference(self) -> Reference:
        return fit(self.before, self.times, self.block)

    @cached_property
    def recent(self) -> list[Summary]:
        return [self.reference.summarise(frame) for frame in self.earlier]

    @cached_property
    def labels(self) -> list[str]:
        """Names of the columns that hold labels."""
        return [str(name) for name in self.current if self.current[name].dtype.kind not in "iuf"]


def fit(before: pd.DataFrame, times: pd.Series | None, block: Block) -> Reference:
    return Reference.fit(before, infer_columns(before), time=times, block=block, seed=0)


def report_on(
    reference: Reference,
    frame: pd.DataFrame,
    recent: list[Summary],
    standing: Sequence[Cause] = (),
) -> Verdict:
    """Outcome and causes of a comparison; `crashed` if it raises, so that others go on."""
    started = time.process_time()
    try:
        report = compare(reference=reference, current=frame, recent=recent, standing=standing)
    except Exception as error:  # noqa: BLE001 -- it becomes a figure
        return Verdict("crashed", (), f"{type(error).__name__}: {error}")
    seconds = time.process_time() - started
    return Verdict(report.outcome, report.causes, "", seconds, report.notes)


def available(name: str) -> bool:
    folder = os.environ.get(FOLDER)
    return folder is not None and (Path(folder) / f"{name}.parquet").is_file()


@cache
def table(name: str) -> pd.DataFrame:
    return pd.read_parquet(Path(os.environ[FOLDER]) / f"{name}.parquet")


@cache
def flight_rows() -> tuple[pd.DataFrame, pd.Series, pd.Series]:
    """Features, times and weeks of all flights."""
    rows = flights.rows(None, None)
    names = list(Settings.load("conf/flights.yaml").data.features)
    return rows[names], rows["scheduled"], (rows["scheduled"] - YEAR).dt.days // 7


def weeks(first: int, after: int) -> tuple[pd.DataFrame, pd.Series]:
    """Features and times of the flights of some weeks."""
    features, times, week = flight_rows()
    inside = ((week >= first) & (week < after)).to_numpy()
    return features[inside].reset_index(drop=True), times[inside].reset_index(drop=True)


def _flights(week: int) -> Case:
    """One week: 8-12 against the first eight, later ones against up to 26 that end 3 before."""
    after = 8 if week <= 12 else week - 3
    before, times = weeks(max(0, after - 26), after)
    earlier = [weeks(k, k + 1)[0] for k in range(max(after, week - 3), week)]
    return Case(f"flights/{week}", before, weeks(week, week + 1)[0], earlier, times, "7D")


def bike() -> tuple[pd.DataFrame, pd.Series]:
    rows = table("bike_hourly")
    leaks = ["instant", "dteday", "casual", "registered", "cnt", "timestamp"]
    return rows.drop(columns=leaks), rows["timestamp"]


def _bike(number: int) -> Case:
    """Two months of 2012 against 2011; one month for numbers from 101 on."""
    rows, times = bike()
    length = 1 if number > 100 else 2
    months = (times.dt.year - 2012) * 12 + times.dt.month - 1
    first = number - 101 if number > 100 else 2 * number
    cut = [rows[(months >= k) & (months < k + length)] for k in range(0, first + 1, length)]
    before = rows[months < 0]
    block = 730 * length
    return _cut(f"bike_hourly/{number}", before, cut, block)


def _cut(key: str, before: pd.DataFrame, batches: list[pd.DataFrame], block: int) -> Case:
    """A case of the last batch and up to three before it; rows are in order."""
    whole = [frame.reset_index(drop=True) for frame in (before, *batches)]
    return Case(key, whole[0], whole[-1], whole[1:-1][-3:], None, block)


def elec2() -> pd.DataFrame:
    return table("elec2").drop(columns=["timestamp", "date", "class"])


def _elec2(number: int) -> Case:
    """Four weeks against 26; for numbers from 100 on all of them lie after the change."""
    rows, later = elec2(), number >= 100
    start = (CHANGE if later else 0) + 26 * 336
    first = CHANGE if later else 0
    cut = [rows[start + k * 1_344 :][:1_344] for k in range(number % 100 + 1)]
    return _cut(f"elec2/{number}", rows[first:start], cut, 1_344)


def _credit(number: int) -> Case:
    rows = table("uci_credit_default").drop(columns=["ID", "default.payment.next.month"])
    rows = rows.sample(frac=1, random_state=0, ignore_index=True)
    cut = [rows[15_000 + k * 1_000 :][:1_000] for k in range(number + 1)]
    return _cut(f"uci_credit_default/{number}", rows[:15_000], cut, 1_000)


def _adult(number: int) -> Case:
    rows = table("evidently_adult").drop(columns=["partition", "class"])
    rows = rows.sample(frac=1, random_state=0, ignore_index=True)
    labels = rows.columns[rows.dtypes == "category"]
    rows = rows.astype(dict.fromkeys(labels, "str"))
    cut = [rows[24_000 + k * 2_000 :][:2_000] for k in range(number + 1)]
    return _cut(f"evidently_adult/{number}", rows[:24_000], cut, 2_000)


def taxi() -> tuple[pd.DataFrame, pd.Series]:
    rows = table("chicago_taxi_tfx")
    gone = ["timestamp", "trip_start_timestamp", "pickup_census_tract", "tips", "big_tip"]
    return rows.drop(columns=gone), rows["timestamp"]


def _taxi(number: int) -> Case:
    """Four months, of over 1,000 rows until 2015, against 2013."""
    rows, times = taxi()
    third = (times.dt.year - 2014) * 3 + (times.dt.month - 1) // 4
    cut = [rows[third == k] for k in range(number + 1)]
    return _cut(f"chicago_taxi_tfx/{number}", rows[third < 0], cut, 1_097)


@cache
def _shop() -> pd.DataFrame:
    return natural.orders(np.random.default_rng(7), 20_000)


def _orders(number: int) -> Case:
    n = (2_000, 1_200, 3_000)[number % 3]
    cut = [natural.orders(np.random.default_rng([8, number, k]), n) for k in range(4)]
    return _cut(f"orders/{number}", _shop(), cut, 2_000)


def _many(name: str, number: int) -> Case:
    before, after, block = many.batches(name)
    return _cut(f"{name}/{number}", before, after[: number + 1], block)


def _foreign(name: str, number: int) -> Case:
    before, after, block = foreign.batches(name)
    return _cut(f"{name}/{number}", before, after[: number + 1], block)


MAKERS: dict[str, Callable[[int], Case]] = {
    "flights": _flights,
    "bike_hourly": _bike,
    "elec2": _elec2,
    "uci_credit_default": _credit,
    "orders": _orders,
    "evidently_adult": _adult,
    "chicago_taxi_tfx": _taxi,
    **{name: partial(_foreign, name) for name in foreign.NAMES},
}
NUMBERS: dict[str, tuple[int, ...]] = {
    "flights": (8, 20, 36, 10, 28, 50, 12, 24, 45, 16, 32, 40),
    "bike_hourly": (0, 4, 104, 2, 5, 1, 107, 3),
    "elec2": (1, 103, 5, 110, 3, 107),
    "uci_credit_default": (0, 3, 6, 9, 12, 14),
    "orders": (0, 1, 2, 3, 4, 5),
    "evidently_adult": (0, 4, 8, 11),
    "chicago_taxi_tfx": (0, 2, 3, 1),
    **dict.fromkeys(foreign.NAMES, (0, 2, 4)),
}
"""Batches of each set that faults are put into."""
OF_MANY = (0, 3, 6)
"""Batches of each of many tables that faults are put into."""
SHIPPED = ("flights", "orders")
"""Histories that need no data set but the project's own."""


def sets() -> list[str]:
    return [name for name in MAKERS if name in SHIPPED or available(name)]


def left_out(names: Iterable[str]) -> list[str]:
    """Data sets that are not in the folder that `FOLDER` names, each with the reason."""
    reason = f"not in the folder that {FOLDER} names"
    own = {*SHIPPED, *foreign.NAMES}
    return [f"{name}: {reason}" for name in names if name not in own and not available(name)]


@lru_cache(maxsize=6)
def case(key: str) -> Case:
    name, number = key.rsplit("/", 1)
    return MAKERS[name](int(number)) if name in MAKERS else _many(name, int(number))


def keys(names: Sequence[str] = ()) -> Iterator[str]:
    """Keys of all cases of some sets, by default of `sets`, in turn: a few trials cover many."""
    names = names or sets()
    numbers = {name: NUMBERS.get(name, OF_MANY) for name in names}
    for k in range(max(map(len, numbers.values()))):
        for name, own in numbers.items():
            yield f"{name}/{own[k % len(own)]}"
