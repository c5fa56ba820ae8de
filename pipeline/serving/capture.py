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
from pathlib import Path
from threading import Event, Lock, Thread
from time import monotonic
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import pandas as pd

from pipeline.columns import Matrix
from pipeline.errors import DataError, UnavailableError
from pipeline.model import Predictions

CAPTURED = (
    *("captured_at", "key", "prediction", "confidence"),
    *("latency", "version", "request_id"),
)
"""Columns beside the features; no feature may have one of these names."""
EVERY = 0.1
"""Seconds between writes."""
OVERHEAD = 600
"""Bytes that a waiting request takes besides what it holds."""
MOST_WAITING = 64_000_000
"""Bytes that wait for a disk that cannot be written; what comes then is lost, and counted."""
LONGEST_BODY = 256_000
"""Bytes of a refused request that are kept."""
Kind = Literal["answers", "refusals"]

# Times are whole microseconds since 1970, UTC: exact, ordered, and without a format.
_TABLES = """
CREATE TABLE IF NOT EXISTS contracts (
    id INTEGER PRIMARY KEY,
    task TEXT NOT NULL,
    columns TEXT NOT NULL,
    UNIQUE (task, columns)
) STRICT;
CREATE TABLE IF NOT EXISTS answers (
    at INTEGER NOT NULL,
    request_id TEXT NOT NULL,
    contract INTEGER NOT NULL,
    version TEXT NOT NULL,
    latency INTEGER NOT NULL,
    features BLOB NOT NULL,
    unseen TEXT NOT NULL,
    keys TEXT NOT NULL,
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
_CONTRACT = "INSERT OR IGNORE INTO contracts (task, columns) VALUES (?, ?)"
_CONTRACT_ID = "(SELECT id FROM contracts WHERE task = ? AND columns = ?)"
_VALUES: dict[Kind, str] = {
    "answers": f"(?, ?, {_CONTRACT_ID}, ?, ?, ?, ?, ?, ?)",
    "refusals": "(?, ?, ?, ?, ?, ?, ?, ?)",
}
_AT_ONCE = (256, 16, 1)
"""Rows of a statement. After each statement the thread that answers may be interrupted."""
_FIRST, _LAST = -(2**63), 2**63 - 1


class Contract(NamedTuple):
    """What reads the features of an answer.

    Attributes
    ----------
    task : str
        The model's.
    columns : str
        As JSON: each feature in order, and the labels that its codes count from 0, or null for
        numbers.
    """

    task: str
    columns: str


class Unseen(NamedTuple):
    """A label that training has not seen: its place among the features, and itself."""

    row: int
    column: int
    label: str


class _Waiting(NamedTuple):
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

    def answer(
        self,
        *,
        at: int,
        request_id: str,
        contract: Contract,
        version: str,
        latency: int,
        features: Matrix,
        unseen: Sequence[Unseen],
        keys: Sequence[str] | None,
        predictions: Predictions,
    ) -> None:
        """Keep an answered request.

        Parameters
        ----------
        at, latency : int
            When it was answered, and how long that took, in microseconds.
        request_id : str
            Of the request.
        contract : Contract
            What reads the features.
        version : str
            Of the model that answered.
        features : array of float64, shape (n_rows, n_columns)
            Numbers and codes of labels; NaN for what is missing, any for what is unseen.
        unseen : sequence of Unseen
            Labels without a code.
        keys : sequence of str or None
            What the caller calls the rows.
        predictions : array of float64, shape (n_rows,)
            What was answered.
        """
        own = (features.tobytes(), json.dumps(unseen), json.dumps(keys), predictions.tobytes())
        values = (at, request_id, *contract, version, latency, *own)
        self._wait("answers", values, sum(map(len, own)))

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
        size += OVERHEAD
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
                contracts = {one.values[2:4] for one in self._batch if one.kind == "answers"}
                self._connection.executemany(_CONTRACT, contracts)
                for kind in _VALUES:
                    some = [one.values for one in self._batch if one.kind == kind]
                    _insert(self._connection, kind, some)
        except Exception as error:  # noqa: BLE001 -- whatever it is, this thread must go on
            self.problem = f"Captures are not written: {error}."
            return
        self.problem = ""
        self._went += sum(one.size for one in self._batch)
        self._batch = []


def _insert(connection: sqlite3.Connection, kind: Kind, rows: Sequence[tuple[Any, ...]]) -> None:
    done = 0
    for size in _AT_ONCE:
        statement = f"INSERT INTO {kind} VALUES {', '.join([_VALUES[kind]] * size)}"  # noqa: S608
        while done + size <= len(rows):
            some = rows[done : done + size]
            connection.execute(statement, [value for row in some for value in row])
            done += size


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
    with closing(_reading(path)) as connection:
        contracts = {
            contract: (task, json.loads(columns))
            for contract, task, columns in connection.execute("SELECT * FROM contracts")
        }
        query = f"SELECT * FROM answers {_WINDOW}"  # noqa: S608 -- our own words
        found = connection.execute(query, _bounds(start, end))
        names = [column[0] for column in found.description]
        requests = pd.DataFrame(found.fetchall(), columns=names)
    parts = [_rows(some, *contracts[contract]) for contract, some in requests.groupby("contract")]
    whole = pd.concat(parts).sort_index(kind="stable") if parts else _NOTHING
    captured = whole[list(CAPTURED)].astype({"captured_at": "datetime64[us]"})
    return pd.concat([whole.drop(columns=[*CAPTURED]), captured], axis=1).reset_index(drop=True)


_WINDOW = "WHERE at >= ? AND at < ? ORDER BY at, rowid"
_NOTHING = pd.DataFrame({name: pd.Series(dtype="int64") for name in CAPTURED})


def _rows(requests: pd.DataFrame, task: str, columns: dict[str, list[str] | None]) -> pd.DataFrame:
    """The rows of requests that hold the same columns; the index is that of the requests."""
    predictions = [np.frombuffer(one) for one in requests["predictions"]]
    sizes = [len(one) for one in predictions]
    features = np.frombuffer(b"".join(requests["features"])).reshape(-1, len(columns))
    decoded = {
        name: features[:, i] if labels is None else _decoded(features[:, i], labels)
        for i, (name, labels) in enumerate(columns.items())
    }
    starts = np.cumsum([0, *sizes[:-1]])
    for start, unseen in zip(starts, requests["unseen"], strict=True):
        for row, column, label in json.loads(unseen):
            decoded[list(columns)[column]][start + row] = label
    predicted = np.concatenate(predictions)
    keys = [
        key
        for given, request_id, n in zip(
            requests["keys"], requests["request_id"], sizes, strict=True
        )
        for key in (json.loads(given) or [f"{request_id}-{i}" for i in range(n)])
    ]
    told = requests[["at", "latency", "version", "request_id"]]
    told = told.loc[requests.index.repeat(sizes)].rename(columns={"at": "captured_at"})
    sure = np.maximum(predicted, 1 - predicted) if task == "classification" else np.nan
    return pd.DataFrame(decoded, index=told.index).assign(
        **told.assign(latency=told["latency"] / 1e6),
        key=keys,
        prediction=predicted,
        confidence=sure,
    )


def _decoded(codes: Predictions, labels: Sequence[str]) -> np.ndarray:
    """Labels of codes; None for a code that is missing or stands for none."""
    places = np.where(np.isnan(codes), -1, codes).astype(np.intp)
    return np.array([*labels, None], dtype=object)[places]


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
