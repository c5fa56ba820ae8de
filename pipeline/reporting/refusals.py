"""Refused requests of a week, as one page: what they break, who sends them, what seems new."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

MOST = 10
"""Lines of a table."""
OFTEN = 3
"""Requests that name a label before it is taken for more than a slip."""
_LONGEST = 40


def weekly_page(
    refused: pd.DataFrame, before: pd.DataFrame, known: Mapping[str, Sequence[str]]
) -> str:
    """The page of a week in Markdown.

    Parameters
    ----------
    refused, before : DataFrame
        Refused requests of the week and of the one before it, as `read_refusals` gives them.
    known : mapping of str to sequence of str
        Labels of each categorical column that the served version knows.
    """
    now, then = _problems(refused), _problems(before)
    lines = [
        f"{len(refused):,} requests were refused; {len(before):,} in the week before.",
        "",
        *_table("reason", Counter(map(_reason, now)), Counter(map(_reason, then))),
        *_table("column", Counter(map(_column, now)), Counter(map(_column, then))),
        *_table("caller", Counter(refused["caller"]), Counter(before["caller"])),
    ]
    new = list(_new_labels(refused, known))
    if new:
        lines += ["| may be a new label | of column | requests |", "|---|---|---|"]
        lines += [f"| {_cell(label)} | {_cell(name)} | {n:,} |" for name, label, n in new[:MOST]]
        lines += ["", "Add those that are right to their column's `values`, and train again."]
    return "\n".join(lines)


def _problems(refused: pd.DataFrame) -> list[dict[str, Any]]:
    return [problem for problems in refused["problems"] for problem in problems]


def _reason(problem: Mapping[str, Any]) -> str:
    return f"{problem['column'] or 'the request'}: {problem['rule']}"


def _column(problem: Mapping[str, Any]) -> str:
    return problem["column"] or "(the request)"


def _table(what: str, now: Counter[str], then: Counter[str]) -> list[str]:
    rows = [f"| {_cell(name)} | {n:,} | {n - then[name]:+,} |" for name, n in now.most_common(MOST)]
    rest = len(now) - len(rows)
    if rest:
        rows.append(f"| and {rest:,} more | | |")
    return [f"| {what} | times | change |", "|---|---|---|", *rows, ""] if rows else []


def _new_labels(
    refused: pd.DataFrame, known: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, str, int]]:
    """Refused labels that several requests name and that are no other spelling of a known one."""
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


def _cell(text: str) -> str:
    """Callers and values are anybody's words: none may end its cell."""
    return " ".join(text[: 2 * _LONGEST].split()).replace("|", "\\|").replace("<", "&lt;")
