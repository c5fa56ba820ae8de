"""A batch as one observation: a few numbers, each keyed by what it measures."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, cast

import pandas as pd

Kind = Literal[
    "rows",
    "copies",
    "repeats",
    "missing",
    "share",
    "location",
    "spread",
    "correlation",
    "atom",
    "strays",
    "step",
    "even",
    "stretch",
    "gap",
]
_OF_THE_BATCH = {"rows", "copies", "repeats"}


class Trait(NamedTuple):
    """What a number of a batch measures.

    Attributes
    ----------
    kind : str
        ``rows``: number of rows. ``copies``: share of rows that repeat another row.
        ``repeats``: share of the most frequent row. ``missing``: share of rows without a value.
        ``share``: share of a label. ``location``, ``spread``: mean and standard deviation of the
        normal scores. ``correlation``: correlation of the normal scores of two columns. ``atom``:
        largest excess of the share of a value over the reference. ``strays``, ``step``, ``even``:
        how values continue from row to row, as in `Order`. ``stretch``, ``gap``: rows of the
        longest stretch of one value, and of the longest without a value.
    columns : tuple of str
        The column, both columns of a correlation, or nothing for a number of the whole batch.
    label : str
        The label of a share; empty for any other kind.
    """

    kind: Kind
    columns: tuple[str, ...] = ()
    label: str = ""


class Summary(dict[Trait, float]):
    """One batch as one observation: the value of each trait. Undefined values are left out.

    Attributes
    ----------
    sketch : DataFrame or None
        Some of its rows, as `sketches.sketch` draws them; None where they were not kept.
    """

    def __init__(
        self,
        values: Mapping[Trait, float] = MappingProxyType({}),
        *,
        sketch: pd.DataFrame | None = None,
    ) -> None:
        super().__init__(values)
        self.sketch = sketch


ROWS = Trait("rows")
"""The number of rows, which every summary holds."""


def summary_to_json(summary: Summary) -> list[dict[str, Any]]:
    """Convert a summary to JSON-able records, in the order of the summary."""
    return [trait._asdict() | {"value": value} for trait, value in summary.items()]


def summary_from_json(stored: Sequence[dict[str, Any]] | dict[str, float]) -> Summary:
    """Read a summary from the records of `summary_to_json`, or from the older text form.

    Earlier versions stored a dict keyed by text: ``column|kind``, ``column|share of label``,
    ``one ~ other|correlation`` and ``|rows``. They could not compare columns whose name holds
    `` ~ ``, so the first `` ~ `` of a correlation separates its two columns.
    """
    if isinstance(stored, dict):
        return Summary({_trait_of_text(text): value for text, value in stored.items()})
    return Summary(
        {
            Trait(record["kind"], tuple(record["columns"]), record["label"]): record["value"]
            for record in stored
        }
    )


def _trait_of_text(text: str) -> Trait:
    column, is_share, label = text.partition("|share of ")
    if is_share:
        return Trait("share", (column,), label)
    name, _, kind = text.rpartition("|")
    if kind in _OF_THE_BATCH:
        return Trait(cast("Kind", kind))
    columns = tuple(name.split(" ~ ", 1)) if kind == "correlation" else (name,)
    return Trait(cast("Kind", kind), columns)
