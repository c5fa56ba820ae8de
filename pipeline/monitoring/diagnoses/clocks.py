"""Clocks that were moved: hours, days or months, by whole steps round their cycle."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from pipeline.columns import Floats
from pipeline.monitoring.diagnoses.case import NATS, Case
from pipeline.monitoring.diagnoses.likelihood import (
    Mask,
    Places,
    mixture,
    of_chance,
    surprise,
    touched_rows,
)
from pipeline.monitoring.diagnoses.parameters import SHARED
from pipeline.monitoring.diagnoses.relations import ExpectedLabels
from pipeline.monitoring.diagnoses.segments import clause, segment
from pipeline.monitoring.diagnoses.sequences import OutOfStep, mean_run, out_of_step
from pipeline.monitoring.findings import Cause
from pipeline.reference.profile import NumericProfile

_CYCLES = {7: "days of the week", 12: "months", 24: "hours", 48: "half hours", 60: "minutes"}
_MOVED_BY = {7: "another first day", 12: "counted from another month", 60: "a clock that is wrong"}
"""What moves a cycle; the others are hours, and move with the time zone."""
_MONTHS = 12
_NONE = np.iinfo(np.intp).min
"""Step number of a missing value."""


@dataclass(frozen=True)
class Parameters:
    """What is a clock, and what shows that it was moved.

    Attributes
    ----------
    fewest_steps, most_steps : int
        Fewest and most distinct values of a clock.
    stepped : float
        Least share of rows with values on the steps: a clock has no values between them.
    even : float
        Relative tolerance of even steps that are not whole numbers.
    steps : int
        Fewest steps from block to block by which a clock is known to go on.
    advances : float
        Least mean of these steps in standard errors. Those of a clock that stays sum up to nearly
        nothing.
    least_step : float
        Least share of a day of the week or a month, relative to the mean share.
    round, filled : float
        Share of the cycle that the largest value has to reach, and share of its steps that the
        column has to hold.
    each, each_part : float
        Least nats per affected row, where most rows are affected and where a part is.
    half : float
        Share of rows above which, up to `SHARED.most`, a change of shape looks much like a move.
    sure : float
        Nats per affected row that are enough even for rows that depend on one another. Otherwise
        consecutive rows with equal values count as one row.
    out : float
        Share of values outside the cycle that is enough even for dependent rows, or few of them.
    part : float
        Smallest share of affected rows that is looked for where hardly any lie outside.
    tells : float
        Least nats per row that the other columns must contribute to a prediction of the clock.
    glance, glance_part : float
        Least share of the change that a move explains, and least share of rows it affects.
    options : int
        Likeliest moves that are examined closely.
    rare : float
        Least share of a step by which its growth is measured, relative to the mean share.
    outside : float
        Nats that count against a value outside the cycle.
    apart : float
        Distance of the shares of values outside the cycle from those that a move brings there,
        relative to the larger, up to which the move explains them; 1 / sqrt(n) is added for chance.
    """

    fewest_steps: int = 5
    most_steps: int = 60
    stepped: float = 0.95
    even: float = 1e-3
    steps: int = 4
    advances: float = 4.0
    least_step: float = 0.05
    round: float = 0.9
    filled: float = 0.6
    each: float = 0.18
    each_part: float = 0.22
    half: float = 0.45
    sure: float = 0.3
    out: float = 0.02
    part: float = 0.15
    tells: float = 0.03
    glance: float = 0.2
    glance_part: float = 0.1
    options: int = 2
    rare: float = 0.1
    outside: float = 5.0
    apart: float = 0.25


PARAMS = Parameters()


class Cycle(NamedTuple):
    """The `length` values `first`, `first + step`, ... of a cycle."""

    length: int
    first: float
    step: float


def cycle(profile: NumericProfile) -> Cycle | None:
    """Recognise the cycle of a column, such as hours of a day; None without a cycle."""
    points = profile.points
    weight = np.asarray(profile.upto) - np.asarray(profile.below)
    few_valued = PARAMS.fewest_steps <= len(points) <= PARAMS.most_steps
    if not few_valued or weight.sum() < PARAMS.stepped:
        return None
    steps = np.diff(points)
    if not np.allclose(points, np.round(points)):
        even = len(points) in _CYCLES and np.allclose(steps, steps[0], rtol=PARAMS.even)
        return Cycle(len(points), float(points[0]), float(steps.mean())) if even else None
    low, high = points[[0, -1]]
    for length in _CYCLES:
        for first in (0.0, 1.0) if length <= _MONTHS else (0.0,):
            inside = low >= first and high <= first + length - 1
            full = high >= first + PARAMS.round * (length - 1)
            # Days and months come about as often; of counts, the largest are rare.
            even = length > _MONTHS or weight.min() >= PARAMS.least_step / length
            if inside and full and even and len(points) >= PARAMS.filled * length:
                return Cycle(length, first, 1.0)
    return None


def _goes_on(case: Case, name: str, cycle: Cycle) -> bool:
    """Whether a clock goes on from block to block, as the month of a flight booked ahead does."""
    values = case.profile(name).values(case.reference.cells[:, case.place(name)])
    turns = np.exp(2j * np.pi * (values - cycle.first) / cycle.step / cycle.length)
    blocks = case.reference.cell_blocks
    middles = [np.nanmean(turns[blocks == k]) for k in range(len(case.reference.blocks))]
    steps = np.angle(np.asarray(middles[1:]) / np.asarray(middles[:-1]))
    steps = steps[np.isfinite(steps)]
    if len(steps) < PARAMS.steps:
        return False
    error = steps.std(ddof=1) / np.sqrt(len(steps))
    return bool(abs(steps.mean()) > PARAMS.advances * error)


def shifted(case: Case) -> Iterator[Cause]:
    """Recognise a clock that was moved by whole steps round its cycle."""
    for name in case.numeric:
        found = cycle(case.profile(name))
        if found is None or case.names_the_block(name) or _goes_on(case, name, found):
            continue
        values = case.numbers(name)
        there = ~np.isnan(values)
        if there.sum() < SHARED.fewest_related:
            continue
        alone = out_of_step(case, name, **found._asdict())
        if alone is not None:
            yield _out_of_step_cause(case, name, found, alone)
            continue
        place = np.round((np.nan_to_num(values) - found.first) / found.step).astype(np.intp)
        outside = there & ((place < 0) | (place >= found.length))
        options = _likely(case, name, found, place % found.length, there)
        if not options and not outside.any() and not case.suspect(name):
            continue
        yield from _best(case, name, found, np.where(there, place, _NONE), options)


def _out_of_step_cause(case: Case, name: str, found: Cycle, alone: OutOfStep) -> Cause:
    """Cause of rows that are out of step with the rows before and after."""
    by = (alone.by if alone.by <= found.length / 2 else alone.by - found.length) * found.step
    where = segment(case, alone.touched, [name])
    return Cause(
        "shifted",
        (name,),
        f"{name!r} looks moved by {by:+g} round its {found.length} {_CYCLES[found.length]} in "
        f"{alone.share:.0%} of rows{clause(where)}, out of step with the rows before and after: "
        f"{_MOVED_BY.get(found.length, 'another time zone')}?",
        {
            NATS: surprise(alone.seen, 0.0),
            "share of rows": round(alone.share, 4),
            "share between two in step": round(alone.seen, 4),
            "moved by": by,
        },
        f"Ask the source which clock {name!r} follows; convert it back before it arrives.",
        share=round(alone.share, 4),
        segment=where,
    )


def _likely(case: Case, name: str, found: Cycle, place: Places, there: Mask) -> list[int]:
    """Find the likeliest moves: steps after which the other columns fit the clock again.

    It compares the mean scores of the other columns at each step, which is quick but rough.
    """
    scores, others = case.reference.normal_scores, set(case.predicting(name))
    other = [k for k, i in enumerate(scores.columns) if case.reference.names[i] in others]
    before_values = case.profile(name).values(case.reference.cells[:, case.place(name)])
    known = ~np.isnan(before_values)
    before_place = np.round((before_values[known] - found.first) / found.step).astype(np.intp)
    tables = []
    for rows, at in (
        (scores.of(case.reference.cells[known], other), before_place % found.length),
        (scores.of(case.drawn_cells[there], other), place[there]),
    ):
        counts = np.bincount(at, minlength=found.length).astype(np.float64)
        sums = np.zeros((found.length, len(other)))
        np.add.at(sums, at, rows - rows.mean(axis=0))
        tables.append((sums / np.maximum(counts, 1)[:, None], counts / max(counts.sum(), 1)))
    (before, shares), (now, shares_now) = tables
    weight = np.sqrt(shares_now)[:, None]
    common = np.sqrt(np.maximum(shares, PARAMS.rare / found.length))[:, None]
    apart = np.hstack([weight * (now - before), (shares_now - shares)[:, None] / common])
    explained = np.zeros(found.length)
    for k in range(1, found.length):
        means = weight * (np.roll(before, k, axis=0) - before)
        moved = np.hstack([means, (np.roll(shares, k) - shares)[:, None] / common])
        part = (apart * moved).sum() / max((moved**2).sum(), 1e-12)
        if part > PARAMS.glance_part:
            explained[k] = part * (apart * moved).sum() / max((apart**2).sum(), 1e-12)
    likeliest = np.argsort(-explained)[: PARAMS.options]
    return [int(k) for k in likeliest if explained[k] > PARAMS.glance]


def _best(
    case: Case, name: str, found: Cycle, place: Places, options: list[int]
) -> Iterator[Cause]:
    expected = case.expected_steps(name, found.first, found.step, found.length)
    if expected.information < PARAMS.tells:  # then only values outside the cycle count
        now, before = (
            np.tile(expected.shares, (len(x), 1)) for x in (expected.now, expected.before)
        )
        expected = replace(expected, now=now, before=before)
    outside = (place != _NONE) & ((place < 0) | (place >= found.length))
    moves = options or range(1, found.length)
    fits = [fit for k in moves for fit in _fits(expected, place, outside, k)]
    total, by, share, gain, beyond = max(fits, key=lambda fit: fit.total)
    each = total / max(share * len(gain), 1.0)
    enough = beyond and outside.mean() > PARAMS.out
    independent = total if enough or each > PARAMS.sure else total / mean_run(case, name)
    few = share < PARAMS.part and not enough
    if independent < SHARED.total or each < _least_each(share) or few:
        return
    by *= found.step
    touched = touched_rows(gain, share)
    where = segment(case, touched, [name]) if share < SHARED.most else ""
    part = "" if share >= SHARED.most else f" in {share:.0%} of rows"
    yield Cause(
        "shifted",
        (name,),
        f"{name!r} looks moved by {by:+g} round its {found.length} {_CYCLES[found.length]}{part}"
        f"{clause(where)}: {_MOVED_BY.get(found.length, 'another time zone')}?",
        {
            NATS: round(each * share, 3),
            "share of rows": round(share, 4),
            "moved by": by,
        },
        f"Ask the source which clock {name!r} follows; convert it back before it arrives.",
        share=round(share, 4),
        segment=where,
    )


class _Fit(NamedTuple):
    """How much likelier the rows are once they are moved back."""

    total: float
    by: float
    share: float
    gain: Floats
    beyond: bool
    """Whether the clock runs on beyond its cycle: 27 is 22 o'clock, moved by five hours."""


def _fits(expected: ExpectedLabels, place: Places, outside: Mask, k: int) -> Iterator[_Fit]:
    """Fit a move by `k` steps round the cycle, and those that end outside if values lie there."""
    length, rows, there = len(expected.shares), np.arange(len(place)), place != _NONE
    seen = np.arange(len(expected.classes))
    likelier = expected.before[seen, (expected.classes - k) % length]
    usual = of_chance(expected.blocks, likelier - expected.before[seen, expected.classes])
    gain = expected.now[rows, (place - k) % length] - expected.now[rows, place % length]
    round_it = np.where(there & ~outside, gain, 0.0)
    share, total = mixture(round_it)
    nearer = k if k <= length / 2 else k - length
    yield _Fit(total - usual * len(gain), nearer, share, round_it, beyond=False)
    for by in (k, k - length) if outside.any() else ():
        into = there & (place >= by) & (place < by + length)
        held = np.where(into, gain, np.where(outside, 0.0, -PARAMS.outside))
        beyond = np.where(there, held + np.where(outside & into, PARAMS.outside, 0.0), 0.0)
        share, total = mixture(beyond)
        if _explained(place[outside], len(place), share * np.exp(expected.shares), by):
            yield _Fit(total - usual * len(gain), by, share, beyond, beyond=True)


def _explained(outside: Places, rows: int, moved: Floats, by: int) -> bool:
    """Whether a move brings about as many rows to each place outside the cycle as are there."""
    length, most = len(moved), abs(by)
    past = outside - length if by > 0 else -1 - outside
    past = np.where((past < 0) | (past >= most), most, past)
    seen = np.bincount(past, minlength=most + 1) / rows
    wanted = np.append(moved[length - most :] if by > 0 else moved[:most][::-1], 0.0)
    apart = np.abs(np.cumsum(seen) - np.cumsum(wanted)).max()
    limit = PARAMS.apart + 1 / np.sqrt(len(outside))
    return bool(apart <= limit * max(seen.sum(), wanted.sum()))


def _least_each(share: float) -> float:
    """Least nats per affected row of a move that affects a share of the rows."""
    if share >= SHARED.most:
        return PARAMS.each
    return PARAMS.each_part if share < PARAMS.half else PARAMS.sure
