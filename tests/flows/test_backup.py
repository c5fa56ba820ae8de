"""A copy of all state, taken while it is in use and put back elsewhere."""

import sqlite3
import tarfile
import threading
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import pytest

from flows.backup import backup, restore
from flows.doctor import doctor
from flows.monitor import monitor
from flows.steps import opened
from pipeline.errors import ConfigError, DataError
from pipeline.registry import records

pytestmark = pytest.mark.integration


@pytest.fixture
def elsewhere(tmp_path):
    """Conf of a model whose state folder does not exist yet, with the rows of the other."""

    def make(conf):
        folder = tmp_path / "elsewhere"
        folder.mkdir()
        text = Path(conf).read_text().replace(str(tmp_path / "state"), str(folder / "state"))
        (folder / "shop.yaml").write_text(text)
        return str(folder / "shop.yaml")

    return make


def batches(conf):
    _, registry = opened(conf)
    return [asdict(batch) for batch in records.read_history(registry).batches]


def test_a_restored_folder_goes_on_with_the_next_batch(trained, tmp_path, elsewhere):
    monitor(trained)
    archive = str(tmp_path / "copy.tar.gz")

    made, before = backup(trained, archive), batches(trained)
    following = monitor(trained)
    there = elsewhere(trained)
    restore(there, archive)

    assert made["elsewhere"] == []
    assert batches(there) == before
    assert doctor(there) == []
    assert monitor(there) == following
    assert batches(there)[1]["verdict"] == batches(trained)[1]["verdict"]


def test_a_database_is_copied_as_it_is_at_one_moment(trained, tmp_path):
    """Two tables are always written together; a copy never holds one row without the other."""
    state, stop = tmp_path / "state", threading.Event()
    with closing(sqlite3.connect(state / "captures.db")) as made, made:
        made.execute("PRAGMA journal_mode = WAL")
        made.execute("CREATE TABLE a (n)")
        made.execute("CREATE TABLE b (n)")

    def write():
        with closing(sqlite3.connect(state / "captures.db", timeout=60)) as database:
            while not stop.is_set():
                with database:
                    database.execute("INSERT INTO a VALUES (1)")
                    database.execute("INSERT INTO b VALUES (1)")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with closing(sqlite3.connect(state / "captures.db", timeout=60)) as database:
            while not database.execute("SELECT count(*) FROM b").fetchone()[0]:
                pass
        backup(trained, str(tmp_path / "copy.tar.gz"))
    finally:
        stop.set()
        writer.join()

    with tarfile.open(tmp_path / "copy.tar.gz") as tar:
        tar.extractall(tmp_path / "copy", filter="data")
    with closing(sqlite3.connect(tmp_path / "copy" / "captures.db")) as copied:
        one, other = (copied.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in "ab")  # noqa: S608
        assert one == other > 0
        assert copied.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_state_is_never_overwritten(trained, tmp_path):
    backup(trained, str(tmp_path / "copy.tar.gz"))

    with pytest.raises(ConfigError, match=r"must hold no state\. Got .* Set tracking\.folder"):
        restore(trained, str(tmp_path / "copy.tar.gz"))
    with pytest.raises(ConfigError, match=r"^The archive must be a new \.tar\.gz file"):
        backup(trained, str(tmp_path / "copy.tar.gz"))


@pytest.mark.parametrize("content", [b"", b"PK", None])
def test_an_archive_of_something_else_is_refused_and_leaves_nothing(
    make_conf, tmp_path, content, elsewhere
):
    archive = tmp_path / "copy.tar.gz"
    if content is None:
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(make_conf(), "shop.yaml")
    else:
        archive.write_bytes(content)
    conf = elsewhere(make_conf())

    with pytest.raises(DataError, match=r"must be an archive of `holdfast backup`\. Got"):
        restore(conf, str(archive))

    assert not list((tmp_path / "elsewhere" / "state").iterdir())


def test_a_member_that_points_outside_is_refused(make_conf, tmp_path, elsewhere):
    archive = tmp_path / "copy.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(make_conf(), "../../outside.yaml")

    with pytest.raises(DataError, match="would be extracted"):
        restore(elsewhere(make_conf()), str(archive))

    assert not (tmp_path / "outside.yaml").exists()


def test_a_copy_says_what_it_does_not_hold(trained, tmp_path, monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4200/api")

    assert backup(trained, str(tmp_path / "copy.tar.gz"))["elsewhere"] == ["Prefect's runs"]
