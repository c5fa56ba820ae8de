from dataclasses import replace

import pandas as pd
import pytest

from pipeline.monitoring.episode import Decision, Evidence, Verdict
from pipeline.monitoring.performance import Performance
from pipeline.registry.history import MOST_RECENT, Batch, History, batch_name

DAY = pd.Timedelta("1D")


def batch(
    day,
    *,
    version=1,
    outcome="quiet",
    answer="",
    action="none",
    episode="",
    scored=False,
    faults=(),
    presumed=(),
):
    """A batch of a day of January 2026."""
    start = pd.Timestamp("2025-12-31") + day * DAY
    name = batch_name(start)
    decision = Decision(action, "As found.", episode, presumed)
    verdict = Verdict(Evidence(name, version, broken=faults), decision)
    performance = Performance(name, 9, {}, (), 0.0, 0.0, worse=False) if scored else None
    return Batch(
        name=name,
        end=start + DAY,
        verdict=verdict,
        rows=9,
        quarantined=0,
        drifted=(),
        performance=performance,
        run_id=f"run {day}",
        outcome=outcome,
        answer=answer,
    )


def days(batches):
    return [found.start.day for found in batches]


BROKEN = {"outcome": "broken"}


def test_a_batch_knows_its_window_and_version():
    first = batch(1, version=3)

    assert (first.start, first.end) == (pd.Timestamp("2026-01-01"), pd.Timestamp("2026-01-02"))
    assert (first.name, first.version) == ("2026-01-01T00:00", 3)


@pytest.mark.parametrize(
    ("outcome", "answer", "set_aside", "is_open"),
    [
        ("quiet", "", False, False),
        ("moved", "", False, False),
        ("broken", "", True, True),
        ("mixed", "", True, True),
        ("broken", "reload", True, True),
        ("broken", "drop", True, False),
        ("broken", "accept", False, False),
    ],
)
def test_a_broken_batch_is_set_aside_until_accepted_and_open_until_answered(
    outcome, answer, set_aside, is_open
):
    found = batch(1, outcome=outcome, answer=answer)

    assert (found.set_aside, found.is_open) == (set_aside, is_open)


def test_a_batch_is_added_in_its_place_and_replaces_the_batch_of_its_name():
    history = History((batch(1), batch(3)))

    longer = history.with_batch(batch(2))
    changed = longer.with_batch(batch(3, outcome="moved"))

    assert days(history.batches) == [1, 3]
    assert days(longer.batches) == days(changed.batches) == [1, 2, 3]
    assert changed.last.outcome == "moved"


def test_a_batch_is_found_by_its_name():
    history = History((batch(1), batch(2)))

    assert history.batch("2026-01-02T00:00") == history.find("2026-01-02T00:00") == batch(2)
    assert history.find("2026-01-09T00:00") is None


def test_an_empty_history_has_no_last_batch_and_no_request():
    assert History().last is None
    assert History().last_request is None
    assert History().standing == []


def test_batches_before_a_name_do_not_include_it():
    history = History((batch(1), batch(2), batch(3)))

    assert days(history.before("2026-01-02T00:00").batches) == [1]


def test_performances_are_those_of_a_version_on_batches_that_are_not_set_aside():
    history = History(
        (
            batch(1, scored=True),
            batch(2, version=2, scored=True),
            batch(3, scored=True, **BROKEN),
            batch(4, scored=True, answer="accept", **BROKEN),
            batch(5),
        )
    )

    assert [judged.batch[:10] for judged in history.performances(1)] == ["2026-01-01", "2026-01-04"]


def test_recent_batches_are_the_last_of_a_version_that_are_not_set_aside():
    own = [batch(day) for day in range(1, MOST_RECENT + 3)]
    own[-1] = replace(own[-1], outcome="broken")
    history = History((*own, batch(MOST_RECENT + 3, version=2)))

    assert history.recent(1) == own[1:-1]


def test_standing_batches_are_the_newest_in_a_row_that_are_set_aside():
    broken = [batch(day, **BROKEN) for day in (1, 3, 4)]
    history = History((broken[0], batch(2), *broken[1:]))

    assert days(history.standing) == [4, 3]
    assert history.with_batch(batch(5)).standing == []


def test_standing_batches_are_a_limited_number():
    history = History(tuple(batch(day, **BROKEN) for day in range(1, MOST_RECENT + 9)))

    assert len(history.standing) == MOST_RECENT


def test_batches_scored_between_two_moments_lie_between_them():
    history = History(
        (
            batch(1, scored=True),
            batch(2, scored=True),
            batch(3),
            batch(4, scored=True, **BROKEN),
            batch(5, scored=True),
        )
    )

    assert days(history.scored_between(pd.Timestamp("2026-01-02"), pd.Timestamp("2026-01-05"))) == [
        2
    ]


@pytest.mark.parametrize(("later", "counts"), [({}, True), (BROKEN, False)])
def test_only_a_later_batch_that_is_not_set_aside_makes_a_batch_late(later, counts):
    history = History((batch(1), batch(2, **later)))

    assert history.counts_after("2026-01-01T00:00") == counts
    assert not history.counts_after("2026-01-02T00:00")


def test_the_last_request_is_the_newest_batch_that_asked_for_a_retrain():
    history = History((batch(1, action="retrain"), batch(3, action="retrain"), batch(4)))

    assert history.last_request == batch(3, action="retrain")


UNIT = {"outcome": "broken", "faults": ("unit (a)",)}


def test_batches_whose_faults_are_accepted_without_an_answer_are_not_set_aside():
    history = History.of([batch(2, presumed=("unit (a)",), **UNIT), batch(1, **UNIT), batch(3)])

    assert [found.presumed for found in history.batches] == [("unit (a)",)] * 2 + [()]
    assert [found.set_aside or found.is_open for found in history.batches] == [False] * 3
    assert days(history.recent(1)) == [1, 2, 3]
    assert history.accepted == []


def test_a_batch_with_another_fault_stays_set_aside():
    both = {"outcome": "broken", "faults": ("unit (a)", "nulls (b)")}

    history = History.of([batch(1, **UNIT), batch(2, presumed=("unit (a)",), **both)])

    assert [found.set_aside for found in history.batches] == [False, True]
    assert history.batches[1].presumed == ("unit (a)",)


def test_what_counts_as_accepted_does_not_depend_on_later_batches():
    history = History.of([batch(1, **UNIT), batch(2, presumed=("unit (a)",), **UNIT)])

    assert history.before("2026-01-02T00:00").batches[0].set_aside
    assert not history.of_version(1).batches[0].set_aside


@pytest.mark.parametrize(
    ("answer", "aside"), [("drop", [1, 2]), ("reload", [1, 2]), ("accept", [])]
)
def test_an_answer_withdraws_or_confirms_what_was_accepted_without_one(answer, aside):
    last = batch(2, presumed=("unit (a)",), **UNIT)
    history = History.of([batch(1, **UNIT), last])

    answered = history.with_batch(replace(history.batches[1], answer=answer))

    assert days(found for found in answered.batches if found.set_aside) == aside


def test_batches_that_are_set_aside_count_where_they_are_named():
    broken = batch(2, scored=True, **UNIT)
    history = History((batch(1, scored=True), broken))

    assert days(history.recent(1, also={broken.name})) == [1, 2]
    assert len(history.performances(1, also={broken.name})) == 2


def test_unanswered_batches_are_the_standing_ones_without_an_answer():
    history = History(
        (batch(1, **BROKEN), batch(2), batch(3, **BROKEN), batch(4, answer="drop", **BROKEN))
    )

    assert days(history.unanswered) == [3]
    assert days(history.opposed) == [4]
