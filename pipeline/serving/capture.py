"""What was asked and answered, kept in SQLite: the live batches of the monitor.

One thread writes, ten times a second, so that no answer waits for the disk. A killed process
loses what came since the last write.
"""

import json
import os
import sqlite3
from collections import deque
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock, Thread
from time import monotonic
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from pydantic_core import from_json

from pipeline.errors import DataError, UnavailableError

CAPTURED = (
    *("captured_at", "key", "prediction", "confidence"),
    *("latency", "version", "request_id"),
)
"""Columns beside the features; no feature may have one of these names."""
EVERY = 0.1
"""Seconds between writes."""
MOST_WAITING = 64_000_000
"""Bytes that wait for a disk that cannot be written; what comes then is lost, and counted."""
LONGEST_BODY = 256_000
"""Bytes of a refused request that are kept."""
Kind = Literal["answers", "refusals"]

# Times are whole microseconds since 1970, UTC: exact, ordered, and without a format.
_TABLES = """
CREATE TABLE IF NOT EXISTS contracts (
    version TEXT PRIMARY KEY,
    task TEXT NOT NULL,
    columns TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS answers (
    at INTEGER NOT NULL,
    request_id TEXT NOT NULL,
    version TEXT NOT NULL,
    latency INTEGER NOT NULL,
    request BLOB NOT NULL,
    predictions BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS answers_by_time ON answers (at);
CREATE TABLE IF NOT EXISTS refusals (
    at INTEGER NOT NULL,
    request_id TEXT NOT NULL,
    version TEXT NOT NULL,
    route TEXT NOT NULL,
    caller TEXT NOT NULL,
    problems TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS refusals_by_time ON refusals (at);
CREATE TABLE IF NOT EXISTS labels (
    at INTEGER NOT NULL,
    key TEXT NOT NULL,
    target REAL NOT NULL
) STRICT;
"""
_INSERT: dict[Kind, str] = {
    "answers": "INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?)",
    "refusals": "INSERT INTO refusals VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
}
_FIRST, _LAST = -(2**63), 2**63 - 1


@dataclass(frozen=True)
class _Waiting:
    kind: Kind
    values: tuple[Any, ...]
    size: int
    since: float


class Captures:
    """The store as the server writes it; one thread adds to it.

    Parameters
    ----------
    path : Path
        The SQLite file; it and its folder are made if they are not there.

    Raises
    ------
    DataError
        If the file is there and cannot be written as such a store.

    Attributes
    ----------
    problem : str
        Why the last write failed; empty while all is well.
    lost : int
        Requests that were not kept, as too many were waiting for the disk.
    """

    def __init__(self, path: Path) -> None:
        self.problem, self.lost = "", 0
        self._waiting: deque[_Waiting] = deque()
        self._batch: list[_Waiting] = []  # what the writer has taken; it stays until it is written
        self._came, self._went = 0, 0  # bytes; each is counted by one thread
        self._lock, self._stop = Lock(), Event()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = _open(path)
        except (OSError, sqlite3.DatabaseError) as error:
            message = (
                f"The capture store {path} must be a writable SQLite file. Got: {error}. "
                "Name another file, or restore this one."
            )
            raise DataError(message) from error
        self._writer = Thread(target=self._write, name="captures", daemon=True)
        self._writer.start()

    @property
    def lag(self) -> float:
        """Seconds that the oldest request waits to be written."""
        oldest = next(iter([*self._batch[:1], *self._waiting.copy()]), None)
        return 0.0 if oldest is None else monotonic() - oldest.since

    def describe(self, version: str, *, task: str, columns: Sequence[str]) -> None:
        """Say what the requests of a version hold, before the first of them comes."""
        with self._lock, self._connection:
            self._connection.execute(
                "INSERT OR REPLACE INTO contracts VALUES (?, ?, ?)",
                (version, task, json.dumps(list(columns))),
            )

    def answer(
        self,
        *,
        at: int,
        request_id: str,
        version: str,
        latency: int,
        request: bytes,
        predictions: bytes,
    ) -> None:
        """Keep an answered request.

        Parameters
        ----------
        at, latency : int
            When it was answered, and how long that took, in microseconds.
        request_id, version : str
            Of the request, and of the model that answered.
        request : bytes
            ``{"rows": [...], "keys": [...]}``; the keys may be missing.
        predictions : bytes
            One float64 for each row.
        """
        values = (at, request_id, version, latency, request, predictions)
        self._wait("answers", values, len(request) + len(predictions))

    def refusal(
        self,
        *,
        at: int,
        request_id: str,
        version: str,
        route: str,
        caller: str,
        problems: str,
        body: bytes,
    ) -> None:
        """Keep a refused request with its problems as JSON, and the first part of its body."""
        kept = body[:LONGEST_BODY]
        values = (at, request_id, version, route, caller, problems, len(body), kept)
        self._wait("refusals", values, len(kept) + len(problems))

    def label(self, labels: Sequence[tuple[str, float]], *, at: int) -> None:
        """Store labels by key; they are on disk when this returns.

        Raises
        ------
        UnavailableError
            If the store cannot be written now.
        """
        try:
            with self._lock, self._connection:
                self._connection.executemany(
                    "INSERT INTO labels VALUES (?, ?, ?)", [(at, *label) for label in labels]
                )
        except sqlite3.Error as error:
            message = f"The capture store must be writable. Got: {error}. Check its disk."
            raise UnavailableError(message) from error

    def close(self) -> None:
        """Write what waits, and let go of the file."""
        self._stop.set()
        self._writer.join()
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wait(self, kind: Kind, values: tuple[Any, ...], size: int) -> None:
        if self._came - self._went > MOST_WAITING:
            self.lost += 1
            return
        self._came += size
        self._waiting.append(_Waiting(kind, values, size, monotonic()))

    def _write(self) -> None:
        while not self._stop.wait(EVERY):
            self._flush()
        self._flush()

    def _flush(self) -> None:
        """Write what waits, or keep it for the next time."""
        while self._waiting:
            self._batch.append(self._waiting.popleft())
        if not self._batch:
            return
        try:
            with self._lock, self._connection:
                for kind, insert in _INSERT.items():
                    values = [one.values for one in self._batch if one.kind == kind]
                    self._connection.executemany(insert, values)
        except sqlite3.Error as error:
            self.problem = f"Captures are not written: {error}."
            return
        self.problem = ""
        self._went += sum(one.size for one in self._batch)
        self._batch = []


def _open(path: Path) -> sqlite3.Connection:
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))  # it holds what people send
    connection = sqlite3.connect(path, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")  # a power cut loses no more than a kill
        connection.executescript(_TABLES)
    except sqlite3.DatabaseError:
        connection.close()
        raise
    return connection


def read_captures(
    path: Path, *, start: pd.Timestamp | None = None, end: pd.Timestamp | None = None
) -> pd.DataFrame:
    """Answered rows with `start <= captured_at < end`, oldest first.

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
        ``prediction``, ``confidence`` (of the likelier class; NaN in a regression), ``latency``
        (seconds), ``version`` and ``request_id``; without rows, no features either.
    """
    query = "SELECT at, request_id, version, latency, request, predictions FROM answers"
    with closing(_reading(path)) as connection:
        contracts = {
            version: (task, json.loads(columns))
            for version, task, columns in connection.execute("SELECT * FROM contracts")
        }
        found = connection.execute(f"{query} {_WINDOW}", _bounds(start, end)).fetchall()
    features, captured = [], []
    for at, request_id, version, latency, request, predictions in found:
        body, predicted = from_json(request), np.frombuffer(predictions)
        task, columns = contracts[version]
        keys = body.get("keys") or [f"{request_id}-{i}" for i in range(len(predicted))]
        sure = np.maximum(predicted, 1 - predicted) if task == "classification" else np.nan
        features += [{name: row.get(name) for name in columns} for row in body["rows"]]
        captured.append(
            pd.DataFrame(
                {
                    "captured_at": at,
                    "key": keys,
                    "prediction": predicted,
                    "confidence": sure,
                    "latency": latency / 1e6,
                    "version": version,
                    "request_id": request_id,
                }
            )
        )
    told = pd.concat(captured, ignore_index=True) if captured else _NOTHING
    return pd.concat(
        [
            pd.DataFrame(features),
            told.assign(captured_at=told["captured_at"].astype("datetime64[us]")),
        ],
        axis=1,
    )


_WINDOW = "WHERE at >= ? AND at < ? ORDER BY at, rowid"
_NOTHING = pd.DataFrame({name: pd.Series(dtype="int64") for name in CAPTURED})


def read_labels(path: Path) -> pd.DataFrame:
    """Labels that were sent, oldest first: ``key`` and ``target``."""
    with closing(_reading(path)) as connection:
        found = connection.execute("SELECT key, target FROM labels ORDER BY rowid").fetchall()
    return pd.DataFrame(found, columns=["key", "target"])


def read_refusals(
    path: Path, *, start: pd.Timestamp | None = None, end: pd.Timestamp | None = None
) -> pd.DataFrame:
    """Refused requests with `start <= at < end`, oldest first.

    Returns
    -------
    DataFrame
        ``at`` (datetime64[us], UTC without zone), ``request_id``, ``version``, ``route``,
        ``caller``, ``problems`` (a list of dicts as they were answered), ``bytes`` of the whole
        body, and the first part of it.
    """
    with closing(_reading(path)) as connection:
        query = f"SELECT * FROM refusals {_WINDOW}"  # noqa: S608 -- our own words
        found = connection.execute(query, _bounds(start, end))
        names = [column[0] for column in found.description]
        frame = pd.DataFrame(found.fetchall(), columns=names)
    return frame.assign(
        at=frame["at"].astype("datetime64[us]"), problems=frame["problems"].map(json.loads)
    )


def _reading(path: Path) -> sqlite3.Connection:
    # Without a log nobody is writing; SQLite told so leaves no log of its own behind.
    log = path.with_name(f"{path.name}-wal")
    address = f"{path.absolute().as_uri()}?mode=ro{'' if log.exists() else '&immutable=1'}"
    return sqlite3.connect(address, uri=True)


def _bounds(start: pd.Timestamp | None, end: pd.Timestamp | None) -> tuple[int, int]:
    return (
        _FIRST if start is None else _microseconds(start),
        _LAST if end is None else _microseconds(end),
    )


def _microseconds(moment: pd.Timestamp) -> int:
    """Since 1970; a time without a zone is UTC."""
    return (moment - pd.Timestamp(0, tz=moment.tz)) // pd.Timedelta(1, "us")
