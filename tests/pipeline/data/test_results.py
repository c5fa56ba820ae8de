"""Tables of databases that change as a whole or not at all."""

import sqlite3
import threading
from contextlib import closing
from itertools import chain

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
from pydantic import ValidationError

from pipeline.config import SqlTable
from pipeline.data.results import ResultTable
from pipeline.errors import ConfigError, DataError, UnavailableError

FIRST = pd.Timestamp("2026-03-01")
DAY = pd.Timedelta("1D")


@pytest.fixture(params=["sqlite", "postgres"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'scores.db'}"
    address = request.getfixturevalue("postgres")
    run(address, "DROP TABLE IF EXISTS scores")
    return address


def place(url, table="scores"):
    return SqlTable(kind="sql", url=url, table=table)


def run(url, statement):
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text(statement))
    engine.dispose()


def stored(url, table="scores"):
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        found = pd.read_sql_query(f"SELECT * FROM {table} ORDER BY at, id", connection)  # noqa: S608
    engine.dispose()
    return found.assign(at=pd.to_datetime(found["at"]))


def part(first, last, value=None):
    """Rows of hours, with predictions that hold all bits of a double."""
    places = np.arange(first, last)
    predicted = np.random.default_rng(first).random(len(places)) if value is None else value
    return pd.DataFrame(
        {
            "id": [f"r'{i}: ü" for i in places],
            "at": FIRST + places * pd.Timedelta("1h"),
            "prediction": predicted,
            "version": 3,
        }
    )


def write(url, data, *parts, late=(), **window):
    with ResultTable(place(url), data, **window) as table:
        for one in chain(parts, late):
            table.write(one)


def test_rows_of_parts_are_stored_to_the_bit_and_once_however_often_they_are_written(url, data):
    rows = part(0, 48)

    for _ in range(2):
        write(url, data, rows[:30], rows[30:], start=FIRST, end=FIRST + 2 * DAY)

        found = stored(url)
        assert found[["id", "prediction", "version"]].to_numpy().tolist() == (
            rows[["id", "prediction", "version"]].to_numpy().tolist()
        )
        assert found["at"].tolist() == rows["at"].tolist()


def test_a_window_is_replaced_and_rows_outside_of_it_stay(url, data):
    write(url, data, part(0, 72, value=0.1))

    write(url, data, part(24, 40, value=0.2), start=FIRST + DAY, end=FIRST + 2 * DAY)

    found = stored(url)
    assert found["prediction"].tolist() == [0.1] * 24 + [0.2] * 16 + [0.1] * 24


def test_a_time_at_the_end_of_a_window_stays_within_it(url, data):
    last = part(0, 1).assign(at=FIRST + DAY - pd.Timedelta(100, "ns"))

    write(url, data, last, start=FIRST, end=FIRST + DAY)
    write(url, data, part(30, 31), start=FIRST + DAY, end=FIRST + 2 * DAY)

    assert stored(url)["at"].tolist() == [FIRST + DAY - pd.Timedelta("1us"), FIRST + 30 * DAY / 24]


def test_names_that_differ_by_case_are_refused_by_sqlite(tmp_path, data):
    rows = part(0, 3).assign(**{"chance of yes": 0.4, "chance of Yes": 0.6})
    address = f"sqlite:///{tmp_path / 'scores.db'}"

    with pytest.raises(DataError, match="by more than upper and lower case"):
        write(address, data, rows)


def test_an_error_of_postgresql_is_its_message_alone(postgres, data):
    columns = "'a' AS id, now()::timestamp AS at, 1.0 AS prediction, 3 AS version"
    run(postgres, f"CREATE VIEW shown AS SELECT {columns}")

    with (
        pytest.raises(
            DataError, match=r"^Table shown cannot be written \([^{]*\)\. Check"
        ) as found,
        ResultTable(place(postgres, "shown"), data) as table,
    ):
        table.write(part(0, 3))
    assert "'M':" not in str(found.value)
    run(postgres, "DROP VIEW shown")


def test_a_password_that_is_not_escaped_is_refused_unseen(data):
    address = "postgresql+pg8000://me:hun@ter2@127.0.0.1:1/w"

    rule = r"^data\.scores\.url must spell @ in a user or password as %40"
    with pytest.raises(ConfigError, match=rule) as found:
        write(address, data, part(0, 3))
    assert "ter2" not in str(found.value)


def test_a_key_that_comes_again_at_another_time_is_stored_once(url, data):
    write(url, data, part(0, 24, value=0.1))
    moved = part(0, 5, value=0.2).assign(at=FIRST + 3 * DAY)

    write(url, data, moved, start=FIRST + 2 * DAY, end=FIRST + 4 * DAY)

    found = stored(url)
    assert sorted(found["id"]) == sorted(part(0, 24)["id"])
    assert found["prediction"].tolist() == [0.1] * 19 + [0.2] * 5


def test_rows_without_a_window_replace_only_those_of_their_keys(url, data):
    write(url, data, part(0, 24, value=0.1))

    write(url, data, pd.concat([part(3, 4, value=0.2), part(30, 31, value=0.2)]))

    assert stored(url)["prediction"].tolist() == [0.1] * 3 + [0.2] + [0.1] * 20 + [0.2]


def test_an_error_leaves_the_table_as_it_was(url, data):
    write(url, data, part(0, 24, value=0.1))

    def parts():
        yield part(0, 24, value=0.2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(url, data, late=parts())

    assert set(stored(url)["prediction"]) == {0.1}


def test_a_reader_sees_all_of_a_run_or_nothing(url, data):
    write(url, data, part(0, 400, value=0.1))
    seen, done = set(), threading.Event()

    def read():
        while not done.is_set():
            found = stored(url)["prediction"]
            seen.add((len(found), *sorted(set(found))))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for value in (0.2, 0.3, 0.4):
            parts = (part(first, first + 50, value=value) for first in range(0, 400, 50))
            write(url, data, *parts, start=FIRST)
    finally:
        done.set()
        reader.join()

    assert seen <= {(400, 0.1), (400, 0.2), (400, 0.3), (400, 0.4)}


def test_a_table_with_other_columns_is_refused_in_a_sentence(url, data):
    run(url, "CREATE TABLE scores (id text, at timestamp, score float)")

    with pytest.raises(DataError) as caught:
        write(url, data, part(0, 5))

    assert str(caught.value) == (
        "Table scores must have the columns id, at, prediction, version. Got id, at, score. "
        "Name another table in data.scores.table, or rename this one."
    )
    assert stored(url).empty


def test_a_row_that_the_database_refuses_stores_none(url, data):
    run(
        url,
        "CREATE TABLE scores (id text, at timestamp, prediction float, version bigint "
        "CHECK (version < 3))",
    )

    with pytest.raises(DataError, match=r"^Table scores cannot be written \(.*\)\. Check data"):
        write(url, data, part(0, 5).assign(version=2), part(5, 9))

    assert stored(url).empty


def test_a_long_name_that_postgresql_would_shorten_is_refused(postgres, data):
    run(postgres, "DROP TABLE IF EXISTS scores")

    with pytest.raises(DataError, match=r"^The names .* must have at most 63 bytes"):
        write(postgres, data, part(0, 5).assign(**{f"contribution of {'x' * 60}": 0.5}))


def test_a_database_that_is_busy_or_away_may_answer_later(tmp_path, data, monkeypatch):
    monkeypatch.setattr("pipeline.data.results._WAIT", 0)
    url = f"sqlite:///{tmp_path / 'scores.db'}"
    write(url, data, part(0, 5))
    with closing(sqlite3.connect(tmp_path / "scores.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(
            UnavailableError, match=r"Another process holds .* \(database is locked\)"
        ):
            write(url, data, part(0, 5))

    away = "postgresql+pg8000://me:hunter2@127.0.0.1:1/none"
    with pytest.raises(UnavailableError) as caught:
        write(away, data, part(0, 5))
    assert "hunter2" not in str(caught.value)


def test_a_server_that_cuts_off_the_call_may_answer_later(cut_off, data):
    with pytest.raises(UnavailableError, match=r"^The database of data\.scores does not answer"):
        write(cut_off, data, part(0, 9))


def test_a_server_that_ends_the_connection_may_answer_later(postgres, data):
    run(postgres, "DROP TABLE IF EXISTS scores")
    others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"

    def parts():
        yield part(0, 5)
        run(postgres, others)
        yield part(5, 9)

    with pytest.raises(UnavailableError, match=r"^The database of data\.scores does not answer"):
        write(postgres, data, late=parts())
    write(postgres, data, part(0, 9))
    assert len(stored(postgres)) == 9


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("postgres@/none", 'database "none" does not exist'),
        ("nobody@/postgres", 'role "nobody" does not exist'),
    ],
)
def test_a_server_that_refuses_its_address_blames_the_address(postgres, data, address, said):
    rule = rf"^data\.scores\.url must be .* Got: {said}\. Correct it"
    with pytest.raises(ConfigError, match=rule):
        write(postgres.replace("postgres@/postgres", address), data, part(0, 5))


def test_an_sqlite_file_in_a_folder_that_does_not_exist_is_refused(tmp_path, data):
    with pytest.raises(DataError, match=r"cannot be written \(unable to open database file\)"):
        write(f"sqlite:///{tmp_path / 'none' / 'scores.db'}", data, part(0, 5))


@pytest.mark.parametrize(
    ("url", "table", "rule"),
    [
        ("mysql://me:hunter2@host/db", "scores", "must be an address of SQLite or PostgreSQL"),
        ("sqlite:///x.db", "holdfast-staged", "should match pattern"),
    ],
)
def test_a_place_that_cannot_hold_results_is_refused(url, table, rule):
    with pytest.raises(ValidationError, match=rule):
        place(url, table)


def test_an_address_without_a_driver_is_refused_without_its_password(data):
    with pytest.raises(ConfigError) as caught:
        write("postgresql+none://me:hunter2@host/db", data, part(0, 5))
    assert "hunter2" not in str(caught.value)
