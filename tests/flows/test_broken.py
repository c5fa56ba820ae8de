import json
from io import StringIO

import mlflow
import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from flows.monitor import monitor, next_batch
from flows.register import register
from flows.replay import replay
from flows.settle import settle
from flows.steps import opened
from flows.tables import replay_table
from flows.terminal import closing
from flows.train import train
from pipeline.data.validation import NoValidRowError
from pipeline.errors import DataError
from pipeline.registry import records
from pipeline.training.seals import is_sealed

pytestmark = pytest.mark.integration

FIRST, SECOND, THIRD = "2026-02-16T00:00", "2026-02-23T00:00", "2026-03-02T00:00"
A_WEEK = 7 * 48  # rows


@pytest.fixture
def spoilt(tmp_path, trained, make_shop_rows):
    """A trained shop, a column of which is a hundred times too large in some weeks; its conf."""

    def write(column, *weeks):
        rows = make_shop_rows()
        for week in weeks:
            rows.loc[within(rows, week), column] *= 100
        rows.to_parquet(tmp_path / "rows.parquet")
        return trained

    return write


def within(rows, week):
    start = pd.Timestamp(week)
    return (rows["at"] >= start) & (rows["at"] < start + pd.Timedelta("7D"))


def report_of(registry, batch):
    registry.client  # noqa: B018 -- sets MLflow's address
    return mlflow.artifacts.load_dict(f"runs:/{batch.run_id}/report.json")


def test_a_broken_batch_pages_at_once_and_only_once(spoilt, receiver, monkeypatch):
    pages, address = receiver
    monkeypatch.setenv("HOLDFAST__ALERTS__URLS", f'["{address}"]')
    conf = spoilt("age", FIRST)

    result = monitor(conf)
    assert monitor(conf, batch=FIRST) == result

    assert result["action"] == "page"
    assert result["reason"] == "Broken: unit (age). Set aside until someone answers in review."
    (page,) = pages
    assert (page["type"], page["title"]) == (
        "failure",
        f"[failure] shop: batch {FIRST} is broken and quarantined",
    )
    _, registry = opened(conf)
    (cause,) = records.causes(registry, records.read_history(registry).batches[0])
    assert f"{cause.sentence} {cause.cure}" in page["message"]
    assert f"holdfast review {conf} --batch {FIRST} --answer reload" in page["message"]
    assert "may be wrong; the loss is " in page["message"]  # it has labels


def test_all_rows_of_a_broken_batch_are_kept_as_they_came(spoilt, tmp_path):
    conf = spoilt("age", FIRST)

    monitor(conf)

    (kept,) = (tmp_path / "state" / "quarantine" / "shop").glob("*broken.parquet")
    rows = pd.read_parquet(tmp_path / "rows.parquet")
    came = rows[within(rows, FIRST)].reset_index(drop=True)
    assert kept.name == "batch 2026-02-16T0000 broken.parquet"
    pd.testing.assert_frame_equal(pd.read_parquet(kept), came)


def test_a_broken_batch_is_recorded_with_its_causes(spoilt):
    conf = spoilt("age", FIRST)

    monitor(conf)

    _, registry = opened(conf)
    (batch,) = records.read_history(registry).batches
    run = registry.client.get_run(batch.run_id).data
    assert (batch.outcome, batch.answer, batch.set_aside) == ("broken", "", True)
    assert batch.verdict.evidence.broken == ("unit (age)",)
    assert [cause.columns for cause in records.causes(registry, batch)] == [("age",)]
    assert run.metrics["causes"] == 1
    assert run.tags["mlflow.note.content"].startswith("**Broken.** Recognised: unit (age). ")


def test_a_batch_without_a_valid_row_is_broken_and_the_next_one_is_judged(spoilt):
    conf = spoilt("amount", FIRST)

    result = monitor(conf)

    settings, registry = opened(conf)
    history = records.read_history(registry)
    (batch,) = history.batches
    assert (result["rows"], result["action"]) == (0, "page")
    assert (batch.rows, batch.quarantined) == (0, A_WEEK)
    assert next_batch(settings, registry, history) == pd.Timestamp(SECOND)
    assert monitor(conf)["action"] == "none"


def test_a_batch_without_a_row_is_broken(tmp_path, trained, make_shop_rows):
    rows = make_shop_rows()
    rows[~within(rows, FIRST)].to_parquet(tmp_path / "rows.parquet")

    result = monitor(trained)

    assert (result["rows"], result["reason"][:26]) == (0, "Broken: volume (the batch)")


def test_a_batch_that_lacks_a_column_is_broken_and_kept(
    tmp_path, make_conf, trained, make_shop_rows
):
    settings, _ = opened(trained)
    make_shop_rows().drop(columns="plan").to_parquet(tmp_path / "live.parquet")
    live = {"kind": "file", "path": str(tmp_path / "live.parquet")}
    conf = make_conf(data=settings.model_dump(mode="json")["data"] | {"live": live})

    result = monitor(conf)

    assert result["reason"].startswith("Broken: schema (plan).")
    kept = pd.read_parquet(next((tmp_path / "state").rglob("batch 2026-02-16T0000.parquet")))
    assert kept["quarantine_reason"].tolist() == ["plan must be present"] * A_WEEK


def test_a_batch_without_a_valid_row_and_without_a_cause_is_refused(
    tmp_path, trained, make_shop_rows
):
    rows = make_shop_rows()
    rows.loc[within(rows, FIRST), "id"] = None
    rows.to_parquet(tmp_path / "rows.parquet")

    with pytest.raises(NoValidRowError, match="has no valid row"):
        monitor(trained)

    assert records.read_history(opened(trained)[1]).batches == ()


def test_without_diagnosis_a_broken_batch_counts_as_moved(spoilt, make_conf, tmp_path):
    spoilt("age", FIRST)
    conf = make_conf(monitoring={"diagnosis": False})

    result = monitor(conf)

    (batch,) = records.read_history(opened(conf)[1]).batches
    assert result["action"] == "none"
    assert (batch.outcome, batch.set_aside) == ("moved", False)
    assert list((tmp_path / "state").rglob("*broken.parquet")) == []


def test_without_diagnosis_a_batch_without_a_valid_row_is_refused(spoilt, make_conf):
    spoilt("amount", FIRST)
    conf = make_conf(monitoring={"diagnosis": False})

    with pytest.raises(DataError, match="has no valid row"):
        monitor(conf)


@pytest.mark.parametrize(("given", "together"), [(None, 1), ("drop", 1), ("accept", 2)])
def test_a_batch_that_is_set_aside_is_not_judged_with_the_next(spoilt, answer, given, together):
    conf = spoilt("age", FIRST)
    monitor(conf)
    _, registry = opened(conf)
    if given:
        answer(registry, FIRST, given)

    monitor(conf)

    assert report_of(registry, records.read_history(registry).batches[1])["batches"] == together


def test_a_fault_that_people_accepted_is_not_raised_again(spoilt, answer, judge_batch):
    conf = spoilt("age", FIRST, SECOND)
    monitor(conf)
    settings, registry = opened(conf)
    answer(registry, FIRST, "accept", "the new unit")

    batch = judge_batch(settings, registry, SECOND)

    assert batch.verdict.decision.action != "page"
    assert (batch.outcome, batch.verdict.evidence.broken) == ("moved", ())
    assert report_of(registry, batch)["causes"] == []


def test_a_fault_of_a_batch_that_people_dropped_is_raised_again(spoilt, answer):
    conf = spoilt("age", FIRST, SECOND)
    monitor(conf)
    answer(opened(conf)[1], FIRST, "drop", "a bad file")

    assert monitor(conf)["action"] == "page"


def test_a_fault_that_differs_from_the_accepted_fault_is_raised(spoilt, answer, tmp_path):
    conf = spoilt("age", FIRST, SECOND)
    rows = pd.read_parquet(tmp_path / "rows.parquet")
    rows.loc[within(rows, SECOND), "amount"] *= 100
    rows.to_parquet(tmp_path / "rows.parquet")
    monitor(conf)
    answer(opened(conf)[1], FIRST, "accept", "the new unit")

    assert monitor(conf)["reason"].startswith("Broken: unit (amount). ")


def test_a_batch_without_a_valid_row_is_set_aside_even_if_its_fault_was_accepted(spoilt, answer):
    conf = spoilt("amount", FIRST, SECOND)
    monitor(conf)
    answer(opened(conf)[1], FIRST, "accept", "the new unit")

    result = monitor(conf)

    assert (result["rows"], result["action"]) == (0, "page")
    assert result["reason"].startswith("Broken: unit (amount). ")


@pytest.mark.team
def test_training_leaves_out_what_is_set_aside_until_it_is_accepted(spoilt, answer):
    conf = spoilt("age", SECOND)
    for _ in range(2):
        monitor(conf)
    _, registry = opened(conf)
    versions = []
    for given in (None, "drop", "accept"):
        if given:
            answer(registry, SECOND, given)
        trained = train(conf, until="2026-03-09", episode=f"by hand {given}")
        versions.append(registry.version(trained["version"]))

    rows = [version.rows for version in versions]
    assert [version.left_out for version in versions] == [SECOND, SECOND, ""]
    assert rows == [rows[2] - A_WEEK, rows[2] - A_WEEK, rows[2]]
    heldout = registry.bundle(versions[0].number).heldout
    assert not within(heldout, SECOND).any()


def test_a_training_window_that_is_set_aside_as_a_whole_is_refused(spoilt, make_conf):
    conf = spoilt("age", FIRST)
    monitor(conf)
    short = make_conf(training={"window": "7D", "holdout": "2D"})

    with pytest.raises(DataError, match=r"All 336 rows of the training window .* set aside\."):
        train(short, until="2026-02-23")


def test_the_gate_does_not_judge_on_what_was_set_aside_since(spoilt, make_conf):
    spoilt("age", SECOND)
    training = {"params": {"n_estimators": 20}, "until": "2026-02-16", "holdout": "5D"}
    strict = make_conf(promotion={"min_gain": 0.9}, training=training)
    trained = train(strict, until="2026-03-02", episode="by hand")
    assert "must surely gain more than 90.0%" in trained["reason"]
    for _ in range(2):
        monitor(strict)

    again = register(strict, version=trained["version"])

    # Only rows of the stretch before the batch are left: 192 of its five days' 240.
    assert "must be judged on at least 200 labelled rows" in again["reason"]
    heldout = opened(strict)[1].bundle(trained["version"]).heldout
    left = int((~within(heldout, SECOND)).sum())
    assert f"Got {left}." in again["reason"]


def test_a_batch_that_is_set_aside_shows_lost_performance_and_no_other_batch_is_judged_by_it(
    spoilt, answer, receiver, monkeypatch
):
    pages, address = receiver
    monkeypatch.setenv("HOLDFAST__ALERTS__URLS", f'["{address}"]')
    conf = spoilt("age", THIRD)
    results = [monitor(conf) for _ in range(3)]
    settings, registry = opened(conf)

    history = settle(settings, registry, records.read_history(registry), pd.Timestamp("2026-03-16"))

    assert history == records.read_history(registry)
    third = history.batch(THIRD)
    assert results[2]["action"] == "page"
    assert third.performance.at_least > settings.monitoring.performance_loss
    assert third.performance.metrics["log_loss"] > 1
    assert third.performance.worse
    assert third.verdict.evidence.worse == THIRD
    (page,) = pages
    lost = f"batch {THIRD} is broken and quarantined, and performance was lost"
    assert page["title"] == f"[failure] shop: {lost}"
    asked = f"Performance was lost in batch {THIRD}. If it is a fault, mend it and answer reload"
    assert asked in page["message"]
    assert "If it is the world now, answer accept for these batches: " in page["message"]
    assert [judged.batch for judged in history.performances(1)] == [FIRST, SECOND]
    history = history.with_batch(answer(registry, THIRD, "accept"))
    assert [judged.batch for judged in history.performances(1)] == [FIRST, SECOND, THIRD]


@pytest.mark.team
def test_a_replay_reports_broken_batches_and_learns_nothing_from_them(spoilt):
    conf = spoilt("amount", SECOND)

    story = replay(conf)

    settings, registry = opened(conf)
    row = story[1]
    assert len(story) == 7
    assert (row["batch"], row["outcome"], row["action"]) == ("2026-02-23", "broken", "page")
    assert (row["causes"], row["maintained"], row["alone"]) == (["unit (amount)"], {}, {})
    assert [other["causes"] for other in story if other is not row] == [[]] * 6
    assert registry.versions()[-1].left_out == SECOND
    assert story[-1]["version"] > 1
    console = Console(width=140, file=StringIO(), force_terminal=True, color_system="standard")
    console.print(replay_table(story, settings.task))
    drawn = console.file.getvalue()
    assert "broken: unit (amount)" in drawn
    assert "\x1b[1;31mpage" in drawn
    assert closing(story, settings).startswith("7 batches judged, 1 of them broken, ")
    assert replay(conf) == story


def test_a_replay_of_nothing_but_a_broken_batch_has_no_mean(spoilt):
    conf = spoilt("amount", FIRST)

    story = replay(conf, batches=1)

    settings, _ = opened(conf)
    assert closing(story, settings).endswith("nan maintained, nan left alone.")
    assert np.isnan(story[0]["maintained"].get("log_loss", np.nan))


def test_labels_that_are_all_one_class_are_a_fault_and_not_lost_performance(
    tmp_path, trained, make_shop_rows
):
    rows = make_shop_rows()
    rows.loc[within(rows, FIRST), "churned"] = 0.0
    rows.to_parquet(tmp_path / "rows.parquet")

    result = monitor(trained)

    assert result["action"] == "page"
    assert result["reason"].startswith("Broken: stuck (churned).")


def test_what_own_blocks_show_of_faults_is_kept_beside_the_copy_of_the_version(spoilt, tmp_path):
    monitor(spoilt("age", FIRST))

    (kept,) = (tmp_path / "state" / "cache" / "shop").glob("*/features *.json")
    assert json.loads(kept.read_text())
    assert is_sealed(kept.parent)
