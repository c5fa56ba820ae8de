"""Clocks that were moved: hours, days or months, by whole steps round their cycle."""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from pipeline.monitoring.diagnoses.case import NATS, Case, Mask, Places
from pipeline.monitoring.diagnoses.likelihood import mixture, of_blocks, surprise, touched_rows
from pipeline.monitoring.diagnoses.segments import clause, segment
from pipeline.monitoring.diagnoses.sequences import OutOfStep, out_of_step
from pipeline.monitoring.findings import Cause
from pipeline.reference.profile import NumericProfile

_CYCLES = {7: "days of the week", 12: "months", 24: "hours", 48: "half hours", 60: "minutes"}
_MOST = 0.7
"""Share of rows from which a move is taken to affect all rows."""
_TOTAL = 25.0
"""Least nats over all rows; consecutive rows with equal values count as one row."""
_EACH, _EACH_PART = 0.18, 0.22
"""Least nats per affected row, where most rows are affected and where a part is."""
_HALF = 0.45
"""Share of rows above which, up to `_MOST`, a change of shape looks much like a move."""
_SURE = 0.3
"""Nats per affected row that are enough even for rows that depend on one another."""
_OUT = 0.02
"""Share of values outside the cycle that is enough even for dependent rows."""
_SHARE = 0.15
"""Smallest share of affected rows that is looked for."""
_TELLS = 0.03
"""Least nats per row that the other columns must contribute to a prediction of the clock."""
_GLANCE, _GLANCE_PART = 0.2, 0.1
"""Least share of the change that a move explains, and least share of rows it affects."""
_NONE = np.iinfo(np.intp).min
"""Step number of a missing value."""
_OUTSIDE = 5.0
"""Nats that count against a value outside the cycle."""


class Cycle(NamedTuple):
    """The `length` values `first`, `first + step`, ... of a cycle."""

    length: int
    first: float
    step: float


def cycle(profile: NumericProfile) -> Cycle | None:
    """Recognise the cycle of a column, such as hours of a day; None without a cycle."""
    points = profile.points
    weight = np.asarray(profile.upto) - np.asarray(profile.below)
    if not 5 <= len(points) <= 60 or weight.sum() < 0.95:  # not single steps
        return None
    steps = np.diff(points)
    if not np.allclose(points, np.round(points)):
        even = len(points) in _CYCLES and np.allclose(steps, steps[0], rtol=1e-3)
        return Cycle(len(points), float(points[0]), float(steps.mean())) if even else None
    low, high = points[[0, -1]]
    for length in _CYCLES:
        for first in (0.0, 1.0) if length in {7, 12} else (0.0,):
            inside = low >= first and high <= first + length - 1
            full = high >= first + 0.9 * (length - 1) and len(points) >= 0.6 * length
            if inside and full:
                return Cycle(length, first, 1.0)
    return None


def shifted(case: Case) -> Iterator[Cause]:
    """Recognise a clock that was moved by whole steps round its cycle."""
    for name in case.numeric:
        found = cycle(case.profile(name))
        if found is None or case.names_the_block(name):
            continue
        values = case.numbers(name)
        there = ~np.isnan(values)
        if there.sum() < 50:  # too few rows to tell
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
        "another time zone, or another first day?",
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
    common = np.sqrt(np.maximum(shares, 0.1 / found.length))[:, None]
    apart = np.hstack([weight * (now - before), (shares_now - shares)[:, None] / common])
    explained = np.zeros(found.length)
    for k in range(1, found.length):
        means = weight * (np.roll(before, k, axis=0) - before)
        moved = np.hstack([means, (np.roll(shares, k) - shares)[:, None] / common])
        part = (apart * moved).sum() / max((moved**2).sum(), 1e-12)
        if part > _GLANCE_PART:
            explained[k] = part * (apart * moved).sum() / max((apart**2).sum(), 1e-12)
    return [int(k) for k in np.argsort(-explained)[:2] if explained[k] > _GLANCE]


def _best(
    case: Case, name: str, found: Cycle, place: Places, options: list[int]
) -> Iterator[Cause]:
    expected = case.expected_steps(name, found.first, found.step, found.length)
    if expected.information < _TELLS:  # then only values outside the cycle count
        now, before = (
            np.tile(expected.shares, (len(x), 1)) for x in (expected.now, expected.before)
        )
        expected = replace(expected, now=now, before=before)
    there = place != _NONE
    outside = there & ((place < 0) | (place >= found.length))
    rows, inside = np.arange(len(place)), place % found.length
    raw = expected.now[rows, inside] - np.where(outside, _OUTSIDE, 0.0)
    seen = np.arange(len(expected.classes))
    fits = []
    for k in options or range(1, found.length):
        gain = np.where(there, expected.now[rows, (place - k) % found.length] - raw, 0.0)
        share, total = mixture(gain)
        usual = of_blocks(
            expected.blocks,
            expected.before[seen, (expected.classes - k) % found.length]
            - expected.before[seen, expected.classes],
        )
        total -= 2 * max(usual.max(initial=0.0), 0.0) * len(gain)
        fits.append((total, k, share, gain))
    total, k, share, gain = max(fits, key=lambda fit: fit[0])
    each = total / max(share * len(gain), 1.0)
    alone = each > _SURE or outside.mean() > _OUT
    independent = total if alone else total / case.run(name)
    least = _EACH if share >= _MOST else _EACH_PART if share < _HALF else _SURE
    if independent < _TOTAL or each < least or share < _SHARE:
        return
    by = (k if k <= found.length / 2 else k - found.length) * found.step
    touched = touched_rows(gain, share)
    where = segment(case, touched, [name]) if share < _MOST else ""
    part = "" if share >= _MOST else f" in {share:.0%} of rows"
    yield Cause(
        "shifted",
        (name,),
        f"{name!r} looks moved by {by:+g} round its {found.length} {_CYCLES[found.length]}{part}"
        f"{clause(where)}: another time zone, or another first day?",
        {
            NATS: round(each * share, 3),
            "share of rows": round(share, 4),
            "moved by": by,
        },
        f"Ask the source which clock {name!r} follows; convert it back before it arrives.",
        share=round(share, 4),
        segment=where,
    )
