"""One at a time: a lock that dies with its process, between hosts where PostgreSQL keeps it."""

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from pipeline.errors import UnavailableError

PATIENCE = 3_600.0
"""Seconds to wait for another process."""
_SOONEST, _LATEST = 0.02, 1.0
"""Seconds between two tries, at first and later."""


@contextmanager
def exclusive(
    name: str, *, folder: Path, database: str | None, patience: float = PATIENCE
) -> Iterator[None]:
    """Hold the lock of that name, and let it go at the end, however the process ends.

    Parameters
    ----------
    name : str
        What may happen once at a time, as ``flights-train``.
    folder : Path
        Holds the lock's file where there is no database; it then counts on one host.
    database : str or None
        PostgreSQL's address; it then counts on all hosts.
    patience : float
        Seconds to wait for whoever holds it.

    Raises
    ------
    UnavailableError
        If it is not free in time, or the database does not answer.
    """
    with _advisory(database, name, patience) if database else _file(folder, name, patience):
        yield


@contextmanager
def _file(folder: Path, name: str, patience: float) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.lock").open("a") as file:

        def taken() -> bool:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        _wait(taken, name, patience)
        yield


@contextmanager
def _advisory(database: str, name: str, patience: float) -> Iterator[None]:
    question = sa.text("select pg_try_advisory_lock(hashtextextended(:name, 0))")
    try:
        engine = sa.create_engine(database, poolclass=sa.pool.NullPool)
        connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    except ImportError as error:
        message = f"PostgreSQL needs its driver. Got: {error}. Install holdfast[postgres]."
        raise UnavailableError(message) from error
    except sa.exc.SQLAlchemyError as error:
        cause = type(error.__cause__ or error).__name__
        message = f"The database of locks must answer. Got {cause}. Start it: tracking.locks."
        raise UnavailableError(message) from error
    with connection:
        _wait(lambda: bool(connection.scalar(question, {"name": name})), name, patience)
        yield


def _wait(taken: Callable[[], bool], name: str, patience: float) -> None:
    end, pause = time.monotonic() + patience, _SOONEST
    while not taken():
        if time.monotonic() > end:
            message = (
                f"The lock {name!r} must be free within {patience:g} seconds. Another process "
                "holds it. Wait for that one, or end it."
            )
            raise UnavailableError(message)
        time.sleep(pause)
        pause = min(2 * pause, _LATEST)
