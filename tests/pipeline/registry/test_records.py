import itertools
import json

import numpy as np
import pandas as pd
import pytest

from pipeline.config import Tracking
from pipeline.errors import RegistryError
from pipeline.monitoring.episode import Decision, Evidence, Verdict
from pipeline.monitoring.findings import Cause, DriftReport
from pipeline.monitoring.performance import Performance
from pipeline.reference.summaries import ROWS, Summary
from pipeline.registry import records
from pipeline.registry.answers import record_answer
from pipeline.registry.versions import Registry

pytestmark = pytest.mark.integration

UNIT = Cause("unit", ("amount", "age"), "Seen.", {"factor": 100.0, "was": "EUR"}, "Mend it.", 0.5)
NAME = "2026-01-05T00:00"
COUNTER = itertools.count()


@pytest.fixture(scope="module")
def section(tmp_path_factory, empty_store):
    """The place of a single store for all tests."""
    folder = tmp_path_factory.mktemp("state")
    empty_store(folder)
    return Tracking(folder=folder)


@pytest.fixture
def registry(section):
    return Registry(f"shop-{next(COUNTER)}", section)


def record(registry, causes=(UNIT,), *, reading=1, sketch=None, private=(), verdict=None):
    """Record a batch without findings, as the monitor does."""
    summary = Summary({ROWS: 0.0}, sketch=sketch)
    report = DriftReport(0, 0.05, (), (), (), summary, 1, 400.0, 0.01, (), causes)
    decision = Decision("page" if causes else "none", "As found.")
    found = Evidence(NAME, 1, broken=tuple(c.name for c in causes))
    moment = pd.Timestamp(NAME)
    return records.record(
        registry,
        verdict=verdict or Verdict(found, decision),
        report=report,
        quarantined=3,
        predictions=PREDICTED,
        window=(moment, moment + pd.Timedelta("7D")),
        step=0,
        given={},
        draw=lambda run_id, comparison: f"{run_id}: {comparison['outcome']}",
        reading=reading,
        private=private,
    )


PREDICTED = pd.DataFrame({"key": ["a"], "time": [pd.Timestamp(NAME)], "prediction": [0.25]})


def answer(registry, name, answer, reason="a test"):
    return record_answer(registry, records.read_history(registry), name, answer, reason)


def tags_of(registry, batch):
    return registry.client.get_run(batch.run_id).data.tags


def test_a_broken_batch_is_read_back_as_it_was_recorded(registry, section):
    recorded = record(registry)

    (batch,) = records.read_history(Registry(registry.name, section)).batches

    assert batch == recorded
    assert (batch.outcome, batch.answer, batch.rows, batch.quarantined) == ("broken", "", 0, 3)
    assert (batch.start, batch.end) == (pd.Timestamp("2026-01-05"), pd.Timestamp("2026-01-12"))
    assert batch.verdict.evidence.broken == ("unit (amount, age)",)
    assert records.causes(registry, batch) == (UNIT,)


def test_a_second_reading_and_what_was_accepted_without_an_answer_are_read_back(registry):
    other = Evidence(NAME, 1, alarm=True, persisted=("age",))
    evidence = Evidence(NAME, 1, broken=("unit (amount, age)",), otherwise=other)
    verdict = Verdict(evidence, Decision("retrain", "As found.", "v1", evidence.broken))

    recorded = record(registry, verdict=verdict)

    (batch,) = records.read_history(registry).batches
    assert recorded.verdict == batch.verdict == verdict
    assert (recorded.set_aside, batch.set_aside) == (True, False)


def test_a_batch_leaves_some_rows_without_private_columns(registry):
    rows = pd.DataFrame({"age": [31.5, np.nan], "plan": ["pro", None], "name": ["Ada", "Bob"]})
    batch = record(registry, sketch=rows, private=["name"])

    (summary,) = records.summaries(registry, [batch])

    pd.testing.assert_frame_equal(summary.sketch, rows[["age", "plan"]])


def test_a_batch_of_an_older_store_leaves_no_rows(registry):
    batch = record(registry)

    (summary,) = records.summaries(registry, [batch])

    assert summary.sketch is None


def test_performance_and_notes_are_read_back_as_they_were_recorded(registry):
    batch = record(registry, causes=())
    performance = Performance(NAME, 9, {"log_loss": 0.5}, (0.4, 0.6), 0.1, -0.1, worse=False)

    batch = records.record_performance(
        registry, batch, performance, as_of=pd.Timestamp("2026-02-01"), step=0
    )
    batch = records.record_page(registry, batch)
    batch = records.record_announcement(registry, batch, "a key")

    assert (batch.performance, batch.paged, batch.announced) == (performance, True, True)
    assert records.read_history(registry).batches == (batch,)


def test_the_last_reading_of_a_batch_replaces_the_earlier_readings(registry):
    record(registry)

    again = record(registry, causes=(), reading=2)

    assert records.read_history(registry).batches == (again,)
    assert len(registry.search("tags.kind = 'batch'")) == 2


def test_a_batch_without_a_verdict_is_not_recorded_yet(registry):
    batch = record(registry)

    registry.client.delete_tag(batch.run_id, "verdict")

    assert records.read_history(registry).batches == ()


def test_a_batch_recorded_before_there_were_diagnoses_is_read(registry):
    batch = record(registry, causes=())
    verdict = json.loads(tags_of(registry, batch)["verdict"])
    del verdict["evidence"]["broken"]
    verdict["evidence"]["alarm"] = True
    registry.client.set_tag(batch.run_id, "verdict", json.dumps(verdict))
    registry.client.delete_tag(batch.run_id, "outcome")

    (old,) = records.read_history(registry).batches

    assert (old.outcome, old.broken, old.set_aside) == ("moved", False, False)
    assert old.verdict.evidence.broken == ()


def test_a_broken_batch_is_set_aside_until_it_is_accepted(registry):
    states = [record(registry)]

    for given in ("drop", "accept"):
        states.append(answer(registry, NAME, given))
        assert records.read_history(registry).batches == (states[-1],)

    assert [state.answer for state in states] == ["", "drop", "accept"]
    assert [state.set_aside for state in states] == [True, True, False]


def test_a_repeated_answer_changes_nothing(registry):
    batch = record(registry)
    answer(registry, NAME, "drop", "a bad file")
    before = tags_of(registry, batch)

    answer(registry, "2026-01-05", "drop", "once more")

    assert tags_of(registry, batch) == before
    assert before["answer_reason"] == "a bad file"
    assert pd.Timestamp(before["answered"]).tz is not None


def test_a_new_answer_replaces_the_earlier_answers_and_keeps_them(registry):
    batch = record(registry)

    for given, reason in (("drop", "first"), ("accept", "second"), ("drop", "third")):
        answer(registry, NAME, given, reason)

    tags = tags_of(registry, batch)
    earlier = json.loads(tags["answers"])
    assert (tags["answer"], tags["answer_reason"]) == ("drop", "third")
    assert [(before["answer"], before["answer_reason"]) for before in earlier] == [
        ("drop", "first"),
        ("accept", "second"),
    ]
    assert all(pd.Timestamp(before["answered"]) for before in earlier)


@pytest.mark.parametrize(
    ("name", "fact"),
    [
        ("2026-01-05", r"must be broken to drop it\. Got quiet"),
        ("2030-01-01", "is not recorded"),
        ("nonsense", "is not recorded"),
    ],
)
def test_only_a_recorded_broken_batch_can_be_dropped(registry, name, fact):
    batch = record(registry, causes=())

    with pytest.raises(RegistryError, match=rf"Batch {name} of 'shop-\d+' {fact}\. See .* review"):
        answer(registry, name, "drop")

    assert "answer" not in tags_of(registry, batch)
