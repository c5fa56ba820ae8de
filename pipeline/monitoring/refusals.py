"""Whether a batch has more refused rows than is usual, which a fault of its source explains.

Refused rows are in no comparison: what is wrong with them would show nowhere else.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from scipy import stats

from pipeline.monitoring.findings import Cause

FLOOR: Final = 0.02
"""Growth of the share of refused rows, at least, that people are asked about."""
_PART: Final = 0.1
"""Part of `monitoring.broken_alpha` that this one question takes."""
_FEWEST: Final = 3
"""Stretches, at least, that show what is usual."""
_NAMED: Final = 3
"""Columns that a fault names, at most."""
_NOTABLE: Final = 0.1
"""Share of the refused rows, at least, that are refused for a column that is named."""


class Came(NamedTuple):
    """Rows that came in a stretch of time, and how many of them were refused."""

    rows: int
    refused: int


def refused_fault(
    came: Came,
    reasons: Mapping[str, int],
    names: Sequence[str],
    *,
    trained: Sequence[Came],
    recent: Sequence[Came],
    broken_alpha: float,
) -> tuple[Cause, ...]:
    """The fault of a batch that has more refused rows than the training rows and than before.

    Parameters
    ----------
    came : Came
        The batch.
    reasons : mapping of str to int
        Why rows were refused, and how many.
    names : sequence of str
        Declared columns.
    trained, recent : sequence of Came
        Stretches of the training rows as long as a batch, and the last sound batches; what has
        fewer than three stretches says nothing, and if neither says something, there is no fault.
    broken_alpha : float
        As of `compare`; this question takes a tenth of it.

    Returns
    -------
    tuple of Cause
        One fault, or none.
    """
    usual = [stretches for stretches in (trained, recent) if len(stretches) >= _FEWEST]
    level = broken_alpha * _PART
    if not usual or not came.rows or not all(_more(came, one, level) for one in usual):
        return ()
    before = max(_share(one) for one in usual)
    counts = {name: _count(name, reasons) for name in names}
    notable = [n for n in sorted(counts, key=lambda n: -counts[n]) if counts[n] > 0]
    columns = tuple(n for n in notable[:_NAMED] if counts[n] >= _NOTABLE * came.refused)
    first = next(iter(sorted(reasons.items(), key=lambda pair: -pair[1])))
    share = came.refused / came.rows
    return (
        Cause(
            "schema",
            columns,
            f"{came.refused:,} of {came.rows:,} rows were refused: {share:.1%}, where {before:.1%} "
            f"is usual. Most often: {first[0]} ({first[1]:,}).",
            {"share": round(share, 4), "usual": round(before, 4)},
            f"Ask whoever sends {', '.join(columns) or 'the rows'}. If they are right, correct "
            "data.features and read the batch again.",
            share=share,
        ),
    )


def _count(name: str, reasons: Mapping[str, int]) -> int:
    return sum(n for reason, n in reasons.items() if reason.startswith(f"{name} must "))


def _share(stretches: Sequence[Came]) -> float:
    return sum(one.refused for one in stretches) / max(sum(one.rows for one in stretches), 1)


def _more(came: Came, usual: Sequence[Came], level: float) -> bool:
    """Whether a share is larger than usual, by `FLOOR` and beyond chance.

    The count of a batch follows a beta-binomial distribution, given the counts of the stretches
    and Jeffreys' prior (1946, Proc. R. Soc. A 186: 453-461). Where stretches differ by more
    than chance, all counts are divided by their dispersion, Pearson's chi-square over its degrees
    of freedom (McCullagh and Nelder 1989, section 4.5).
    """
    rows, refused = sum(one.rows for one in usual), sum(one.refused for one in usual)
    share = refused / max(rows, 1)
    if came.refused / came.rows - share < FLOOR:
        return False
    spread = 1.0
    if 0 < share < 1:
        squares = [
            (one.refused - one.rows * share) ** 2 / (one.rows * share * (1 - share))
            for one in usual
            if one.rows
        ]
        spread = max(1.0, sum(squares) / max(len(squares) - 1, 1))
    n, k = max(round(came.rows / spread), 1), int(came.refused / spread)
    known = refused / spread + 0.5, (rows - refused) / spread + 0.5
    return bool(stats.betabinom.sf(k - 1, n, *known) <= level)
