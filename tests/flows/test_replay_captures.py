"""Captured requests of production, sent again to the API of staging."""

import time
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest
import yaml

from flows.replay_captures import replay_captures
from flows.steps import opened
from flows.train import train
from pipeline.data.captures import CAPTURED, read_captures, read_labels
from pipeline.errors import ConfigError, DataError, UnavailableError

pytestmark = pytest.mark.integration

ENVIRONMENT = "HOLDFAST__ENVIRONMENT"
NEW = "2026-03-23"
"""End of a window with enough rows after the drift for a version that passes the gate."""
LONG_AGO = pd.Timestamp("2020-01-01")
AT, KEY, PREDICTION, *_, ID = CAPTURED

REQUESTS = [
    {"rows": [{"amount": 51.25, "age": None, "plan": "pro"}]},
    {"rows": [{"amount": 0.1 + 0.2, "plan": "free"}, {"amount": 70, "age": 33, "plan": "pro"}],
     "keys": ["one", "zwei ü"]},
    {"rows": [{"amount": 199.0, "age": 40.5, "plan": "free"}], "keys": ["three"]},
]  # fmt: skip


def captured_rows(path, rows):
    """The captures, as soon as so many rows are written; a killed server would lose the last."""
    end = time.monotonic() + 60
    while not path.exists() or len(found := read_captures(path)) < rows:
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


@pytest.fixture
def captured(copy_shop, tmp_path, serve, monkeypatch):
    """A model with captures and labels of production; from then on the environment is staging."""

    def filled(conf):
        with serve(conf) as (_, address):
            for request in REQUESTS:
                assert httpx.post(f"{address}/predict", json=request).is_success
            for target in (0, 1):  # the label of one key is revised
                sent = [{"key": "one", "target": target}, {"key": "another", "target": 1}]
                assert httpx.post(f"{address}/labels", json={"labels": sent}).is_success
            captured_rows(opened(conf)[0].captures, 4)

    conf = copy_shop("captured", tmp_path, filled)
    monkeypatch.setenv(ENVIRONMENT, "staging")
    return conf


@pytest.fixture
def days_read(monkeypatch):
    """Starts of the days whose captures are read."""
    starts = []

    def noted(path, **window):
        starts.append(window["start"])
        return read_captures(path, **window)

    monkeypatch.setattr("flows.replay_captures.read_captures", noted)
    return starts


def test_a_window_of_production_comes_to_staging_as_it_was(captured, serve, days_read):
    production = opened(captured)[0].captures_in("production")
    train(captured)

    with serve(captured) as (_, address):
        found = replay_captures(captured, "production", LONG_AGO, address=address)
        own = opened(captured)[0].captures
        was, now = captured_rows(production, 4), captured_rows(own, 4)

    features = ["amount", "age", "plan", KEY]
    pd.testing.assert_frame_equal(now[features], was[features])
    assert days_read == [was[AT].min()]  # nothing is read of the time before the first request
    assert was.groupby(ID, sort=False).size().tolist() == [1, 2, 1]
    assert now.groupby(ID, sort=False).size().tolist() == [1, 2, 1]
    assert (now[AT] > was[AT].max()).all()
    assert read_labels(own)[["key", "target"]].values.tolist() == [["one", 1]]
    sizes = {name: found[name] for name in ("requests", "rows", "answered", "labels")}
    assert sizes == {"requests": 3, "rows": 4, "answered": 4, "labels": 1}
    assert (found["equal"], found["largest_difference"], found["reasons"]) == (4, 0.0, {})


def test_predictions_of_another_version_are_compared(captured, serve):
    settings = opened(captured)[0]
    assert train(captured, until=NEW)["promoted"]

    with serve(captured) as (_, address):
        found = replay_captures(captured, "production", LONG_AGO, address=address)
        now = captured_rows(settings.captures, 4)[PREDICTION]

    was = read_captures(settings.captures_in("production"))[PREDICTION]
    differences = np.abs(was - now)
    assert found["equal"] == (differences <= 1e-6 * (1 + was)).sum() < len(was)
    assert found["mean_difference"] == pytest.approx(differences.mean(), rel=1e-12)
    assert found["largest_difference"] == differences.max()


def test_only_requests_of_the_window_are_sent(captured, serve):
    captures = opened(captured)[0].captures_in("production")
    second = read_captures(captures)[AT].iloc[1]
    train(captured)

    with serve(captured) as (_, address):
        end = second + pd.Timedelta("1us")
        found = replay_captures(captured, "production", second, end, address=address)

    assert (found["requests"], found["rows"]) == (1, 2)


def test_rows_that_staging_refuses_are_counted_with_the_reason(captured, serve):
    values = yaml.safe_load(Path(captured).read_text())
    values["data"]["features"]["amount"]["max"] = 150
    Path(captured).write_text(yaml.safe_dump(values))
    train(captured)

    with serve(captured) as (_, address):
        found = replay_captures(captured, "production", LONG_AGO, address=address)

    assert (found["rows"], found["answered"]) == (4, 3)
    assert list(found["reasons"].values()) == [1]
    assert next(iter(found["reasons"])).startswith("amount: ")


def test_production_never_captures_its_own_rows_again(captured, serve, monkeypatch):
    monkeypatch.delenv(ENVIRONMENT)
    with serve(captured) as (_, address):
        monkeypatch.setenv(ENVIRONMENT, "staging")
        with pytest.raises(ConfigError, match=r"which serves shop\. Name another") as error:
            replay_captures(captured, "production", LONG_AGO, address=address)

    assert address in str(error.value)
    captures = opened(captured)[0].captures_in("production")
    assert read_captures(captures)[ID].nunique() == len(REQUESTS)


def test_what_cannot_be_sent_is_said_with_the_cure(captured, receiver):
    nobody = "http://127.0.0.1:9"
    with pytest.raises(UnavailableError, match=f"{nobody} does not answer .*Start it"):
        replay_captures(captured, "production", LONG_AGO, address=nobody)
    other = receiver[1].replace("json", "http").removesuffix("/page")
    with pytest.raises(UnavailableError, match="answered 501 to /version, as no served model does"):
        replay_captures(captured, "production", LONG_AGO, address=other)
    with pytest.raises(ConfigError, match="must name another environment than staging"):
        replay_captures(captured, "staging", LONG_AGO)
    with pytest.raises(DataError, match=r"test must have a store of captures\. Got none at"):
        replay_captures(captured, "test", LONG_AGO)
