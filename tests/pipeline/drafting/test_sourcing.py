import sqlite3
from contextlib import closing

import pandas as pd
import pytest

from pipeline.config import FileSource, FunctionSource, SqlSource
from pipeline.data.sources import read
from pipeline.drafting.sourcing import name_of, source_of, windowed, written
from pipeline.errors import ConfigError

QUERY = "SELECT * FROM shop.orders"


@pytest.mark.parametrize(
    ("named", "name"),
    [
        ("data/Churn 2026.csv", "churn-2026"),
        ("data/orders.csv.gz", "orders"),
        ("lake/sales/*.parquet", "sales"),
        ("lake/sales/", "sales"),
        ("2026.csv", "model-2026"),
        ("__.csv", "model"),
    ],
)
def test_a_model_is_named_after_its_files(named, name):
    assert name_of(FileSource(kind="file", path=named), named) == name


def test_a_model_is_named_after_its_table():
    url = "postgresql+pg8000://host/warehouse"
    source = SqlSource(kind="sql", url=url, query='SELECT a FROM "Late_Orders" WHERE b')

    assert name_of(source, url) == "late-orders"


def test_a_function_is_imported_and_names_its_module():
    source = source_of("examples.flights:rows", None)

    assert isinstance(source, FunctionSource)
    assert name_of(source, "examples.flights:rows") == "flights"


@pytest.mark.parametrize(
    ("named", "query", "rule"),
    [
        ("sqlite:///x.db", None, "needs the query"),
        ("rows.csv", "SELECT 1", "must be an SQLAlchemy URL"),
        ("examples.flights:nothing", None, "SOURCE cannot be used"),
        ("postgresql://me:s3cret@host/db", None, "needs the query"),
    ],
)
def test_a_source_that_makes_no_sense_is_refused_in_a_sentence(named, query, rule):
    with pytest.raises(ConfigError) as caught:
        source_of(named, query)

    assert rule in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("postgresql+pg8000://me:s3cret@host/db", "postgresql+pg8000://me@host/db"),
        ("mssql+pyodbc://host/db?pwd=s3cret&driver=x", "mssql+pyodbc://host/db?driver=x"),
    ],
)
def test_a_secret_is_not_written(url, safe):
    values, secret = written(source_of(url, QUERY))

    assert (values["url"], secret) == (safe, True)


def test_a_url_without_a_secret_is_written_as_it_is():
    values, secret = written(source_of("sqlite:///x.db", QUERY))

    assert (values["url"], secret) == ("sqlite:///x.db", False)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM rows",
        "SELECT * FROM rows ORDER BY at;",
        "SELECT * FROM rows -- all of them",
        "WITH r AS (SELECT * FROM rows)\nSELECT * FROM r",
    ],
)
def test_a_query_is_narrowed_to_a_window(tmp_path, query):
    frame = pd.DataFrame({"at": ["2026-01-01", "2026-01-02", "2026-01-03", None], "x": range(4)})
    with closing(sqlite3.connect(tmp_path / "rows.db")) as connection:
        frame.to_sql("rows", connection, index=False)
    source = windowed(source_of(f"sqlite:///{tmp_path / 'rows.db'}", query), "at")

    whole = read(source, time="at")
    part = read(source, time="at", start=pd.Timestamp("2026-01-02"), end=pd.Timestamp("2026-01-03"))

    assert len(whole) == 4
    assert sorted(part["x"]) == [1, 3]
    assert ":start" in source.query


def test_a_query_that_binds_the_window_itself_stays():
    source = source_of("sqlite:///x.db", "SELECT * FROM rows WHERE at >= :start AND at < :end")

    assert windowed(source, "at") == source
    assert windowed(source_of("sqlite:///x.db", QUERY), None).query == QUERY
