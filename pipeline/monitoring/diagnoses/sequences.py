"""Rows in the order they came: what a column that goes on from row to row says of its values."""

from typing import NamedTuple

import numpy as np

from pipeline.columns import as_number
from pipeline.monitoring.diagnoses.case import Case, Mask
from pipeline.reference.order import ORDERED, sticking_out
from pipeline.reference.profile import Floats
from pipeline.reference.summaries import Kind, Trait

_SMOOTH, _REGULAR = 0.02, 0.85
"""Share of rows that stick out, in any block, up to which a column goes on from row to row, and of
even steps, in all blocks, from which a clock does."""
_VARIES = 0.3
"""Spread inside of a block, in standard deviations of the column, below which nothing is said."""
_WALK = 1.5
"""Times the least and the largest mean step of any block within which one is as ever."""
_RAISED, _TIMES, _FEWEST = 0.05, 3.0, 25
"""How much that share has to have grown, how many times, and rows that have to stick out."""
_FELL = 0.1
"""How much less even the steps of a clock have to be than in any block."""
_MOSTLY = 0.6
"""Share of the rows out of step that one move explains, there and back."""


def strayed(case: Case, name: str) -> Mask | None:
    """Drawn rows whose value contradicts the rows before and after; None: as few as ever.

    Only where other columns go on from row to row as they used to, in steps as wide: rows in
    another order contradict one another in most of them, or hardly change in the one they were
    sorted by.
    """
    if not (_is_steady(case, name) and _is_raised(case, name)):
        return None
    steady = [other for other in case.numeric if _is_steady(case, other)]
    raised = [other for other in steady if _is_raised(case, other)]
    as_ever = [other for other in steady if other not in raised and _walks_as_ever(case, other)]
    if 2 * len(raised) > len(steady) or not as_ever:
        return None
    odd = sticking_out(_values(case, name), case.profile(name))
    return odd[case.tally.chosen[: len(case.drawn)]]


def usual_share(case: Case, name: str) -> float:
    """Largest share of rows that stick out in any block or recent batch."""
    return case.most(Trait("strays", (name,)))


class OutOfStep(NamedTuple):
    """A clock of which a part of the rows is out of step with those before and after.

    Attributes
    ----------
    by : int
        Steps that they are ahead.
    touched : array of bool, shape (n_drawn,)
    share : float
        Of rows.
    seen : float
        Share of rows that show it: those between two that are right.
    """

    by: int
    touched: Mask
    share: float
    seen: float


def out_of_step(
    case: Case, name: str, *, first: float, step: float, length: int
) -> OutOfStep | None:
    """Rows of a regular clock that were moved round it, each by as much; None if there are none."""
    even = _of_blocks(case, name, "even")
    now = case.tally.order[name].even
    if len(even) < 2 or min(even) < _REGULAR or now > min(even) - _FELL:
        return None
    others = (other for other in case.numeric if other != name and _is_steady(case, other))
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
    # One row alone that was moved goes ahead, and the next one back by as much.
    into, out = ahead[:-1], ahead[1:]
    lonely = (into > 0) & (np.mod(into + out, length) == 0)
    if lonely.sum() < _FEWEST:
        return None
    counts = np.bincount(into[lonely], minlength=length)
    by = int(counts.argmax())
    back = int(counts[-by % length]) if 2 * by != length else 0
    seen = counts[by] / len(values)
    if counts[by] + back < _MOSTLY * lonely.sum() or seen < _RAISED / 2:
        return None
    touched = np.zeros(len(values), dtype=bool)
    touched[1:-1] = lonely & (into == by)
    # s (1 - s)^2 of the rows are moved ones alone, s^2 (1 - s) right ones alone.
    share = back / (counts[by] + back) if back else float(seen)
    drawn = touched[case.tally.chosen[: len(case.drawn)]]
    return OutOfStep(by, drawn, max(float(share), float(seen)), float(seen))


def _values(case: Case, name: str) -> Floats:
    values: Floats = as_number(case.rows[name]).to_numpy(dtype=np.float64)
    return values


def _is_raised(case: Case, name: str) -> bool:
    share, most = case.tally.order[name].strays, usual_share(case, name)
    several = share * min(len(case.rows), ORDERED) >= _FEWEST
    return share - most > _RAISED and share > _TIMES * most and several


def _of_blocks(case: Case, name: str, kind: Kind) -> list[float]:
    """A trait of all blocks of the reference; none where any lacks it."""
    values = [block.get(Trait(kind, (name,)), np.nan) for block in case.reference.blocks]
    return values if np.isfinite(values).all() else []


def _walks_as_ever(case: Case, name: str) -> bool:
    steps = [
        *_of_blocks(case, name, "step"),
        *(one.get(Trait("step", (name,)), np.nan) for one in case.recent),
    ]
    now = case.tally.order[name].step
    return bool(np.nanmin(steps) / _WALK <= now <= _WALK * np.nanmax(steps))


def _is_steady(case: Case, name: str) -> bool:
    strays, spreads = _of_blocks(case, name, "strays"), _of_blocks(case, name, "spread")
    if min(len(strays), len(spreads)) < 2:  # one block is no rule
        return False
    return bool(max(strays) <= _SMOOTH and np.median(spreads) >= _VARIES)
