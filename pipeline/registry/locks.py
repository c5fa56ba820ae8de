"""Locks that one process holds at a time and that are released when it ends or is killed.

With a PostgreSQL database they work between hosts, else between the processes of one host.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock
import sqlalchemy as sa

from pipeline.errors import UnavailableError, writing

PATIENCE = 3_600.0
"""Seconds to wait for another process."""
_POLL = 0.1
"""Seconds between two tries to lock a file."""
_SHORTEST, _LONGEST = 0.02, 1.0
"""Seconds between two questions to a database, at first and later."""


@contextmanager
def exclusive(
    name: str, *, folder: Path, database: str | None, patience: float = PATIENCE
) -> Iterator[None]:
    """Hold a named lock for the length of a with block.

    Parameters
    ----------
    name : str
        What only one process may do at a time, such as ``flights-train``.
    folder : Path
        Where the lock's file is kept without a database; the lock then works on one host.
    database : str or None
        Address of a PostgreSQL database; the lock then works on all hosts that use it.
    patience : float
        Seconds to wait for the process that holds the lock.

    Raises
    ------
    UnavailableError
        If the lock is not free in time, or the database does not answer.
    RegistryError
        If the lock's file cannot be written.
    """
    with _advisory(database, name, patience) if database else _file(folder, name, patience):
        yield


@contextmanager
def _file(folder: Path, name: str, patience: float) -> Iterator[None]:
    # Without `flock`, a soft lock would outlive a killed process: better none than that.
    lock = filelock.FileLock(folder / f"{name}.lock", fallback_to_soft=False)
    with writing(folder):
        try:
            lock.acquire(timeout=patience, poll_interval=_POLL)
        except filelock.Timeout as error:
            raise _taken(name, patience) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _advisory(database: str, name: str, patience: float) -> Iterator[None]:
    with _connection(database) as connection:
        question = sa.text("select pg_try_advisory_lock(hashtextextended(:name, 0))")
        end, pause = time.monotonic() + patience, _SHORTEST
        try:
            while not connection.scalar(question, {"name": name}):
                if time.monotonic() > end:
                    raise _taken(name, patience)
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST)
        except (sa.exc.SQLAlchemyError, OSError) as error:  # as pg8000 raises when cut off
            raise _away(error) from error
        yield


def _connection(database: str) -> sa.Connection:
    try:
        # Not an option of the connection: to take that back fails when the database is gone.
        engine = sa.create_engine(
            database, poolclass=sa.pool.NullPool, isolation_level="AUTOCOMMIT"
        )
        return engine.connect()
    except ImportError as error:
        message = (
            f"The PostgreSQL driver of tracking.locks is not installed ({error}). "
            "Install holdfast[postgres]."
        )
        raise UnavailableError(message) from error
    except (sa.exc.SQLAlchemyError, OSError) as error:
        raise _away(error) from error


def _away(error: Exception) -> UnavailableError:
    return UnavailableError(
        "The PostgreSQL database of tracking.locks does not answer "
        f"({type(error.__cause__ or error).__name__}). Start it, or correct its address."
    )


def _taken(name: str, patience: float) -> UnavailableError:
    return UnavailableError(
        f"Another process has held the lock {name!r} for more than {patience:g} seconds. "
        "Wait until it ends, or end it."
    )
