import getpass
import html
import re

import mlflow
import pandas as pd
import pytest
from prefect.client.orchestration import get_client

from flows.judge import standing
from flows.monitor import monitor
from flows.review import review
from flows.steps import opened
from flows.train import train
from pipeline.errors import ConfigError, DataError, RegistryError
from pipeline.registry import records

pytestmark = pytest.mark.integration

BATCH = "2026-02-16T00:00"


@pytest.fixture
def broken(trained, tmp_path, make_shop_rows):
    """Conf of a trained shop whose first batch is broken."""
    rows = make_shop_rows()
    times = rows["at"]
    inside = (times >= BATCH) & (times < pd.Timestamp(BATCH) + pd.Timedelta("7D"))
    rows.loc[inside, "age"] *= 100
    rows.to_parquet(tmp_path / "rows.parquet")
    monitor(trained)
    return trained


def test_open_questions_are_returned_and_shown(broken):
    (question,) = review(broken)

    _, registry = opened(broken)
    (cause,) = records.causes(registry, records.read_history(registry).batches[0])
    assert question == {
        "batch": BATCH,
        "causes": ["unit (age)"],
        "sentences": [cause.sentence],
        "cures": [cause.cure],
    }
    with get_client(sync_client=True) as client:
        shown = client.request("POST", "/artifacts/latest/filter", json={}).json()
    (artifact,) = [artifact for artifact in shown if artifact["key"] == "shop-review"]
    assert cause.cure in artifact["data"]
    assert artifact["description"].startswith("1 broken batches of shop")


@pytest.mark.parametrize(("answer", "set_aside"), [("accept", False), ("drop", True)])
def test_an_answer_closes_the_question(broken, answer, set_aside):
    assert review(broken, batch="2026-02-16", answer=answer, reason="a test") == []

    (batch,) = records.read_history(opened(broken)[1]).batches
    assert (batch.answer, batch.set_aside) == (answer, set_aside)


def test_the_report_is_made_again_with_who_answered_when_and_why(broken):
    review(broken, batch=BATCH, answer="drop", reason="the meter was stuck")

    _, registry = opened(broken)
    (batch,) = records.read_history(registry).batches
    page = mlflow.artifacts.load_text(f"runs:/{batch.run_id}/{records.PAGE}")
    (lead,) = re.findall(r'<p class="lead">(Answered .*?)</p>', page)
    said = html.unescape(re.sub("<.*?>", "", lead))
    at = pd.Timestamp(re.search(r"on (.*) UTC from", said)[1], tz="UTC")
    assert said.endswith(f'from the account {getpass.getuser()}: "the meter was stuck".')
    assert abs(pd.Timestamp.now("UTC") - at) < pd.Timedelta("10min")


def test_the_faults_of_the_last_batches_stand_while_these_are_set_aside(broken):
    _, registry = opened(broken)
    history = records.read_history(registry)
    later = monitor(broken)["batch"]

    assert [cause.name for cause in standing(registry, history)] == ["unit (age)"]
    assert standing(registry, records.read_history(registry)) == []
    review(broken, batch=BATCH, answer="accept")
    assert standing(registry, records.read_history(registry).before(later)) == []


@pytest.fixture
def mend(tmp_path, make_shop_rows):
    """Writes the source's rows without the fault."""
    return lambda: make_shop_rows().to_parquet(tmp_path / "rows.parquet")


def test_a_batch_of_a_mended_source_is_read_and_judged_again(broken, mend, tmp_path):
    mend()

    assert review(broken, batch=BATCH, answer="reload", reason="sent again") == []

    _, registry = opened(broken)
    (batch,) = records.read_history(registry).batches
    assert (batch.outcome, batch.set_aside, batch.reading) == ("quiet", False, 2)
    first, second = sorted(
        (run.data for run in registry.search(f"tags.batch = '{BATCH}'")),
        key=lambda run: run.tags.get("reading", "1"),
    )
    assert (first.tags["outcome"], first.tags["answer"]) == ("broken", "reload")
    assert first.tags["answer_reason"] == "sent again"
    assert second.tags["mlflow.runName"] == f"batch {BATCH}, reading 2: quiet"
    (kept,) = (tmp_path / "state" / "quarantine" / "shop").glob("*broken.parquet")
    assert pd.read_parquet(kept)["age"].median() > 1_000
    monitor(broken)
    following = records.read_history(registry).batches[1]
    assert registry.read(following.run_id, records.REPORT)["batches"] == 2
    assert train(broken, until="2026-02-23", episode="by hand")["version"] == 2
    assert registry.version(2).left_out == ""


def test_a_batch_that_is_broken_still_pages_and_asks_again(broken, receiver, monkeypatch):
    pages, address = receiver
    monkeypatch.setenv("HOLDFAST__ALERTS__URLS", f'["{address}"]')

    (question,) = review(broken, batch=BATCH, answer="reload", reason="they say so")

    (batch,) = records.read_history(opened(broken)[1]).batches
    assert (question["batch"], batch.reading, batch.answer) == (BATCH, 2, "")
    assert [page["title"] for page in pages] == [
        f"[failure] shop: batch {BATCH} is broken and quarantined"
    ]


def test_a_batch_that_cannot_be_read_again_stays_an_open_question(broken, mend, tmp_path):
    (tmp_path / "rows.parquet").unlink()
    with pytest.raises(DataError):
        review(broken, batch=BATCH, answer="reload")
    (question,) = review(broken)
    assert question["batch"] == BATCH
    mend()

    assert review(broken, batch=BATCH, answer="reload") == []

    (batch,) = records.read_history(opened(broken)[1]).batches
    assert (batch.outcome, batch.reading) == ("quiet", 2)


def test_a_batch_whose_fault_was_not_seen_can_be_read_again(broken, mend):
    unseen = monitor(broken)["batch"]
    mend()

    review(broken, batch=unseen, answer="reload")

    readings = [batch.reading for batch in records.read_history(opened(broken)[1]).batches]
    assert readings == [1, 2]


def test_a_batch_read_again_late_undoes_nothing(broken, mend):
    result = monitor(broken)
    mend()

    review(broken, batch=BATCH, answer="reload")

    _, registry = opened(broken)
    first, second = records.read_history(registry).batches
    assert (first.reading, second.reading) == (2, 1)
    assert second.verdict.decision.reason == result["reason"]
    assert registry.read(first.run_id, records.GIVEN)["late"] is True


def test_a_batch_is_not_late_where_all_later_ones_are_set_aside(broken, mend, tmp_path):
    rows = pd.read_parquet(tmp_path / "rows.parquet")
    rows.loc[rows["at"] >= BATCH, "age"] = rows["age"].mask(rows["age"] < 500, rows["age"] * 100)
    rows.to_parquet(tmp_path / "rows.parquet")
    assert "in 2 batches in a row" in monitor(broken)["reason"]
    mend()

    review(broken, batch=BATCH, answer="reload")

    _, registry = opened(broken)
    first, second = records.read_history(registry).batches
    assert (first.set_aside, second.set_aside) == (False, True)
    assert registry.read(first.run_id, records.GIVEN)["late"] is False


def test_an_answer_with_a_blank_reason_is_refused(broken):
    with pytest.raises(ConfigError, match="Got a blank one"):
        review(broken, batch=BATCH, answer="drop", reason=" ")

    assert records.read_history(opened(broken)[1]).batches[0].answer == ""


@pytest.mark.parametrize("half", [{"batch": BATCH}, {"answer": "drop"}])
def test_half_an_answer_is_refused(broken, half):
    with pytest.raises(RegistryError, match="must name a batch and say accept, drop or"):
        review(broken, **half)

    assert records.read_history(opened(broken)[1]).batches[0].answer == ""
