"""Searches of parameters, from the command to the runs that they leave."""

from pathlib import Path

import pytest

from flows.steps import opened
from flows.tune import tune
from pipeline.config import Settings

pytestmark = pytest.mark.integration


def runs(conf, kind):
    _, registry = opened(conf)
    return registry, registry.search(f"tags.kind = '{kind}'")


def test_a_search_that_was_cut_off_goes_on_and_ends_as_one_that_was_not(shop):
    tune(shop, trials=2)
    registry, (parent,) = runs(shop, "tuning")
    tags = {"kind": "trial", "study": parent.data.tags["study"], "trial": "{}"}
    cut_off = registry.client.create_run(registry.experiment, tags=tags).info.run_id

    continued = tune(shop, trials=4)

    registry, (parent,) = runs(shop, "tuning")
    _, trials = runs(shop, "trial")
    finished = [one for one in trials if one.info.status == "FINISHED"]
    assert registry.run_of(cut_off).info.status == "KILLED"
    assert len(finished) == len(continued["trials"]) == 4
    assert {one.data.tags["mlflow.parentRunId"] for one in finished} == {parent.info.run_id}
    assert parent.info.status == "FINISHED"
    losses = [one["loss"] for one in continued["trials"]]
    assert sorted(one.data.metrics["loss"] for one in finished) == sorted(losses)
    assert parent.data.metrics["best_loss"] == min(losses)
    assert registry.versions() == []

    for one in trials:
        registry.client.delete_run(one.info.run_id)
    registry.client.delete_run(parent.info.run_id)
    assert tune(shop, trials=4) == continued


def test_the_best_parameters_are_written_beside_the_comments_of_the_file(shop, holdfast):
    text = Path(shop).read_text()
    Path(shop).write_text(
        text.replace("max_depth: 3", "max_depth: 1  # flat").replace(
            "n_estimators: 20", "n_estimators: 1"
        )
    )

    code, out, err = holdfast("tune", shop, "--trials", "3", "--minutes", "1", "--apply")

    assert (code, err) == (0, "")
    assert "3 trials, by log_loss on newer rows" in out
    assert f"Written into {shop}. `holdfast train {shop}` trains a version." in out
    params = Settings.load(shop).training.params
    assert params["n_jobs"] == 1
    assert {"learning_rate", "reg_lambda", "n_estimators"} <= set(params)
    assert f"max_depth: {params['max_depth']}  # flat" in Path(shop).read_text()


def test_no_trial_begins_after_the_time_and_there_is_always_one(shop):
    result = tune(shop, trials=30, minutes=1e-6)

    assert [one["trial"] for one in result["trials"]] == [0]
    assert (result["params"], result["applied"]) == ({}, False)
    assert result["sentence"].startswith(
        f"The parameters of {shop} stay: none of 1 trial is better"
    )


@pytest.mark.parametrize("option", [("--trials", "0"), ("--minutes", "0")])
def test_a_search_without_trials_or_time_is_refused(shop, holdfast, option):
    code, _, err = holdfast("tune", shop, *option)

    assert code == 2
    assert "Must be" in err
