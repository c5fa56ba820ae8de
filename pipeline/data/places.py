"""Where the files of a source are: on disk, or at any fsspec address."""

import lzma
import re
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from itertools import takewhile
from typing import Any
from urllib.parse import unquote
from zipfile import BadZipFile

import fsspec

from pipeline.errors import DataError, PipelineError, UnavailableError, first_line

UNREADABLE = (OSError, EOFError, zlib.error, lzma.LZMAError, BadZipFile, tarfile.TarError)
"""What is raised where files and archives cannot be read."""
_NULL_KEY = "__HIVE_DEFAULT_PARTITION__"
_LATER = {408, 429}
"""HTTP status of a server that asks to be called again later."""
_SERVER_ERROR = 500
"""The first HTTP status that blames the server."""
_SILENCE = 60
"""Seconds that a web server may say nothing; other protocols have bounds of their own."""
_AWAY = re.compile("Connect|Disconnect|Timeout|Payload|gaierror")
"""Errors of those who get no answer, or half of one; each library of a protocol has its own."""
_HIDDEN = re.compile(r"/\.|/_[^/]*/")
"""Files such as ._a.csv and folders such as _temporary, which a wildcard does not mean."""

Found = tuple[fsspec.AbstractFileSystem, list[tuple[str, dict[str, str | None]]]]
"""A file system, and its files in the order of their names, each with its partition keys."""


def find(path: str) -> Found:
    """Find the files of a path.

    Raises
    ------
    DataError
        If no file matches, or the place cannot be reached as it is named.
    UnavailableError
        If a server does not answer, or only with an error of its own.
    """
    try:
        filesystem, pattern = fsspec.core.url_to_fs(path, **_bounds(path))
        # A name may hold `[`, which a glob would take for a set of characters.
        exact = filesystem.exists(pattern)
        matched = _matched(filesystem, pattern, exact=exact)
        if not matched and path.startswith(("http://", "https://")):
            # Whatever a server answers, fsspec takes for a file that is not there.
            with suppress(FileNotFoundError):
                filesystem.cat_file(path, start=0, end=1)
    except Exception as error:  # libraries of protocols have their own
        if (elsewhere := unreached(path, error)) is not None:
            raise elsewhere from error
        if not isinstance(error, (ImportError, ValueError, TypeError, *UNREADABLE)):
            raise
        message = (  # a host may be missing
            f"File source {path!r} cannot be reached ({first_line(error)}). "
            "Correct its path, or install what its protocol needs."
        )
        raise DataError(message) from error
    found = sorted(matched)
    if not found:
        message = f"No file matches the file source {path!r}. Correct its path."
        raise DataError(message)
    # A pipe would be waited for.
    others = [name for name in found if matched[name]["type"] == "other"]  # links are as well
    if odd := [name for name in others if not filesystem.isfile(name)]:
        message = f"File source {path!r} must hold files. Got {odd[0]!r}, which is none. Remove it."
        raise DataError(message)
    return filesystem, [(name, _keys(_below(name, pattern, exact=exact))) for name in found]


def _bounds(path: str) -> dict[str, Any]:
    """Options of the protocols of a path that end the wait for a web server that is silent.

    Without them aiohttp would end each read after five minutes, even one that goes on.
    """
    protocols = [name for name in ("http", "https") if f"{name}://" in path]
    if not protocols:
        return {}
    from aiohttp import ClientTimeout  # noqa: PLC0415 -- fsspec says what to install without it

    bound = ClientTimeout(total=None, sock_connect=_SILENCE, sock_read=_SILENCE)
    given = {name: fsspec.config.conf.get(name, {}).get("client_kwargs", {}) for name in protocols}
    return {name: {"client_kwargs": {"timeout": bound} | given[name]} for name in protocols}


def _matched(filesystem: fsspec.AbstractFileSystem, pattern: str, *, exact: bool) -> dict[str, Any]:
    """Facts of the files of a name or a pattern, and of those of folders."""
    if exact:
        matched = {pattern: filesystem.info(pattern)}
    else:
        matched = _shown(filesystem.glob(pattern, detail=True), pattern)
    folders = [name for name, facts in matched.items() if facts["type"] == "directory"]
    for folder in folders:
        matched |= _files_of(filesystem, folder)
    return {name: facts for name, facts in matched.items() if name not in folders}


def unreached(place: str, error: BaseException) -> PipelineError | None:
    """What to say of a server that did not hand over a file; None: it is no server's error.

    Parameters
    ----------
    place : str
        The path or file that was asked for.
    error : exception
        What was raised, perhaps from what a library raised.
    """
    raised = list(_causes(error))
    found = [getattr(one, "status", None) for one in raised]
    statuses = [status for status in found if isinstance(status, int)]
    away = [one for one in raised if any(_AWAY.search(kind.__name__) for kind in type(one).__mro__)]
    if not statuses and not away:
        return None
    later = bool(away)
    said = [*(one for one in away if str(one)), *away]  # fsspec's own of a timeout says nothing
    got = f"HTTP {statuses[0]}" if statuses else first_line(said[0])
    if statuses:
        later = statuses[0] >= _SERVER_ERROR or statuses[0] in _LATER
    message = f"File source {place!r} cannot be read ({got}). Check its server and its path."
    return UnavailableError(message) if later else DataError(message)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__


def _files_of(filesystem: fsspec.AbstractFileSystem, folder: str) -> dict[str, Any]:
    """Facts of all files of a folder but those that engines hide, such as _SUCCESS."""
    inside = len(_parts(folder))
    return {
        name: facts
        for name, facts in filesystem.find(folder, detail=True).items()
        if not any(part.startswith(("_", ".")) for part in _parts(name)[inside:])
    }


def _shown(matched: dict[str, Any], pattern: str) -> dict[str, Any]:
    """What a pattern matches without what shells and engines hide, unless it asks for that."""
    if _HIDDEN.search(_rest(pattern, pattern)):
        return matched
    return {
        name: facts
        for name, facts in matched.items()
        if not _HIDDEN.search(_rest(name, pattern) + "/" * (facts["type"] == "directory"))
    }


def _rest(name: str, pattern: str) -> str:
    return "".join(f"/{part}" for part in _below(name, pattern, exact=False))


def _below(name: str, pattern: str, *, exact: bool) -> list[str]:
    """The parts of a name below what its pattern says without wildcards."""
    parts = _parts(pattern)
    fixed = parts if exact else list(takewhile(lambda part: not set(part) & set("*?["), parts))
    return _parts(name)[len(fixed) :]


def _parts(name: str) -> list[str]:
    return [part for part in name.split("/") if part]


def _keys(parts: list[str]) -> dict[str, str | None]:
    """Columns that folders name, as in `month=2013-02`."""
    pairs = [part.partition("=") for part in parts[:-1] if "=" in part]
    return {
        unquote(name): None if value in ("", _NULL_KEY) else unquote(value)
        for name, _, value in pairs
    }
