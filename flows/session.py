"""What a command does around its flow: settings, environment, log file, exit code."""

import errno
import logging
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from rich.console import Console

from flows.logs import logged
from flows.options import PLAIN, Output
from pipeline.errors import (
    ConfigError,
    DataError,
    PipelineError,
    UnavailableError,
    trouble,
)
from pipeline.redaction import redacted

if TYPE_CHECKING:
    from pipeline.config import Settings

FAILED, REFUSED, INTERRUPTED = 1, 2, 130
"""Exit codes: the work failed, its input was refused, it was ended with Ctrl-C."""

_DISK = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.EFBIG, errno.EIO),
    *(errno.ENAMETOOLONG, errno.ELOOP),
}
"""Errors of a disk that is full, read-only or in disorder."""
MIB = 2**20
_ROOM = 64
"""MiB on disk that a command needs at least."""
_LOG = logging.getLogger("command")


class UnexpectedError(Exception):
    """An error that nobody foresaw, as one line that names the log file."""


@contextmanager
def session(conf: str, output: Output = PLAIN, *, live: bool = True) -> Iterator["Settings"]:
    """Settings of a model, read and checked before any server starts.

    Parameters
    ----------
    conf : str
        The model's YAML file.
    output : Output
        What the terminal shows of what is logged.
    live : bool
        Whether a status line shows what happens meanwhile, where stderr is a terminal.

    Raises
    ------
    PipelineError
        If the configuration, the data, the registry or a server stands in the way.
    UnexpectedError
        In place of any other exception.
    """
    from pipeline.config import Settings  # noqa: PLC0415 -- it imports pandas

    try:
        settings = Settings.load(conf)
        log = _log_file(settings)
    except (ConfigError, UnavailableError):
        if output.verbose:
            sys.stderr.write(redacted(traceback.format_exc()))
        raise
    os.environ.setdefault("PREFECT_HOME", str(log.parents[1] / "prefect"))
    if not os.environ.get("PREFECT_API_URL"):
        _check_prefect_store()
    with _ended_by_interrupt(), logged(log, output, live=live):
        try:
            yield settings
        except Exception as error:
            _LOG.error("The command failed.", exc_info=True)
            if isinstance(error, PipelineError):
                raise
            raise _explained(error, log) from error


@contextmanager
def _ended_by_interrupt() -> Iterator[None]:
    """End this process at once on Ctrl-C, which ends Prefect's embedded server as well.

    Prefect would try for two minutes to report the interrupt to the server that is gone. The next
    run finds whatever was cut off, and finishes it. Where PREFECT_API_URL names a server, Prefect
    reports to it and nothing changes here.
    """
    if os.environ.get("PREFECT_API_URL"):
        yield
        return
    before = signal.signal(signal.SIGINT, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end(*_: object) -> None:
    Console(stderr=True).show_cursor()
    with suppress(OSError, RuntimeError, ValueError):  # closed, or interrupted while it was written
        sys.stdout.flush()
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            child.terminate()
    os._exit(INTERRUPTED)


def exit_code(error: Exception) -> int:
    """2 for an error that whoever gave the configuration or the data has to mend, else 1."""
    return REFUSED if isinstance(error, ConfigError | DataError) else FAILED


def open_standard_streams() -> None:
    """Open what the caller has closed, so that nothing else takes its place."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")


def output_failed(error: OSError) -> UnexpectedError | None:
    """Give stdout up; what to say about it, or None if the reader of a pipe has seen enough."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if isinstance(error, BrokenPipeError):
        return None
    return UnexpectedError(f"The output cannot be written ({error}).")


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Send what this process and its children print to stderr, so that stdout stays clean."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def _log_file(settings: "Settings") -> Path:
    """Path of the log in the state folder, which is made if it does not exist."""
    folder = settings.tracking.folder.resolve() / "logs"
    file = folder / "holdfast.log"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file.open("a").close()
    except OSError as error:
        message = f"tracking.folder must be a writable folder. Got: {error}. Name another one."
        raise ConfigError(message) from error
    _require_room(folder, "tracking.folder")
    return file


def _require_room(folder: Path, setting: str) -> None:
    """Refuse a full disk: Prefect's and MLflow's stores would be waited for, or cut."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(there).free // MIB
    if free < _ROOM:
        message = (
            f"The disk of {folder} must have {_ROOM} MiB of room. Got {free} MiB. Make room, or "
            f"name another {setting}."
        )
        raise UnavailableError(message)


def _check_prefect_store() -> None:
    """Refuse a store of Prefect whose server would be waited for in vain: damaged, or no room."""
    home = Path(os.environ["PREFECT_HOME"]).expanduser()
    if found := trouble(home):
        message = f"{' '.join(found)} It is for PREFECT_HOME."
        raise UnavailableError(message)
    _require_room(home, "PREFECT_HOME")
    store = home / "prefect.db"
    if not store.is_file():
        return
    with store.open("rb") as file:
        begin = file.read(16)
    if begin not in {b"", b"SQLite format 3\0"}:
        message = (
            f"Prefect's store {store} is damaged. Remove it: it holds the "
            "history of runs only, and MLflow keeps versions and batches."
        )
        raise UnavailableError(message)


def _explained(error: Exception, log: Path) -> Exception:
    """What a person is shown in place of an exception that is not ours."""
    if "Failed to reach API" in str(error):  # Prefect raises a RuntimeError
        message = (
            f"Prefect's API at {os.environ.get('PREFECT_API_URL')} does not answer. "
            "Start its server with `holdfast up`, or unset PREFECT_API_URL to run without one."
        )
        return UnavailableError(message)
    if isinstance(error, OSError) and error.errno in _DISK:
        message = (
            f"The disk does not take what has to be written ({error}). Mend that and run the "
            "command again; what was recorded so far stays."
        )
        return UnavailableError(message)
    what = redacted(" ".join(f"{type(error).__name__}: {error}".split()))[:500].rstrip(".:")
    return UnexpectedError(f"{what}. The whole traceback is in {log}.")
