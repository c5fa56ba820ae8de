"""Real data sets with their target, as tables that a model can be trained on and watched over."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import pandas as pd

from benchmarks.batches.histories import table
from benchmarks.batches.streams import LEAKS
from examples import flights as examples

START: Final = pd.Timestamp("2020-01-06")
"""Where the time of tables begins that have an order and no time."""
KEY, TIME, TARGET, LABEL_TIME = "row_key", "row_time", "row_target", "label_time"


@dataclass(frozen=True, eq=False)
class Table:
    """Rows with key, time and target, and how they are cut.

    Attributes
    ----------
    rows : DataFrame
        All rows, in order.
    task : str
        ``classification`` or ``regression``.
    batch : str
        Length of a batch.
    until : Timestamp
        End of the first training window.
    label_time : bool
        Whether each row says when its label became known.
    """

    rows: pd.DataFrame = field(repr=False)
    task: str
    batch: str
    until: pd.Timestamp
    label_time: bool = False


def in_order(
    name: str, target: str, first: int, length: int, *, gone: tuple[str, ...] = (), one: Any = 1
) -> Table:
    """A table without times: batches of `length` rows count as weeks."""
    rows = table(name)
    spacing = pd.Timedelta("7D") / length
    times = START + spacing * pd.Series(range(len(rows)))
    made = rows.drop(columns=[target, *gone]).assign(
        **{TIME: times.dt.floor("us"), TARGET: (rows[target] == one).astype(float)}
    )
    return Table(_keyed(made), "classification", "7D", START + spacing * first)


def hotel() -> Table:
    """Cancellations by arrival; a label is known on the day of the last status."""
    rows = table("hotel_bookings").sort_values("arrival_date", kind="stable", ignore_index=True)
    gone = [name for name in rows if str(name).startswith(("reservation_status", "arrival_date"))]
    made = rows.drop(columns=[*gone, *LEAKS, "is_canceled"]).assign(
        **{
            TIME: rows["arrival_date"],
            TARGET: rows["is_canceled"].astype(float),
            LABEL_TIME: rows["reservation_status_date"],
        }
    )
    until = rows["arrival_date"].min() + pd.Timedelta("182D")
    return Table(_keyed(made), "classification", "14D", until, label_time=True)


def bike() -> Table:
    """Rentals of each hour, from the weather and the calendar."""
    rows = table("bike_hourly")
    gone = ["timestamp", "instant", "dteday", "casual", "registered", "cnt"]
    made = rows.drop(columns=gone).assign(
        **{TIME: rows["timestamp"], TARGET: rows["cnt"].astype(float)}
    )
    return Table(_keyed(made), "regression", "28D", pd.Timestamp("2012-01-01"))


def flights() -> Table:
    """Late flights, with the columns of the project's example."""
    rows = examples.rows(None, None).dropna(subset=["late"])
    renamed = {"flight_id": KEY, "scheduled": TIME, "late": TARGET}
    made = rows.drop(columns="arrival_delay").rename(columns=renamed)
    return Table(made, "classification", "7D", pd.Timestamp("2013-02-26"))


def taxi() -> Table:
    """Large tips, in stretches of 13 weeks, of which each year has four."""
    rows = table("chicago_taxi_tfx")
    gone = ["timestamp", "trip_start_timestamp", "pickup_census_tract", "tips", "big_tip"]
    made = rows.drop(columns=gone).assign(
        **{TIME: rows["timestamp"], TARGET: rows["big_tip"].astype(float)}
    )
    return Table(_keyed(made), "classification", "91D", pd.Timestamp("2014-01-01"))


def houses() -> Table:
    """Houses of California in the order of their time, as NannyML's example cuts them."""
    rows = table("nannyml_california")
    gone = ["id", "timestamp", "clf_target", "y_pred_proba", "y_pred", "partition"]
    made = rows.drop(columns=gone).assign(
        **{TIME: rows["timestamp"], TARGET: rows["clf_target"].astype(float)}
    )
    return Table(_keyed(made), "classification", "28D", pd.Timestamp("2021-04-01"))


def _keyed(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(**{KEY: [f"r{place}" for place in range(len(rows))]})


TABLES: Final[dict[str, Callable[[], Table]]] = {
    "bank_marketing": partial(
        in_order,
        "bank_marketing",
        "y",
        12_000,
        1_500,
        gone=("seq", "year_month", "duration", "month"),
        one="yes",
    ),
    "hotel_bookings": hotel,
    "bike_hourly": bike,
    "elec2": partial(
        in_order, "elec2", "class", 8_736, 1_344, gone=("timestamp", "date"), one="UP"
    ),
    "noaa_weather": partial(in_order, "noaa_weather", "target", 3_650, 730, gone=("seq",)),
    "flights": flights,
    "chicago_taxi_tfx": taxi,
    "nannyml_california": houses,
    "evidently_adult": partial(
        in_order, "evidently_adult", "class", 14_155, 2_000, gone=("partition",), one=">50K"
    ),
    "uci_credit_default": partial(
        in_order,
        "uci_credit_default",
        "default.payment.next.month",
        15_000,
        1_000,
        gone=("ID",),
    ),
    "sine_abrupt": partial(in_order, "sine_abrupt", "class", 10_000, 1_000, gone=("seq",)),
}
