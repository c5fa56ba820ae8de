"""Sets of classes, from training to scores, to the monitor, to an export and back by a rollback."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from flows.monitor import monitor
from flows.register import rollback
from flows.score import score
from flows.steps import opened
from flows.train import train
from pipeline.serving.served_version import ServedVersion
from pipeline.serving.server import export

pytestmark = pytest.mark.integration
COSTS = {"false_positive": 1, "false_negative": 4}
WEEK = {"start": "2026-02-16", "end": "2026-02-23"}


def changed(conf, first="refuse", **training):
    content = yaml.safe_load(Path(conf).read_text())
    content["promotion"] = {"min_gain": -0.5, "first": first}
    content["training"] |= training
    Path(conf).write_text(yaml.safe_dump(content))
    return conf


@pytest.fixture(scope="module", params=["two classes", "five classes"])
def unsure(request, tmp_path_factory, prefect, write_shop, write_claims):
    """Conf of a model with sets, a calibration and maybe costs, which has judged two batches."""
    del prefect
    write, costs = {
        "two classes": (write_shop, COSTS),
        "five classes": (write_claims, None),
    }[request.param]
    conf = write(tmp_path_factory.mktemp("unsure"))
    changed(conf, intervals=0.9, calibration="sigmoid", costs=costs)
    assert train(conf)["promoted"]
    monitor(conf)
    monitor(conf)  # by its end, the labels of the batch before have arrived
    return conf


@pytest.fixture(scope="module")
def scored(unsure):
    """Rows of the week after training, with what they were scored, and whether sets hold them."""
    output = Path(unsure).with_name("scores.parquet")
    score(unsure, str(output), **WEEK)
    rows = pd.read_parquet(Path(unsure).with_name("rows.parquet"))
    rows = rows.merge(pd.read_parquet(output), on=["id", "at"], validate="1:1")
    true = rows["churned"].astype(int) if "churned" in rows else rows["kind"]
    held = [rows[f"set holds {label}"].iloc[place] for place, label in enumerate(true)]
    return rows.assign(held=held)


def test_sets_of_scores_hold_the_classes_of_rows_nobody_was_fitted_on(scored):
    sets = [name for name in scored if name.startswith("set holds ")]

    assert len(scored) == 336
    assert len(sets) == (2 if "churned" in scored else 5)
    # 336 rows by the sets of 337 held-out rows: four standard errors of both.
    assert scored["held"].mean() == pytest.approx(0.9, abs=4 * np.sqrt(2 * 0.09 / 336))
    assert scored[sets].sum(axis=1).between(1, len(sets)).all()
    assert scored[sets].sum(axis=1).max() > 1


def test_the_monitor_records_the_coverage_of_sets_once_labels_are_there(unsure, scored):
    _, registry = opened(unsure)

    batch = registry.search("tags.kind = 'batch'")[-1]
    assert batch.data.metrics["realised_set_coverage"] == pytest.approx(
        scored["held"].mean(), abs=0.01
    )


def test_the_training_run_says_how_sets_do_on_newer_rows(unsure):
    _, registry = opened(unsure)

    metrics = registry.run_of(registry.version(1).run_id).data.metrics
    assert metrics["heldout_set_coverage"] == pytest.approx(0.9, abs=0.1)
    assert 1 <= metrics["heldout_set_size"] < 5


def test_an_exported_version_serves_the_sets_of_scores(unsure, scored, tmp_path):
    export(unsure, str(tmp_path / "model"))

    served = ServedVersion.load(tmp_path / "model")

    rows = scored[["amount", "age", "plan"]].to_dict("records")
    rows = [{name: value for name, value in row.items() if pd.notna(value)} for row in rows]
    held = served.sets.holding(served.predict(rows).predictions)
    columns = [name for name in scored if name.startswith("set holds ")]
    assert held.tolist() == scored[columns].astype(bool).to_numpy().tolist()
    assert (served.costs is None) == ("churned" not in scored)


@pytest.mark.parametrize("only", [0, 1])
def test_a_class_that_no_held_out_row_has_hinders_neither_training_nor_scores(shop, tmp_path, only):
    rows = pd.read_parquet(tmp_path / "rows.parquet")
    held = rows["at"].between("2026-02-08", "2026-02-16", inclusive="left")
    rows.assign(churned=rows["churned"].mask(held, only)).to_parquet(tmp_path / "rows.parquet")
    changed(shop, intervals=0.9, calibration="isotonic", costs=COSTS, first="serve")
    output = tmp_path / "scores.parquet"

    train(shop)
    score(shop, str(output), **WEEK)

    _, registry = opened(shop)
    metrics = registry.run_of(registry.version(1).run_id).data.metrics
    assert np.isnan(metrics["heldout_recall"]) == (only == 0)
    assert 0 <= metrics["heldout_set_coverage"] <= 1
    found = pd.read_parquet(output)
    assert found["prediction"].between(0, 1).all()
    assert found[["set holds 0", "set holds 1"]].sum(axis=1).between(1, 2).all()


def test_a_rollback_to_a_version_without_sets_scores_without_them(trained, tmp_path):
    output = tmp_path / "scores.parquet"
    changed(trained, intervals=0.9, calibration="isotonic", costs=COSTS)
    assert train(trained, until="2026-02-23")["promoted"]
    score(trained, str(output), **WEEK)
    with_sets = list(pd.read_parquet(output))

    rollback(trained, reason="a trial")
    score(trained, str(output), **WEEK)

    added = {"set holds 0", "set holds 1", "decision"}
    assert set(with_sets) - set(pd.read_parquet(output)) == added
    assert monitor(trained)["rows"] == 336
