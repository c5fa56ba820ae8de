"""Intervals and contributions, from training to scores and to the monitor."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from flows.monitor import monitor
from flows.score import score
from flows.steps import opened
from flows.train import train
from pipeline.serving.served_version import ServedVersion
from pipeline.serving.server import export

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def forecast(tmp_path_factory, prefect, write_shop):
    """Conf of a shop with intervals around predicted amounts, which has judged two batches."""
    del prefect
    conf = write_shop(tmp_path_factory.mktemp("forecast"))
    content = yaml.safe_load(Path(conf).read_text())
    features = content["data"]["features"]
    del features["amount"]
    features["churned"] = {"type": "numeric"}
    content |= {"task": "regression"}
    content["data"] |= {"target": "amount", "features": features}
    params = {**content["training"]["params"], "max_depth": 2}
    content["training"] |= {
        "estimator": "xgboost.XGBRegressor",
        "intervals": 0.9,
        "params": params,
    }
    Path(conf).write_text(yaml.safe_dump(content))
    assert train(conf)["promoted"]
    monitor(conf)
    monitor(conf)  # by its end, the labels of the batch before have arrived
    return conf


@pytest.fixture(scope="module")
def scored(forecast):
    """Rows of the week after training, with what they were scored."""
    output = Path(forecast).with_name("scores.parquet")
    score(forecast, str(output), start="2026-02-16", end="2026-02-23", explain=True)
    rows = pd.read_parquet(Path(forecast).with_name("rows.parquet"))
    return rows.merge(pd.read_parquet(output), on=["id", "at"], validate="1:1")


def test_scores_hold_intervals_that_cover_rows_nobody_was_fitted_on(scored):
    inside = (scored["amount"] >= scored["lower"]) & (scored["amount"] <= scored["upper"])

    assert len(scored) == 336
    # 336 rows of a normal target, by margins of 337 held-out rows: four standard errors of both.
    assert inside.mean() == pytest.approx(0.9, abs=4 * np.sqrt(2 * 0.09 / 336))


def test_the_monitor_records_the_coverage_once_labels_are_there(forecast, scored):
    _, registry = opened(forecast)
    inside = (scored["amount"] >= scored["lower"]) & (scored["amount"] <= scored["upper"])

    batch = registry.search("tags.kind = 'batch'")[-1]
    assert batch.data.metrics["realised_interval_coverage"] == pytest.approx(
        inside.mean(), abs=0.01
    )


def test_the_training_run_says_how_intervals_do_on_newer_rows(forecast):
    _, registry = opened(forecast)

    metrics = registry.run_of(registry.version(1).run_id).data.metrics
    assert metrics["heldout_interval_coverage"] == pytest.approx(0.9, abs=0.1)
    assert metrics["heldout_interval_width"] == pytest.approx(2 * 1.645 * 8.5, rel=0.3)


def test_contributions_of_scores_sum_to_the_prediction(scored):
    added = [name for name in scored if "contribution" in name]

    assert added == [
        *(f"contribution of {name}" for name in ("age", "churned", "plan")),
        "base of contributions",
    ]
    np.testing.assert_allclose(scored[added].sum(axis=1), scored["prediction"], atol=1e-3)


def test_an_exported_version_serves_the_intervals_of_scores(forecast, scored, tmp_path):
    export(forecast, str(tmp_path / "model"))

    served = ServedVersion.load(tmp_path / "model")

    row = scored.iloc[0]
    ends = served.margins.around(np.array([row["prediction"]]))
    np.testing.assert_allclose(ends, [[row["lower"], row["upper"]]])
