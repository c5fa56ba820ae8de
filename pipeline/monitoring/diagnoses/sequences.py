"""Rows in their order: which values break a column that continues from row to row."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pipeline.columns import Floats, as_number
from pipeline.monitoring.diagnoses.case import Case
from pipeline.monitoring.diagnoses.likelihood import Mask
from pipeline.reference.order import ORDERED, sticking_out
from pipeline.reference.summaries import Kind, Trait


@dataclass(frozen=True)
class Parameters:
    """What is usual from row to row, and what breaks with it.

    Attributes
    ----------
    smooth, regular : float
        Limits in all blocks: rows that stick out of a smooth column, even steps of a clock.
    varies : float
        Least spread within a block, in standard deviations of the column.
    walk : float
        Factor by which a mean step may lie outside the range of the blocks and still be usual.
    raised, times : float
        Least growth of the share of rows that stick out, and least ratio.
    fewest : int
        Fewest rows that stick out.
    fell : float
        Least loss of the share of even steps of a clock, against any block.
    mostly : float
        Least share of the rows out of step that one move explains, there and back.
    """

    smooth: float = 0.02
    regular: float = 0.85
    varies: float = 0.3
    walk: float = 1.5
    raised: float = 0.05
    times: float = 3.0
    fewest: int = 25
    fell: float = 0.1
    mostly: float = 0.6


PARAMS = Parameters()


def strayed(case: Case, name: str) -> Mask | None:
    """Mark drawn rows whose value contradicts the rows before and after; None if few do.

    Other columns have to continue from row to row with their usual steps. If the rows had been
    reordered, most columns would contradict, or the column they were sorted by would hardly change.
    """
    if not (_is_steady(case, name) and _is_raised(case, name)):
        return None
    steady = [name for name in _steady(case) if name not in case.blamed]
    raised = [other for other in steady if _is_raised(case, other)]
    as_ever = [other for other in steady if other not in raised and _walks_as_ever(case, other)]
    if 2 * len(raised) > len(steady) or not as_ever:
        return None
    odd = sticking_out(_values(case, name), case.profile(name))
    return odd[case.tally.chosen[: len(case.drawn)]]


def _steady(case: Case) -> list[str]:
    """Numeric columns that continue from row to row, with those that are blamed."""
    return case.memory.recall(
        "steady",
        lambda: [x for x in case.known if case.is_number(x) and _is_steady(case, x)],
    )


def usual_share(case: Case, name: str) -> float:
    """Largest share of rows that stick out in any block or recent batch."""
    return case.most(Trait("strays", (name,)))


def mean_run(case: Case, name: str) -> float:
    """Mean number of consecutive rows with equal values, which are not independent."""
    values = _values(case, name)
    return len(values) / (1 + np.count_nonzero(np.diff(values)))


class OutOfStep(NamedTuple):
    """A clock in which some rows are out of step with the rows before and after.

    Attributes
    ----------
    by : int
        Number of steps by which the affected rows are ahead.
    touched : array of bool, shape (n_drawn,)
        Drawn rows that are visibly out of step.
    share : float
        Estimated share of affected rows.
    seen : float
        Share of rows visibly out of step: affected rows between two sound rows.
    """

    by: int
    touched: Mask
    share: float
    seen: float


def out_of_step(
    case: Case, name: str, *, first: float, step: float, length: int
) -> OutOfStep | None:
    """Find rows of a regular clock that were all moved by equally many steps; None if none."""
    even = _of_blocks(case, name, "even")
    now = case.tally.order[name].even
    if len(even) < 2 or min(even) < PARAMS.regular or now > min(even) - PARAMS.fell:
        return None
    others = (x for x in _steady(case) if x != name and x not in case.blamed)
    if not any(_walks_as_ever(case, other) for other in others):
        return None
    values = _values(case, name)
    place = np.round((values - first) / step)
    steps = np.mod(np.diff(place), length)
    steps = np.where(np.isfinite(steps), steps, -1).astype(np.intp)
    known = steps[steps >= 0]
    if not len(known):
        return None
    ahead = np.where(steps < 0, 0, np.mod(steps - np.bincount(known).argmax(), length))
    # A single moved row goes ahead, and the next row back by as many steps.
    into, out = ahead[:-1], ahead[1:]
    lonely = (into > 0) & (np.mod(into + out, length) == 0)
    if lonely.sum() < PARAMS.fewest:
        return None
    counts = np.bincount(into[lonely], minlength=length)
    by = int(counts.argmax())
    back = int(counts[-by % length]) if 2 * by != length else 0
    seen = counts[by] / len(values)
    if counts[by] + back < PARAMS.mostly * lonely.sum() or seen < PARAMS.raised / 2:
        return None
    touched = np.zeros(len(values), dtype=bool)
    touched[1:-1] = lonely & (into == by)
    # A share s (1 - s)^2 are moved rows between sound ones, s^2 (1 - s) sound rows between moved.
    share = back / (counts[by] + back) if back else float(seen)
    drawn = touched[case.tally.chosen[: len(case.drawn)]]
    return OutOfStep(by, drawn, max(float(share), float(seen)), float(seen))


def _values(case: Case, name: str) -> Floats:
    values: Floats = as_number(case.rows[name]).to_numpy(dtype=np.float64)
    return values


def _is_raised(case: Case, name: str) -> bool:
    share, most = case.tally.order[name].strays, usual_share(case, name)
    several = share * min(len(case.rows), ORDERED) >= PARAMS.fewest
    return share - most > PARAMS.raised and share > PARAMS.times * most and several


def _of_blocks(case: Case, name: str, kind: Kind) -> list[float]:
    """Values of a trait in all blocks of the reference; empty if any block lacks it."""
    values = [block.get(Trait(kind, (name,)), np.nan) for block in case.reference.blocks]
    return values if np.isfinite(values).all() else []


def _walks_as_ever(case: Case, name: str) -> bool:
    steps = [
        *_of_blocks(case, name, "step"),
        *(batch.get(Trait("step", (name,)), np.nan) for batch in case.recent),
    ]
    now = case.tally.order[name].step
    return bool(np.nanmin(steps) / PARAMS.walk <= now <= PARAMS.walk * np.nanmax(steps))


def _is_steady(case: Case, name: str) -> bool:
    strays, spreads = _of_blocks(case, name, "strays"), _of_blocks(case, name, "spread")
    if min(len(strays), len(spreads)) < 2:  # a single block shows no habit
        return False
    return bool(max(strays) <= PARAMS.smooth and np.median(spreads) >= PARAMS.varies)
