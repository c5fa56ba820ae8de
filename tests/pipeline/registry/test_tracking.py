import os
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
from mlflow.exceptions import RestException

from pipeline.config import Tracking
from pipeline.errors import RegistryError, UnavailableError
from pipeline.registry.tracking import metric_name, translated
from pipeline.registry.versions import Registry

pytestmark = pytest.mark.integration

NOBODY = 65534
NOT_WRITABLE = r"must be a writable folder\..* `chmod u"

CUT_OFF = """
import itertools, os, signal, sys
from pathlib import Path
import sqlalchemy as sa
from pipeline.config import Tracking
from pipeline.registry.versions import Registry

statements = itertools.count()

@sa.event.listens_for(sa.Engine, "before_cursor_execute")
def end(*_):
    if next(statements) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

Registry("shop", Tracking(folder=sys.argv[1])).versions()
"""


@pytest.fixture
def section(tmp_path):
    return Tracking(folder=tmp_path / "state")


@pytest.fixture
def open_registry(section):
    """Opens the registry of the shop, as each process does."""
    return lambda: Registry("shop", section)


@pytest.fixture(scope="module")
def run(tmp_path_factory, empty_store):
    """A registry and the id of a run in it."""
    folder = tmp_path_factory.mktemp("state")
    empty_store(folder)
    registry = Registry("shop", Tracking(folder=folder))
    return registry, registry.run({"kind": "batch"}, "x", pd.Timestamp("2026-01-05"))


def test_a_file_in_the_place_of_the_state_is_named(section, open_registry):
    section.folder.write_text("")

    with pytest.raises(RegistryError, match=r"/state must be a folder\. .* Move it away: `mv"):
        open_registry().versions()


@contextmanager
def ordinary_user():
    """Whoever runs the tests without the powers of root, whom no mode of a folder stops."""
    root = os.getuid() == 0
    if root:
        os.setresuid(NOBODY, NOBODY, 0)
    try:
        yield
    finally:
        if root:
            os.setresuid(0, 0, 0)


def test_a_state_that_this_user_may_not_write_is_named():
    # Nobody else may enter the folders of pytest itself.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        registry = Registry("shop", Tracking(folder=folder / "state"))

        with ordinary_user(), pytest.raises(RegistryError, match=NOT_WRITABLE):
            registry.versions()


ODD = [
    *(
        "price [EUR]",
        "a=b",
        "naïve",
        "x{1}",
        "x/y",
        "share of A&B",
        "a.b.c",
        "数 of 名",
        ".",
        "..",
        "/",
    ),
    *("a//b", "/x", "../up", "a/../b", "x/", "two\nlines", "", "L" * 250, "L" * 300, "名" * 249),
]


@pytest.mark.parametrize("name", ODD)
def test_a_column_of_any_name_becomes_a_metric_that_mlflow_takes(run, name):
    registry, run_id = run

    registry.log(run_id, {f"psi/{name}": 0.5}, pd.Timestamp("2026-01-12"), 0)

    metrics = registry.client.get_run(run_id).data.metrics
    assert metrics[metric_name(f"psi/{name}")] == 0.5


def test_no_two_columns_share_a_metric():
    pairs = [("L" * 299 + "a", "L" * 299 + "b"), ("a?b", "a!b"), ("a//b", "a/b"), ("/x", "x")]

    for one, other in pairs:
        assert metric_name(f"psi/{one}") != metric_name(f"psi/{other}")
    assert metric_name("psi/a.b c") == "psi/a.b c"


def test_a_run_is_found_again_by_its_tags(open_registry):
    tags, start = {"kind": "batch", "batch": "2026-01-05T00:00"}, pd.Timestamp("2026-01-05")

    found = {open_registry().run(tags, "x", start) for _ in range(3)}

    assert len(found) == 1


def test_two_models_in_one_process_keep_to_their_own_stores(section, tmp_path):
    shop = Registry("shop", section)
    other = Registry("shop", section.model_copy(update={"folder": tmp_path / "other"}))

    assert shop.versions() == other.versions() == []

    assert shop.uri != other.uri
    assert (tmp_path / "state" / "mlflow.db").exists()
    assert (tmp_path / "other" / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("uri", "locks", "are_global"),
    [
        (None, None, True),
        ("http://127.0.0.1:5000", None, True),
        ("http://mlflow.example:5000", None, False),
        ("http://mlflow.example:5000", "postgresql://host/locks", True),
        ("postgresql://host/mlflow", None, True),
    ],
)
def test_locks_are_global_where_every_process_that_uses_a_store_respects_them(
    section, uri, locks, are_global
):
    section = Tracking(folder=section.folder, uri=uri, locks=locks)

    assert Registry("shop", section).locks_are_global == are_global


def test_a_server_that_is_away_is_unavailable_and_not_broken(open_registry, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")

    with pytest.raises(UnavailableError, match="MLflow does not answer"):
        open_registry().versions()


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("(pg8000.exceptions.InterfaceError) network error", UnavailableError),
        ("(psycopg2.OperationalError) server closed the connection", UnavailableError),
        ("(pg8000.exceptions.DatabaseError) {'S': 'FATAL', 'C': '57P03'}", UnavailableError),
        ("(pg8000.exceptions.DatabaseError) {'S': 'ERROR', 'C': '42P01'}", RegistryError),
        ("Invalid value for parameter 'alias'", RegistryError),
    ],
)
def test_a_server_whose_database_is_away_is_unavailable_and_refuses_nothing(said, expected):
    with pytest.raises(expected), translated():
        raise RestException({"error_code": "BAD_REQUEST", "message": said})


def test_a_store_that_was_cut_off_while_it_was_made_is_made_anew(open_registry, section):
    command = [sys.executable, "-c", CUT_OFF, str(section.folder), "800"]

    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert open_registry().versions() == []
