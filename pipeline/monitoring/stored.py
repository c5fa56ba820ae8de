"""The comparison of a batch as it is stored and drawn: what was found, without what can be derived.

Every test is in a table of its own (`DriftReport.to_frame`), and the batch as one observation in
its summary; neither is repeated here.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pipeline.monitoring.findings import ColumnDrift, DriftReport
from pipeline.monitoring.shapes import Shape
from pipeline.monitoring.slice_drift import SliceDrift
from pipeline.reference.finite import finite

_MOST_FINDINGS = 50
"""Findings of drift that are stored with the report, the most important ones."""
_MOST_PAIRS = 50
"""Pairs that are stored with the report."""
_OF_TESTS = {"columns", "statistic", "p_value", "effect"}
_DIGITS = 4
"""Significant digits of a stored number."""
THOUSAND = 1_000
"""Shares of a drawn column are stored in thousandths."""


def to_record(report: DriftReport, *, private: Collection[str] = ()) -> dict[str, Any]:
    """Convert a report to the JSON-able record that is kept of a batch.

    Parameters
    ----------
    report : DriftReport
        What the comparison found.
    private : collection of str
        Columns of which no value is stored.

    Returns
    -------
    dict of str to Any
        ``drifted``, ``columns``, ``pairs`` and ``shapes`` are tables: names of ``columns``, and
        ``data`` row by row. Undefined numbers are None.
    """
    drifted = [found for found in report.findings if found.drifted]
    pairs = [pair for pair in report.pairs if pair.drifted]
    record = {
        "outcome": report.outcome,
        "alarm": report.alarm,
        "rows": report.rows,
        "batches": report.batches,
        "alpha": report.alpha,
        "broken_alpha": report.broken_alpha,
        "run_length": report.run_length,
        "false_persisted": report.false_persisted,
        "causes": [asdict(cause) for cause in report.causes],
        "notes": report.notes,
        "tests": len(report.findings),
        "drifted": _table(
            [asdict(found) | {"name": found.name} for found in drifted[:_MOST_FINDINGS]]
        ),
        "columns": _table([_column(column) for column in report.columns]),
        "pairs": _table([vars(pair) for pair in pairs[:_MOST_PAIRS]]),
        "indicators": _table([asdict(one) for one in report.indicators]),
        "refused": dict(report.refused),
        "slices": _table([_slice(one) for one in report.slices]),
        "shapes": _table([_drawn(one) for one in report.shapes if one.column not in private]),
    }
    rounded: dict[str, Any] = finite(record, digits=_DIGITS)
    return rounded


def rows_of(table: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """The rows of a stored table, each by the names of its columns."""
    return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]


def drifted_of(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The findings of a record, as a table or, in a record of before, one by one."""
    found = record.get("drifted", [])
    return rows_of(found) if isinstance(found, dict) else list(found)


def _table(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    names = list(rows[0]) if rows else []
    return {"columns": names, "data": [[row[name] for name in names] for row in rows]}


def _column(column: ColumnDrift) -> dict[str, Any]:
    """A column by its own name, which is not shortened for display, without its tests."""
    figures = {key: value for key, value in vars(column).items() if key not in _OF_TESTS}
    return figures | {"name": column.columns[0]}


def _slice(one: SliceDrift) -> dict[str, Any]:
    """A slice with its change as text."""
    return asdict(one) | {"change": "" if one.why else one.change}


def _drawn(shape: Shape) -> dict[str, Any]:
    thousandths = {
        side: [round(share * THOUSAND) for share in getattr(shape, side)]
        for side in ("before", "now", "beyond")
    }
    thousandths["beyond"] *= any(thousandths["beyond"])  # mostly none, and not stored then
    return vars(shape) | thousandths
