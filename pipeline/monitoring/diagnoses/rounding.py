"""Rounding: values that lost their last digits."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy.special import rel_entr

from pipeline.columns import Floats
from pipeline.monitoring.diagnoses.case import NATS, Case
from pipeline.monitoring.diagnoses.likelihood import Mask, surprise
from pipeline.monitoring.diagnoses.parameters import SHARED
from pipeline.monitoring.diagnoses.pile_ups import top_value
from pipeline.monitoring.diagnoses.segments import clause, segment
from pipeline.monitoring.findings import Cause
from pipeline.reference.order import interquartile
from pipeline.reference.profile import NumericProfile
from pipeline.reference.summaries import Trait


@dataclass(frozen=True)
class Parameters:
    """Which grids are looked at, and what shows that values were rounded to one.

    Attributes
    ----------
    fewest_points, digits : int
        Fewest grid points and distinct values by which digits are compared.
    mostly, nearly_all : float
        Shares of rows that count as most and as nearly all.
    counted, distinct : float, int
        A column of steps: share of rows that its grid points hold, and its fewest grid points.
    few_points : int
        Grid points below which known values on a grid may be a few that grew.
    strange : float
        Share of the values on a grid that have to be new to a column of few points.
    rare, grown_rare, grown : float
        Share up to which hardly a value was on a grid, and least growth of a grid: of a rare grid
        by new values, and of any other grid.
    errors : float
        Standard errors that the growth has to exceed as well.
    quantiles : int
        About how many quantiles a share of the reference is estimated from.
    least_variance : float
        Least variance of a share from which its error is estimated.
    blocks, much : int, float
        Fewest blocks that show how much a grid's share varies. They are looked at from a growth of
        `much` on.
    beyond_blocks, varies, errors_beyond : float
        Least growth where blocks are looked at: a constant, the factor of the growth in any block,
        and standard errors.
    novel, new : float
        Share of the values new to the column that have to lie on the coarser grid, and of all rows
        that new values have to be.
    beside : int
        Fewest values beside a grid by which digits are compared.
    bins : int
        Equal ranges of last digits that are compared.
    other_digits : float
        Largest distance of the last digits of the unrounded values from those of the reference.
    rest : float
        Largest distance at which the values beside a grid count as unchanged.
    width : float
        Factor up to which the width of a column is about the same: another unit changes it.
    float_error : float
        Distance from a grid, in steps, up to which a value lies on it.
    finest, above : int
        Powers of ten that the finest grid is smaller than the interquartile range, and that the
        coarsest is larger than the largest value. Finer digits depend on the size of a value where
        numbers were written with six or seven digits, and tell a model nothing.
    """

    fewest_points: int = 8
    digits: int = 3
    mostly: float = 0.5
    nearly_all: float = 0.98
    counted: float = 0.9
    distinct: int = 30
    few_points: int = 60
    strange: float = 0.5
    rare: float = 0.05
    grown_rare: float = 0.05
    grown: float = 0.1
    errors: float = 3.0
    quantiles: int = 300
    least_variance: float = 0.01
    blocks: int = 4
    much: float = 0.15
    beyond_blocks: float = 0.05
    varies: float = 3.0
    errors_beyond: float = 2.0
    novel: float = 0.95
    new: float = 0.05
    beside: int = 50
    bins: int = 20
    other_digits: float = 0.5
    rest: float = 0.2
    width: float = 4.0
    float_error: float = 1e-6
    finest: int = 4
    above: int = 1


PARAMS = Parameters()
_LARGEST = 308
"""Largest power of ten that a 64-bit float holds."""


def rounded(case: Case) -> Iterator[Cause]:
    """Recognise values on a coarser grid than in the training rows."""
    for name in case.numeric:
        found = _coarser(case, name)
        if found is None:
            continue
        what, share, before, touched = found
        grown = (share - before) / (1 - before)
        where = segment(case, touched, [name]) if grown < SHARED.nearly_all else ""
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
        return bool(self.own.sum() > PARAMS.counted)

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
        for what, step, on in _grids(digits.profile, digits.values)
        if (one := _on_grid(digits, what, step, on))
    ]
    return max(found, key=lambda one: surprise(one.share, one.before), default=None)


def _digits(case: Case, name: str) -> _Digits | None:
    """The values whose digits are compared; None where there are too few."""
    values, profile = case.numbers(name), case.profile(name)
    top = top_value(case, name)
    own = np.asarray(profile.upto) - np.asarray(profile.below)
    atoms = own > SHARED.frequent
    if own[atoms].sum() > PARAMS.mostly:  # frequent values are most of the column
        atoms[:] = False
    alone = np.append(profile.points[atoms], [] if top is None else top[0])
    there = ~np.isnan(values) & ~np.isin(values, alone)
    few = there.sum() < SHARED.fewest or len(profile.grid) < PARAMS.fewest_points
    if few or not _same_size(profile, values[there]):
        return None
    return _Digits(case, name, values, there, atoms)


def _on_grid(digits: _Digits, what: str, step: float, on: Mask) -> _Found | None:
    """Judge whether values lie on a grid that the reference's values do not lie on."""
    size, values, there = len(digits.weight), digits.values, digits.there
    before = float(digits.weight @ on[:size] / digits.weight.sum())
    touched = on[size:]
    share = float(touched[there].mean())
    if before > PARAMS.mostly or share <= before:  # the reference is as coarse
        return None
    distinct = len(np.unique(values[touched & ~np.isnan(values)]))
    shown = _grown(digits, share, before, on) or _novel(digits, on)
    if distinct < PARAMS.digits or not shown:
        return None
    partly = share < PARAMS.nearly_all
    if partly and not _as_before(digits.profile.points, digits.weight, values[there], step):
        return None
    return _Found(what, share, before, touched & there)


def _grown(digits: _Digits, share: float, before: float, on: Mask) -> bool:
    """Whether the share of a grid grew by more than chance and ordinary blocks explain."""
    size, there = len(digits.weight), digits.there
    profile, growth = digits.profile, share - before
    # Known values may be few and come in runs; new values do not.
    came = digits.values[there & on[size:]]
    strange = np.isin(came, profile.points, invert=True).mean() >= PARAMS.strange
    # No block had as large an excess on all these values together.
    leap = (
        digits.stepped
        and len(profile.grid) > PARAMS.distinct
        and digits.rest_as_before(on)
        and growth > on[:size].sum() * digits.case.most(Trait("atom", (digits.name,)))
    )
    few = len(profile.grid) < PARAMS.few_points and share < PARAMS.nearly_all and not leap
    if few and not strange:
        return False
    variance = max(before * (1 - before), PARAMS.least_variance)
    error = np.sqrt(variance * (1 / PARAMS.quantiles + 1 / digits.apart))
    # With many rare grids, some grow by chance, and with few rows they grow a lot.
    certain = digits.apart * _divergence(share, before) > SHARED.total
    if strange and before < PARAMS.rare and certain:
        least = PARAMS.grown_rare + error
    else:
        least = PARAMS.grown + (0 if leap else PARAMS.errors * error)
    if PARAMS.much <= growth < least:
        usual = _most_in_a_block(digits.case, digits.name, on[:size] & ~digits.atoms)
        beyond = PARAMS.beyond_blocks + PARAMS.varies * (usual - before)
        least = min(least, max(PARAMS.much, beyond, PARAMS.errors_beyond * error))
    return bool(growth >= least)


def _divergence(share: float, before: float) -> float:
    """Nats a value by which a share tells itself from the share before (Kullback and Leibler 1951).

    The chance of so large a share is at most the exponential of minus their sum (Chernoff 1952).
    """
    least = max(before, 1 / PARAMS.quantiles)
    return float(rel_entr(share, least) + rel_entr(1 - share, 1 - least))


def _novel(digits: _Digits, on: Mask) -> bool:
    """Whether, in a column of steps, new values all lie on another grid, which is proof."""
    new, touched = digits.new, on[len(digits.weight) :]
    enough = digits.stepped and new.sum() > PARAMS.beside and new.mean() > PARAMS.new
    if not enough or touched[new].mean() <= PARAMS.novel:
        return False
    several = len(np.unique(digits.values[new])) >= PARAMS.digits  # two values are no grid
    return several and digits.rest_as_before(on)


def _most_in_a_block(case: Case, name: str, on: Mask) -> float:
    """Largest share of some grid points in any block of the reference; 1 with too few blocks."""
    points = case.block_cells(name)[:, 1::2]
    counted = points[points.sum(axis=1) >= PARAMS.beside]
    shares = counted @ on / counted.sum(axis=1)
    return float(shares.max()) if len(shares) >= PARAMS.blocks else 1.0


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
            beside = np.abs(x - np.round(x)) > PARAMS.float_error
            ends = np.mod(x[beside], turn)
            counts.append(
                np.histogram(ends, bins=PARAMS.bins, range=(0.0, turn), weights=w[beside])[0]
            )
        shares = [count / max(count.sum(), 1e-12) for count in counts]
        apart = np.abs(shares[0] - shares[1]).sum() / 2
        if counts[1].sum() > PARAMS.beside and apart > PARAMS.other_digits:
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
    return bool(new + np.abs(shares[0] - shares[1]).sum() / 2 < PARAMS.rest)


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
    return bool(near and wide / PARAMS.width <= high - low <= PARAMS.width * wide)


def _grids(profile: NumericProfile, values: Floats) -> Iterator[tuple[str, float, Mask]]:
    """Generate grids from fine to coarse: name, step, and which points and values lie on them."""
    points = profile.points
    both = np.concatenate([points, values])
    known = np.zeros(len(both), dtype=bool)
    with np.errstate(invalid="ignore", over="ignore"):
        largest = max(np.abs(points).max(), 1e-12)
        size = interquartile(profile)
        size = size if 0 < size < np.inf else largest  # of the largest numbers it overflows
        first, last = np.floor(np.log10([size, largest])).astype(int).tolist()
        for power in range(first - PARAMS.finest, min(last + PARAMS.above, _LARGEST) + 1):
            for factor in (1, 2, 5):
                step = factor * 10.0**power
                on = np.abs(both / step - np.round(both / step)) < PARAMS.float_error
                yield f"multiples of {step:g}", step, on
                known |= on & on[: len(points)].all()
        # A cast to 16 bits leaves digits that are on no decimal grid.
        yield "16-bit numbers", 0.0, (both.astype(np.float16).astype(np.float64) == both) & ~known
