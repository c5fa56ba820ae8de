import html
import re
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml

from flows.monitor import monitor
from flows.sentences import of_batch
from flows.slices import slice_drifts, slices_of_rows, usual_slices
from flows.steps import opened
from flows.train import train
from pipeline.config import Settings
from pipeline.reference import Reference
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


def test_a_slice_that_moves_apart_is_named_on_the_page_in_the_terminal_and_charted(trained):
    settings, registry = opened(trained)
    path = settings.data.train.path
    rows = pd.read_parquet(path)
    ours = (rows["plan"] == "free") & (rows["at"] >= "2026-02-16")
    rows.assign(age=rows["age"] + 12 * ours).to_parquet(path)  # labels do not depend on the age

    result = monitor(trained)

    (batch,) = records.read_history(registry).batches
    found = batch.verdict.evidence.moved_slice
    assert re.fullmatch(r"plan = free, age \+1\.\d\d sd beyond the other rows, 1\d\d rows", found)
    assert result["moved_slice"] == found
    assert of_batch(result, "shop").count(f"Slice that moved apart: {found}.") == 1
    charted = registry.run_of(batch.run_id).data.metrics
    assert charted["drifted_slices"] >= 1
    assert charted["most_drifted_slice_p"] < settings.monitoring.alpha
    page = words(registry, batch.run_id)
    assert page.count(f"Slice that moved apart: {found}.") == 1
    assert re.search(r" plan = free moved 1\d\d age \+1\.\d\d sd ", page)
    assert not re.search(r" plan = pro moved ", page)


def test_drift_of_slices_is_stored_with_each_batch(replayed):
    _, registry = opened(replayed)
    history = records.read_history(registry)
    quiet = [batch for batch in history.batches if batch.state == "quiet"]

    stored = registry.bundle(1).baseline["slices"]["usual"]

    assert set(stored["table"]["column"]) >= {"amount", "age", "plan", "holdfast-prediction"}
    assert quiet
    for batch in quiet:
        record = records.comparison(registry, batch)
        assert {"plan = free", "plan = pro"} <= {row[0] for row in record["slices"]["data"]}
        assert batch.verdict.decision.reason == "Quiet."


def test_without_slices_nothing_is_compared_stored_or_shown(tmp_path, write_shop, judge_batch):
    conf = write_shop(tmp_path)
    stated = yaml.safe_load(Path(conf).read_text())
    del stated["promotion"]
    Path(conf).write_text(yaml.safe_dump(stated))
    assert train(conf)["promoted"]
    settings, registry = opened(conf)

    batch = judge_batch(settings, registry)

    assert "usual" not in registry.bundle(1).baseline["slices"]
    assert records.comparison(registry, batch)["slices"] == {"columns": [], "data": []}
    assert batch.verdict.evidence.moved_slice == ""
    assert "lices " not in words(registry, batch.run_id)
    assert not [name for name in registry.run_of(batch.run_id).data.metrics if "slice" in name]


def test_no_slice_is_compared_in_a_private_column(tmp_path, write_shop):
    conf = write_shop(tmp_path)
    stated = yaml.safe_load(Path(conf).read_text())
    stated["data"]["features"]["age"]["private"] = True
    Path(conf).write_text(yaml.safe_dump(stated))
    settings = Settings.load(conf)
    rows, features = pd.read_parquet(settings.data.train.path), settings.data.features
    reference = Reference.fit(rows, features, time="at", block=settings.monitoring.batch)

    stored = usual_slices(settings, reference, rows, {"plan": None}, {"age": 1.0})

    assert set(stored["usual"]["table"]["column"]) == {"amount"}


def test_a_column_that_became_private_is_compared_no_more(trained):
    conf = Path(trained)
    stated = yaml.safe_load(conf.read_text())
    settings, registry = opened(trained)
    rows = pd.read_parquet(settings.data.train.path)[:1_000]
    older = rows.assign(age=rows["age"] + 100 * (rows["plan"] == "free"))
    bundle = registry.bundle(1)

    def named(*private):
        for name in private:
            stated["data"]["features"][name]["private"] = True
        conf.write_text(yaml.safe_dump(stated))
        now = Settings.load(trained)
        slices = pd.DataFrame(slices_of_rows(now, bundle, older))
        found = slice_drifts(now, bundle, older[list(settings.data.features)], slices)
        return {one.name: one.columns for one in found if one.drifted}

    assert named()["plan = free"] == ("age",)
    assert named("age") == {}
    assert [*slices_of_rows(Settings.load(trained), bundle, older)] == ["holdfast-slice plan"]
    named("plan")
    assert slices_of_rows(Settings.load(trained), bundle, older) == {}


def test_a_version_of_a_release_before_says_that_drift_of_slices_is_not_judged(
    trained, judge_batch
):
    settings, registry = opened(trained)
    del registry.bundle(1).baseline["slices"]["usual"]

    batch = judge_batch(settings, registry)

    assert records.comparison(registry, batch)["slices"] == {"columns": [], "data": []}
    said = "Drift of slices is not judged, because version 1 was trained by a release that did not"
    assert said in words(registry, batch.run_id)


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
