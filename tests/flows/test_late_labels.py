"""Labels that come in parts, late, twice, or corrected, and what the monitor makes of them."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from flows.monitor import monitor
from flows.replay import replay
from flows.review import review
from flows.settle import settle
from flows.steps import opened
from pipeline.registry import records
from pipeline.training.predictions import PREDICTION

FIRST, SECOND, THIRD = "2026-02-16T00:00", "2026-02-23T00:00", "2026-03-02T00:00"
NOW = pd.Timestamp("2026-03-30")
WEEK = pd.Timedelta("7D")


@pytest.fixture(scope="module")
def watched(tmp_path_factory, copy_shop, prefect, make_shop_rows):
    """Two judged batches of a shop whose labels come in a file of their own; conf and truth."""
    del prefect
    folder = tmp_path_factory.mktemp("late")
    conf = copy_shop("trained", folder)
    rows = make_shop_rows()
    rows.drop(columns="churned").to_parquet(folder / "live.parquet")
    write_labels(folder, rows[:0].assign(known_at=rows["at"][:0]))
    conf = with_labels(conf, folder)
    for _ in range(2):
        monitor(conf)
    return conf, rows[within(rows, FIRST) | within(rows, SECOND)]


def with_labels(conf, folder, **monitoring):
    import yaml  # noqa: PLC0415 -- only here

    path = folder / "shop.yaml"
    values = yaml.safe_load(path.read_text())
    values["data"] |= {
        "live": {"kind": "file", "path": str(folder / "live.parquet")},
        "labels": {"kind": "file", "path": str(folder / "labels.parquet")},
        "label_time": "known_at",
    }
    values["monitoring"] |= monitoring
    path.write_text(yaml.safe_dump(values))
    return conf


def write_labels(folder, labels):
    labels[["id", "churned", "known_at"]].to_parquet(folder / "labels.parquet")


def within(rows, week):
    start = pd.Timestamp(week)
    return (rows["at"] >= start) & (rows["at"] < start + WEEK)


def events(truth, seed):
    """Labels of most rows, some of them corrected, some sent twice, some for unknown keys."""
    random = np.random.default_rng(seed)
    some = truth.sample(frac=0.8, random_state=seed)
    wait = pd.to_timedelta(random.integers(1, 20, len(some)), unit="D")
    first = some.assign(known_at=some["at"] + wait)
    wrong = first.sample(frac=0.2, random_state=seed)
    corrected = wrong.assign(
        churned=1 - wrong["churned"], known_at=wrong["known_at"] + pd.Timedelta("1D")
    )
    strangers = first.head(5).assign(id=[f"stranger {k}" for k in range(5)])
    return pd.concat([first, corrected, first.head(30), strangers])


@pytest.mark.team
@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 1_000), stops=st.lists(st.floats(0, 1), max_size=3))
def test_labels_end_in_the_same_performance_in_whatever_order_they_come(watched, seed, stops):
    conf, truth = watched
    model, registry = opened(conf)
    folder = model.tracking.folder.parent
    whole = events(truth, 1).sample(frac=1, random_state=seed)
    for stop in [*stops, 1.0]:
        write_labels(folder, whole.iloc[: int(stop * len(whole))])
        history = settle(model, registry, records.read_history(registry), NOW)

    assert history == records.read_history(registry)
    newest = whole.sort_values(["known_at", "churned"]).drop_duplicates("id", keep="last")
    for batch in history.batches:
        predicted = records.predictions(registry, batch)
        both = predicted.merge(newest, left_on="key", right_on="id")
        assert batch.performance.rows == len(both) > 200
        assert batch.performance.of == len(predicted)
        assert batch.performance.metrics["log_loss"] == pytest.approx(
            log_loss(both["churned"], both[PREDICTION])
        )


def test_settling_again_records_nothing(watched):
    conf, truth = watched
    model, registry = opened(conf)
    write_labels(model.tracking.folder.parent, events(truth, 1))
    before = settle(model, registry, records.read_history(registry), NOW)
    runs = [registry.client.get_run(batch.run_id).info.end_time for batch in before.batches]

    again = settle(model, registry, before, NOW)

    assert again is before
    assert [registry.client.get_run(b.run_id).info.end_time for b in again.batches] == runs


def test_a_label_counts_from_the_moment_that_it_carries(watched):
    conf, truth = watched
    model, registry = opened(conf)
    labels = events(truth, 1)
    write_labels(model.tracking.folder.parent, labels)

    history = settle(model, registry, records.read_history(registry), pd.Timestamp("2026-03-05"))

    known = labels[labels["known_at"] <= pd.Timestamp("2026-03-05")]
    rows = [batch.performance.rows for batch in history.batches]
    assert rows == [
        known.loc[within(known, week), "id"].nunique() - extra(known, week)
        for week in (FIRST, SECOND)
    ]


def extra(known, week):
    """Keys of no row."""
    return known.loc[within(known, week), "id"].str.startswith("stranger").sum()


@pytest.fixture
def relabelled(tmp_path, trained, make_shop_rows, make_conf):
    """A trained shop whose labels change in some weeks and come after a delay; its conf."""
    data = opened(trained)[0].model_dump(mode="json")["data"]

    def write(change, *weeks, delay):
        rows = make_shop_rows()
        for week in weeks:
            rows.loc[within(rows, week), "churned"] = change(rows["churned"])
        rows.to_parquet(tmp_path / "rows.parquet")
        return make_conf(data=data | {"label_delay": delay})

    return write


@pytest.mark.team
@pytest.mark.parametrize(
    ("delay", "named", "batches"),
    [
        ("7D", SECOND, 2),
        pytest.param("6D", FIRST, 2, marks=pytest.mark.night),
        pytest.param("14D", THIRD, 3, marks=pytest.mark.night),
    ],
)
def test_flipped_labels_are_named_when_they_come(relabelled, delay, named, batches):
    conf = relabelled(lambda churned: 1 - churned, FIRST, SECOND, delay=delay)

    replay(conf, batches=batches)

    found = records.read_history(opened(conf)[1]).batches
    worse = [batch for batch in found if batch.verdict.evidence.worse]
    # Six days late, 48 of the labels are known at the end of their week, which is few.
    assert worse[0].name in {named, SECOND}
    assert worse[0].verdict.decision.action == "retrain"
    assert "performance was lost in batch" in worse[0].verdict.decision.reason.lower()


def test_a_sound_batch_whose_late_labels_are_faulty_waits_for_an_answer(
    relabelled, make_shop_rows, tmp_path
):
    conf = relabelled(lambda churned: 1.0 + 0 * churned, FIRST, delay="7D")

    replay(conf, batches=2)

    model, registry = opened(conf)
    first, second = records.read_history(registry).batches
    assert (first.outcome, first.broken, first.set_aside) == ("quiet", True, True)
    assert second.verdict.evidence.labels == (f"{first.label_faults[0]} in batch {FIRST}",)
    assert second.verdict.decision.action == "page"
    (question,) = review(conf)
    assert (question["batch"], question["causes"]) == (FIRST, list(first.label_faults))
    mended = make_shop_rows()
    mended.to_parquet(tmp_path / "rows.parquet")
    history = settle(model, registry, records.read_history(registry), second.end)
    assert not history.batch(FIRST).broken
    assert not history.batch(FIRST).performance.worse


def test_a_source_that_forgot_its_rows_stops_nothing(trained, make_shop_rows, tmp_path):
    monitor(trained)
    rows = make_shop_rows()
    rows[rows["at"] >= SECOND].to_parquet(tmp_path / "rows.parquet")

    result = monitor(trained)

    assert (result["batch"], result["rows"]) == (SECOND, 336)
    first, _ = records.read_history(opened(trained)[1]).batches
    assert first.performance is None or first.performance.rows < 336


@pytest.mark.parametrize("broken", ["gone", "torn", "without a target", "without a time"])
def test_labels_that_cannot_be_read_keep_no_batch_from_being_judged(
    trained, tmp_path, make_shop_rows, caplog, broken
):
    rows = make_shop_rows()
    rows.drop(columns="churned").to_parquet(tmp_path / "live.parquet")
    labels = tmp_path / "labels.parquet"
    write_labels(tmp_path, rows.assign(known_at=rows["at"]))
    conf = with_labels(trained, tmp_path)
    monitor(conf)
    if broken == "torn":
        labels.write_bytes(labels.read_bytes()[:100])
    elif broken == "gone":
        labels.unlink()
    else:
        column = {"target": "churned", "time": "known_at"}[broken.removeprefix("without a ")]
        pd.read_parquet(labels).drop(columns=column).to_parquet(labels)

    judged = monitor(conf)

    assert (judged["batch"], judged["rows"], judged["action"]) == (SECOND, 336, "none")
    assert "The labels of data.labels cannot be read. " in caplog.text
    write_labels(tmp_path, rows.assign(known_at=rows["at"]))
    model, registry = opened(conf)
    settled = settle(model, registry, records.read_history(registry), NOW)
    assert [batch.performance.rows for batch in settled.batches] == [336, 336]
