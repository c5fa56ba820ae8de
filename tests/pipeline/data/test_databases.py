import gc
import re
import socket
import sqlite3
import threading
from contextlib import closing
from datetime import datetime

import pandas as pd
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import Categorical, Numeric, SqlSource
from pipeline.data import databases
from pipeline.data.sources import read, read_parts
from pipeline.data.validation import split
from pipeline.errors import ConfigError, DataError, UnavailableError

WINDOWED = "SELECT * FROM q WHERE t >= :start AND t < :end"
FIRST = pd.Timestamp("2024-01-01")
HALF = pd.Timedelta("12h")


def table(folder, texts, kind="TEXT"):
    path = folder / "rows.db"
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"CREATE TABLE q (id INTEGER, t {kind})")
        connection.executemany("INSERT INTO q VALUES (?, ?)", list(enumerate(texts)))
        connection.commit()
    return path


def rows(path, start=None, end=None, query=WINDOWED):
    source = SqlSource(kind="sql", url=f"sqlite:///{path}", query=query)
    return read(source, time="t", key="id", start=start, end=end)


def run(url, *statements):
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(sa.text(statement))
    engine.dispose()


def _row(table, key, at):
    return f"INSERT INTO {table} VALUES ({key}, '{at}+00')"  # noqa: S608 -- no part of it is given


def offset(hours):
    def spelled(moment):
        zone = f"{'+' if hours >= 0 else '-'}{abs(hours):02}:00"
        return f"{(moment + pd.Timedelta(hours, 'h')).isoformat()}{zone}"

    return spelled


SPELLINGS = {
    "blank": str,
    "T": pd.Timestamp.isoformat,
    "Z": lambda moment: f"{moment.isoformat()}Z",
    "+01:00": offset(1),
    "-11:00": offset(-11),
    "+14:00": offset(14),
    "fraction": lambda moment: f"{moment.isoformat()}.000",
    "minutes": lambda moment: f"{moment:%Y-%m-%dT%H:%M}",
    "hours": lambda moment: f"{moment:%Y-%m-%dT%H}",
    "no colon": lambda moment: f"{moment:%Y-%m-%dT%H%M}",
    "compact": lambda moment: f"{moment:%Y%m%dT%H%M%S}",
    "after a blank": lambda moment: f" {moment}",
    "after a tab": lambda moment: f"\t{moment}",
}
HOURS = pd.date_range(FIRST, periods=48, freq="h")


@pytest.mark.parametrize("kind", ["TEXT", "DATETIME", ""])
@pytest.mark.parametrize("spell", SPELLINGS.values(), ids=list(SPELLINGS))
def test_each_half_day_has_its_rows_however_times_are_spelled(tmp_path, spell, kind):
    path = table(tmp_path, [spell(moment) for moment in HOURS], kind)
    starts = pd.date_range(FIRST, periods=4, freq=HALF)

    assert [rows(path, start, start + HALF)["t"].tolist() for start in starts] == [
        HOURS[i : i + 12].tolist() for i in range(0, 48, 12)
    ]
    assert len(rows(path, start=FIRST + HALF)) == 36
    assert len(rows(path, end=FIRST + HALF)) == 12
    assert len(rows(path)) == 48


SECONDS = st.integers(0, 86_400 * 3)
SPELT = st.lists(st.tuples(SECONDS, st.sampled_from(list(SPELLINGS)[:7])), min_size=1, max_size=8)


@given(SPELT, SECONDS, SECONDS, st.sampled_from([0, 1, 250_000]))
@settings(max_examples=80, deadline=None)
def test_a_window_holds_the_rows_of_its_time(tmp_path_factory, spelt, start, length, part):
    moments = [FIRST + pd.Timedelta(second, "s") for second, _ in spelt]
    texts = [SPELLINGS[name](at) for at, (_, name) in zip(moments, spelt, strict=True)]
    path = table(tmp_path_factory.mktemp("sqlite"), texts)
    start = FIRST + pd.Timedelta(start, "s") + pd.Timedelta(part, "us")
    end = start + pd.Timedelta(length, "s")

    assert rows(path, start, end)["t"].tolist() == [at for at in moments if start <= at < end]


def test_an_aggregate_of_a_window_is_exact_where_times_are_spelled_alike(tmp_path):
    path = table(tmp_path, [moment.isoformat() for moment in HOURS])
    query = WINDOWED.replace("*", "max(id) AS id, max(t) AS t, count(*) AS n") + ";\n"

    assert rows(path, FIRST + HALF, FIRST + 2 * HALF, query)["n"].tolist() == [12]


def test_a_window_that_is_compared_by_a_function_of_sqlite_holds_its_rows(tmp_path):
    path = table(tmp_path, [f"{moment.isoformat()}Z" for moment in HOURS])
    query = "SELECT * FROM q WHERE datetime(t) >= datetime(:start) AND datetime(t) < :end"

    assert len(rows(path, FIRST + HALF, FIRST + 2 * HALF, query)) == 12


@pytest.mark.parametrize("sign", [" ", "T"])
def test_a_query_without_a_window_holds_the_rows_of_all_years(tmp_path, sign):
    texts = ["0001-01-01T00:00:00", "1600-02-29T12:00:00", str(FIRST), "9999-12-31T23:59:59.999999"]
    moments = [datetime.fromisoformat(text) for text in texts]
    path = table(tmp_path, [moment.isoformat(sep=sign) for moment in moments])

    assert rows(path)["t"].tolist() == moments
    assert rows(path, end=FIRST)["t"].tolist() == moments[:2]
    assert rows(path, start=FIRST)["t"].tolist() == moments[2:]


def test_a_query_without_a_window_holds_the_last_times_however_they_are_spelled(tmp_path):
    texts = ["9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999999+00:00", "9999-12-31 23:59:59"]
    path = table(tmp_path, texts)

    assert len(rows(path)) == len(texts)


def test_a_query_without_a_window_holds_the_rows_of_all_years_that_sqlite_can_read(tmp_path):
    path = table(tmp_path, ["0001-01-01", "1600-02-29 12:00", "9999-12-31"])
    query = "SELECT * FROM q WHERE datetime(t) >= datetime(:start) AND datetime(t) < datetime(:end)"

    assert len(rows(path, query=query)) == 3


def test_a_query_that_cannot_stand_within_another_is_read(tmp_path):
    path = table(tmp_path, [moment.isoformat() for moment in HOURS])

    assert len(rows(path, FIRST, FIRST + HALF, f"{WINDOWED}; -- half a day")) == 12


@pytest.mark.parametrize("text", ["2024-01-01 05:00:00.5", "2024-01-01 05:00:00.500"])
def test_a_window_that_begins_within_a_second_holds_its_first_row(tmp_path, text):
    path, first = table(tmp_path, [text]), pd.Timestamp(text)

    assert len(rows(path, first, first + HALF)) == 1
    assert len(rows(path, first - HALF, first)) == 0


def test_texts_that_spell_null_are_null_among_numbers_and_labels_elsewhere(tmp_path):
    path = table(tmp_path, ["2024-01-01"])
    query = "SELECT id, t, 'NA' AS x, '' AS y, 'NA' AS city, 'seven' AS z FROM q"
    numbers = {name: Numeric() for name in "xyz"}
    source = SqlSource(kind="sql", url=f"sqlite:///{path}", query=query)

    found = read(source, time="t", key="id", columns={**numbers, "city": Categorical()})

    assert found[["x", "y"]].isna().all(axis=None)
    assert found[["city", "z"]].to_numpy().tolist() == [["NA", "seven"]]


def test_text_that_is_not_utf_8_is_named(tmp_path):
    path = table(tmp_path, ["2024-01-01"])
    query = "SELECT id, t, CAST(X'C5D8' AS TEXT) AS city FROM q"

    with pytest.raises(DataError, match="holds text that is not UTF-8"):
        rows(path, query=query)


def test_an_address_without_what_its_driver_needs_is_refused():
    url = "postgresql+pg8000://127.0.0.1/rows"  # no user
    source = SqlSource(kind="sql", url=url, query="SELECT * FROM q")

    with pytest.raises(ConfigError, match="must suit its driver"):
        read(source, time="t", key="id")


def test_numbers_for_times_are_refused(tmp_path):
    path = table(tmp_path, [1704067200 + 3600 * i for i in range(48)], "INTEGER")

    with pytest.raises(DataError, match=r"'t' of the SQL source must hold times as text\. Got num"):
        rows(path, FIRST, FIRST + HALF)


def test_a_database_that_is_not_there_is_refused_and_not_made(tmp_path):
    with pytest.raises(DataError, match="There is no SQLite database at"):
        rows(tmp_path / "typo.db", FIRST, FIRST + HALF)

    assert not (tmp_path / "typo.db").exists()


def test_an_address_with_a_port_that_is_no_number_is_refused():
    source = SqlSource(kind="sql", url="postgresql://a:b@host:port/x", query=WINDOWED)

    with pytest.raises(ConfigError, match=r"data\.\*\.url must be an SQLAlchemy address"):
        read(source, time="t", key="id", start=None, end=None)


def test_a_query_without_its_time_column_says_so(tmp_path):
    path = table(tmp_path, ["2024-01-01"])

    with pytest.raises(DataError, match="must hold the time column 't'"):
        rows(path, FIRST, None, "SELECT id FROM q WHERE t >= :start")


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["timestamp", "timestamptz", "date"])
def test_postgresql_compares_a_window_in_utc_whatever_its_own_zone(postgres, kind):
    run(
        postgres,
        "ALTER DATABASE postgres SET timezone TO 'America/New_York'",
        "DROP TABLE IF EXISTS q",
        f"CREATE TABLE q (id bigint, t {kind})",
        *(_row("q", 2**53 + i, at) for i, at in enumerate(HOURS)),
        "INSERT INTO q VALUES (null, '2024-01-01')",
    )
    source = SqlSource(kind="sql", url=postgres, query=WINDOWED)

    found = read(source, time="t", key="id", start=FIRST, end=FIRST + 2 * HALF)

    times = HOURS if kind != "date" else HOURS.normalize()
    expected = [at for at in times if at < FIRST + 2 * HALF]
    assert found["t"][found["id"].notna()].tolist() == expected
    assert found["id"][1] == str(2**53 + 1)


YEARS = ["0001-01-01", "1600-02-29", "9999-12-31 23:59:59.999999"]
OPEN = [
    "SELECT * FROM years WHERE t >= :start AND t < :end",
    "SELECT * FROM years WHERE t >= :start AND t < :end - interval '1 day'",
    "SELECT * FROM years WHERE t >= CAST(:start AS {kind}) AND t < CAST(:end AS {kind})",
]


@pytest.mark.integration
@pytest.mark.parametrize("query", OPEN)
@pytest.mark.parametrize("kind", ["timestamp", "timestamptz", "date"])
def test_a_query_of_postgresql_without_a_window_holds_the_rows_of_all_years(postgres, kind, query):
    times = pd.to_datetime(YEARS, format="ISO8601")
    run(postgres, "DROP TABLE IF EXISTS years", f"CREATE TABLE years (id int, t {kind})")
    run(postgres, *(_row("years", i, at) for i, at in enumerate(YEARS)))
    source = SqlSource(kind="sql", url=postgres, query=query.format(kind=kind))

    found = read(source, time="t", key="id")

    assert found["t"].tolist() == [*(times.normalize() if kind == "date" else times)]


@pytest.mark.integration
@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("postgres@/none", 'database "none" does not exist'),
        ("nobody@/postgres", 'role "nobody" does not exist'),
    ],
)
def test_an_address_that_a_server_refuses_is_named(postgres, address, said):
    place = postgres.replace("postgres@/postgres", address)
    source = SqlSource(kind="sql", url=place, query="SELECT 1 AS t")

    with pytest.raises(ConfigError, match=rf"^data\.\*\.url must be .* Got: {said}\. Correct it"):
        read(source, time="t", key="id")


@pytest.mark.integration
def test_a_server_with_too_many_connections_may_answer_later(postgres):
    run(postgres, "CREATE ROLE few LOGIN CONNECTION LIMIT 0")
    url = postgres.replace("postgres@/", "few@/")

    with pytest.raises(UnavailableError, match=r"does not answer \(too many connections"):
        read(SqlSource(kind="sql", url=url, query="SELECT 1 AS t"), time="t", key="id")


COLLECTIONS = ["ARRAY[1, 2]", """'{"a": 1}'::jsonb""", "ARRAY[ARRAY['a']]", "'[1]'::json"]


@pytest.mark.integration
@pytest.mark.parametrize("size", [None, 1])
@pytest.mark.parametrize("value", COLLECTIONS)
@pytest.mark.parametrize("name", ["id", "t", "x", "plan", "y"])
def test_a_column_of_collections_is_refused_by_name(postgres, name, value, size):
    columns = {"id": "'a'", "t": "now()::timestamp", "x": "1", "plan": "'b'", "y": "0"}
    given = ", ".join(f"{sql} AS {one}" for one, sql in (columns | {name: value}).items())
    nulls = ", ".join("null" for _ in columns)
    query = f"SELECT {given} UNION ALL SELECT {nulls}"
    source = SqlSource(kind="sql", url=postgres, query=query)
    roles = {"time": "t", "key": "id", "target": "y"}
    declared = {"x": Numeric(), "plan": Categorical()}

    with pytest.raises(DataError, match=f"Column '{name}' must hold one value in each row"):
        [*read_parts(source, **roles, columns=declared, size=size)]


@pytest.mark.integration
def test_a_column_of_collections_that_nothing_names_does_no_harm(postgres):
    query = "SELECT 'a' AS id, now()::timestamp AS t, ARRAY[1, 2] AS tags"

    found = read(SqlSource(kind="sql", url=postgres, query=query), time="t", key="id")

    assert found["tags"].tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("driver", "place"),
    [("postgresql+asyncpg", "u:s3cret@localhost/db"), ("sqlite+aiosqlite", "/rows.db")],
)
def test_a_driver_that_is_asynchronous_is_refused_by_name(driver, place):
    source = SqlSource(kind="sql", url=f"{driver}://{place}", query="SELECT 1")

    with pytest.raises(ConfigError, match=f"Got {re.escape(driver)}, which is asynchronous"):
        read(source, time=None)


@pytest.mark.parametrize("size", [None, 1])
def test_a_value_that_its_driver_cannot_read_is_refused_in_a_sentence(tmp_path, size):
    sqlite3.register_converter("moment", lambda text: datetime.fromisoformat(text.decode()))
    path = table(tmp_path, ["2024-01-01", "12000-01-01"], "moment")
    source = SqlSource(kind="sql", url=f"sqlite:///{path}?detect_types=1", query="SELECT * FROM q")

    with pytest.raises(DataError, match=r"its driver cannot read \(Invalid isoformat.*Convert it"):
        list(read_parts(source, time="t", key="id", size=size))


@pytest.mark.parametrize("kind", ["timestamp", "timestamptz", "date"])
def test_moments_that_no_calendar_of_python_has_are_rows_of_every_window(postgres, data, kind):
    moments = ["2024-01-01", "infinity", "-infinity", "12000-01-01"]
    rows = ", ".join(f"({number}, '{at}')" for number, at in enumerate(moments))
    run(postgres, "DROP TABLE IF EXISTS odd", f"CREATE TABLE odd (id int, at {kind})")
    run(postgres, f"INSERT INTO odd VALUES {rows}")  # noqa: S608 -- no part of it is given
    source = SqlSource(kind="sql", url=postgres, query="SELECT *, 1 AS amount FROM odd")

    found = read(source, time="at", key="id", start=FIRST, end=FIRST + HALF)

    assert found["id"].tolist() == ["0", "1", "2", "3"]
    refused = split(found, data.model_copy(update={"features": {"amount": Numeric()}}))
    assert refused.reasons == {"at must be a time": 3}
    assert refused.quarantined["id"].tolist() == ["1", "2", "3"]


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # of the call that was given up
def test_a_server_that_takes_a_call_and_says_nothing_may_answer_later(monkeypatch):
    monkeypatch.setattr(databases, "_SILENCE", 0.1)
    before = {*threading.enumerate()}
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"postgresql+pg8000://u:hunter2@127.0.0.1:{server.getsockname()[1]}/x"
        source = SqlSource(kind="sql", url=url, query="SELECT 1")

        with pytest.raises(UnavailableError, match=r"not answer within 0\.1 s.*data\.\*\.url"):
            read(source, time="t", key="id")
    for thread in {*threading.enumerate()} - before:
        thread.join()
    gc.collect()


def test_a_server_that_cuts_off_the_call_may_answer_later(cut_off):
    source = SqlSource(kind="sql", url=cut_off, query="SELECT 1")

    with pytest.raises(UnavailableError, match=r"not answer \(.*reset by peer\)\. Check data"):
        read(source, time="t", key="id")
