"""Rows of an SQL query, with the window that it binds compared as time.

SQLite has no type of its own for times and compares them as text, so that `2013-02-26T05:00` comes
after every bound of that day with a blank. How the bounds are written follows the rows.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from datetime import datetime
from pathlib import Path
from threading import Thread
from typing import Any

import pandas as pd
import sqlalchemy as sa
from pydantic import SecretStr
from sqlalchemy.engine.interfaces import BindTyping

from pipeline.columns import require
from pipeline.config import SqlSource
from pipeline.data.declared import Declared, with_nulls, with_texts
from pipeline.data.files import Window
from pipeline.errors import (
    ConfigError,
    DataError,
    PipelineError,
    UnavailableError,
    first_line,
)

Bounds = dict[str, datetime | str | float | bytes]
_SILENCE = 60
"""Seconds that a server may take to let somebody in."""
_LATER = ("08", "40", "53", "57P")
"""Classes of SQLSTATE of servers that are too busy, start, stop, or ask to be called again."""
_OPEN: Bounds = {"start": "", "end": b""}
"""What SQLite sorts before and after every text."""
_EARLIEST, _LATEST = "0000-01-01", "9999-12-31T23:59:59.999z "
"""The first and the last time that SQLite's own functions read; as text, `T` and `z`
come after blanks, digits and `Z`."""
_NUMBERS = float("-inf")
"""What SQLite sorts before every number; in a column of text it is text, and after a blank."""
_DAY = pd.Timedelta("1D")
_SPELLINGS = """
SELECT DISTINCT typeof({time}), substr({time}, 5, 1) || substr({time}, 8, 1),
  substr({time}, 11, 1),
  CASE WHEN length({time}) BETWEEN 11 AND 15 THEN 'hours' ELSE trim(substr({time}, 14, 1), ':') END,
  trim(substr({time}, 17), '0123456789:.')
FROM ({query}
) WHERE {time} IS NOT NULL
"""
"""Type, signs of the date, sign before the time, and what is odd in the time or follows it."""


def read_query(
    source: SqlSource, window: Window, declared: Declared, size: int | None = None
) -> Iterator[pd.DataFrame]:
    """Read the rows of a query, with at least those of the window that it binds.

    Parameters
    ----------
    source : SqlSource
        Address and query.
    window : Window
        The rows that are asked for.
    declared : Declared
        The types of the columns.
    size : int, optional
        The most rows of a part, which the database sends one by one where its driver can; None:
        all rows are one part.

    Yields
    ------
    DataFrame
        One part; without rows if the query finds none.

    Raises
    ------
    ConfigError
        If the database's address cannot be used, or its server refuses it.
    DataError
        If the query does not run, its driver cannot read a value, or SQLite holds numbers for
        times.
    UnavailableError
        If the database does not answer.
    """
    query, engine = sa.text(source.query), engine_of(source.url, "data.*.url")
    _require_file(engine.url)
    bound = {"start", "end"} & set(query.compile().params)
    try:
        with connected(engine, "data.*.url") as connection:
            bounds = _bounds(connection, source.query, window) if bound else {}
            result = connection.execute(
                _with_times(query, bound) if _has_infinity(engine) else query,
                {name: bounds[name] for name in bound},
                execution_options={"yield_per": size} if size else {},
            )
            names = list(result.keys())
            rows = _fetched(result, size)
            yield _typed(pd.DataFrame(rows, columns=names, dtype=object), declared)
            while size and (rows := _fetched(result, size)):
                yield _typed(pd.DataFrame(rows, columns=names, dtype=object), declared)
    except (sa.exc.SQLAlchemyError, OSError) as error:
        raise _sql_error(error) from error
    finally:
        engine.dispose()


def _fetched(result: sa.CursorResult[Any], size: int | None) -> Sequence[sa.Row[Any]]:
    """The next rows, or all; of a value such as the year 12000, drivers raise errors of Python."""
    try:
        return result.fetchmany(size) if size else result.fetchall()
    except (sa.exc.DataError, ValueError, ArithmeticError) as error:
        if _sqlstate(answer(error)) is not None:
            raise
        message = (
            "The SQL source holds a value that its driver cannot read "
            f"({first_line(answer(error))}). Convert it in the query, such as to text."
        )
        raise DataError(message) from error


def engine_of(url: SecretStr, setting: str, **options: str) -> sa.Engine:
    """The engine of an address that a setting names, with options of SQLAlchemy.

    Raises
    ------
    ConfigError
        If the address cannot be used, or its driver is missing.
    """
    try:
        engine = sa.create_engine(url.get_secret_value(), **options)
    except (sa.exc.ArgumentError, ImportError, ValueError) as error:  # as of a port
        message = (
            f"{setting} must be an SQLAlchemy address. Got: {first_line(error)}. "
            "Correct it or install its driver."
        )
        raise ConfigError(message) from error
    place = f"{engine.url.host or ''}{engine.url.database or ''}"
    if "@" in place and engine.dialect.name != "sqlite":
        message = (
            f"{setting} must spell @ in a user or password as %40. Got an @ in its host or "
            "database. Spell / as %2F there, too."
        )
        raise ConfigError(message)
    if engine.dialect.is_async:
        message = (
            f"{setting} must name a driver that waits for its answers. Got {engine.url.drivername}"
            f", which is asynchronous. Use another, such as postgresql+pg8000 or sqlite."
        )
        raise ConfigError(message)
    return engine


def connected(engine: sa.Engine, setting: str) -> sa.Connection:
    """A connection to the database whose address a setting names.

    Raises
    ------
    ConfigError
        If a server that answers refuses the address, as where it has no such database.
    SQLAlchemyError, OSError
        If it does not answer; which of the two, drivers choose.
    UnavailableError
        If it takes the call and says nothing.
    """
    try:
        return engine.connect() if engine.dialect.name == "sqlite" else _soon(engine, setting)
    except TypeError as error:  # a driver of an address with options that it does not know
        message = f"{setting} must suit its driver. Got: {first_line(error)}. Correct it."
        raise ConfigError(message) from error
    except sa.exc.SQLAlchemyError as error:
        if engine.dialect.name == "sqlite" or is_away(error):
            raise
        got = first_line(answer(error))
        message = f"{setting} must be the address of a database that it may use. Got: {got}."
        raise ConfigError(f"{message} Correct it, or make the database.") from error


def _soon(engine: sa.Engine, setting: str) -> sa.Connection:
    """A connection that is there within a minute: most drivers would wait without an end."""
    made: Future[sa.Connection] = Future()

    def connect() -> None:
        try:
            made.set_result(engine.connect())
        except BaseException as error:  # noqa: BLE001 -- raised again by who waits
            made.set_exception(error)

    Thread(target=connect, daemon=True).start()
    try:
        return made.result(_SILENCE)
    except TimeoutError as error:
        message = (
            f"The database does not answer within {_SILENCE} s. Check its server and {setting}."
        )
        raise UnavailableError(message) from error


def _require_file(url: sa.URL) -> None:
    """Check that an SQLite database is there: SQLite would make an empty one in its folder.

    Raises
    ------
    DataError
        If not.
    """
    path = Path(url.database or ":memory:")
    plain = url.get_backend_name() == "sqlite" and not path.name.startswith((":", "file:"))
    if plain and path.parent.is_dir() and not path.exists():
        raise DataError(f"There is no SQLite database at '{path}'. Correct data.*.url.")


def _typed(rows: pd.DataFrame, declared: Declared) -> pd.DataFrame:
    """Types of a part; numbers are as the database gave them: pandas would round beside a null."""
    require(rows, [])
    return with_nulls(with_texts(rows, declared), declared).infer_objects()


def _bounds(connection: sa.Connection, query: str, window: Window) -> Bounds:
    """The window as bound parameters, written as the database compares times."""
    if connection.dialect.name == "sqlite" and window.time is not None:
        return _as_text(_spelled(connection, query, window.time), window.start, window.end)
    if connection.dialect.name == "postgresql":
        # Times with a zone and times without one are compared by the zone of the session.
        connection.execute(sa.text("SET TIME ZONE 'UTC'"))
    # A row may be of the last microsecond that Python can spell.
    latest = "infinity" if _has_infinity(connection.engine) else datetime.max  # noqa: DTZ901 -- times in UTC have no zone here
    return {
        "start": datetime.min if window.start is None else window.start.to_pydatetime(),  # noqa: DTZ901
        "end": latest if window.end is None else window.end.to_pydatetime(),
    }


def _has_infinity(engine: sa.Engine) -> bool:
    """Whether a database has a time after all others, and its driver says that text is a time."""
    casts = engine.dialect.bind_typing is BindTyping.RENDER_CASTS
    return engine.dialect.name == "postgresql" and casts


def _with_times(query: sa.TextClause, bound: set[str]) -> sa.TextClause:
    return query.bindparams(*(sa.bindparam(name, type_=sa.DateTime) for name in sorted(bound)))


def _spelled(connection: sa.Connection, query: str, time: str) -> set[tuple[str, ...]]:
    """The ways in which SQLite's rows spell their times."""
    quoted = '"' + time.replace('"', '""').replace(":", r"\:") + '"'
    spellings = _SPELLINGS.format(time=quoted, query=query.strip().removesuffix(";"))
    asked = sa.text(spellings)
    bound = {name: _OPEN[name] for name in _OPEN if name in asked.compile().params}
    found = set[tuple[str, ...]]()
    try:
        for start in (_OPEN["start"], _NUMBERS):
            if "start" in bound:
                bound["start"] = start
            found |= {tuple(row) for row in connection.execute(asked, bound)}
    except sa.exc.SQLAlchemyError:  # the query itself fails, or cannot stand within another
        return {("text", "--", "", "unknown", "")}
    if any(kind in {"integer", "real"} for kind, *_ in found):
        message = (
            f"Time column {time!r} of the SQL source must hold times as text. Got numbers, which "
            "have no unit. Convert it in the query, as with datetime(seconds, 'unixepoch')."
        )
        raise DataError(message)
    return found


def _as_text(
    spelled: set[tuple[str, ...]], start: pd.Timestamp | None, end: pd.Timestamp | None
) -> Bounds:
    """Bounds that no row of the window fails when SQLite compares them as text.

    Where all rows are spelled alike, the bounds are exact: the shortest spelling of a moment comes
    before all its others. Where zones or spellings differ, whole days around the window are asked
    for, and where dates have no dashes, all rows; the rows outside are left out afterwards.
    """
    dates = {date for _, date, *_ in spelled} - {"--"}
    signs = {sign for _, _, sign, *_ in spelled} - {""}
    odd = {text for _, _, _, *rest in spelled for text in rest} - {""}
    if dates:
        return _OPEN
    if odd or len(signs) > 1 or signs - {" ", "T"}:
        first, last = start and _date(start - _DAY), end and _date(end + 2 * _DAY)
    else:
        sign = next(iter(signs), " ")
        first, last = start and _shortest(start, sign), end and _shortest(end, sign)
    return {"start": first or _EARLIEST, "end": last or _LATEST}


def _date(moment: pd.Timestamp) -> str:
    return moment.isoformat()[:10]


def _shortest(moment: pd.Timestamp, sign: str) -> str:
    """The shortest spelling that SQLite's own functions read: a date, or a time with minutes."""
    if moment == moment.normalize():
        return _date(moment)
    text = moment.isoformat(sep=sign)
    # `.500000` comes after a `.5` in a table, as text.
    return text.rstrip("0") if "." in text else text.removesuffix(":00")


def _sql_error(error: sa.exc.SQLAlchemyError | OSError) -> PipelineError:
    cause = answer(error)
    code = getattr(cause, "sqlite_errorcode", None)
    got = first_line(cause)
    if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        message = f"The SQLite file of the SQL source is damaged ({got}). Restore it."
        return DataError(message)
    if "Could not decode" in got:
        message = (
            f"The SQL source holds text that is not UTF-8 ({got}). Convert it in the query, or "
            "store it as UTF-8."
        )
        return DataError(message)
    if is_away(error):
        return UnavailableError(f"The SQL source does not answer ({got}). Check data.*.url.")
    return DataError(f"The query of the SQL source does not run ({got}). Fix data.*.query.")


def is_away(error: BaseException) -> bool:
    """Whether a database did not answer, so that a later try may succeed."""
    if (state := _sqlstate(answer(error))) is not None:
        return state.startswith(_LATER)
    # Which of these a driver raises when nobody answers, is its own choice; pg8000 lets through
    # what the socket says of a connection that is cut off before an answer.
    if isinstance(error, OSError):
        return True
    if not isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError):
        return False
    return getattr(error.orig, "sqlite_errorcode", None) != sqlite3.SQLITE_ERROR


def answer(error: BaseException) -> BaseException:
    """What a database answered, as its driver raised it; else the driver's own error."""
    cause = getattr(error, "orig", None) or error
    found: BaseException | None = cause
    # That the server then hung up, pg8000 may raise on top of why it did.
    while found is not None and not isinstance(found, sa.exc.SQLAlchemyError | PipelineError):
        if _sqlstate(found) is not None:
            return found
        found = found.__cause__ or found.__context__
    return cause


def _sqlstate(cause: BaseException) -> str | None:
    """The code of a server that answered with an error, however its driver hands it on."""
    answered = cause.args[0] if cause.args else None
    if isinstance(answered, dict):  # as of pg8000
        return str(answered.get("C", ""))
    found = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    return None if found is None else str(found)
