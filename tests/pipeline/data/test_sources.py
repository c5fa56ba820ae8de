import json
import sqlite3
from contextlib import closing

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa

from pipeline.config import CaptureSource, FileSource, FunctionSource, Numeric, SqlSource
from pipeline.data.captures import Layout
from pipeline.data.sources import read
from pipeline.errors import ConfigError, DataError, PipelineError, UnavailableError
from pipeline.serving.capturing import Captures

START, END = pd.Timestamp("2026-01-03"), pd.Timestamp("2026-01-05")
WINDOWED = "SELECT * FROM rows WHERE at >= :start AND at < :end"


def file(path):
    return FileSource(kind="file", path=str(path))


def sql(path, query="SELECT * FROM rows"):
    return SqlSource(kind="sql", url=f"sqlite:///{path}", query=query)


def function(rows):
    return FunctionSource(kind="function", function=rows)


def days(frame, start, end):
    return frame[(frame["at"] >= start) & (frame["at"] < end)].reset_index(drop=True)


@pytest.fixture
def declared(data):
    """The roles and the features of `rows`."""
    features = data.features | {"spend": Numeric()}
    return {"time": "at", "key": "id", "target": "churned", "columns": features}


@pytest.fixture
def database(tmp_path, rows):
    path = tmp_path / "rows.db"
    engine = sa.create_engine(f"sqlite:///{path}")
    rows.to_sql("rows", engine, index=False)
    engine.dispose()
    return path


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "parquet"])
def test_rows_come_back_from_a_file_of_each_format(tmp_path, rows, declared, ending):
    path = tmp_path / f"rows.{ending}"
    rows.to_parquet(path) if ending == "parquet" else rows.to_csv(path, index=False)

    pd.testing.assert_frame_equal(read(file(path), **declared), rows)


def test_a_glob_reads_several_files_in_the_order_of_their_names(tmp_path, rows, declared):
    rows[300:].to_parquet(tmp_path / "b.parquet")
    rows[:300].to_csv(tmp_path / "a.csv", index=False)
    rows[:0].to_csv(tmp_path / "c.csv", index=False)

    pd.testing.assert_frame_equal(read(file(tmp_path / "*"), **declared), rows)


@pytest.mark.parametrize(
    ("start", "end", "hours"),
    [(0, 4, [0, 2]), (0, 5, [0, 2, 4]), (1, 4, [2]), (None, 2, [0]), (1196, None, [1196, 1198])],
)
def test_a_window_includes_its_start_and_excludes_its_end(tmp_path, rows, start, end, hours):
    rows.to_parquet(tmp_path / "rows.parquet")
    moment = [None if n is None else rows["at"][0] + pd.Timedelta(hours=n) for n in (start, end)]

    found = read(file(tmp_path / "rows.parquet"), time="at", start=moment[0], end=moment[1])

    assert [(at - rows["at"][0]) / pd.Timedelta("1h") for at in found["at"]] == hours


@pytest.mark.parametrize("name", ["none.csv", "none/*.parquet"])
def test_a_path_that_matches_no_file_is_refused(tmp_path, name):
    with pytest.raises(DataError, match="No file matches the file source"):
        read(file(tmp_path / name), time="at")


@pytest.mark.parametrize("path", ["nowhere://rows.csv", "abfs://box/rows.csv"])
def test_an_unknown_or_uninstalled_protocol_is_refused(path):
    with pytest.raises(DataError, match="cannot be reached"):
        read(file(path), time="at")


@pytest.mark.parametrize("name", ["rows.parquet", "rows.csv.gz"])
def test_a_half_written_file_is_named(tmp_path, rows, name):
    path = tmp_path / name
    rows.to_parquet(path) if path.suffix == ".parquet" else rows.to_csv(path, index=False)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    with pytest.raises(DataError, match=name):
        read(file(tmp_path / "rows*"), time="at")


@pytest.mark.parametrize("text", ["", 'a,b\n1,"2', "a,b\n1,2\n1,2,3\n"])
def test_a_broken_csv_is_named(tmp_path, text):
    (tmp_path / "rows.csv").write_text(text)

    with pytest.raises(DataError, match=r"rows\.csv"):
        read(file(tmp_path / "rows.csv"), time="a")


def test_a_query_returns_the_rows_of_its_table(database, rows):
    pd.testing.assert_frame_equal(read(sql(database), time="at"), rows)


@pytest.mark.parametrize("shape", ["%Y-%m-%d %H:%M:%S.%f", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M"])
def test_a_bound_window_loses_no_row_at_its_edges(tmp_path, rows, shape):
    written = rows.assign(at=rows["at"].dt.strftime(shape))
    with closing(sqlite3.connect(tmp_path / "rows.db")) as connection:
        written.to_sql("rows", connection, index=False)

    found = read(sql(tmp_path / "rows.db", WINDOWED), time="at", start=START, end=END)

    pd.testing.assert_frame_equal(found, days(rows, START, END))


def test_a_bound_query_without_a_window_returns_all_rows(database, rows):
    assert len(read(sql(database, WINDOWED), time="at")) == len(rows)


def test_rows_of_a_query_that_binds_no_window_are_filtered(database, rows):
    found = read(sql(database), time="at", start=START, end=END)

    assert len(found) == len(days(rows, START, END))


@pytest.mark.parametrize("share", [0.01, 0.5, 0.9])
def test_a_half_written_sqlite_file_is_refused_in_one_sentence(database, share):
    content = database.read_bytes()
    database.write_bytes(content[: int(len(content) * share)])

    with pytest.raises(DataError, match="is damaged") as caught:
        read(sql(database), time="at")

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("query", ["SELECT * FROM nothing", "SELEC", "SELECT :other FROM rows"])
def test_a_query_that_does_not_run_is_a_data_error(database, query):
    with pytest.raises(DataError, match="query of the SQL source does not run"):
        read(sql(database, query), time="at")


def test_a_database_that_does_not_answer_is_unavailable(tmp_path):
    with pytest.raises(UnavailableError, match="does not answer"):
        read(sql(tmp_path / "away" / "rows.db"), time="at")


def test_a_server_that_does_not_answer_is_unavailable():
    source = SqlSource(
        kind="sql", url="postgresql+pg8000://u:hunter2@127.0.0.1:1/x", query="select 1"
    )

    with pytest.raises(UnavailableError, match="does not answer") as caught:
        read(source, time="at")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["hunter2", "nosuch://me:hunter2@db/x", "mysql://me:hunter2@db/x"])
def test_an_unusable_database_address_is_refused_and_not_shown(url):
    source = SqlSource(kind="sql", url=url, query="SELECT 1")

    with pytest.raises(ConfigError) as caught:
        read(source, time="at")

    assert "hunter2" not in str(caught.value)


def test_a_source_function_gets_the_window(rows):
    asked = []

    def source(start, end):
        asked.append((start, end))
        return rows

    read(function(source), time="at", start=START, end=END)

    assert asked == [(START, END)]


def test_a_source_function_that_raises_is_named():
    def broken(start, end):
        raise KeyError(start, end)

    with pytest.raises(DataError, match=r"broken raised KeyError"):
        read(function(broken), time="at")


def test_a_source_function_may_raise_unavailable_itself():
    def away(_start, _end):
        message = "The mainframe must answer. It is asleep. Wait."
        raise UnavailableError(message)

    with pytest.raises(UnavailableError, match="mainframe"):
        read(function(away), time="at")


@pytest.mark.parametrize("rows", [None, [1, 2], {"at": [1]}])
def test_a_source_function_must_return_a_frame(rows):
    with pytest.raises(DataError, match="must return a DataFrame"):
        read(function(lambda _start, _end: rows), time="at")


def test_times_with_a_zone_are_compared_and_returned_in_utc(frame):
    frame["at"] = frame["at"].dt.tz_localize("UTC").dt.tz_convert("America/New_York")

    found = read(
        function(lambda _start, _end: frame),
        time="at",
        start=START.tz_localize("UTC").tz_convert("Asia/Tokyo"),
        end=END,
    )

    assert found["at"].dtype == "datetime64[us]"
    assert found["at"].iloc[0] == START
    assert len(found) == 24


def test_a_missing_time_column_is_named_beside_the_columns_found(frame):
    with pytest.raises(DataError, match=r"time column 'when'.*Got id, at"):
        read(function(lambda _start, _end: frame), time="when")


def test_a_repeated_column_name_is_refused(frame):
    with pytest.raises(DataError, match="at more than once"):
        read(function(lambda _start, _end: pd.concat([frame, frame["at"]], axis=1)), time="at")


@pytest.mark.parametrize("column", ["amount", "city"])
def test_a_time_column_without_dates_is_refused(frame, column):
    with pytest.raises(DataError, match="must hold dates such as"):
        read(function(lambda _start, _end: frame), time=column)


@pytest.mark.parametrize("bounds", [{}, {"start": START}, {"start": START, "end": END}])
def test_rows_without_a_time_belong_to_every_window(frame, bounds):
    frame.loc[[1, 590], "at"] = pd.NaT

    found = read(function(lambda _start, _end: frame), time="at", **bounds)

    assert found.loc[found["at"].isna(), "id"].tolist() == ["r1", "r590"]


def test_an_unreadable_time_is_returned_unchanged(frame):
    frame["at"] = frame["at"].astype("str")
    frame.loc[1, "at"] = "31/12/2026"

    found = read(function(lambda _start, _end: frame), time="at", start=START, end=END)

    assert len(found) == 24 + 1
    assert "31/12/2026" in found["at"].tolist()


def test_an_empty_source_gives_no_rows(frame):
    assert read(function(lambda _start, _end: frame[:0]), time="at", start=START).empty


@pytest.mark.parametrize("index", [np.zeros(600, dtype=int), np.arange(600)[::-1]])
def test_the_index_of_a_frame_from_a_function_is_ignored(frame, index):
    found = read(function(lambda _s, _e: frame.set_axis(index)), time="at", start=START, end=END)

    pd.testing.assert_frame_equal(found, days(frame, START, END))


def test_a_missing_capture_store_is_refused(tmp_path):
    with pytest.raises(PipelineError, match="capture"):
        read(CaptureSource(kind="capture"), time="at", captures=tmp_path / "captures.db")


def test_a_window_of_captures_cannot_be_read_before_its_end(tmp_path):
    path, source = tmp_path / "captures.db", CaptureSource(kind="capture")
    now = pd.Timestamp.now("UTC").tz_localize(None)
    with Captures(path) as captures:
        captures.answer(
            at=(now - pd.Timedelta("1min")).value // 1_000,
            request_id="r",
            layout=Layout("regression", '{"x": null}'),
            version="1",
            latency=0,
            features=np.ones((1, 1)),
            unseen=[],
            keys=None,
            predictions=np.zeros(1),
        )

    assert len(read(source, time="at", captures=path, end=now - pd.Timedelta("10s"))) == 1
    with pytest.raises(DataError, match="is not over"):
        read(source, time="at", captures=path, end=now + pd.Timedelta("1h"))


def test_captured_features_may_be_named_like_what_is_stored_beside_them(tmp_path):
    names = ["key", "target", "prediction", "version", "captured_at"]
    with Captures(tmp_path / "captures.db") as captures:
        captures.answer(
            at=0,
            request_id="r",
            layout=Layout("regression", json.dumps(dict.fromkeys(names))),
            version="1",
            latency=0,
            features=np.arange(5.0).reshape(1, 5),
            unseen=[],
            keys=["a"],
            predictions=np.ones(1),
        )

    found = read(
        CaptureSource(kind="capture"),
        time="at",
        key="id",
        target="y",
        captures=tmp_path / "captures.db",
    )

    assert found[names].iloc[0].tolist() == [0, 1, 2, 3, 4]
    assert found[["id", "holdfast-prediction"]].iloc[0].tolist() == ["a", 1]
    assert "y" not in found


@pytest.mark.parametrize(
    ("values", "classes", "expected"),
    [
        (["no", "yes", None, "no"], ("no", "yes"), [0, 1, None, 0]),
        (["no", "yes", None, "maybe"], ("no", "yes"), [0, 1, None, "maybe"]),
        ([1, 2, None, 2], ("1", "2"), [0, 1, None, 1]),
        # A stray 0 must not count as the place of a class.
        ([-1.0, 1.0, None, 0.0], ("-1", "1"), [0, 1, None, "'0'"]),
        (["b", "a", None, "1"], ("a", "b", "c"), [1, 0, None, "'1'"]),
        ([1, 2, None, 3], ("01", "02", "x"), [0, 1, None, 3]),
        ([1, 3, 2, 0], ("3", "2", "1"), [2, 0, 1, "'0'"]),
        (["None", "full", None, "part"], ("None", "part", "full"), [0, 2, None, 1]),
    ],
)
def test_labels_of_the_target_become_places_of_classes(tmp_path, values, classes, expected):
    path = tmp_path / "rows.csv"
    pd.DataFrame({"answer": values}).to_csv(path, index=False, na_rep="NA")
    source = FileSource(kind="file", path=str(path))

    read_rows = read(source, time=None, target="answer", classes=classes)

    assert [None if pd.isna(one) else one for one in read_rows["answer"]] == expected
