"""The contract of rows as a Pandera schema."""

from collections.abc import Sequence

import pandera.pandas as pa

from pipeline.columns import limits
from pipeline.config import Categorical, Columns, Numeric


def pandera_schema(
    columns: Columns,
    *,
    key: str | None = None,
    time: str | None = None,
    identity: Sequence[str] | None = None,
) -> pa.DataFrameSchema:
    """Build the Pandera schema of conformed rows; requests to the served API obey it too.

    Parameters
    ----------
    columns : dict of str to Column
        Declared columns.
    key, time : str, optional
        Columns that must have a value in every row.
    identity : sequence of str, optional
        Columns that together must be unique; by default the key.
    """
    rules = {name: _rule(column) for name, column in columns.items()}
    if key is not None:
        rules[key] = pa.Column(str)
    if time is not None:
        rules[time] = pa.Column("datetime64[us]")
    unique = [key] if identity is None and key is not None else identity
    return pa.DataFrameSchema(
        rules,
        strict=False,
        unique=None if unique is None else list(unique),
        report_duplicates="exclude_first",
    )


def _rule(column: Numeric | Categorical) -> pa.Column:
    if isinstance(column, Categorical):
        checks = [] if column.values is None else [pa.Check.isin(list(column.values))]
        return pa.Column(str, checks, nullable=column.nullable)
    return pa.Column(float, pa.Check.in_range(*limits(column)), nullable=column.nullable)
