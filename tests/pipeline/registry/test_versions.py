import json
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from pipeline.config import Settings
from pipeline.errors import RegistryError, UnavailableError
from pipeline.monitoring.episode import Decision, Evidence, Verdict
from pipeline.monitoring.findings import Cause, DriftReport
from pipeline.reference.summaries import ROWS
from pipeline.registry import records
from pipeline.registry.tracking import metric_name
from pipeline.registry.versions import Registry

pytestmark = pytest.mark.integration


@pytest.fixture
def settings(tmp_path, data):
    return Settings(
        name="shop",
        task="classification",
        data=data.model_dump(mode="json"),
        tracking={"folder": tmp_path / "state"},
    )


CUT_OFF = """
import itertools, os, signal, sys
from pathlib import Path
import sqlalchemy as sa
from pipeline.config import Settings
from pipeline.registry.versions import Registry

statements = itertools.count()

@sa.event.listens_for(sa.Engine, "before_cursor_execute")
def end(*_):
    if next(statements) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

Registry(Settings.model_validate_json(Path(sys.argv[1]).read_text())).versions()
"""
UNIT = Cause("unit", ("amount", "age"), "Seen.", {"factor": 100.0, "was": "EUR"}, "Mend it.", 0.5)


def record(registry, start, causes=(UNIT,)):
    """A batch without rows and findings, as the monitor records it; its name."""
    name = f"{start}T00:00"
    report = DriftReport(0, 0.05, (), (), (), {ROWS: 0.0}, 1, 400.0, 0.01, (), causes)
    decision = Decision("page" if causes else "none", "As found.")
    moment = pd.Timestamp(start)
    records.record(
        registry,
        verdict=Verdict(Evidence(name, 1, broken=tuple(c.name for c in causes)), decision),
        report=report,
        quarantined=3,
        predicted=np.nan,
        window=(moment, moment + pd.Timedelta("7D")),
        step=0,
        given={},
    )
    return name


def tags_of(registry):
    (batch,) = records.batches(registry)
    return registry.client.get_run(batch.run_id).data.tags


@pytest.mark.parametrize("name", ["price [EUR]", "a=b", "naïve", "x{1}", "x/y", "share of A&B"])
def test_a_column_of_any_name_becomes_a_metric_that_mlflow_takes(settings, name):
    registry = Registry(settings)
    run_id = registry.run({"kind": "batch", "batch": "x"}, "x", pd.Timestamp("2026-01-05"))

    registry.log(run_id, {f"psi/{name}": 0.5}, pd.Timestamp("2026-01-12"), 0)

    metrics = registry.client.get_run(run_id).data.metrics
    assert metrics == {metric_name(f"psi/{name}"): 0.5}


def test_a_run_is_found_again_by_its_tags(settings):
    tags, start = {"kind": "batch", "batch": "2026-01-05T00:00"}, pd.Timestamp("2026-01-05")

    made = {Registry(settings).run(tags, "x", start) for _ in range(3)}

    assert len(made) == 1


def test_two_models_in_one_process_keep_to_their_own_stores(settings, tmp_path):
    other = settings.model_copy(
        update={"tracking": settings.tracking.model_copy(update={"folder": tmp_path / "other"})}
    )
    one, two = Registry(settings), Registry(other)
    assert one.versions() == two.versions() == []

    assert one.uri != two.uri
    assert (tmp_path / "state" / "mlflow.db").exists()
    assert (tmp_path / "other" / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("uri", "locks", "count"),
    [
        (None, None, True),
        ("http://127.0.0.1:5000", None, True),
        ("http://mlflow.example:5000", None, False),
        ("http://mlflow.example:5000", "postgresql://host/locks", True),
        ("postgresql://host/mlflow", None, True),
    ],
)
def test_it_is_known_whether_locks_keep_all_apart_that_use_a_store(settings, uri, locks, count):
    tracking = {"folder": settings.tracking.folder, "uri": uri, "locks": locks}
    other = Settings(**settings.model_dump(mode="json", exclude={"tracking"}), tracking=tracking)

    assert Registry(other).locks_count == count


def test_a_server_that_is_away_is_unavailable_not_broken(settings, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")

    with pytest.raises(UnavailableError, match="MLflow must answer"):
        Registry(settings).versions()


def test_a_broken_batch_is_read_back_as_it_was_recorded(settings):
    registry = Registry(settings)
    record(registry, "2026-01-05")

    (batch,) = records.batches(Registry(settings))

    assert (batch.outcome, batch.answer, batch.rows, batch.quarantined) == ("broken", "", 0, 3)
    assert batch.verdict.evidence.broken == ("unit (amount, age)",)
    assert records.causes(registry, batch) == (UNIT,)


def test_a_batch_recorded_before_there_were_diagnoses_is_read(settings):
    registry = Registry(settings)
    record(registry, "2026-01-05", causes=())
    (batch,) = records.batches(registry)
    verdict = json.loads(tags_of(registry)["verdict"])
    del verdict["evidence"]["broken"]
    verdict["evidence"]["alarm"] = True
    registry.client.set_tag(batch.run_id, "verdict", json.dumps(verdict))
    registry.client.delete_tag(batch.run_id, "outcome")

    (old,) = records.batches(registry)

    assert (old.outcome, old.broken, old.set_aside) == ("moved", False, False)
    assert old.verdict.evidence.broken == ()


def test_a_broken_batch_is_set_aside_until_it_is_accepted(settings):
    registry = Registry(settings)
    name = record(registry, "2026-01-05")
    states = [records.batches(registry)[0]]

    for answer in ("drop", "accept"):
        records.record_answer(registry, name, answer, "a test")
        states += records.batches(registry)

    assert [state.answer for state in states] == ["", "drop", "accept"]
    assert [state.set_aside for state in states] == [True, True, False]


def test_the_same_answer_again_changes_nothing(settings):
    registry = Registry(settings)
    records.record_answer(registry, record(registry, "2026-01-05"), "drop", "a bad file")
    before = tags_of(registry)

    records.record_answer(registry, "2026-01-05", "drop", "once more")

    assert tags_of(registry) == before
    assert before["answer_reason"] == "a bad file"
    assert pd.Timestamp(before["answered"]).tz is not None


def test_another_answer_replaces_the_earlier_ones_and_keeps_them(settings):
    registry = Registry(settings)
    name = record(registry, "2026-01-05")

    for answer, reason in (("drop", "one"), ("accept", "two"), ("drop", "three")):
        records.record_answer(registry, name, answer, reason)

    tags = tags_of(registry)
    history = json.loads(tags["answers"])
    assert (tags["answer"], tags["answer_reason"]) == ("drop", "three")
    assert [(one["answer"], one["answer_reason"]) for one in history] == [
        ("drop", "one"),
        ("accept", "two"),
    ]
    assert all(pd.Timestamp(one["answered"]) for one in history)


@pytest.mark.parametrize(
    ("batch", "got"),
    [
        ("2026-01-05", "It is quiet"),
        ("2030-01-01", "It is not recorded"),
        ("nonsense", "It is not recorded"),
    ],
)
def test_what_is_no_broken_batch_cannot_be_answered(settings, batch, got):
    registry = Registry(settings)
    record(registry, "2026-01-05", causes=())

    message = f"Batch {batch} .* must be broken to drop it\\..* {got}\\."
    with pytest.raises(RegistryError, match=message):
        records.record_answer(registry, batch, "drop", "a test")

    assert "answer" not in tags_of(registry)


def test_a_store_that_was_cut_off_while_it_was_made_is_made_anew(settings, tmp_path):
    conf = tmp_path / "settings.json"
    conf.write_text(settings.model_dump_json())
    command = [sys.executable, "-c", CUT_OFF, str(conf), "800"]

    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert Registry(settings).versions() == []
