"""Where log records of a command go: all to a file, and to the terminal what a person needs."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from flows.options import Output
from pipeline.errors import PipelineError
from pipeline.logs import formatter
from pipeline.redaction import RedactedRecord

OURS: Final = ("flows", "pipeline")
"""Packages whose warnings are printed; those of libraries are in the log file only."""
FILE_BYTES: Final = 10_000_000
"""A file that grows beyond this is renamed, and a new one begun; four are kept."""
STATUS: Final = 76
"""Characters of a status line, which must not wrap."""


class _Terminal(logging.Handler):
    """Prints warnings of our own, and shows the latest of all other records as a status line."""

    def __init__(self, status: Status) -> None:
        super().__init__()
        self._status = status

    def emit(self, record: logging.LogRecord) -> None:
        """Show one record."""
        if record.levelno >= logging.WARNING and record.name.startswith(OURS):
            self._status.console.print(
                record.getMessage(), markup=False, highlight=False, soft_wrap=True
            )
        else:
            step = getattr(record, "task_run_name", record.name).rpartition("-")
            line = f"{step[0] or step[2]}: {record.getMessage()}"
            self._status.update(escape(line[:STATUS].splitlines()[0]))


class _Sentences(logging.Formatter):
    """Writes an error that is raised on purpose without its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """One record, as text."""
        error = record.exc_info[1] if record.exc_info else None
        on_purpose = isinstance(error, PipelineError)
        return record.getMessage() if on_purpose else super().format(record)


def log_sentences() -> None:
    """Keep secrets out of all log records, and tracebacks of expected errors out of Prefect's."""
    logging.setLogRecordFactory(RedactedRecord)
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        for handler in logging.getLogger(name).handlers:
            handler.setFormatter(_Sentences())


@contextmanager
def _own_stderr(path: Path) -> Iterator[None]:
    """Send what child processes write to stderr to a file; this process keeps the terminal.

    Prefect's embedded server would print its own tracebacks there, on Ctrl-C for example.
    """
    sys.stderr.flush()
    kept, before = os.dup(2), sys.stderr
    own = os.fdopen(kept, "w", buffering=1, errors="backslashreplace")
    with path.open("ab") as file, own:
        os.dup2(file.fileno(), 2)
        sys.stderr = own
        try:
            yield
        finally:
            os.dup2(kept, 2)
            sys.stderr = before


@contextmanager
def logged(path: Path, output: Output, *, live: bool) -> Iterator[None]:
    """Send log records to a file and to the terminal.

    Parameters
    ----------
    path : Path
        The file; its folder exists.
    output : Output
        Whether the terminal shows every record, with tracebacks, and in which format; records in
        JSON are all shown.
    live : bool
        Whether a status line shows what happens meanwhile, where stderr is a terminal.
    """
    import prefect  # noqa: F401, PLC0415 -- it sets up logging when imported; this comes after

    status = Status("starting", console=Console(stderr=True))
    every = output.verbose or output.log_format == "json"
    terminal = logging.StreamHandler() if every else _Terminal(status)
    _handle(path, terminal, formatter(output.log_format))
    with (
        nullcontext() if every else _own_stderr(path),
        status if live and not every and status.console.is_terminal else nullcontext(),
    ):
        yield


def _handle(path: Path, terminal: logging.Handler, form: logging.Formatter) -> None:
    """Give the root logger a log file and the terminal until this process ends."""
    logging.setLogRecordFactory(RedactedRecord)
    file = RotatingFileHandler(path, maxBytes=FILE_BYTES, backupCount=3, encoding="utf-8")
    for handler in (file, terminal):
        handler.setFormatter(form)
    for package in OURS:
        logging.getLogger(package).setLevel(logging.INFO)
    logging.getLogger().handlers[:] = [file, terminal]
    logging.captureWarnings(capture=True)
