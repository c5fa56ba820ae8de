from pathlib import Path

import pandas as pd
import pytest

from examples.flights import rows
from pipeline.config import Settings
from pipeline.data.sources import read
from pipeline.data.validation import validate

CONF = Path(__file__).parents[2] / "conf"
WEEK = pd.Timestamp("2013-02-26"), pd.Timestamp("2013-03-05")


@pytest.fixture(scope="module")
def settings():
    return Settings.load(CONF / "flights.yaml")


@pytest.fixture(scope="module")
def year():
    return rows(None, None)


def test_the_year_has_every_departure_once(year):
    assert len(year) == 336_776
    assert year["flight_id"].is_unique


def test_a_window_holds_its_start_and_not_its_end(year):
    times = rows(*WEEK)["scheduled"]

    assert len(times) == ((year["scheduled"] >= WEEK[0]) & (year["scheduled"] < WEEK[1])).sum()
    assert WEEK[0] <= times.min()
    assert times.max() < WEEK[1]


def test_a_flight_is_late_beyond_fifteen_minutes_and_unlabelled_if_it_never_arrived(year):
    label = year["late"]

    assert set(year.loc[label == 0, "arrival_delay"] <= 15) == {True}
    assert set(year.loc[label == 1, "arrival_delay"] > 15) == {True}
    assert label.isna().equals(year["arrival_delay"].isna())


def test_joining_weather_and_planes_adds_what_the_contract_declares(year, settings):
    data = settings.data

    assert {data.key, data.time, data.target, *data.features} <= set(year.columns)


def test_a_week_obeys_the_shipped_contract(settings):
    data = settings.data
    week = read(data.train, time=data.time, start=WEEK[0], end=WEEK[1])

    validated = validate(week, data)

    assert len(validated.valid) > 0.99 * len(week)
    assert len(validated.valid) + len(validated.quarantined) == len(week)


def test_changing_what_came_does_not_change_what_comes_next():
    first = rows(*WEEK)
    first["carrier"] = "changed"

    assert "changed" not in set(rows(*WEEK)["carrier"])
