"""The store of answered and refused requests: its schema, and how it is read back."""

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

CAPTURED = (
    *("captured_at", "key", "prediction", "confidence"),
    *("latency", "version", "request_id"),
)
"""Columns beside the features; no feature may have one of these names."""


# Times are whole microseconds since 1970, UTC: exact, ordered, and without a format.
SCHEMA = """
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


_FIRST, _LAST = -(2**63), 2**63 - 1


class Layout(NamedTuple):
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


def _decoded(codes: NDArray[np.float64], labels: Sequence[str]) -> np.ndarray:
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
