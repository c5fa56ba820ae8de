"""Draft the configuration of a model from a table, and write it."""

import os
import re
import shlex
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.config import NAME, FileSource, Settings, Source, spelled
from pipeline.data import sources
from pipeline.data.places import find
from pipeline.drafting import drafts, sourcing, writing
from pipeline.errors import ConfigError
from pipeline.redaction import redacted

FOLDER = Path("conf")


def init(
    source: str,
    target: str,
    *,
    query: str | None = None,
    time: str | None = None,
    key: str | None = None,
    name: str | None = None,
) -> dict[str, Any]:
    """Write `conf/NAME.yaml` for a table; a file that exists is never overwritten.

    Raises
    ------
    ConfigError
        If the file exists, or the source or the name cannot be used.
    """
    chosen = sourcing.source_of(source, query)
    name = name or sourcing.name_of(chosen, source)
    if not re.fullmatch(NAME, name):
        message = f"--name must be made of a-z, 0-9 and -, and begin with a letter. Got {name!r}."
        raise ConfigError(message)
    path = FOLDER / f"{name}.yaml"
    if path.exists():
        message = f"{path} exists already. Choose another name with --name, or remove the file."
        raise ConfigError(message)
    today = pd.Timestamp.now("UTC").tz_localize(None).normalize()
    rows = sources.read(chosen, time=None)
    draft = drafts.draft(rows, chosen, target, time=time, key=key, today=today)
    _write(path, writing.text_of(draft, name, redacted(source)))
    _keep_apart(chosen, path)
    return _summary(draft, path)


def _write(path: Path, text: str) -> None:
    """Write a configuration and read it; one that cannot be loaded does not stay."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("x", encoding="utf-8") as file:
        file.write(text)
    try:
        Settings.load(path)
    except ConfigError:
        path.unlink()
        raise


def _keep_apart(source: Source, path: Path) -> None:
    """Check that a configuration does not lie among the rows; one that does is removed.

    Raises
    ------
    ConfigError
        If it does, as where the source is the current folder.
    """
    if not isinstance(source, FileSource):
        return
    written = str(path.resolve())
    if all(os.path.realpath(name) != written for name, _ in find(source.path)[1]):
        return
    path.unlink()
    message = (
        f"SOURCE must hold rows alone. Got {source.path!r}, which would hold {path} as well. Name "
        "the files, as in './*.csv', or a folder of their own."
    )
    raise ConfigError(message)


def _summary(draft: drafts.Draft, path: Path) -> dict[str, Any]:
    source, conf = draft.source, shlex.quote(str(path))
    options = {"sep", "decimal", "encoding", "na_values", "date_format"}
    read = source.model_dump(mode="json", include=options, exclude_defaults=True)
    commands = [f"holdfast {verb} {conf}" for verb in ("train", "monitor", "serve")]
    return {
        "conf": str(path),
        "task": draft.target.task,
        "rows": draft.rows,
        "columns": draft.columns,
        "options": read if isinstance(source, FileSource) else {},
        "target": draft.target.name,
        "time": draft.roles.time,
        "sorted_by": draft.sorted_by,
        "key": draft.roles.key,
        "key_unique": draft.roles.key_unique,
        "features": [one.name for one in draft.kept],
        "left_out": {one.name: one.why for one in draft.left_out},
        "batch": spelled(draft.plan.batch),
        "until": draft.plan.until.isoformat(),
        "next": commands,
    }
