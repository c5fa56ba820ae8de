"""The weekly note about refused requests: what they break, who sends them, new labels."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from pipeline.reporting.rendering import markdown

MOST = 10
"""Lines of a table."""
OFTEN = 3
"""Requests that must name a label before it counts as more than a typing error."""


@dataclass(frozen=True)
class Table:
    """The most frequent values of one kind, this week and the week before.

    Attributes
    ----------
    what : str
        What is counted.
    lines : list of (str, int, int)
        Value, times it was seen this week, and the change since the week before.
    rest : int
        Further values that the table does not show.
    """

    what: str
    lines: list[tuple[str, int, int]]
    rest: int


def weekly_note(
    refused: pd.DataFrame, before: pd.DataFrame, known: Mapping[str, Sequence[str]], conf: str
) -> str:
    """Describe the refused requests of a week in Markdown.

    Parameters
    ----------
    refused, before : DataFrame
        Refused requests of the week and of the week before, as `read_refusals` returns them.
    known : mapping of str to sequence of str
        Labels of each categorical column that the served version knows.
    conf : str
        Path of the model's file, for the commands.
    """
    now, then = _problems(refused), _problems(before)
    return markdown(
        "refusals_note.md.j2",
        refused=len(refused),
        before=len(before),
        tables=[
            _table("reason", map(_reason, now), map(_reason, then)),
            _table("column", map(_column, now), map(_column, then)),
            _table("caller", refused["caller"], before["caller"]),
        ],
        labels=list(_new_labels(refused, known))[:MOST],
        conf=conf,
    )


def most_frequent(refused: pd.DataFrame) -> dict[str, int]:
    """How often each of the most frequent reasons was given, the most frequent first."""
    return dict(Counter(map(_reason, _problems(refused))).most_common(MOST))


def _problems(refused: pd.DataFrame) -> list[dict[str, Any]]:
    return [problem for problems in refused["problems"] for problem in problems]


def _reason(problem: Mapping[str, Any]) -> str:
    return f"{problem['column'] or 'the request'}: {problem['rule']}"


def _column(problem: Mapping[str, Any]) -> str:
    return problem["column"] or "(the request)"


def _table(what: str, now: Iterable[str], then: Iterable[str]) -> Table:
    counted, before = Counter(now), Counter(then)
    lines = [(name, n, n - before[name]) for name, n in counted.most_common(MOST)]
    return Table(what, lines, len(counted) - len(lines))


def _new_labels(
    refused: pd.DataFrame, known: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, str, int]]:
    """Columns and labels that several requests name and that are no spelling of a known label."""
    named: Counter[tuple[str, str]] = Counter()
    for problems in refused["problems"]:
        named.update({(one["column"], one["got"]) for one in problems if one["code"] == "label"})
    for (name, got), n in named.most_common():
        label = got.strip("'\"")
        spellings = {_plain(one) for one in known.get(name, ())}
        if n >= OFTEN and _plain(label) not in spellings | {""} and label.isprintable():
            yield name, label, n


def _plain(label: str) -> str:
    return "".join(label.casefold().split())
