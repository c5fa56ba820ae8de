"""A target of five classes, from training to rollback, and behind the API."""

import shutil

import mlflow
import numpy as np
import pandas as pd
import pytest

from flows.monitor import monitor
from flows.predict import check_classes
from flows.register import rollback
from flows.replay import replay
from flows.score import score
from flows.settle import settle
from flows.steps import opened
from flows.train import train
from pipeline.config import Settings
from pipeline.errors import ConfigError
from pipeline.registry import records
from pipeline.registry.versions import CHAMPION
from pipeline.serving.capturing import Captures
from pipeline.serving.served_version import ServedVersion
from pipeline.serving.server import export
from pipeline.training.predictions import HALVED, PREDICTION, of_cells

pytestmark = pytest.mark.team


@pytest.fixture(scope="module")
def made(tmp_path_factory, prefect, write_claims):
    """A folder whose store has a first version."""
    del prefect
    folder = tmp_path_factory.mktemp("claims")
    assert train(write_claims(folder))["promoted"]
    return folder


@pytest.fixture
def conf(made, tmp_path, rewrite_paths):
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return rewrite_paths(tmp_path, made)


@pytest.fixture
def live(made):
    """Reads the rows of a window."""
    rows = pd.read_parquet(made / "rows.parquet")
    return lambda start, end: rows[(rows["at"] >= start) & (rows["at"] < end)]


def test_five_classes_go_from_training_to_a_retrain_and_back(conf):
    story = replay(conf)

    actions = [row["action"] for row in story]
    assert actions[:2] == ["none", "none"]
    assert "retrain" in actions[2:4]
    assert story[-1]["version"] > 1
    assert story[-1]["maintained"]["log_loss"] < story[-1]["alone"]["log_loss"]
    moved = next(row for row in story if row["action"] == "retrain")
    assert {"amount", "prediction"} <= set(moved["drifted"])
    _, registry = opened(conf)
    first = records.read_history(registry).batches[0]
    kept = records.predictions(registry, first)
    assert of_cells(kept[PREDICTION]).shape == of_cells(kept[HALVED]).shape == (336, 5)
    logged = registry.client.get_run(first.run_id).data.metrics
    assert 0 < logged["realised_recall/refund"] < 1
    assert sum(logged[name] for name in logged if name.startswith("predicted/")) == pytest.approx(1)
    note = registry.client.get_run(registry.version(1).run_id).data.tags["mlflow.note.content"]
    assert "| refund |" in note
    assert replay(conf) == story

    newest = registry.alias(CHAMPION).number
    rollback(conf, reason="a trial")
    assert registry.alias(CHAMPION).number == newest - 1


def test_mlflow_loads_a_version_and_predicts_rows_of_chances(conf, live):
    rows = live("2026-02-16", "2026-02-17")[["amount", "age", "plan"]]
    _, registry = opened(conf)
    expected = registry.bundle(1).model.predict(rows)

    loaded = mlflow.pyfunc.load_model("models:/claims@champion")

    assert np.array_equal(loaded.predict(rows), expected)


def test_captured_claims_are_a_batch_and_their_labels_settle_it(
    conf, tmp_path, live, write_claims_conf
):
    settings, registry = opened(conf)
    batch = live("2026-02-16", "2026-02-23")
    export(conf, str(tmp_path / "exported"))
    capture(settings, batch, tmp_path / "exported")
    both = {"live": {"kind": "capture"}, "labels": {"kind": "capture"}}
    conf = write_claims_conf(tmp_path, **both)

    result = monitor(conf)

    assert (result["rows"], result["drifted"]) == (len(batch), [])
    settings, registry = opened(conf)
    history = records.read_history(registry)
    settled = settle(settings, registry, history, pd.Timestamp("2026-03-02")).last.performance
    assert settled.rows == len(batch)
    assert not settled.worse
    train(conf, until="2026-02-24")
    assert registry.version(2).rows > registry.version(1).rows + 300


def capture(settings, batch, folder):
    """Serve rows by an exported champion, store the answers and send the labels."""
    served = ServedVersion.load(folder)
    rows = batch[["amount", "age", "plan"]].to_dict("records")
    with Captures(settings.captures) as captures:
        for key, at, row in zip(batch["id"], batch["at"], rows, strict=True):
            given = {name: value for name, value in row.items() if not pd.isna(value)}
            predicted = served.predict([given])
            captures.answer(
                at=at.value // 1_000,
                request_id=key,
                layout=served.layout,
                version="1",
                latency=0,
                features=predicted.features,
                unseen=predicted.unseen,
                keys=[key],
                predictions=predicted.predictions,
            )
        captures.label(list(batch[["id", "kind"]].itertuples(index=False)), at=0)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda kind: kind.replace({"send on": "none", "none": "send on"}), "permuted (kind)"),
        (lambda kind: kind.str.upper(), "recode (kind)"),
        (lambda _: "refund", "stuck (kind)"),
    ],
)
def test_faulty_labels_break_their_batch(conf, tmp_path, write_claims_conf, change, fault):
    rows = pd.read_parquet(tmp_path / "rows.parquet")
    inside = (rows["at"] >= "2026-02-16") & (rows["at"] < "2026-02-23")
    rows.loc[inside, "kind"] = change(rows.loc[inside, "kind"])
    rows.to_parquet(tmp_path / "live.parquet")
    source = {"kind": "file", "path": str(tmp_path / "live.parquet")}

    conf = write_claims_conf(tmp_path, live=source, label_delay="0D")

    monitor(conf)

    _, registry = opened(conf)
    assert records.read_history(registry).last.verdict.evidence.broken == (fault,)


def test_scores_hold_the_likeliest_class_and_the_chance_of_each(conf, tmp_path):
    score(conf, str(tmp_path / "scores.csv"), start="2026-02-16", end="2026-02-23")

    found = pd.read_csv(tmp_path / "scores.csv", keep_default_na=False)
    classes = Settings.load(conf).data.classes
    chances = found[[f"probability of {label}" for label in classes]].to_numpy()
    assert chances.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert found["prediction"].tolist() == [classes[i] for i in chances.argmax(axis=1)]


def test_classes_may_be_added_at_the_end_and_not_otherwise_changed(
    conf, tmp_path, write_claims_conf
):
    settings, registry = opened(conf)
    classes = settings.data.classes
    model = registry.bundle(1).model
    rows = pd.read_parquet(tmp_path / "rows.parquet")
    inside = (rows["at"] >= "2026-02-16") & (rows["at"] < "2026-02-18")
    rows.loc[inside, "kind"] = "new"
    rows.to_parquet(tmp_path / "rows.parquet")

    longer = write_claims_conf(tmp_path, classes=[*classes, "new"])
    batch = monitor(longer)
    train(longer, until="2026-02-24")

    assert batch["rows"] == 336
    _, registry = opened(longer)
    history = records.read_history(registry)
    assert history.last.performance is None or history.last.performance.worse
    assert len(registry.bundle(2).model.classes) == 6
    turned = Settings.load(write_claims_conf(tmp_path, classes=classes[::-1]))
    with pytest.raises(ConfigError, match="must begin with the classes of version 1"):
        check_classes(turned, 1, model)
