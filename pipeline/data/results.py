"""A table of a database that is written part by part, and changes as a whole or not at all.

Parts wait in a temporary table of the connection, which the database drops with it. One transaction
at the end then replaces rows, so that a reader sees all of a run or nothing, and a process that is
killed leaves the table as it was.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Self

import pandas as pd
import sqlalchemy as sa

from pipeline.config import RESERVED, Data, SqlTable
from pipeline.data.databases import answer, connected, engine_of, is_away
from pipeline.errors import DataError, UnavailableError, first_line

_STAGED = f"{RESERVED}staged"
_INSERT = f"""
INSERT INTO "{_STAGED}"
SELECT * FROM json_populate_recordset(null::"{_STAGED}", CAST(:rows AS json))
"""  # noqa: S608 -- no part of it is given
"""How PostgreSQL takes rows: a statement for each row would take twenty times as long."""
_LONGEST = 63
"""Most bytes of a name in PostgreSQL."""
_WAIT = 60
"""Seconds to wait for other writers of an SQLite file."""


class ResultTable:
    """Rows that replace those of their window and those of their keys, at the end of `with`.

    The table is made if it does not exist. After an error nothing of the rows is left.
    """

    def __init__(
        self,
        place: SqlTable,
        data: Data,
        *,
        start: pd.Timestamp | None = None,
        end: pd.Timestamp | None = None,
    ) -> None:
        """Begin with no row.

        Parameters
        ----------
        place : SqlTable
            Address and name of the table.
        data : Data
            The roles of columns: which of them identify a row, and which holds its time.
        start, end : Timestamp or None
            Rows of the table with `start <= time < end` are replaced; without both, only rows whose
            key comes again.
        """
        self._place, self._identity, self._time = place, data.identity, data.time
        self._start, self._end = start, end
        self._open = ExitStack()
        self._staged: sa.Table | None = None

    def __enter__(self) -> Self:
        # The engine's level, as a connection's own would be reset on one that the server has ended.
        engine = engine_of(self._place.url, "data.scores.url", isolation_level="AUTOCOMMIT")
        self._open.callback(engine.dispose)
        try:
            with self._refusals():
                self._connection = connected(engine, "data.scores.url")
                self._open.callback(self._connection.close)
                self._lite = self._connection.dialect.name == "sqlite"
                if self._lite:
                    self._connection.exec_driver_sql(f"PRAGMA busy_timeout = {_WAIT * 1000}")
                else:
                    self._connection.exec_driver_sql("SET TIME ZONE 'UTC'")
        except BaseException:
            self._open.close()
            raise
        return self

    def write(self, part: pd.DataFrame) -> None:
        """Add rows, which have the columns and types of the first part.

        Raises
        ------
        DataError
            If the table has other columns, or the database refuses the rows.
        UnavailableError
            If the database does not answer.
        """
        # Databases hold microseconds, and PostgreSQL would round up, out of the window.
        part = part.assign(**{self._time: part[self._time].dt.floor("us")})
        with self._refusals(), self._transaction("BEGIN"):
            if self._staged is None:
                self._check_names([str(name) for name in part])
                columns = [sa.Column(str(name), _type(part[name])) for name in part]
                self._staged = sa.Table(_STAGED, sa.MetaData(), *columns, prefixes=["TEMPORARY"])
                self._check_columns()
                self._staged.create(self._connection, checkfirst=False)
            records: list[Any] = part.to_dict("records")
            if self._lite:
                self._connection.execute(self._staged.insert(), records)
            else:
                text = json.dumps(records, default=str)
                self._connection.execute(sa.text(_INSERT), {"rows": text})

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._open:
            if kind is None and self._staged is not None:
                with self._refusals():
                    self._replace(self._staged)

    def _replace(self, staged: sa.Table) -> None:
        """Move the rows into the table, in place of those of their window and of their keys."""
        table = sa.Table(
            self._place.table,
            sa.MetaData(),
            *(sa.Column(one.name, one.type) for one in staged.columns),
            sa.PrimaryKeyConstraint(*self._identity),
        )
        for name in self._identity:
            table.c[name].autoincrement = False
        key = sa.tuple_(*(table.c[name] for name in self._identity))
        again = sa.select(*(staged.c[name] for name in self._identity))
        names = [one.name for one in staged.columns]
        with self._transaction("BEGIN IMMEDIATE" if self._lite else "BEGIN"):
            table.create(self._connection, checkfirst=True)
            self._check_columns()  # a database may shorten names
            if not self._lite:
                quoted = self._connection.dialect.identifier_preparer.format_table(table)
                self._connection.exec_driver_sql(f"LOCK TABLE {quoted} IN SHARE ROW EXCLUSIVE MODE")
            if within := self._within(table):
                self._connection.execute(sa.delete(table).where(*within))
            self._connection.execute(sa.delete(table).where(key.in_(again)))
            self._connection.execute(sa.insert(table).from_select(names, sa.select(staged)))

    def _within(self, table: sa.Table) -> list[sa.ColumnElement[bool]]:
        """Conditions of a row of the window; none without start and end."""
        time, found = table.c[self._time], list[sa.ColumnElement[bool]]()
        if self._start is not None:
            found.append(time >= self._start.to_pydatetime())
        if self._end is not None:
            found.append(time < self._end.to_pydatetime())
        return found

    def _check_names(self, names: list[str]) -> None:
        """Refuse names of columns that the database would take for one another, or cut off."""
        if self._lite:
            times = Counter(map(str.lower, names))
            odd = [name for name in names if times[name.lower()] > 1]
            rule = "differ by more than upper and lower case"
        else:
            odd = [name for name in names if len(name.encode()) > _LONGEST]
            rule = f"have at most {_LONGEST} bytes"
        if odd:
            message = (
                f"The names of columns in table {self._place.table} must {rule}. Got "
                f"{', '.join(odd)}. Write to a file, or rename the labels or columns."
            )
            raise DataError(message)

    def _check_columns(self) -> None:
        inspector, table = sa.inspect(self._connection), self._place.table
        if self._staged is None or not inspector.has_table(table):
            return
        there = [one["name"] for one in inspector.get_columns(table)]
        wanted = list(self._staged.columns.keys())
        if sorted(there) != sorted(wanted):
            message = (
                f"Table {table} must have the columns {', '.join(wanted)}. Got "
                f"{', '.join(there)}. Name another table in data.scores.table, or rename this one."
            )
            raise DataError(message)

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        # Drivers begin transactions of their own in their own ways: sqlite3 none before a CREATE.
        self._connection.exec_driver_sql(begin)
        try:
            yield
        except BaseException:
            self._connection.exec_driver_sql("ROLLBACK")
            raise
        self._connection.exec_driver_sql("COMMIT")

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """Say in a sentence what the database refuses."""
        try:
            yield
        except (sa.exc.SQLAlchemyError, OSError, TypeError) as error:
            cause = answer(error)
            got, table = first_line(cause), self._place.table
            code = getattr(cause, "sqlite_errorcode", None)
            if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
                message = f"Another process holds the database of data.scores ({got}). Try later."
                raise UnavailableError(message) from error
            if is_away(error) and code is None:
                message = f"The database of data.scores does not answer ({got}). Check its url."
                raise UnavailableError(message) from error
            message = f"Table {table} cannot be written ({got}). Check data.scores."
            raise DataError(message) from error


def _type(values: pd.Series) -> sa.types.TypeEngine[Any]:
    if pd.api.types.is_datetime64_any_dtype(values):
        return sa.DateTime()
    if pd.api.types.is_integer_dtype(values):
        return sa.BigInteger()
    return sa.Double() if pd.api.types.is_float_dtype(values) else sa.Text()
