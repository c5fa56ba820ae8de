"""A store that the code wrote before `pipeline` had rooms is read on.

`tests/stored/older_store.tar.xz` was made with commit 9198167, in /srv/shop:

    rows = shop_rows().round({"amount": 1, "age": 1})  # of that commit's tests/flows/conftest.py
    broken = (rows["at"] >= "2026-02-23") & (rows["at"] < "2026-03-02")
    rows.loc[broken, "age"] *= 100
    rows.to_parquet(folder / "rows.parquet", compression="zstd")
    conf = write_conf(folder)
    with prefect_test_harness(server_startup_timeout=90):
        replay(conf, batches=6)

and holds rows, conf, store and artifacts without pictures and lock files, and in `expected.json`
what that code read back: `asdict` of each recorded batch with its causes, and of each change of
champion. Its champions are versions 1 and 3; the gate refused 2.
"""

import json
import tarfile
from dataclasses import asdict
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from flows.monitor import monitor
from flows.register import rollback
from flows.steps import opened
from pipeline.registry import champions, records
from pipeline.registry.champions import attempts
from pipeline.serving.follower import Follower, ServingState

pytestmark = pytest.mark.integration

STORED = Path(__file__).parents[1] / "stored" / "older_store.tar.xz"
UNMEASURED = {"measured": "", "change": 0.0, "at_least": 0.0, "worst_slice": "", "moved_slice": ""}
"""What a decision of before did not record of the loss and of slices."""
PLAIN = ("rows", "quarantined", "outcome", "answer", "paged", "announced", "reading")


@pytest.fixture
def conf(tmp_path, prefect, rewrite_paths):
    del prefect
    with tarfile.open(STORED) as archive:
        archive.extractall(tmp_path, filter="data")
    return rewrite_paths(tmp_path / "shop", "/srv/shop")


@pytest.fixture
def expected(conf):
    return json.loads(Path(conf).with_name("expected.json").read_text())


def as_json(record):
    return json.loads(json.dumps(asdict(record)))


def test_recorded_batches_causes_and_performance_are_read_as_they_were(conf, expected):
    _, registry = opened(conf)

    found = records.read_history(registry).batches

    assert [batch.name for batch in found] == [before["name"] for before in expected["batches"]]
    for batch, before in zip(found, expected["batches"], strict=True):
        assert {key: getattr(batch, key) for key in PLAIN} == {key: before[key] for key in PLAIN}
        assert batch.end == batch.start + pd.Timedelta("7D")
        assert list(batch.drifted) == before["drifted"]
        verdict = before["verdict"]
        assert as_json(batch.verdict) == {
            "evidence": verdict["evidence"] | {"otherwise": None, "labels": []} | UNMEASURED,
            "decision": verdict["decision"] | {"presumed": [], "due": True},
        }
        performance = dict(before["performance"])
        added = {"counts": [], "of": 0, "faults": {}, "digest": "", "cells": None, "slices": []}
        performance |= {"metrics": performance.pop("scores")} | added
        assert as_json(batch.performance) == performance
        causes = [as_json(cause) for cause in records.causes(registry, batch)]
        assert causes == before["causes"]
    assert [bool(before["causes"]) for before in expected["batches"]] == [False, True, *[False] * 4]


def test_the_history_of_champions_is_read_as_it_was(conf, expected):
    _, registry = opened(conf)

    assert [as_json(change) for change in champions.changes(registry)] == expected["champions"]
    made = [(attempt.episode, attempt.promoted) for attempt in attempts(registry.versions())]
    assert made == [("v1-2026-03-02T00:00", False), ("v1-2026-03-16T00:00", True)]


def test_the_next_batch_is_judged_with_the_recorded_ones(conf):
    result = monitor(conf)

    _, registry = opened(conf)
    last = records.read_history(registry).batches[-1]
    assert (result["batch"], result["rows"], result["action"]) == ("2026-03-30T00:00", 336, "none")
    assert last.version == 3
    assert registry.read(last.run_id, records.REPORT)["batches"] == 2


def test_a_rollback_returns_to_the_champion_before(conf):
    assert rollback(conf, reason="a test") == {"from": 3, "to": 1}

    _, registry = opened(conf)
    assert registry.champion().number == 1
    assert champions.changes(registry)[-1].kind == "rolled back"


def test_the_champion_is_served(conf):
    settings, _ = opened(conf)
    champion = ServingState()
    poll = settings.serving.poll

    with Follower(settings.name, champion, tracking=settings.tracking, poll=poll):
        predicted = champion.served.predict([{"amount": 75, "age": None, "plan": "pro"}])

    assert champion.served.version == "3"
    assert 0 < predicted.predictions[0] < 1


def test_mlflow_loads_a_version_that_names_the_loader_of_before(conf):
    rows = pd.read_parquet(Path(conf).with_name("rows.parquet")).head(50)
    features = rows[["amount", "age", "plan"]]
    expected = opened(conf)[1].bundle(3).model.predict(features)

    loaded = mlflow.pyfunc.load_model("models:/shop@champion")

    assert loaded.metadata.flavors["python_function"]["loader_module"] == "pipeline.model"
    assert loaded.predict(features).tolist() == expected.tolist()
