"""What a person names as the source of a table, as the source of a configuration."""

import re
from pathlib import Path, PurePosixPath
from typing import Any, Final

import sqlalchemy as sa
from pydantic import TypeAdapter, ValidationError

from pipeline.config import FileSource, Source, SqlSource
from pipeline.data import dialects
from pipeline.errors import ConfigError, first_line

_SOURCE: Final[TypeAdapter[Source]] = TypeAdapter(Source)
_FUNCTION: Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_FROM: Final = re.compile(r'\bfrom\s+["`\[]?([\w.]+)', re.IGNORECASE)
_SECRET: Final = re.compile(r"pass|secret|token|pwd|key", re.IGNORECASE)


def source_of(named: str, query: str | None) -> Source:
    """The source that a person names: files, a database with its query, or a function.

    Parameters
    ----------
    named : str
        A path, glob, folder or fsspec URL, ``package.module:function``, or an SQLAlchemy URL.
    query : str, optional
        A SELECT statement, for a database only.

    Raises
    ------
    ConfigError
        If a database lacks its query, a function cannot be imported, or a URL makes no sense.
    DataError
        If no file matches.
    """
    if query is not None:
        return _checked({"kind": "sql", "url": _url(named).render_as_string(False), "query": query})
    if _FUNCTION.fullmatch(named) and not Path(named).exists():
        return _checked({"kind": "function", "function": named})
    if _is_database(named):
        message = (
            f"A database needs the query that returns its rows. Got {_hidden(named)!r} alone. Add "
            '--query "SELECT ...".'
        )
        raise ConfigError(message)
    return _checked({"kind": "file", "path": named} | dialects.dialect(named))


def _checked(values: dict[str, Any]) -> Source:
    try:
        return _SOURCE.validate_python(values)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]["msg"]
        message = f"SOURCE cannot be used: {problem.removeprefix('Value error, ')}. Correct it."
        raise ConfigError(message) from None
    except Exception as error:
        message = f"Importing the function of SOURCE raised {error!r}. Fix that module."
        raise ConfigError(message) from error


def _url(named: str) -> sa.URL:
    try:
        return sa.make_url(named)
    except sa.exc.ArgumentError as error:
        message = f"SOURCE must be an SQLAlchemy URL where --query is given. {first_line(error)}."
        raise ConfigError(message) from None


def _is_database(named: str) -> bool:
    scheme = named.partition("://")[0].partition("+")[0] if "://" in named else ""
    return scheme in {"sqlite", "postgresql", "mysql", "mariadb", "mssql", "oracle", "snowflake"}


def _hidden(named: str) -> str:
    return re.sub(r"//[^@/]*@", "//***@", named)


def name_of(source: Source, named: str) -> str:
    """A name for the model, from the name of its source."""
    if isinstance(source, SqlSource):
        table = _FROM.search(source.query)
        stem = table[1] if table else PurePosixPath(_url(named).database or "").stem
    elif isinstance(source, FileSource):
        fixed = [part for part in PurePosixPath(named).parts if not set(part) & set("*?[:")]
        stem = (fixed[-1] if fixed else "").partition(".")[0]
    else:
        module, _, function = named.partition(":")
        stem = module.rpartition(".")[2] if function in {"rows", "read", "load"} else function
    fitted = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:100]
    return fitted if fitted[:1].isalpha() else f"model-{fitted}".strip("-")


def written(source: Source) -> tuple[dict[str, Any], bool]:
    """A source as a file names it, and whether a secret was left out of it."""
    if isinstance(source, SqlSource):
        url = sa.make_url(source.url.get_secret_value())
        query = {name: value for name, value in url.query.items() if not _SECRET.search(name)}
        # `url.set` would keep a password that is set to None.
        parts = url.drivername, url.username, None, url.host, url.port, url.database, query
        safe = sa.URL.create(*parts)
        text = safe.render_as_string(hide_password=False)
        return {"kind": "sql", "url": text, "query": source.query}, safe != url
    return source.model_dump(mode="json", exclude_defaults=True) | {"kind": source.kind}, False


def windowed(source: Source, time: str | None) -> Source:
    """A query that returns only the rows of a window, if the query does not bind it itself.

    Parameters
    ----------
    source : Source
        Of any kind; only queries are changed.
    time : str or None
        The time column.
    """
    if not isinstance(source, SqlSource) or time is None or ":start" in source.query:
        return source
    dialect = sa.make_url(source.url.get_secret_value()).get_dialect()()
    column = dialect.identifier_preparer.quote(time).replace(":", r"\:")
    inner = source.query.strip().rstrip(";").strip()
    gap = "\n" if "\n" in inner or "--" in inner else ""
    inside = f"{column} >= :start AND {column} < :end OR {column} IS NULL"
    query = f"SELECT * FROM ({gap}{inner}{gap}) AS all_rows{gap or ' '}WHERE {inside}"  # noqa: S608 -- their own
    return source.model_copy(update={"query": query})
