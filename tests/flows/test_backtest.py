import json
from pathlib import Path

import numpy as np
import pytest

from flows.backtest import _past, applied, backtest
from flows.steps import opened
from flows.tune import _study
from pipeline.backtest.recommendation import Recommendation
from pipeline.config import Settings


@pytest.fixture(scope="module")
def compared(tmp_path_factory, copy_shop):
    """A shop whose past was replayed and compared; conf, result and the replay's story."""
    conf = copy_shop("replayed", tmp_path_factory.mktemp("compared"))
    return conf, backtest(conf), json.loads(Path(conf).with_name("story.json").read_text())


def of(result, policy):
    return next(one for one in result["policies"] if one["policy"] == policy)


@pytest.mark.team
@pytest.mark.night
def test_the_configured_policy_does_what_a_replay_does(compared):
    _, result, story = compared
    own = of(result, "as configured")

    assert result["batches"] == len(story)
    assert own["retrains"] == sum(one["action"] == "retrain" for one in story[:-1])
    losses = [one["maintained"]["log_loss"] for one in story]
    assert own["loss"] == pytest.approx(np.mean(losses), rel=1e-6)
    assert of(result, "never")["loss"] == pytest.approx(
        np.mean([one["alone"]["log_loss"] for one in story]), rel=1e-6
    )


@pytest.mark.team
@pytest.mark.night
def test_no_policy_is_better_than_the_oracle(compared):
    _, result, _ = compared

    oracle = of(result, "oracle")
    assert all(oracle["loss"] <= one["loss"] + 1e-9 for one in result["policies"])
    assert result["sentence"].startswith("Your history is too short to tell: 7 live batches")


@pytest.mark.team
@pytest.mark.night
def test_it_leaves_a_run_in_mlflow_and_no_other_trace(compared):
    conf, result, story = compared
    _, registry = opened(conf)

    run = registry.search("tags.kind = 'backtest'")[-1]  # other tests compare again
    assert result["sentence"] in run.data.tags["mlflow.note.content"]
    files = {one.path for one in registry.client.list_artifacts(run.info.run_id)}
    assert files == {"note.md", "losses.svg", "result.json"}
    assert len(registry.search("tags.kind = 'batch'")) == len(story)
    assert [*Path(conf).parent.glob("state/backtest/**/*.parquet")] == []


@pytest.mark.team
@pytest.mark.night
def test_a_comparison_that_was_made_is_read_and_only_the_cost_is_new(compared):
    conf, before, _ = compared
    kept = {path: path.stat().st_mtime_ns for path in fits_of(conf)}

    after = backtest(conf, cost=0.5)

    assert {path: path.stat().st_mtime_ns for path in fits_of(conf)} == kept
    assert of(after, "every batch")["loss"] == of(before, "every batch")["loss"]
    assert of(after, "oracle")["retrains"] < of(before, "oracle")["retrains"]


def fits_of(conf):
    return [*Path(conf).parent.glob("state/backtest/shop/*/fits/*.json")]


def test_a_history_that_ends_with_training_is_refused(trained, holdfast):
    text = Path(trained).read_text()
    Path(trained).write_text(text.replace("2026-02-16", "2026-04-06"))

    code, _, err = holdfast("backtest", trained)

    assert code == 2
    assert "must go on for a batch after the first training" in err


def test_settings_are_written_only_where_there_are_any(trained):
    settings = Settings.load(trained)
    before = Path(trained).read_text()

    assert not applied(settings, Recommendation("never", "Do not.", {}))
    assert Path(trained).read_text() == before
    assert applied(settings, Recommendation("performance alone", "Do.", {"alpha": 1e-9}))
    assert Settings.load(trained).monitoring.alpha == 1e-9


def test_what_was_kept_is_not_read_after_an_upgrade(trained, tmp_path, monkeypatch):
    settings, registry = opened(trained)
    keys = {_past(settings, tmp_path / "kept").folder}
    searches = {_study(settings, registry).key}

    for packages in ("scikit-learn 1.9.0", "scikit-learn 1.9.1"):
        monkeypatch.setattr("pipeline.registry.environment.judging", lambda of=packages: of)
        keys.add(_past(settings, tmp_path / "kept").folder)
        searches.add(_study(settings, registry).key)

    assert len(keys) == len(searches) == 3
    assert len([*(tmp_path / "kept").glob("*/live.parquet")]) == 1  # of the newest alone
