"""A draft as the text of a YAML file, with its reasons as comments."""

from itertools import groupby
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline.config import Categorical, Numeric, spelled
from pipeline.drafting.drafts import Draft, spelled_arrival
from pipeline.drafting.judging import Kept
from pipeline.drafting.sourcing import written

_WIDEST, _NAME = 80, 32
"""Characters before the comments of neighbouring lines, and of the names of features."""


def text_of(draft: Draft, name: str, named: str) -> str:
    """Write a draft as the YAML file of a model.

    Parameters
    ----------
    draft : Draft
        The configuration.
    name : str
        Name of the model.
    named : str
        The source as a person named it, without secrets.
    """
    source, secret = written(draft.source)
    path, params, why = draft.estimator
    names = [f"{_flow(one.name)}:" for one in draft.kept]
    width = min(max(map(len, names)), _NAME)
    text = _TEMPLATE.render(
        draft=draft,
        name=name,
        named=named,
        source=_source(source),
        secret=secret,
        arrival=None if draft.arrival is None else spelled_arrival(draft.arrival),
        features=[
            (f"    {named:<{width}} {_column(one)}", one.comment)
            for named, one in zip(names, draft.kept, strict=True)
        ],
        estimator=path,
        params=params,
        why=why,
        plan=draft.plan,
    )
    return _aligned(text)


def _source(source: dict[str, Any]) -> str:
    """A source on one line, or a query of several lines as such."""
    query = source.get("query", "")
    if "\n" not in query or not all(line.isprintable() for line in query.splitlines()):
        return f" {_flow(source)}"
    lines = [f"    {name}: {_flow(source[name])}" for name in ("kind", "url")]
    lines += ["    query: |-", *(f"      {line}" for line in query.splitlines())]
    return "\n" + "\n".join(lines)


def _column(one: Kept) -> str:
    column = one.column
    values: dict[str, Any] = {"type": column.type}
    if isinstance(column, Categorical) and column.values is not None:
        values["values"] = list(column.values)
    if isinstance(column, Numeric):
        limits = {"min": column.min, "max": column.max}
        values |= {name: int(value) for name, value in limits.items() if value is not None}
    if column.nullable:
        values["nullable"] = True
    return _flow(values)


def _flow(value: Any) -> str:
    """A value on one line of YAML, quoted where it has to be."""
    text: str = yaml.safe_dump(
        value, default_flow_style=True, sort_keys=False, width=10**6, allow_unicode=True
    )
    return text.removesuffix("\n").removesuffix("\n...")


def _one_line(text: Any) -> str:
    plain = "".join(char if char.isprintable() else " " for char in str(text))
    return " ".join(plain.split())


def _aligned(text: str) -> str:
    """Put the comments of neighbouring lines below one another; a mark stands before each."""
    pairs = [line.partition(_MARK) for line in text.splitlines()]
    done: list[str] = []
    for marked, run in groupby(pairs, key=lambda parts: bool(parts[1])):
        lines = [(before.rstrip(), after.strip()) for before, _, after in run]
        short = [len(before) for before, _ in lines if len(before) <= _WIDEST]
        width = max(short, default=0)
        done += [f"{before:<{width}}  # {after}" if marked else before for before, after in lines]
    return "\n".join(done) + "\n"


_MARK = "\x00"
_ENVIRONMENT = Environment(  # noqa: S701 -- the text is YAML, and each value is quoted for it
    loader=PackageLoader("pipeline.drafting"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_ENVIRONMENT.filters |= {"flow": _flow, "line": _one_line, "spelled": spelled}
_ENVIRONMENT.globals |= {"mark": _MARK}
_TEMPLATE = _ENVIRONMENT.get_template("conf.yaml.j2")
