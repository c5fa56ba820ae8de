import json
from dataclasses import asdict

import pandas as pd
import pytest

from pipeline.config import Tracking
from pipeline.monitoring.episode import Decision, Evidence, Verdict, decide
from pipeline.registry import records
from pipeline.registry.history import MOST_RECENT, batch_name
from pipeline.registry.recent import opened_by, read_last, read_recent
from pipeline.registry.tracking import milliseconds
from pipeline.registry.versions import Registry

pytestmark = pytest.mark.integration

FIRST, DAY = pd.Timestamp("2026-01-01"), pd.Timedelta("1D")
UNIT = "unit (amount)"
OLD, OUTAGE, CALM = 12, 8, MOST_RECENT - 2
"""Batches before the window, in a row with a fault that nobody answers for, and calm after them."""


def put(registry, day, *, action="none", faults=(), reading=1, outcome="", **tags):
    """Record a batch by its tags alone, as the monitor leaves them."""
    start = FIRST + day * DAY
    name, presumed = batch_name(start), tuple(tags.pop("presumed", ()))
    decision = Decision(action, "As found.", tags.get("episode", ""), presumed=presumed)
    verdict = Verdict(Evidence(name, 1, broken=faults), decision)
    run = registry.client.create_run(
        registry.experiment,
        start_time=milliseconds(start),
        tags={
            **tags,
            **({"reading": str(reading)} if reading > 1 else {}),
            "kind": "batch",
            "batch": name,
            "action": action,
            "outcome": outcome or ("broken" if faults else "quiet"),
            "drifted": "[]",
            "verdict": json.dumps(asdict(verdict)),
        },
    )
    registry.log(run.info.run_id, {"rows": 10, "quarantined": 0}, start, 0)
    registry.client.set_terminated(run.info.run_id, end_time=milliseconds(start + DAY))


@pytest.fixture(scope="module")
def registry(tmp_path_factory, empty_store):
    """A long history: what happened in its first batches is known, and then comes an outage."""
    folder = tmp_path_factory.mktemp("state")
    empty_store(folder)
    registry = Registry("shop", Tracking(folder=folder))
    put(registry, 0, action="page", faults=("sign (age)",), answer="accept")
    put(registry, 1, action="page", faults=(UNIT,), presumed=(UNIT,))
    put(registry, 2, action="retrain", episode="v1-a", outcome="moved")
    put(registry, 3, action="retrain", episode="v1-b", outcome="moved")
    put(registry, 4, action="retrain", episode="v1-b", outcome="moved")
    put(registry, 5, action="retrain", episode="v1-c", outcome="moved", answer="reload")
    put(registry, 5, reading=2)
    put(registry, 6, action="page", faults=("nulls (plan)",), answer="drop")
    for day in range(7, OLD):
        put(registry, day)
    for day in range(OLD, OLD + OUTAGE):
        put(registry, day, action="page", faults=("stuck (age)",))
    for day in range(OLD + OUTAGE, OLD + OUTAGE + CALM):
        put(registry, day)
    return registry


def days(history):
    return [int((batch.start - FIRST) / DAY) for batch in history.batches]


def test_the_window_holds_the_last_calm_batches_and_all_between_them(registry):
    history = read_recent(registry, DAY)

    window = list(range(OLD - 2, OLD + OUTAGE + CALM))
    assert days(history)[-len(window) :] == window
    assert history.since == FIRST + (OLD - 2) * DAY


def test_of_older_batches_the_last_request_and_accepted_faults_are_kept(registry):
    older = [day for day in days(read_recent(registry, DAY)) if day < OLD - 2]

    assert older == [0, 1, 4]


def test_the_window_reaches_as_far_as_labels_are_looked_for(registry):
    reach = (CALM + OUTAGE + 4) * DAY

    assert read_recent(registry, reach).since == FIRST + (OLD - 5) * DAY


def test_the_window_of_an_older_batch_ends_at_no_later_batch(registry):
    last = OLD + OUTAGE + CALM

    history = read_recent(registry, DAY, batch=FIRST + (last - 1) * DAY)

    assert history.since == FIRST + (OLD - 3) * DAY
    assert days(history)[-1] == last - 1


def test_a_store_without_enough_calm_batches_is_read_whole(registry):
    history = read_recent(registry, DAY, calm=1_000)

    assert history == records.read_history(registry)


@pytest.mark.parametrize("faults", [(), (UNIT,), ("stuck (age)",), ("sign (age)", UNIT)])
def test_a_decision_from_the_window_is_that_from_the_whole_history(registry, faults):
    evidence = Evidence("2027-01-01T00:00", 1, persisted=("amount",), broken=faults)
    made = []

    for history in (records.read_history(registry), read_recent(registry, DAY)):
        accepted = [batch.name for batch in history.accepted]
        answered = [batch.name for batch in history.opposed]
        counting = {"accepted": accepted, "answered": answered, "escalate_after": 3}
        made.append(decide(evidence, history=history.verdicts, attempts=(), cooldown=4, **counting))

    assert made[0] == made[1]
    assert made[0].action == ("page" if faults else "retrain")


def test_the_newest_batch_and_the_batch_that_opened_an_episode_are_found(registry):
    opened = opened_by(registry, "v1-b")

    assert read_last(registry) == records.read_history(registry).last
    assert opened.start == FIRST + 3 * DAY
