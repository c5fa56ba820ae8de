"""Rounding: values that lost their last digits."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

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
_NOVEL, _NEW = 0.95, 0.05
"""Share of the values new to the column that have to lie on the coarser grid, and of all rows that
new values have to be."""
_FEWEST, _FEWEST_POINTS, _DIGITS = 20, 8, 3
"""Fewest rows, grid points and distinct values by which digits are compared."""
_FEW_POINTS = 60
"""Grid points below which known values on a grid may be a few that grew."""
_MOSTLY, _NEARLY_ALL = 0.5, 0.98
"""Shares of rows that count as most and as nearly all."""
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


class _Found(NamedTuple):
    """A coarser grid: its name, its shares now and before, and the rows on it."""

    what: str
    share: float
    before: float
    touched: Mask


@dataclass(frozen=True)
class _Digits:
    """Values of a column whose digits are compared.

    Attributes
    ----------
    case : Case
        The batch.
    name : str
        The column.
    values : array of float, shape (n_drawn,)
        Its values in the drawn rows.
    there : array of bool, shape (n_drawn,)
        Rows with a value that says something about the grid: frequent values do not.
    atoms : array of bool, shape (n_points,)
        Grid points of the reference that are frequent values.
    """

    case: Case
    name: str
    values: Floats
    there: Mask
    atoms: Mask

    @property
    def profile(self) -> NumericProfile:
        return self.case.profile(self.name)

    @cached_property
    def own(self) -> Floats:
        """Share of the reference at each of its points."""
        own: Floats = np.asarray(self.profile.upto) - np.asarray(self.profile.below)
        return own

    @cached_property
    def weight(self) -> Floats:
        """Share of the reference at each of its points, with half of the gaps beside it."""
        return np.where(self.atoms, 0.0, _mass(self.profile))

    @cached_property
    def apart(self) -> float:
        """Effective number of values: repeated values are not independent."""
        _, counts = np.unique(self.values[self.there], return_counts=True)
        return float(counts.sum() ** 2 / (counts**2).sum())

    @cached_property
    def new(self) -> Mask:
        """Rows with values that are no points of the reference."""
        return self.there & np.isin(self.values, self.profile.points, invert=True)

    @property
    def stepped(self) -> bool:
        """Whether the points of the reference are nearly all of its values."""
        return bool(self.own.sum() > _COUNTED)

    def rest_as_before(self, on: Mask) -> bool:
        """Whether the values beside a grid keep their shares among themselves."""
        return _rest_as_before(self.profile.points, self.own, on, self.values)


def _coarser(case: Case, name: str) -> _Found | None:
    """The grid on which more values lie than before by most nats; None without such a grid."""
    digits = _digits(case, name)
    if digits is None:
        return None
    found = [
        one
        for what, step, on in _grids(digits.profile.points, digits.values)
        if (one := _on_grid(digits, what, step, on))
    ]
    return max(found, key=lambda one: surprise(one.share, one.before), default=None)


def _digits(case: Case, name: str) -> _Digits | None:
    """The values whose digits are compared; None where there are too few."""
    values, profile = case.numbers(name), case.profile(name)
    top = top_value(case, name)
    own = np.asarray(profile.upto) - np.asarray(profile.below)
    atoms = own > FREQUENT
    if own[atoms].sum() > _MOSTLY:  # frequent values are most of the column
        atoms[:] = False
    alone = np.append(profile.points[atoms], [] if top is None else top[0])
    there = ~np.isnan(values) & ~np.isin(values, alone)
    few = there.sum() < _FEWEST or len(profile.grid) < _FEWEST_POINTS
    if few or not _same_size(profile, values[there]):
        return None
    return _Digits(case, name, values, there, atoms)


def _on_grid(digits: _Digits, what: str, step: float, on: Mask) -> _Found | None:
    """Judge whether values lie on a grid that the reference's values do not lie on."""
    size, values, there = len(digits.weight), digits.values, digits.there
    before = float(digits.weight @ on[:size] / digits.weight.sum())
    touched = on[size:]
    share = float(touched[there].mean())
    if before > _MOSTLY or share <= before:  # the reference is as coarse
        return None
    distinct = len(np.unique(values[touched & ~np.isnan(values)]))
    shown = _grown(digits, share, before, on) or _novel(digits, on)
    if distinct < _DIGITS or not shown:
        return None
    partly = share < _NEARLY_ALL
    if partly and not _as_before(digits.profile.points, digits.weight, values[there], step):
        return None
    return _Found(what, share, before, touched & there)


def _grown(digits: _Digits, share: float, before: float, on: Mask) -> bool:
    """Whether the share of a grid grew by more than chance and ordinary blocks explain."""
    size, there = len(digits.weight), digits.there
    profile, growth = digits.profile, share - before
    # Known values may be few and come in runs; new values do not.
    came = digits.values[there & on[size:]]
    strange = np.isin(came, profile.points, invert=True).mean() >= 0.5
    # No block had as large an excess on all these values together.
    leap = (
        digits.stepped
        and len(profile.grid) > _DISTINCT
        and digits.rest_as_before(on)
        and growth > on[:size].sum() * digits.case.most(Trait("atom", (digits.name,)))
    )
    few = len(profile.grid) < _FEW_POINTS and share < _NEARLY_ALL and not leap
    if few and not strange:
        return False
    error = np.sqrt(max(before * (1 - before), 0.01) * (1 / _QUANTILES + 1 / digits.apart))
    least = 0.05 + error if strange and before < 0.05 else 0.1 + (0 if leap else 3 * error)
    if _MUCH <= growth < least:
        usual = _most_in_a_block(digits.case, digits.name, on[:size] & ~digits.atoms)
        least = min(least, max(_MUCH, 0.05 + 3 * (usual - before), 2 * error))
    return bool(growth >= least)


def _novel(digits: _Digits, on: Mask) -> bool:
    """Whether, in a column of steps, new values all lie on another grid, which is proof."""
    new, touched = digits.new, on[len(digits.weight) :]
    enough = digits.stepped and new.sum() > _BESIDE and new.mean() > _NEW
    if not enough or touched[new].mean() <= _NOVEL:
        return False
    several = len(np.unique(digits.values[new])) >= _DIGITS  # two values are no grid
    return several and digits.rest_as_before(on)


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
