"""The errors that Holdfast raises on purpose: one class for each person who must act.

PipelineError
├── ConfigError        the author of conf/<model>.yaml
├── DataError          the owner of the data: a whole batch or source cannot be used
├── RegistryError      the operator of MLflow, or the person who promotes versions
└── UnavailableError   nobody yet: a server or disk does not answer, a retry may succeed

A refused row raises nothing; `validation.validate` returns it with its reason. Messages quote
errors of libraries, which quote addresses: what is secret is left out here.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote

from pipeline.redaction import redacted

_LONGEST = 200


def first_line(error: BaseException | None) -> str:
    """Shorten the message of a foreign error to its first line, without secrets and full stop."""
    text = str(error)
    if error is not None and error.args and isinstance(error.args[0], dict):
        text = str(error.args[0].get("M", text))  # as pg8000 hands on what PostgreSQL answers
    line = next(iter(text.strip().splitlines()), type(error).__name__)
    # A text that is cut first could end within a secret that is not recognised any more.
    return redacted(line)[:_LONGEST].rstrip(".")


class PipelineError(Exception):
    """Anything that Holdfast refuses to do; the message says what happened and how to cure it."""

    def __init__(self, message: str) -> None:
        super().__init__(redacted(message))


class ConfigError(PipelineError):
    """A model's YAML file, or an environment variable that overrides it, cannot be used.

    Attributes
    ----------
    problems : tuple of str
        One sentence for each mistake of a file, with its line; empty: the message is the mistake.
    """

    def __init__(self, message: str, problems: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


class DataError(PipelineError):
    """A source, or a whole batch of rows, cannot be used."""


class RegistryError(PipelineError):
    """A version, an alias or a stored artifact is missing, damaged or not in the right state."""


class UnavailableError(PipelineError):
    """A service does not answer. Flows retry after this error and after no other."""


def trouble(folder: Path) -> tuple[str, str] | None:
    """What keeps a folder, or one above it, from being written, and its cure; None: nothing."""
    there = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    if not there.is_dir():
        what = f"{there} must be a folder. It is a file or a link that leads nowhere."
        return what, f"Move it away: `mv {quote(str(there))} {quote(f'{there}.old')}`."
    if not os.access(there, os.W_OK | os.X_OK):
        what = f"{there} must be a writable folder. This user may not write there."
        return what, f"Let this user write there: `chmod u+rwx {quote(str(there))}`, or `chown` it."
    return None


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Make a folder, and report whatever the disk refuses meanwhile.

    Raises
    ------
    RegistryError
        In place of an `OSError`, with its cure.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        what, cure = trouble(folder) or (
            f"{folder} cannot be written ({first_line(error)}).",
            "Make room on its disk, or mend it.",
        )
        message = f"{what} {cure}"
        raise RegistryError(message) from error
