import json
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from pipeline.data.captures import (
    CAPTURED,
    SCHEMA,
    Layout,
    Unseen,
    read_captures,
    read_labels,
    read_refusals,
)
from pipeline.errors import DataError
from pipeline.serving import capturing
from pipeline.serving.capturing import LONGEST_BODY, Captures
from pipeline.serving.retention import prune

NOON = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "captures ü?.db"


COLUMNS = '{"x": null, "plan": ["free", "pro"]}'


def append(captures, *, key="a", at=NOON, row=(1.5, 1)):
    captures.answer(
        at=round(at.timestamp() * 1e6),
        request_id="r",
        layout=Layout("classification", COLUMNS),
        version="3",
        latency=1500,
        features=np.array([row], dtype=float),
        unseen=[],
        keys=[key],
        predictions=np.array([0.25]),
    )


def written(captures):
    """Wait until nothing waits to be written."""
    until = time.monotonic() + 60
    while captures.lag and time.monotonic() < until:
        time.sleep(0.01)


def test_answered_rows_are_read_back(path):
    with Captures(path) as captures:
        append(captures)
        append(captures, key="b", row=(np.nan, np.nan))
        written(captures)

        frame = read_captures(path)

    assert list(frame.columns) == ["x", "plan", *CAPTURED]
    assert frame["holdfast-captured_at"].dtype == "datetime64[us]"
    assert (
        frame["holdfast-captured_at"].tolist() == [pd.Timestamp("2026-03-01 12:00:00.123456")] * 2
    )
    assert frame["holdfast-key"].tolist() == ["a", "b"]
    assert frame.loc[0, ["x", "plan"]].tolist() == [1.5, "pro"]
    assert frame[["x", "plan"]].isna().all(axis=1).tolist() == [False, True]
    assert frame.loc[0, list(CAPTURED[2:])].tolist() == [0.25, 0.75, 0.0015, "3", "r"]


def answer(captures, *, version, features, at=0, unseen=(), task="regression", columns=COLUMNS):
    captures.answer(
        at=at,
        request_id=f"r{at}",
        layout=Layout(task, columns),
        version=version,
        latency=0,
        features=np.array(features, dtype=float),
        unseen=unseen,
        keys=None,
        predictions=np.arange(float(len(features))),
    )


def test_unseen_labels_are_stored(path):
    with Captures(path) as captures:
        answer(captures, version="3", features=[[1, 0], [2, 1]])
        unseen = [Unseen(1, 1, "gold"), Unseen(2, 1, "ü")]
        answer(captures, version="3", features=[[3, 0], [4, np.nan], [5, -1]], unseen=unseen, at=1)

    frame = read_captures(path)
    assert frame["x"].tolist() == [1, 2, 3, 4, 5]
    assert frame["plan"].tolist() == ["free", "pro", "free", "gold", "ü"]


def test_each_version_is_read_by_its_own_layout(path):
    other = '{"plan": ["none", "free", "pro"], "y": null}'
    with Captures(path) as captures:
        answer(captures, version="3", features=[[1, 0]])
        answer(captures, version="4", features=[[0, 7], [2, 8]], columns=other, at=1)
        answer(captures, version="3", features=[[2, 1]], at=2)
    with Captures(path) as captures:  # the third version of another registry
        answer(captures, version="3", features=[[1, 9]], columns=other, at=3)

    frame = read_captures(path)
    assert frame["holdfast-version"].tolist() == ["3", "4", "4", "3", "3"]
    assert frame["plan"].tolist() == ["free", "none", "pro", "pro", "free"]
    np.testing.assert_array_equal(frame["x"], [1, np.nan, np.nan, 2, np.nan])
    np.testing.assert_array_equal(frame["y"], [np.nan, 7, 8, np.nan, 9])


def test_rows_without_keys_are_named_by_their_request(path):
    with Captures(path) as captures:
        answer(captures, version="3", features=[[1, 0], [2, 1]])

    frame = read_captures(path)
    assert frame["holdfast-key"].tolist() == ["r0-0", "r0-1"]
    assert frame["holdfast-confidence"].isna().all()


def test_a_window_includes_its_start_but_not_its_end(path):
    moment = pd.Timestamp("2026-03-01 12:00:00.123456")
    after = moment + pd.Timedelta("1us")
    with Captures(path) as captures:
        append(captures)

    assert len(read_captures(path, start=moment, end=after)) == 1
    assert len(read_captures(path, start=after, end=None)) == 0
    assert len(read_captures(path, start=None, end=moment)) == 0


def test_times_are_stored_in_utc(path):
    with Captures(path) as captures:
        append(captures, at=NOON.astimezone(datetime.now().astimezone().tzinfo))

    [time] = read_captures(path)["holdfast-captured_at"]
    assert time == pd.Timestamp("2026-03-01 12:00:00.123456")


def test_rows_are_read_oldest_first(path):
    with Captures(path) as captures:
        append(captures, key="late", at=NOON + timedelta(seconds=1))
        append(captures, key="early")

    assert read_captures(path)["holdfast-key"].tolist() == ["early", "late"]


def test_an_empty_window_keeps_its_columns(path):
    Captures(path).close()

    frame = read_captures(path)

    assert len(frame) == 0
    assert frame["holdfast-captured_at"].dtype == "datetime64[us]"


def test_captures_survive_a_restart(path):
    for key in ("a", "b"):
        with Captures(path) as captures:
            append(captures, key=key)

    assert len(read_captures(path)) == 2


def test_requests_added_during_a_write_are_not_lost(path):
    with Captures(path) as captures:
        for i in range(3_000):
            append(captures, key=str(i))

    assert read_captures(path)["holdfast-key"].tolist() == [str(i) for i in range(3_000)]


KILLED = """
import json, os, signal, sys, time
import numpy as np
from pathlib import Path
from pipeline.serving.capturing import Captures
from pipeline.data.captures import Layout
captures = Captures(Path(sys.argv[1]))
layout = Layout("regression", '{"x": null}')
began = time.time()
for i in range(10**9):
    now = time.time()
    captures.answer(
        at=round(now * 1e6), request_id=str(i), version="3", latency=0, layout=layout,
        features=np.ones((1, 1)), unseen=[], keys=None, predictions=np.zeros(1),
    )
    if now - began > 1:
        print(now, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.001)
"""


def lost_by_a_kill(path):
    """Seconds before a kill whose requests are lost; those before are stored whole."""
    command = [sys.executable, "-c", KILLED, str(path)]
    killed = subprocess.run(command, capture_output=True, text=True, check=False)

    frame = read_captures(path)
    assert killed.returncode == -signal.SIGKILL
    assert frame["holdfast-request_id"].tolist() == [str(i) for i in range(len(frame))]
    return float(killed.stdout) - frame["holdfast-captured_at"].max().timestamp()


@pytest.mark.slow
def test_a_killed_process_loses_a_quarter_of_a_second_at_most(path):
    """A machine that is busy for a moment may write later, but not three times in a row."""
    assert any(lost_by_a_kill(path.with_name(f"{k} {path.name}")) < 0.25 for k in range(3))


def test_requests_that_cannot_be_written_wait_and_the_problem_is_named(path):
    with Captures(path) as captures:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("DROP TABLE answers")
        append(captures)
        until = time.monotonic() + 60
        while not captures.problem and time.monotonic() < until:
            time.sleep(0.01)
        assert captures.problem == "Captures cannot be written: no such table: answers."
        assert captures.lag > 0
        other.executescript(SCHEMA)
        written(captures)
        assert captures.problem == ""
        other.close()

    assert len(read_captures(path)) == 1


def test_requests_beyond_the_waiting_limit_are_lost_and_counted(path, monkeypatch):
    # Two numbers and a prediction of 8 bytes each, keys ["a"] and unseen [].
    size = capturing.OVERHEAD + 24 + 5 + 2
    monkeypatch.setattr(capturing, "MOST_WAITING", 42 * size - 1)
    with Captures(path) as captures:
        sqlite3.connect(path, isolation_level=None).execute("DROP TABLE answers")
        for _ in range(100):
            append(captures)

        assert captures.lost == 100 - 42


def test_refusals_are_stored_with_their_problems(path):
    with Captures(path) as captures:
        captures.refusal(
            at=1,
            request_id="r",
            version="3",
            route="/predict",
            caller="10.0.0.1 curl",
            problems='[{"code": "range"}]',
            body=b"x" * (LONGEST_BODY + 1),
        )

    [refusal] = read_refusals(path).to_dict("records")
    assert refusal["problems"] == [{"code": "range"}]
    assert (refusal["route"], refusal["caller"], refusal["bytes"]) == (
        "/predict",
        "10.0.0.1 curl",
        LONGEST_BODY + 1,
    )
    assert len(refusal["body"]) == LONGEST_BODY
    assert refusal["at"] == pd.Timestamp("1970-01-01 00:00:00.000001")


ANSWER = "INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"


def refuse(captures, n, at, size=10_000):
    for i in range(n):
        captures.refusal(
            at=at,
            request_id=f"{at}-{i}",
            version="1",
            route="/predict",
            caller="me",
            problems="[]",
            body=b"x" * size,
        )


def until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_refused_requests_take_a_share_of_the_file_and_the_newest_are_kept(path, monkeypatch):
    monkeypatch.setattr(capturing, "PRUNED_EVERY", 0.1)
    now = time.time_ns() // 1_000
    with Captures(path, max_bytes=50_000_000) as captures:
        for i in range(30):
            refuse(captures, 100, at=now + i)
            time.sleep(0.02)
        until(lambda: captures.lag == 0 and captures.deleted >= 2_900)
        until(lambda: captures.size < 10_000_000)
        deleted = captures.deleted

    kept = read_refusals(path)
    assert len(kept) + deleted == 3_000
    assert 900_000 < kept["bytes"].sum() <= 1_000_000
    assert kept["request_id"].iloc[-1] == f"{now + 29}-99"


def test_what_is_older_than_the_limit_is_deleted_with_its_keys(path):
    day = pd.Timedelta("1D") // pd.Timedelta("1us")
    now = time.time_ns() // 1_000
    path.parent.mkdir()
    with closing(capturing._open(path)) as connection:
        for i, age in enumerate((3, 2, 0)):
            keys = json.dumps([f"key-{i}"])
            answer = (now - age * day, str(i), 1, "1", 1, b"", "[]", keys, b"")
            connection.execute(ANSWER, answer)
            connection.execute(capturing._KEYS, (keys,))
            connection.execute("INSERT INTO labels VALUES (?, ?, 1)", (now - age * day, f"key-{i}"))
        connection.commit()

        kept = prune(connection, before=now - day, max_bytes=10**9)

        assert kept.early == 0
        for table in ("answers", "keys", "labels"):
            [(n,)] = connection.execute(f"SELECT count(*) FROM {table}")  # noqa: S608
            assert n == 1, table


def test_answers_are_deleted_when_the_file_is_full_and_it_shrinks(path):
    path.parent.mkdir()
    with closing(capturing._open(path)) as connection:
        for i in range(3_000):
            answer = (i, str(i), 1, "1", 1, b"x" * 10_000, "[]", "null", b"")
            connection.execute(ANSWER, answer)
        connection.commit()

        kept = prune(connection, before=0, max_bytes=10_000_000)
        kept = prune(connection, before=0, max_bytes=10_000_000)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

        oldest = connection.execute("SELECT min(at) FROM answers").fetchone()[0]
    assert kept.size <= 10_000_000
    assert 1_500 < oldest < 3_000
    assert path.stat().st_size < 20_000_000


def test_labels_are_on_disk_when_the_call_returns(path):
    with Captures(path) as captures:
        captures.label([("a", 1.0), ("b", 0.0)], at=0)

        assert read_labels(path).to_dict("list") == {
            "key": ["a", "b"],
            "target": [1.0, 0.0],
            "labelled_at": [pd.Timestamp(0)] * 2,
        }


def test_only_the_owner_can_read_the_store(path):
    with Captures(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_reading_creates_no_file(path):
    with pytest.raises(sqlite3.DatabaseError):
        read_captures(path)

    assert not path.exists()


def test_reading_leaves_no_file_behind(path):
    with Captures(path) as captures:
        append(captures)

    read_captures(path)

    assert list(path.parent.iterdir()) == [path]


def test_reading_does_not_wait_for_a_writer(path):
    with Captures(path) as captures:
        append(captures)
        written(captures)
        with closing(sqlite3.connect(path)) as writer:
            writer.execute("BEGIN IMMEDIATE")

            assert len(read_captures(path)) == 1


def test_reading_does_not_stop_a_writer(path):
    with Captures(path) as captures:
        append(captures)
        written(captures)
        reader = sqlite3.connect(path)
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM answers").fetchone()
        append(captures, key="b")
        written(captures)
        reader.close()

    assert len(read_captures(path)) == 2


@pytest.mark.parametrize("keep", [1 / 2, 1 / 4])
def test_a_truncated_file_raises_a_database_error(path, keep):
    with Captures(path) as captures:
        for i in range(200):
            append(captures, key=str(i))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])

    with pytest.raises(sqlite3.DatabaseError):
        read_captures(path)


def test_a_file_that_is_not_a_database_is_refused_by_reader_and_writer(path):
    path.parent.mkdir()
    path.write_bytes(b"no database at all" * 100)

    with pytest.raises(sqlite3.DatabaseError):
        read_captures(path)
    with pytest.raises(DataError, match="must be a writable SQLite file"):
        Captures(path)
