"""Estimates of batches whose labels come a week late, from the monitor's own records."""

import mlflow
import pandas as pd
import pytest
import yaml

from flows.settle import settle
from flows.steps import opened
from pipeline.registry import records

pytestmark = pytest.mark.integration

NAMES = ("roc_auc", "accuracy", "log_loss")


@pytest.fixture(scope="module")
def late(tmp_path_factory, copy_shop, make_shop_rows, judge_batch):
    """Four judged batches of a shop whose labels come eight days late; its conf."""
    folder = tmp_path_factory.mktemp("estimated")
    conf = copy_shop("trained", folder)
    rows = make_shop_rows()
    rows.drop(columns="churned").to_parquet(folder / "live.parquet")
    labels = rows.assign(known_at=rows["at"] + pd.Timedelta("8D"))
    labels[["id", "churned", "known_at"]].to_parquet(folder / "labels.parquet")
    path = folder / "shop.yaml"
    values = yaml.safe_load(path.read_text())
    values["data"] |= {
        "live": {"kind": "file", "path": str(folder / "live.parquet")},
        "labels": {"kind": "file", "path": str(folder / "labels.parquet")},
        "label_time": "known_at",
    }
    path.write_text(yaml.safe_dump(values))
    settings, registry = opened(conf)
    for _ in range(4):
        judge_batch(settings, registry)
    return conf


@pytest.fixture(scope="module")
def batches(late):
    return records.read_history(opened(late)[1]).batches


def metrics_of(conf, batch):
    return opened(conf)[1].run_of(batch.run_id).data.metrics


def page_of(registry, batch):
    registry.client  # noqa: B018 -- sets MLflow's address
    return mlflow.artifacts.load_text(f"runs:/{batch.run_id}/{records.PAGE}")


def test_with_labels_of_too_few_batches_nothing_can_be_said(late, batches):
    first = batches[0]

    assert [one.metric for one in first.estimates] == list(NAMES)
    assert {one.reason.partition(" of the ")[2] for one in first.estimates} == {
        "3 batches with labels that it needs are known."
    }
    assert not any(name.startswith("estimated_") for name in metrics_of(late, first))


def test_an_estimate_stands_in_the_metrics_with_both_ends(late, batches):
    for batch in batches[2:]:
        found = metrics_of(late, batch)
        for one in batch.estimates:
            shown = [found.get(f"estimated_{one.metric}{end}") for end in ("_low", "", "_high")]
            assert shown == ([None] * 3 if one.reason else [one.low, one.value, one.high])
    assert any(not one.reason for batch in batches[2:] for one in batch.estimates)


def test_a_page_without_labels_says_what_is_assumed_or_why_nothing_is_said(late, batches):
    page = page_of(opened(late)[1], batches[-1])

    if batches[-1].estimates[-1].reason:
        assert "cannot tell" in page
    else:
        assert "was estimated to be" in page
        assert "nothing is decided by it alone" in page


def test_labels_that_come_show_what_the_estimate_missed_by(late, batches):
    settings, registry = opened(late)
    end = batches[-1].end + pd.Timedelta("9D")
    history = settle(settings, registry, records.read_history(registry), end)

    for batch in history.batches[2:]:
        found = metrics_of(late, batch)
        for one in batch.estimates:
            error = found.get(f"estimate_error_{one.metric}")
            missed = batch.performance.metrics[one.metric] - one.value
            assert error == (None if one.reason else pytest.approx(missed))
        page = page_of(registry, batch)
        assert "as labels showed them" in page or all(one.reason for one in batch.estimates)


def test_what_is_kept_for_later_estimates_is_what_labels_showed(late):
    settings, registry = opened(late)
    history = settle(settings, registry, records.read_history(registry), pd.Timestamp("2026-12-31"))

    for batch in history.batches:
        cells, known = batch.performance.cells, batch.performance
        assert cells.size == known.rows
        positives = sum(cells.sums["target"])
        assert 0 < positives < known.rows
