"""Calibrated chances, from training to scores, to MLflow, to an export and to the reference."""

import json
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml

from flows.monitor import monitor
from flows.score import score
from flows.steps import opened
from flows.train import train
from pipeline.config import Settings
from pipeline.errors import ConfigError
from pipeline.monitoring.drift import compare
from pipeline.serving.served_version import ServedVersion
from pipeline.serving.server import export
from pipeline.training.metrics import losses
from pipeline.training.predictions import PREDICTION, in_columns, of_cells

pytestmark = pytest.mark.integration
WEEK = {"start": "2026-02-16", "end": "2026-02-23"}
TOO_SURE = {"n_estimators": 60, "max_depth": 6, "learning_rate": 0.5, "n_jobs": 1}
"""Parameters that fit the noise of a small table."""


@pytest.fixture(scope="module", params=["sigmoid", "isotonic", "five classes"])
def calibrated(request, tmp_path_factory, prefect, write_shop, write_claims):
    """Conf of a table whose model is too sure, and is calibrated; one batch was judged."""
    del prefect
    several = request.param == "five classes"
    conf = (write_claims if several else write_shop)(tmp_path_factory.mktemp("calibrated"))
    kind = "sigmoid" if several else request.param
    rewrite(conf, calibration=kind, params=TOO_SURE)
    train(conf)
    monitor(conf)
    return conf


def rewrite(conf, **training):
    content = yaml.safe_load(Path(conf).read_text())
    content["training"] |= training
    content["promotion"] = {"first": "serve"}
    Path(conf).write_text(yaml.safe_dump(content))


def live(conf):
    rows = pd.read_parquet(Path(conf).with_name("rows.parquet"))
    return rows[(rows["at"] >= WEEK["start"]) & (rows["at"] < WEEK["end"])]


def test_the_training_run_says_that_it_was_kept_and_what_it_gains(calibrated):
    _, registry = opened(calibrated)
    version = registry.version(1)
    metrics = registry.run_of(version.run_id).data.metrics

    assert metrics["heldout_calibration_gain"] > 0
    assert ", kept: fitted on the rows before, it makes the log-loss" in version.tags["calibration"]
    heldout = registry.bundle(1).heldout
    target = heldout[Settings.load(calibrated).data.target].to_numpy(dtype=float)
    lost = losses("log_loss", target, of_cells(heldout[PREDICTION])).mean()
    assert metrics["heldout_log_loss"] == pytest.approx(lost)


def test_rows_that_nothing_was_fitted_on_are_predicted_better_for_it(calibrated):
    settings, registry = opened(calibrated)
    model, rows = registry.bundle(1).model, live(calibrated)
    target = rows[settings.data.target]
    if model.classes:
        target = target.map(model.classes.index)

    moved, raw = (
        losses("log_loss", target.to_numpy(dtype=float), one.predict(rows)).mean()
        for one in (model, replace(model, calibration=None))
    )
    assert moved < raw * 0.95


def test_scores_mlflow_and_an_export_predict_the_calibrated_chances(calibrated, tmp_path):
    _, registry = opened(calibrated)
    model, rows = registry.bundle(1).model, live(calibrated)
    expected = model.predict(rows)

    score(calibrated, str(tmp_path / "scores.parquet"), **WEEK)
    export(calibrated, str(tmp_path / "model"))

    scored = pd.read_parquet(tmp_path / "scores.parquet")
    columns = [name for name in scored if name.startswith("probability of ")]
    found = scored[columns].to_numpy() if columns else scored[PREDICTION.split("-")[1]]
    np.testing.assert_array_equal(found, expected)
    loaded = mlflow.pyfunc.load_model(f"models:/{registry.name}@champion")
    np.testing.assert_array_equal(loaded.predict(rows[list(model.columns)]), expected)
    served = ServedVersion.load(tmp_path / "model")
    records = rows[list(model.columns)].to_dict("records")
    given = [{name: v for name, v in row.items() if not pd.isna(v)} for row in records]
    np.testing.assert_array_equal(served.predict(given).predictions, expected)
    few = np.concatenate([served.predict([row]).predictions for row in given[:20]])
    np.testing.assert_allclose(few, expected[:20], rtol=1e-5)
    assert not [*(tmp_path / "model").rglob("*.pkl")]
    assert "model/model.json" in json.loads((tmp_path / "model" / "sha256.json").read_text())


def test_the_reference_and_live_rows_are_predicted_by_fits_that_are_calibrated_alike(calibrated):
    settings, registry = opened(calibrated)
    bundle, rows = registry.bundle(1), live(calibrated)
    assert [half.calibration for half in bundle.halves] == [bundle.model.calibration] * 2

    def farthest(own):
        predicted = own.predict_as_reference(rows, rows["id"])
        shown = in_columns(predicted, settings.data.several)
        current = rows[list(settings.data.features)].assign(**shown)
        report = compare(reference=bundle.reference, current=current, diagnosis=False)
        return max(one.distance for one in report.columns if one.name not in settings.data.features)

    raw = replace(bundle, halves=tuple(replace(one, calibration=None) for one in bundle.halves))
    assert farthest(bundle) < 0.1 < farthest(raw)


def test_a_calibration_that_does_not_help_is_left_out_and_the_run_says_so(shop):
    path = Path(shop).with_name("rows.parquet")
    rows = pd.read_parquet(path)
    newest = (rows["at"] >= "2026-02-08") & (rows["at"] < WEEK["start"])
    plain = (rows["amount"] - 50) / 10 + (rows["plan"] == "pro") > 0.5
    rows["churned"] = rows["churned"].where(~newest, plain * 1.0)  # surer than all weeks before
    rows.to_parquet(path)
    rewrite(shop, calibration="sigmoid", params=TOO_SURE | {"max_depth": 3})

    train(shop)

    _, registry = opened(shop)
    version = registry.version(1)
    gain = registry.run_of(version.run_id).data.metrics["heldout_calibration_gain"]
    assert gain <= 0
    assert version.tags["calibration"].startswith("sigmoid, left out: fitted on the rows")
    assert registry.bundle(1).model.calibration is None


def test_a_calibration_of_a_regression_is_refused(shop):
    content = yaml.safe_load(Path(shop).read_text())
    content |= {"task": "regression"}
    content["training"] |= {"calibration": "sigmoid"}
    Path(shop).write_text(yaml.safe_dump(content))

    with pytest.raises(ConfigError, match="calibration must be empty where task is regression"):
        Settings.load(shop)
