import html
import re
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml

from flows.steps import opened
from pipeline.registry import records

pytestmark = pytest.mark.integration


def words(registry, run_id):
    """The text of a batch's report on one line."""
    registry.client  # noqa: B018 -- sets MLflow's address
    page = mlflow.artifacts.load_text(f"runs:/{run_id}/{records.PAGE}").split("</style>")[1]
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def test_slices_are_judged_shown_and_charted_by_their_own_baseline(replayed):
    settings, registry = opened(replayed)
    history = records.read_history(registry)
    first = history.batches[0]
    bundle = registry.bundle(first.version)
    rows = pd.read_parquet(settings.data.train.path).set_index("id")
    kept = registry.read_frame(first.run_id, records.PREDICTIONS).set_index("key")
    ages = rows["age"].loc[kept.index]
    free = (rows["plan"].loc[kept.index] == "free").to_numpy()

    stored = bundle.baseline["slices"]
    known = pd.to_datetime(registry.version(first.version).until) - pd.Timedelta("1D")
    until = rows[rows["at"] <= known]
    assert set(stored["baselines"]) > {"plan = free", "plan = pro"}
    fitted = {name: sum(one["parts"]["rows"]) for name, one in stored["baselines"].items()}
    assert fitted["plan = free"] == (until["plan"] == "free").sum()
    assert np.isnan(ages[kept["slice age"] == "age is null"]).all()
    assert (kept["slice plan"] == np.where(free, "plan = free", "plan = pro")).all()

    own = {one.name: one for one in first.performance.slices}["plan = free"]
    chance, truth = kept["halved"][free], rows["churned"].loc[kept.index][free]
    lost = -np.log(np.where(truth == 1, chance, 1 - chance))
    assert np.average(own.parts, weights=own.counts) == pytest.approx(lost.mean(), rel=1e-4)
    assert sum(own.counts) == free.sum()

    last = next(one for one in reversed(history.batches) if one.verdict.evidence.worse)
    page = words(registry, last.run_id)
    assert " Slices Loss of each slice " in page
    assert f"Worst slice: {last.verdict.evidence.worst_slice}." in page
    charted = registry.run_of(last.run_id).data.metrics
    assert charted["worst_slice_change"] == pytest.approx(last.performance.slices[0].change)
    assert charted["worse_slices"] == sum(one.worse for one in last.performance.slices)
    assert not [name for name in charted if "plan" in name]


def test_a_version_without_baselines_of_a_slice_says_so(trained, judge_batch):
    conf = Path(trained)
    stated = yaml.safe_load(conf.read_text())
    stated["promotion"]["slices"] = ["plan", "amount"]
    conf.write_text(yaml.safe_dump(stated))
    settings, registry = opened(trained)

    batch = judge_batch(settings, registry)
    following = judge_batch(settings, registry)

    page = words(registry, following.run_id)
    assert "Slices by amount are not judged, because version 1 was trained without" in page
    first = records.read_history(registry).batch(batch.name)
    assert {one.name for one in first.performance.slices} == {"plan = free", "plan = pro"}


def test_ages_and_rates_of_the_champion_are_charted(replayed):
    settings, registry = opened(replayed)
    batch = records.read_history(registry).batches[0]
    rows = pd.read_parquet(settings.data.train.path).set_index("id")
    kept = registry.read_frame(batch.run_id, records.PREDICTIONS)

    charted = registry.run_of(batch.run_id).data.metrics

    assert charted["champion_age_days"] == 7  # a batch after the end of the window
    assert charted["oldest_training_row_days"] == 7 * 7
    assert charted["realised_mean_prediction"] == pytest.approx(kept["prediction"].mean())
    assert charted["realised_mean_target"] == rows["churned"].loc[kept["key"]].mean()
    page = words(registry, batch.run_id)
    assert " mean_target " in page
