import sqlite3
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest

from pipeline.errors import DataError, UnavailableError
from pipeline.serving.capture import Captures, read_captures

NOON = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "captures ü?.db"


def append(captures, *, key="a", at=NOON, row=None):
    captures.append(
        rows=[row or {"x": 1.5, "plan": "pro"}],
        predictions=[0.25],
        keys=[key],
        version="3",
        request_id="r",
        at=at,
    )


def test_what_was_appended_is_read(path):
    with Captures(path) as captures:
        append(captures)
        append(captures, key="b", row={"x": None, "plan": None})

        frame = read_captures(path, start=None, end=None)

    assert list(frame.columns) == [
        "x",
        "plan",
        "captured_at",
        "key",
        "prediction",
        "version",
        "request_id",
    ]
    assert frame["captured_at"].dtype == "datetime64[us]"
    assert frame["captured_at"].tolist() == [pd.Timestamp("2026-03-01 12:00:00.123456")] * 2
    assert frame["key"].tolist() == ["a", "b"]
    assert frame["x"].tolist()[0] == 1.5
    assert frame[["x", "plan"]].isna().all(axis=1).tolist() == [False, True]
    assert frame.loc[0, ["prediction", "version", "request_id"]].tolist() == [0.25, "3", "r"]


def test_a_window_holds_its_start_and_not_its_end(path):
    moment = pd.Timestamp("2026-03-01 12:00:00.123456")
    after = moment + pd.Timedelta("1us")
    with Captures(path) as captures:
        append(captures)

    assert len(read_captures(path, start=moment, end=after)) == 1
    assert len(read_captures(path, start=after, end=None)) == 0
    assert len(read_captures(path, start=None, end=moment)) == 0


def test_time_is_kept_in_utc(path):
    with Captures(path) as captures:
        append(captures, at=NOON.astimezone(datetime.now().astimezone().tzinfo))

    [time] = read_captures(path, start=None, end=None)["captured_at"]
    assert time == pd.Timestamp("2026-03-01 12:00:00.123456")


def test_rows_come_oldest_first(path):
    with Captures(path) as captures:
        append(captures, key="late", at=NOON + timedelta(seconds=1))
        append(captures, key="early")

    assert read_captures(path, start=None, end=None)["key"].tolist() == ["early", "late"]


def test_an_empty_window_keeps_its_columns(path):
    Captures(path).close()

    frame = read_captures(path, start=None, end=None)

    assert len(frame) == 0
    assert frame["captured_at"].dtype == "datetime64[us]"


def test_captures_survive_a_restart(path):
    for key in ("a", "b"):
        with Captures(path) as captures:
            append(captures, key=key)

    assert len(read_captures(path, start=None, end=None)) == 2


def test_threads_lose_no_row(path):
    with Captures(path) as captures, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: append(captures, key=str(i)), range(400)))

    assert set(read_captures(path, start=None, end=None)["key"]) == {str(i) for i in range(400)}


def test_a_request_is_stored_whole_or_not_at_all(path):
    with Captures(path) as captures, pytest.raises(UnavailableError):
        captures.append(
            rows=[{"x": 1}, {"x": 2}],
            predictions=[0.5, None],
            keys=["a", "b"],
            version="3",
            request_id="r",
            at=NOON,
        )

    assert len(read_captures(path, start=None, end=None)) == 0


def test_reading_makes_no_file(path):
    with pytest.raises(sqlite3.DatabaseError):
        read_captures(path, start=None, end=None)

    assert not path.exists()


def test_reading_leaves_no_file_behind(path):
    with Captures(path) as captures:
        append(captures)

    read_captures(path, start=None, end=None)

    assert list(path.parent.iterdir()) == [path]


def test_reading_does_not_wait_for_a_writer(path):
    with Captures(path) as captures:
        append(captures)
        captures._connection.execute("BEGIN IMMEDIATE")

        assert len(read_captures(path, start=None, end=None)) == 1


def test_reading_does_not_stop_a_writer(path):
    with Captures(path) as captures:
        append(captures)
        reader = sqlite3.connect(path)
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM captures").fetchone()
        append(captures, key="b")
        reader.close()

    assert len(read_captures(path, start=None, end=None)) == 2


@pytest.mark.parametrize("keep", [1 / 2, 1 / 4])
def test_a_half_written_file_is_a_database_error(path, keep):
    with Captures(path) as captures:
        for i in range(200):
            append(captures, key=str(i))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])

    with pytest.raises(sqlite3.DatabaseError):
        read_captures(path, start=None, end=None)


def test_a_file_that_is_no_database_is_refused_on_both_sides(path):
    path.parent.mkdir()
    path.write_bytes(b"no database at all" * 100)

    with pytest.raises(sqlite3.DatabaseError):
        read_captures(path, start=None, end=None)
    with pytest.raises(DataError, match="must be a writable SQLite file"):
        Captures(path)
