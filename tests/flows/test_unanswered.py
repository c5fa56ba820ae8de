import pandas as pd
import pytest

from flows.judge import judge
from flows.monitor import monitor
from flows.replay import replay
from flows.review import review
from flows.steps import opened
from flows.terminal import closing
from pipeline.monitoring.episode import Attempt, decide
from pipeline.registry import records

pytestmark = pytest.mark.integration

START = "2026-02-16"
WEEKS = [f"{start:%Y-%m-%dT%H:%M}" for start in pd.date_range(START, periods=5, freq="7D")]
A_WEEK = 7 * 48  # rows


@pytest.fixture
def outage(tmp_path, trained, make_shop_rows, make_conf):
    """A trained shop, a column of which is in another unit from its first batch on; its conf."""
    del trained

    def write(column="age", **monitoring):
        rows = make_shop_rows()
        rows.loc[rows["at"] >= START, column] *= 100
        rows.to_parquet(tmp_path / "rows.parquet")
        return make_conf(monitoring={"cooldown": 2, **monitoring})

    return write


def batches_of(conf):
    return records.read_history(opened(conf)[1]).batches


def explained(conf):
    """Whether each recorded decision follows from what was recorded with it."""
    _, registry = opened(conf)
    history = records.read_history(registry)
    for batch in history.batches:
        given = registry.read(batch.run_id, records.GIVEN)
        before = [history.batch(name).verdict for name in given.pop("history")]
        given["attempts"] = [Attempt(**attempt) for attempt in given["attempts"]]
        yield decide(batch.verdict.evidence, history=before, **given) == batch.verdict.decision


@pytest.mark.team
def test_people_are_paged_again_with_both_readings_and_at_each_doubling(
    outage, receiver, monkeypatch
):
    pages, address = receiver
    monkeypatch.setenv("HOLDFAST__ALERTS__URLS", f'["{address}"]')
    conf = outage(escalate_after=2)

    replay(conf, batches=1)
    story = replay(conf, batches=4)
    again = monitor(conf, batch=WEEKS[1])

    assert [row["action"] for row in story] == ["page"] * 4 + ["none"]
    assert [page["title"] for page in pages] == [
        f"[failure] shop: batch {WEEKS[0]} is broken and quarantined",
        f"[failure] shop: batch {WEEKS[1]} is broken and quarantined, and nobody has answered",
        f"[failure] shop: batch {WEEKS[2]} is broken and quarantined, and performance was lost",
        f"[failure] shop: batch {WEEKS[3]} is broken and quarantined, and performance was lost",
    ]
    question = (
        "Question: Broken: unit (age) in 2 batches in a row, and nobody has answered. If it is a "
        "fault, mend it and answer reload, or answer drop: no model learns from faulty rows. If it "
        "is the world now, answer accept for these batches: "
    )
    assert question in pages[1]["message"]
    assert "Since: batch 2026-02-16T00:00." in pages[1]["message"]
    assert "The next page comes at 4 batches in a row." in pages[1]["message"]
    assert "drift of amount, prediction, age persists" in pages[3]["message"]
    assert again["reason"] == story[1]["reason"]
    assert all(explained(conf))
    _, registry = opened(conf)
    assert len(registry.versions()) == 1
    assert [row["batch"] for row in review(conf)] == WEEKS


@pytest.mark.team
def test_a_fault_that_nobody_answers_for_is_accepted_and_learnt_where_that_is_configured(
    outage, answer
):
    conf = outage(on_unanswered="accept")

    story = replay(conf, batches=4)

    settings, registry = opened(conf)
    batches = batches_of(conf)
    assert [row["action"] for row in story[:3]] == ["page", "none", "retrain"]
    assert [row["accepted_unanswered"] for row in story] == [[], [], ["unit (age)"], []]
    assert "unit (age) accepted without an answer, 1 retrain asked for" in closing(story, settings)
    assert [batch.set_aside for batch in batches] == [False] * 4
    version = registry.version(2)
    assert (version.episode, version.left_out) == (f"v1-{WEEKS[2]}", "")
    assert version.rows == registry.version(1).rows + 3 * A_WEEK
    assert (batches[3].outcome, batches[3].verdict.evidence.broken) == ("moved", ())
    assert registry.read(batches[3].run_id, records.REPORT)["batches"] == 3
    assert review(conf) == []
    assert all(explained(conf))

    dropped = answer(registry, WEEKS[2], "drop", "a fault after all")

    assert dropped.answer == "drop"
    assert [row["batch"] for row in review(conf)] == WEEKS[:2]
    still_open = review(conf, batch=WEEKS[3], answer="reload", reason="judged without the fault")
    assert [row["batch"] for row in still_open] == [*WEEKS[:2], WEEKS[3]]


def test_an_accepted_fault_does_not_depend_on_interruptions(outage):
    conf = outage(on_unanswered="accept", escalate_after=2)
    settings, registry = opened(conf)
    history = records.read_history(registry)
    for week in WEEKS[:3]:
        history = judge(settings, registry, history, pd.Timestamp(week))

    assert history == records.read_history(registry)
    assert [batch.presumed for batch in history.batches] == [("unit (age)",)] * 2 + [()]
    assert judge(settings, registry, history, pd.Timestamp(WEEKS[1])) == history


def test_a_fault_that_leaves_no_valid_row_is_never_accepted(outage):
    conf = outage("amount", on_unanswered="accept", escalate_after=1)

    result = monitor(conf)

    (batch,) = batches_of(conf)
    assert (result["action"], batch.presumed, batch.set_aside) == ("page", (), True)
    assert "cannot be judged: no row of the batch is valid." in result["reason"]


def test_labels_that_arrive_late_show_lost_performance_of_a_broken_batch_before(outage, make_conf):
    settings, _ = opened(outage())
    late = settings.model_dump(mode="json")["data"] | {"label_delay": "8D"}
    conf = make_conf(data=late, monitoring={"escalate_after": 9})

    replay(conf, batches=5)

    evidence = [batch.verdict.evidence for batch in batches_of(conf)]
    # Most labels of the week with the fault are known at the end of the next, some of that week's
    # at the end of the one after it.
    assert [found.worse for found in evidence] == ["", "", "", *WEEKS[2:4]]
    assert [found.otherwise is None for found in evidence] == [*[True] * 3, False, True]
