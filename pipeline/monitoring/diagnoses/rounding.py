"""Rounding: values that lost their last digits."""

from collections.abc import Iterator

import numpy as np

from pipeline.columns import Floats
from pipeline.monitoring.diagnoses.case import NATS, Case, Mask
from pipeline.monitoring.diagnoses.likelihood import surprise
from pipeline.monitoring.diagnoses.pile_ups import FREQUENT, top_value
from pipeline.monitoring.diagnoses.segments import clause, segment
from pipeline.monitoring.findings import Cause
from pipeline.reference.profile import NumericProfile
from pipeline.reference.summaries import Trait

_BESIDE = 50
"""Fewest values beside a grid by which digits are compared."""
_OTHER_DIGITS = 0.5
"""Largest distance of the last digits of the unrounded values from those of the reference."""
_REST = 0.2
"""Largest distance at which the values beside a grid count as unchanged."""
_COUNTED, _DISTINCT = 0.9, 30
"""A column of steps: share of rows that its grid points hold, and its fewest grid points."""
_BLOCKS, _MUCH = 4, 0.15
"""Fewest blocks that show how much a grid's share varies.

They are looked at from a growth of `_MUCH` on."""
_NOVEL = 0.95
"""Share of the values new to the column that have to lie on the coarser grid."""
_QUANTILES = 300
"""About how many quantiles a share of the reference is estimated from."""


def rounded(case: Case) -> Iterator[Cause]:
    """Recognise values on a coarser grid than in the training rows."""
    for name in case.numeric:
        found = _coarser(case, name)
        if found is None:
            continue
        what, share, before, touched = found
        grown = (share - before) / (1 - before)
        where = segment(case, touched, [name]) if grown < 0.9 else ""  # nearly all rows
        yield Cause(
            "rounded",
            (name,),
            f"{share:.0%} of the values of {name!r} are {what}, where {before:.0%} used to "
            f"be{clause(where)}: rounded on the way?",
            {
                NATS: surprise(share, before),
                "share now": round(share, 4),
                "share before": round(before, 4),
                "grid": what,
            },
            f"Find where {name!r} loses its digits: a cast, a format, a new device.",
            share=round(grown, 4),
            segment=where,
        )


def _coarser(case: Case, name: str) -> tuple[str, float, float, Mask] | None:
    values, profile = case.numbers(name), case.profile(name)
    top = top_value(case, name)
    weight, own = _mass(profile), np.asarray(profile.upto) - np.asarray(profile.below)
    atoms = own > FREQUENT
    if own[atoms].sum() > 0.5:  # frequent values are most of the column
        atoms[:] = False
    # A frequent value says nothing about the grid.
    alone = np.append(profile.points[atoms], [] if top is None else top[0])
    there = ~np.isnan(values) & ~np.isin(values, alone)
    weight = np.where(atoms, 0.0, weight)
    counted = own.sum() > _COUNTED and len(profile.grid) > _DISTINCT
    few = there.sum() < 20 or len(profile.grid) < 8  # too few values to compare digits
    if few or not _same_size(profile, values[there]):
        return None
    # Repeated values are not independent, so rows count by the effective number of values.
    _, counts = np.unique(values[there], return_counts=True)
    apart = counts.sum() ** 2 / (counts**2).sum()
    new = there & np.isin(values, profile.points, invert=True)
    steps = own.sum() > _COUNTED and new.sum() > _BESIDE
    best: tuple[float, tuple[str, float, float, Mask]] | None = None
    for what, step, on in _grids(profile.points, values):
        before = float(weight @ on[: len(weight)] / weight.sum())
        touched = on[len(weight) :]
        share = float(touched[there].mean())
        if before > 0.5 or share <= before:  # the reference is as coarse
            continue
        distinct = len(np.unique(values[touched & ~np.isnan(values)]))
        # Known values may be few and come in runs; new values do not.
        strange = np.isin(values[there & touched], profile.points, invert=True).mean() >= 0.5
        # No block had as large an excess on all these values together.
        leap = (
            counted
            and _rest_as_before(profile.points, own, on, values)
            and share - before > on[: len(weight)].sum() * case.most(Trait("atom", (name,)))
        )
        few = len(profile.grid) < 60 and share < 0.98 and not leap
        error = np.sqrt(max(before * (1 - before), 0.01) * (1 / _QUANTILES + 1 / apart))
        least = 0.05 + error if strange and before < 0.05 else 0.1 + (0 if leap else 3 * error)
        if _MUCH <= share - before < least:
            usual = _most_in_a_block(case, name, on[: len(weight)] & ~atoms)
            least = min(least, max(_MUCH, 0.05 + 3 * (usual - before), 2 * error))
        # In a column of steps, new values that all lie on another grid are proof.
        novel = (
            steps
            and touched[new].mean() > _NOVEL
            and len(np.unique(values[new])) > 2  # two values are no grid
            and _rest_as_before(profile.points, own, on, values)
        )
        enough = share - before >= least and not (few and not strange)
        if distinct < 3 or not (enough or (novel and new.mean() > 0.05)):
            continue
        if share < 0.98 and not _as_before(profile.points, weight, values[there], step):
            continue
        nats = surprise(share, before)
        if best is None or nats > best[0]:
            best = nats, (what, share, before, touched & there)
    return None if best is None else best[1]


def _most_in_a_block(case: Case, name: str, on: Mask) -> float:
    """Largest share of some grid points in any block of the reference; 1 with too few blocks."""
    points = case.block_cells(name)[:, 1::2]
    counted = points[points.sum(axis=1) >= _BESIDE]
    shares = counted @ on / counted.sum(axis=1)
    return float(shares.max()) if len(shares) >= _BLOCKS else 1.0


def _as_before(points: Floats, weight: Floats, known: Floats, step: float) -> bool:
    """Whether the values beside a grid end on the digits that such values used to end on.

    Where only a part of the values is rounded, the rest keeps its digits. A new tariff, say, does
    not: it has steps of its own.
    """
    if step == 0:  # not a decimal grid
        return True
    weights = weight, np.ones(len(known))
    for turn in (1.0, 10.0):  # the digits after the grid's last digit, and that digit
        counts = []
        for x, w in zip((points / step, known / step), weights, strict=True):
            beside = np.abs(x - np.round(x)) > 1e-6
            ends = np.mod(x[beside], turn)
            counts.append(np.histogram(ends, bins=20, range=(0.0, turn), weights=w[beside])[0])
        shares = [count / max(count.sum(), 1e-12) for count in counts]
        if counts[1].sum() > _BESIDE and np.abs(shares[0] - shares[1]).sum() / 2 > _OTHER_DIGITS:
            return False
    return True


def _rest_as_before(points: Floats, own: Floats, on: Mask, values: Floats) -> bool:
    """Whether the values beside a grid keep their shares among themselves."""
    before = np.where(on[: len(points)], 0.0, own)
    rest = values[~on[len(points) :] & ~np.isnan(values)]
    place = np.minimum(np.searchsorted(points, rest), len(points) - 1)
    known = points[place] == rest
    now = np.bincount(place[known], minlength=len(points))
    shares = [side / max(side.sum(), 1e-12) for side in (before, now)]
    new = 1 - known.mean() if len(rest) else 1.0
    return bool(new + np.abs(shares[0] - shares[1]).sum() / 2 < _REST)


def _mass(profile: NumericProfile) -> Floats:
    """Share of the reference at each quantile, with half of the gaps on both sides."""
    below, upto = np.asarray(profile.below), np.asarray(profile.upto)
    gaps = np.concatenate([[0.0], below[1:] - upto[:-1], [0.0]])
    mass: Floats = upto - below + (gaps[:-1] + gaps[1:]) / 2
    return mass


def _same_size(profile: NumericProfile, known: Floats) -> bool:
    """Whether values have about the size and width they had; another unit changes both."""
    low, middle, high = np.quantile(known, [0.1, 0.5, 0.9])
    before = np.interp([0.1, 0.9], np.asarray(profile.upto), profile.points)
    wide = before[1] - before[0]
    near = profile.points[0] - wide <= middle <= profile.points[-1] + wide
    return bool(near and wide / 4 <= high - low <= 4 * wide)


def _grids(points: Floats, values: Floats) -> Iterator[tuple[str, float, Mask]]:
    """Generate grids from fine to coarse: name, step, and which points and values lie on them."""
    both = np.concatenate([points, values])
    known = np.zeros(len(both), dtype=bool)
    with np.errstate(invalid="ignore", over="ignore"):
        largest = np.abs(points).max()
        start = int(np.floor(np.log10(max(largest, 1e-12)))) - 6
        for power in range(start, start + 8):
            for factor in (1, 2, 5):
                step = factor * 10.0**power
                on = (
                    np.abs(both / step - np.round(both / step)) < 1e-6
                )  # up to floating-point error
                yield f"multiples of {step:g}", step, on
                known |= on & on[: len(points)].all()
        # A cast to 16 bits leaves digits that are on no decimal grid.
        yield "16-bit numbers", 0.0, (both.astype(np.float16).astype(np.float64) == both) & ~known
