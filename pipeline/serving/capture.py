"""Every served prediction, kept in SQLite: the live batches of the monitor."""

import json
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import Any, Self

import pandas as pd

from pipeline.errors import DataError, UnavailableError

CAPTURED = ("captured_at", "key", "prediction", "version", "request_id")
"""Columns beside the features; no feature may have one of these names."""

# Times are whole microseconds since 1970, UTC: exact, ordered, and without a format.
_TABLE = """
CREATE TABLE IF NOT EXISTS captures (
    captured_at INTEGER NOT NULL,
    key TEXT NOT NULL,
    prediction REAL NOT NULL,
    version TEXT NOT NULL,
    request_id TEXT NOT NULL,
    features TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS captures_by_time ON captures (captured_at);
"""
_INSERT = "INSERT INTO captures VALUES (?, ?, ?, ?, ?, ?)"
_SELECT = """
SELECT captured_at, key, prediction, version, request_id, features FROM captures
WHERE captured_at >= ? AND captured_at < ? ORDER BY captured_at, rowid
"""
_FIRST, _LAST = -(2**63), 2**63 - 1


class Captures:
    """The store as the server writes it; any thread may append.

    Parameters
    ----------
    path : Path
        The SQLite file; it and its folder are made if they are not there.

    Raises
    ------
    DataError
        If the file is there and cannot be written as such a store.
    """

    def __init__(self, path: Path) -> None:
        self._lock = Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = _open(path)
        except (OSError, sqlite3.DatabaseError) as error:
            message = (
                f"The capture store {path} must be a writable SQLite file. Got: {error}. "
                "Name another file, or restore this one."
            )
            raise DataError(message) from error

    def append(
        self,
        *,
        rows: Iterable[Mapping[str, Any]],
        predictions: Iterable[float],
        keys: Iterable[str],
        version: str,
        request_id: str,
        at: datetime,
    ) -> None:
        """Store the answered rows of one request, all or none.

        Parameters
        ----------
        rows : iterable of mapping
            Features of each row.
        predictions : iterable of float
            What was answered for each row.
        keys : iterable of str
            What identifies each row, so that its label can join.
        version : str
            Version of the model that answered.
        request_id : str
            The request that the rows came with.
        at : datetime
            When it was answered, with its time zone.

        Raises
        ------
        UnavailableError
            If the store cannot be written now: the disk is full, or another process holds it.
        """
        time = _microseconds(pd.Timestamp(at))
        records = [
            (time, key, prediction, version, request_id, json.dumps(row))
            for row, prediction, key in zip(rows, predictions, keys, strict=True)
        ]
        try:
            with self._lock, self._connection:
                self._connection.executemany(_INSERT, records)
        except sqlite3.Error as error:
            message = f"The capture store must be writable. Got: {error}. Check its disk."
            raise UnavailableError(message) from error

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        # A killed process loses nothing; a power cut may lose the last requests.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.executescript(_TABLE)
    except sqlite3.DatabaseError:
        connection.close()
        raise
    return connection


def read_captures(
    path: Path, *, start: pd.Timestamp | None = None, end: pd.Timestamp | None = None
) -> pd.DataFrame:
    """Captured rows with `start <= captured_at < end`, oldest first.

    The file is opened read-only, while a server may be writing it.

    Parameters
    ----------
    path : Path
        The SQLite file.
    start, end : Timestamp, optional
        The window in UTC; None leaves that side open.

    Returns
    -------
    DataFrame
        The features, then ``captured_at`` (datetime64[us], UTC without zone), ``key``,
        ``prediction``, ``version`` and ``request_id``; without rows, no features either.
    """
    bounds = (
        _FIRST if start is None else _microseconds(start),
        _LAST if end is None else _microseconds(end),
    )
    with closing(sqlite3.connect(_reading(path), uri=True)) as connection:
        found = connection.execute(_SELECT, bounds).fetchall()
    features = pd.DataFrame([json.loads(record[-1]) for record in found])
    captured = pd.DataFrame([record[:-1] for record in found], columns=list(CAPTURED))
    times = captured["captured_at"].astype("datetime64[us]")
    return pd.concat([features, captured.assign(captured_at=times)], axis=1)


def _reading(path: Path) -> str:
    # Without a log nobody is writing; SQLite told so leaves no log of its own behind.
    log = path.with_name(f"{path.name}-wal")
    return f"{path.absolute().as_uri()}?mode=ro{'' if log.exists() else '&immutable=1'}"


def _microseconds(moment: pd.Timestamp) -> int:
    """Since 1970; a time without a zone is UTC."""
    return (moment - pd.Timestamp(0, tz=moment.tz)) // pd.Timedelta(1, "us")
