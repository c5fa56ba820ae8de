"""Decisions that cost least, from training to scores, to the monitor and behind the API."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from flows.monitor import monitor
from flows.score import score
from flows.steps import opened
from flows.train import train
from pipeline.config import Costs, Settings
from pipeline.errors import ConfigError
from pipeline.serving.served_version import ServedVersion
from pipeline.serving.server import export
from pipeline.training.costs import decide, decision_metrics

pytestmark = pytest.mark.integration
COSTS = {"false_positive": 1.0, "false_negative": 4.0}


@pytest.fixture(scope="module")
def careful(tmp_path_factory, prefect, write_shop):
    """Conf of a shop to which a miss costs four false alarms, which has judged two batches."""
    del prefect
    conf = write_shop(tmp_path_factory.mktemp("careful"))
    content = yaml.safe_load(Path(conf).read_text())
    content["training"] |= {"costs": COSTS}
    Path(conf).write_text(yaml.safe_dump(content))
    assert train(conf)["promoted"]
    monitor(conf)
    monitor(conf)  # by its end, the labels of the batch before have arrived
    return conf


@pytest.fixture(scope="module")
def scored(careful):
    """Rows of the week after training, with what they were scored."""
    output = Path(careful).with_name("scores.parquet")
    score(careful, str(output), start="2026-02-16", end="2026-02-23")
    rows = pd.read_parquet(Path(careful).with_name("rows.parquet"))
    return rows.merge(pd.read_parquet(output), on=["id", "at"], validate="1:1")


def test_scores_hold_decisions_at_the_threshold(scored):
    assert scored["decision"].tolist() == (scored["prediction"] >= 0.2).astype(int).tolist()
    assert set(scored["decision"]) == {0, 1}


def test_the_training_run_and_its_card_state_the_cost_of_a_row(careful):
    _, registry = opened(careful)
    run = registry.run_of(registry.version(1).run_id)
    heldout = registry.bundle(1).heldout
    target, predicted = heldout["churned"].to_numpy(), heldout["holdfast-prediction"].to_numpy()

    assert run.data.metrics["heldout_cost"] == pytest.approx(
        np.where(target == 1, 4 * (predicted < 0.2), predicted >= 0.2).mean()
    )
    # One decision for all rows: for 1, as more than a fifth of them are.
    assert run.data.metrics["baseline_cost"] == pytest.approx((target == 0).mean())
    assert run.data.metrics["heldout_cost"] < run.data.metrics["baseline_cost"]
    card = registry.client.download_artifacts(run.info.run_id, "card.html")
    assert '<th scope="row">cost</th>' in Path(card).read_text(encoding="utf-8")


def test_the_monitor_records_what_decisions_cost_once_labels_are_there(careful, scored):
    _, registry = opened(careful)
    expected = decision_metrics(
        Costs(**COSTS), scored["churned"].to_numpy(), scored["prediction"].to_numpy()
    )

    logged = registry.search("tags.kind = 'batch'")[-1].data.metrics
    # The labels of the last day come later.
    assert logged["realised_cost"] == pytest.approx(expected["cost"], abs=0.1)
    assert logged["realised_recall"] == pytest.approx(expected["recall"], abs=0.1)


def test_an_exported_version_decides_as_scores_do(careful, scored, tmp_path):
    export(careful, str(tmp_path / "model"))

    served = ServedVersion.load(tmp_path / "model")

    rows = scored[["amount", "age", "plan"]].to_dict("records")
    rows = [{name: v for name, v in row.items() if not pd.isna(v)} for row in rows]
    decided = decide(served.costs, served.predict(rows).predictions)
    assert decided.tolist() == scored["decision"].tolist()


@pytest.mark.parametrize("cost", [0, -1, 1e100, float("inf"), float("nan"), "much", None])
def test_costs_that_no_decision_can_follow_from_are_refused_in_a_line(shop, cost):
    content = yaml.safe_load(Path(shop).read_text())
    content["training"] |= {"costs": COSTS | {"false_negative": cost}}
    Path(shop).write_text(yaml.safe_dump(content))

    with pytest.raises(ConfigError) as caught:
        Settings.load(shop)

    [problem] = caught.value.problems
    assert "training.costs.false_negative: must be" in problem


@pytest.mark.parametrize(
    ("alarm", "miss", "threshold"), [(5, 5, 0.5), (9e99, 9e99, 0.5), (1e-99, 9e99, 0), (9e99, 1, 1)]
)
def test_costs_that_are_equal_or_far_apart_still_decide(alarm, miss, threshold):
    costs = Costs(false_positive=alarm, false_negative=miss)
    target, chances = np.array([0.0, 1.0, 1.0]), np.array([0.1, 0.4, 0.6])

    assert costs.threshold == pytest.approx(threshold)
    assert decide(costs, chances).tolist() == [one >= threshold for one in chances]
    assert np.isfinite(decision_metrics(costs, target, chances)["cost"])


@pytest.mark.parametrize(
    ("changes", "got"),
    [
        ({"task": "regression"}, "regression"),
        ({"classes": ["a", "b", "c"]}, "3 classes"),
    ],
)
def test_costs_of_other_targets_than_two_classes_are_refused(shop, changes, got):
    content = yaml.safe_load(Path(shop).read_text())
    content["training"] |= {"costs": COSTS}
    content["task"] = changes.get("task", "classification")
    content["data"] |= {name: value for name, value in changes.items() if name == "classes"}
    Path(shop).write_text(yaml.safe_dump(content))

    with pytest.raises(ConfigError, match=rf"costs must be empty unless there are .* Got {got}"):
        Settings.load(shop)
