"""Staging beside production in one store: it has all of its own, and touches nothing."""

import contextlib
import sqlite3
from pathlib import Path

import pytest
import yaml
from prefect.client.orchestration import get_client

from flows.deploy import FLOWS, deploy
from flows.models import load
from flows.monitor import monitor
from flows.promote import promote
from flows.register import rollback
from flows.steps import opened
from flows.train import train
from pipeline.config import Settings
from pipeline.errors import ConfigError, PipelineError, RegistryError
from pipeline.registry import champions, records
from pipeline.training.bundle import sha256_of

pytestmark = pytest.mark.integration

STAGING = "HOLDFAST__ENVIRONMENT"
NEW = "2026-03-23"
"""End of a window with enough rows after the drift for a version that passes the gate."""
EARLIER = "2026-03-16"
SHARED = {"mlflow.db", "pages.db", "holdfast.log"}
"""Files that hold records of all models, of which the first two are compared row by row."""


def rows_of(database):
    """Every row of every table."""
    with contextlib.closing(sqlite3.connect(database)) as store:
        tables = store.execute("select name from sqlite_master where type = 'table'").fetchall()
        return {
            (table, row)
            for (table,) in tables
            if not table.startswith("sqlite_")
            for row in store.execute(f'select * from "{table}"')  # noqa: S608 -- its own names
        }


def kept(conf):
    """All that the store of a model holds: rows of databases, and files with their bytes."""
    state = opened(conf)[0].tracking.folder
    files = [path for path in state.rglob("*") if path.is_file() and "locks" not in path.parts]
    rows = set.union(set(), *(rows_of(state / name) for name in SHARED if name.endswith(".db")))
    names = {one for one in files if not one.name.startswith(tuple(SHARED))}
    return rows, {path: path.read_bytes() for path in names}


def stage(conf):
    """Put a champion and judged batches of staging beside the champion of production."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(STAGING, "staging")
        assert train(conf)["promoted"]
        monitor(conf)
        train(conf, until=NEW)


@pytest.fixture
def staged(copy_shop, tmp_path):
    """A model of which production has judged a batch before staging came beside it."""

    def filled(conf):
        monitor(conf)
        stage(conf)

    return copy_shop("staged", tmp_path, filled)


def test_staging_changes_no_row_and_no_file_of_production(trained, monkeypatch):
    monitor(trained)
    rows, files = kept(trained)

    stage(trained)

    rows_now, files_now = kept(trained)

    assert rows - rows_now == set()
    assert {path: text for path, text in files_now.items() if path in files} == files
    new = {path for path in files_now if path not in files}
    assert new
    assert {path for path in new if "shop--staging" not in str(path)} == set()
    monkeypatch.setenv(STAGING, "staging")
    settings, registry = opened(trained)
    assert (settings.name, registry.champion().number) == ("shop--staging", 2)
    assert registry.bundle(2).manifest["name"] == "shop--staging"


def test_production_goes_on_beside_staging_as_if_it_were_alone(staged, tmp_path, copy_shop):
    alone = copy_shop("trained", tmp_path / "alone")
    monitor(alone)

    judged = [monitor(one) for one in (staged, alone)]

    assert judged[0] == judged[1]
    assert [one.number for one in opened(staged)[1].versions()] == [1]
    histories = [records.read_history(opened(one)[1]) for one in (staged, alone)]
    assert [one.verdict for one in histories[0].batches] == [
        one.verdict for one in histories[1].batches
    ]


def test_a_champion_of_staging_is_promoted_with_its_files_and_can_be_taken_back(
    staged, monkeypatch
):
    conf = staged
    monkeypatch.setenv(STAGING, "staging")
    theirs = opened(conf)[1].champion()
    monkeypatch.delenv(STAGING)
    before = kept(conf)

    found = promote(conf, "staging")

    registry = opened(conf)[1]
    copy = registry.champion()
    assert found["copied"] == {"model": "shop--staging", "version": theirs.number}
    assert (found["promoted"], found["version"], copy.number) == (True, 2, 2)
    assert copy.tags["sha256"] == theirs.tags["sha256"]
    assert copy.tags["copied_from"] == f"shop--staging/{theirs.number}"
    assert copy.run_id != theirs.run_id
    registry.check_files(2)
    assert sha256_of(registry.folder_of(2)) != ""
    assert registry.bundle(2).manifest["name"] == "shop"
    assert [one.version for one in champions.changes(registry)] == [1, 2]
    of_staging = {row for row in before[0] if "shop--staging" in row[1]}
    assert of_staging - kept(conf)[0] == set()
    assert promote(conf, "staging")["version"] == 2  # again: nothing is copied twice
    assert len(registry.versions()) == 2
    assert rollback(conf) == {"from": 2, "to": 1}


def test_only_a_champion_of_another_environment_is_copied(trained):
    with pytest.raises(ConfigError, match="must name another environment than production"):
        promote(trained, "production")
    with pytest.raises(RegistryError, match="'shop--staging' has no champion yet"):
        promote(trained, "staging")
    assert len(opened(trained)[1].versions()) == 1


def test_a_changed_file_of_staging_is_not_copied(staged):
    conf = staged
    place = opened(conf)[0].tracking.folder / "artifacts" / "shop--staging"
    for path in place.rglob("golden.parquet"):
        path.write_bytes(path.read_bytes() + b" ")

    with pytest.raises(RegistryError, match="were changed after they were registered"):
        promote(conf, "staging")

    assert [one.number for one in opened(conf)[1].versions()] == [1]


def test_a_champion_that_moves_meanwhile_keeps_the_copy_out(staged, monkeypatch):
    conf = staged
    move = champions.promote

    def promoted(registry, number, **given):
        monkeypatch.undo()
        assert train(conf, until=EARLIER)["promoted"]  # somebody else's, at this moment
        move(registry, number, **given)

    monkeypatch.setattr("flows.gate.promote", promoted)

    with pytest.raises(RegistryError, match="was compared with version 1, but the champion is now"):
        promote(conf, "staging")


def deployed(conf, client):
    found = {flow: client.read_deployment_by_name(f"{flow}/{conf}") for flow in FLOWS}
    return {flow: one.model_dump(exclude={"last_polled", "status"}) for flow, one in found.items()}


def test_deployments_of_staging_are_its_own_and_run_as_staging(shop, monkeypatch):
    settings = yaml.safe_load(Path(shop).read_text())
    Path(shop).write_text(yaml.safe_dump(settings | {"name": "beside"}))
    with get_client(sync_client=True) as client:
        deploy(load([shop]))
        before = deployed("beside", client)
        monkeypatch.setenv(STAGING, "staging")
        deploy(load([shop]))
        staging = deployed("beside--staging", client)
        monkeypatch.delenv(STAGING)

        assert deployed("beside", client) == before

    for flow in FLOWS:
        assert before[flow]["job_variables"]["env"] == {STAGING: "production"}
        assert staging[flow]["job_variables"]["env"] == {STAGING: "staging"}


def test_an_environment_names_all_that_a_model_writes(shop, monkeypatch):
    values = yaml.safe_load(Path(shop).read_text())
    values["data"]["scores"] = {"kind": "sql", "url": "sqlite:///s.db", "table": "scores"}
    values["serving"] = {"captures": "kept/captures.db"}
    Path(shop).write_text(yaml.safe_dump(values))
    production = Settings.load(shop)
    monkeypatch.setenv(STAGING, "pre-production")
    other = Settings.load(shop)

    assert (production.name, production.environment) == ("shop", "production")
    assert production.data.scores.table == "scores"
    assert production.captures == Path("kept/captures.db")
    assert other.name == "shop--pre-production"
    assert other.data.scores.table == "scores_pre_production"
    assert other.captures == Path("kept/captures--pre-production.db")
    assert other.tracking == production.tracking


@pytest.mark.parametrize("name", ["Staging", "a--b", "", "-a", "a-", "a/b"])
def test_an_environment_has_a_name_that_no_model_can_have(shop, monkeypatch, name):
    monkeypatch.setenv(STAGING, name)
    with pytest.raises(PipelineError, match="environment"):
        Settings.load(shop)
    monkeypatch.delenv(STAGING)
    values = yaml.safe_load(Path(shop).read_text())
    Path(shop).write_text(yaml.safe_dump(values | {"name": "shop--staging"}))
    with pytest.raises(ConfigError, match="name"):
        Settings.load(shop)
