import shlex

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.cli import app
from pipeline.reporting.silence import SILENCES, Signs, silence_over, silences, silent

WEEK = pd.Timedelta("7D")
NOW = pd.Timestamp("2026-06-01")
CONF = "conf/shop.yaml"


def ago(weeks):
    return NOW - weeks * WEEK


def found(**changed):
    signs = {
        "served": ago(20),
        "monitored": ago(1),
        "scheduled": True,
        "due": None,
        "batch_end": ago(1),
        "labels_due": ago(1),
    }
    return silences(Signs(**signs | changed), length=WEEK, now=NOW)


def test_a_model_whose_runs_batches_and_labels_come_is_not_silent():
    assert found() == {}


@pytest.mark.parametrize(
    ("sign", "what"),
    [("monitored", "monitor"), ("batch_end", "batches"), ("labels_due", "labels")],
)
def test_what_is_missing_for_more_than_two_intervals_is_named_with_its_moment(sign, what):
    assert found(**{sign: ago(2)}) == {}
    assert found(**{sign: ago(2.01)}) == {what: ago(2.01)}


def test_a_silent_monitor_comes_before_what_follows_from_it():
    everything = found(monitored=ago(5), batch_end=ago(5), labels_due=ago(4))

    assert list(everything) == ["monitor", "batches", "labels"]


@pytest.mark.parametrize(("minutes", "named"), [(59, []), (61, ["worker"])])
def test_a_run_that_is_due_may_wait_for_an_hour(minutes, named):
    due = NOW - pd.Timedelta(minutes, "min")

    assert list(found(due=due)) == named
    assert list(found(due=due, monitored=None, served=ago(1))) == named


def test_a_schedule_that_is_off_counts_unless_somebody_else_runs_the_monitor():
    assert found(scheduled=False) == {}
    assert found(scheduled=False, monitored=ago(3))["schedule"] == ago(3)
    assert found(scheduled=False, monitored=None) == {"schedule": ago(20)}


def test_nothing_is_expected_of_a_model_that_nobody_monitors_and_no_schedule_could():
    assert found(scheduled=None, monitored=None, batch_end=ago(600)) == {}


def test_a_monitor_that_is_scheduled_and_never_ran_is_missed_from_the_first_champion_on():
    assert found(monitored=None, served=ago(1)) == {}
    assert found(monitored=None, served=ago(3)) == {"monitor": ago(3)}


@given(st.floats(0, 9), st.floats(0, 9), st.floats(0, 9), st.sampled_from([True, False, None]))
def test_each_silence_depends_on_its_own_sign(late, batch, due, scheduled):
    signs = {"monitored": ago(late), "batch_end": ago(batch), "labels_due": ago(due)}
    silent_now = found(scheduled=scheduled, **signs)

    assert ("batches" in silent_now) == (batch > 2)
    assert ("labels" in silent_now) == (due > 2)
    assert ("monitor" in silent_now) == (late > 2)
    assert ("schedule" in silent_now) == (scheduled is False and late > 2)


@pytest.mark.parametrize("what", SILENCES)
def test_a_page_about_a_silence_and_one_about_its_end_say_all_that_is_known(what):
    began = silent("shop", CONF, what, ago(3), length=WEEK, resolved=ago(9))
    ended = silence_over("shop", CONF, what, NOW, paged=ago(1))

    assert (began.severity, ended.kind, began.episode) == ("failure", "resolved", ended.episode)
    for event in (began, ended):
        lines = event.body.split("\n")
        parts = ["What", "How bad", "Since", "Why", "Done", "To do"]
        assert [line.split(":")[0].split(",")[0] for line in lines[:6]] == parts
        assert shlex.split(lines[-1])[1] in app
        assert lines[-1].endswith(CONF)
    assert "2026-05-11 00:00 UTC" in began.body
    assert "You were paged about it at 2026-05-25 00:00 UTC." in ended.body


def test_a_silence_that_was_resolved_and_goes_on_is_another_page():
    abouts = [
        silent("shop", CONF, "schedule", ago(3), length=WEEK, resolved=ago(n)).about
        for n in (9, 4, 2, 1)
    ]

    assert len({*abouts[:2]}) == 1
    assert len({*abouts}) == 3
