"""Streams of batches with nothing broken, in order, each batch with its reference."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.batches import draws, foreign, histories, many, natural
from benchmarks.batches.histories import CHANGE, fit, report_on, table
from pipeline.monitoring.findings import Cause
from pipeline.reference import Reference
from pipeline.reference.summaries import Summary

Batches = Iterator[tuple[str, Reference, pd.DataFrame]]


def flights(*, every: int, last: int) -> Batches:
    """Weeks from 8 on, against the first eight; `every`: weeks between new references, 0 none."""
    reference = None
    for week in range(8, last + 1):
        if reference is None or (every and (week - 8) % every == 0):
            reference = fit(*histories.weeks(max(0, week - 26), week), "7D")
        yield f"week {week}", reference, histories.weeks(week, week + 1)[0]


def bike() -> Batches:
    rows, time = histories.bike()
    months = time.dt.strftime("%Y-%m")
    before = rows[time.dt.year == 2011]
    reference = fit(before, None, 730)
    for month in sorted(months[time.dt.year == 2012].unique()):
        yield month, reference, rows[months == month]


def elec2() -> Batches:
    """Batches of four weeks after the first 26; one starts at the row of the known change."""
    rows, first = histories.elec2(), 26 * 336
    reference = fit(rows[:first], None, 1_344)
    starts = [*range(first, CHANGE - 1_343, 1_344), *range(CHANGE, len(rows) - 1_343, 1_344)]
    for start in starts:
        yield f"row {start}", reference, rows[start : start + 1_344]


def pieces(rows: pd.DataFrame, first: int, length: int, block: int) -> Batches:
    reference = fit(rows[:first].reset_index(drop=True), None, block)
    for start in range(first, len(rows) - length + 1, length):
        yield f"row {start}", reference, rows[start : start + length].reset_index(drop=True)


def weather() -> Batches:
    yield from pieces(table("noaa_weather").drop(columns=["seq", "target"]), 3_650, 730, 730)


def credit() -> Batches:
    rows = table("uci_credit_default").drop(columns=["ID", "default.payment.next.month"])
    yield from pieces(rows.sample(frac=1, random_state=0, ignore_index=True), 15_000, 1_000, 1_000)


def taxi() -> Batches:
    rows, time = histories.taxi()
    quarters = time.dt.to_period("Q").astype("str")
    reference = fit(rows[time.dt.year == 2013], None, 1_097)
    for quarter in sorted(quarters[time.dt.year > 2013].unique()):
        yield quarter, reference, rows[quarters == quarter]


def california() -> Batches:
    rows = table("nannyml_california").sort_values("timestamp", ignore_index=True)
    time, split = rows["timestamp"], rows["partition"] == "reference"
    names = ["MedInc", "HouseAge", "AveRooms", "AveBedrms", "Population", "AveOccup"]
    features = rows[[*names, "Latitude", "Longitude"]]
    reference = fit(features[split].reset_index(drop=True), None, 730)
    months = time.dt.strftime("%Y-%m")
    for month in sorted(months[~split].unique()):
        yield month, reference, features[~split & (months == month)]


LEAKS = ["assigned_room_type", "booking_changes", "required_car_parking_spaces", "booking_date"]


def hotel(by: str, *, identifiers: bool) -> Batches:
    """Two weeks of arrivals, or four of bookings, against the first half year."""
    rows = table("hotel_bookings").sort_values(by, kind="stable", ignore_index=True)
    if identifiers:  # numbers that name an agency are labels
        for name in ("agent", "company"):
            rows[name] = rows[name].astype("Int64").astype("str").where(rows[name].notna())
    time, days = rows[by], "14D" if by == "arrival_date" else "28D"
    gone = [name for name in rows if str(name).startswith(("reservation_status", "arrival_date"))]
    rows = rows.drop(columns=[*gone, *LEAKS, "is_canceled"])
    start = time.min() + pd.Timedelta("182D")
    before = (time < start).to_numpy()
    reference = fit(rows[before], time[before], days)
    number = ((time - start) // pd.Timedelta(days)).to_numpy()
    for k in range(int(number.max()) + 1):
        if (number == k).sum() >= reference.block_rows / 2:
            batch = rows[(number == k) & ~before].reset_index(drop=True)
            yield f"{start + k * pd.Timedelta(days):%Y-%m-%d}", reference, batch


def bank(first: int) -> Batches:
    gone = ["seq", "year_month", "duration", "month", "y"]
    yield from pieces(table("bank_marketing").drop(columns=gone), first, 1_500, 1_500)


def adult() -> Batches:
    """Other schools than those of the reference: another population."""
    rows = table("evidently_adult").drop(columns=["class"])
    rows = rows.astype(dict.fromkeys(rows.columns[rows.dtypes == "category"], "str"))
    split = rows.pop("partition") == "reference"
    before, now = rows[split].reset_index(drop=True), rows[~split].reset_index(drop=True)
    reference = fit(before, None, 1_000)
    for start in range(0, 10_000, 1_000):
        yield f"row {start}", reference, now[start : start + 1_000].reset_index(drop=True)


def sine() -> Batches:
    yield from pieces(table("sine_abrupt").drop(columns=["seq", "class"]), 10_000, 1_000, 1_000)


def foreign_set(name: str) -> Batches:
    read = foreign.batches if name in foreign.NAMES else many.batches
    before, after, block = read(name)
    reference = fit(before, None, block)
    for number, rows in enumerate(after):
        yield f"batch {number}", reference, rows


def year(kind: str, seed: int, weeks: int) -> Batches:
    """The first weeks of a simulated year, 2,000 rows each."""
    random = np.random.default_rng([seed, 2])
    reference = fit(draws.table(random, 20_000), None, 2_000)
    for week in range(1, weeks + 1):
        yield f"week {week}", reference, draws.YEARS[kind](random, 2_000, week)


def change(kind: str, seed: int, steps: int) -> Batches:
    """A simulated shop that changes in one way, completed after `steps` batches."""
    random = np.random.default_rng([seed, 4])
    reference = fit(natural.orders(random, 20_000), None, 2_000)
    for step in range(1, steps + 1):
        how = natural.NATURAL[kind](np.random.default_rng([seed, 5]), step / steps)
        n = int(2_000 * random.uniform(0.7, 1.3))
        yield f"step {step}", reference, natural.orders(random, n, how)


REAL: dict[str, Callable[[], Batches]] = {
    "bike_hourly": bike,
    "elec2": elec2,
    "noaa_weather": weather,
    "uci_credit_default": credit,
    "chicago_taxi_tfx": taxi,
    "nannyml_california": california,
    "hotel_bookings": partial(hotel, "arrival_date", identifiers=False),
    "hotel_bookings, ids as labels": partial(hotel, "arrival_date", identifiers=True),
    "hotel_bookings, by booking": partial(hotel, "booking_date", identifiers=False),
    "bank_marketing": partial(bank, 12_000),
    "bank_marketing, longer": partial(bank, 18_000),
    "evidently_adult": adult,
    "sine_abrupt": sine,
}


def streams(seed: int, *, quick: bool) -> dict[str, Callable[[], Batches]]:
    """Streams by name: the flights, the data sets that are there, the simulated ones."""
    last = 9 if quick else 51
    found: dict[str, Callable[[], Batches]] = {
        "flights, first 8 weeks": partial(flights, every=0, last=last)
    }
    if not quick:
        for every, text in ((6, "every 6 weeks"), (1, "every week")):
            name = f"flights, new reference {text}"
            found[name] = partial(flights, every=every, last=last)
    for name, make in REAL.items():
        if histories.available(name.split(",")[0]):
            found[name] = partial(islice, make(), 1) if quick else make
    for kind in draws.YEARS:
        found[f"simulated {kind} #0"] = partial(year, kind, seed, 2 if quick else 52)
    for kind in list(natural.NATURAL)[:: 3 if quick else 1]:
        for k in range(1 if quick else 2):
            steps = 1 if quick else 12
            found[f"simulated shop, {kind} #{k}"] = partial(change, kind, seed + k, steps)
    return found


def judged(name: str, seed: int, *, quick: bool) -> list[dict[str, Any]]:
    """Verdicts on every batch of a stream, each given alone and with the batches before it."""
    verdicts: list[dict[str, Any]] = []
    recent: list[Summary] = []
    standing: list[Cause] = []
    last: Reference | None = None
    own = streams(seed, quick=quick).get(name)
    for label, reference, frame in own() if own else foreign_set(name):
        if reference is not last:
            recent, standing, last = [], [], reference
        for given in ([], recent) if recent else ([],):
            report = report_on(reference, frame, given, standing if given else ())
            verdicts.append(
                {
                    "stream": name,
                    "batch": label,
                    "recent": bool(given),
                    "outcome": report.outcome,
                    "error": report.error,
                    "causes": [
                        {"cause": cause.name, "sentence": cause.sentence} for cause in report.causes
                    ],
                }
            )
        if report.causes:
            standing = [*standing, *report.causes]
        else:
            recent, standing = [*recent, reference.summarise(frame)], []
    return verdicts
