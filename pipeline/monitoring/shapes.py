"""How a column looked in the reference and looks in a batch: what a report draws of it.

It is made from the counts and quantiles that the comparison has computed, so no row is read again.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from pipeline.columns import Floats
from pipeline.reference import Reference
from pipeline.reference.profile import CategoricalProfile, NumericProfile, Profile
from pipeline.reference.tally import Tally

Ends = tuple[float, float]
BINS = 20
"""Bins of a drawn number."""
_WHOLE = 32
"""Most whole numbers that get a bin each."""
_LABELS = 8
"""Labels of the reference that are drawn."""
_EDGE = 0.005
"""Share of the values that may lie outside of the drawn range on each side, in the outer bins."""
_SQUEEZED = 4
"""Times the range of the reference from which a range is broken: else the reference is a spike."""


@dataclass(frozen=True)
class Shape:
    """A column of the reference and of a batch, side by side.

    Attributes
    ----------
    column : str
        Its name.
    before, now : tuple of float
        Share of the values in each bin, or of each of `labels`, in the reference and in the batch.
        Both are empty where nothing can be drawn.
    missing : tuple of two floats
        Share of the rows without a value, in the reference and in the batch.
    ends : tuple of two, four or six floats, or empty
        The drawn range of a number; values outside of it are in the outer bins. Where a batch lies
        far outside of the reference, the axis is broken: two ends for each part, from the left to
        the right, with equally many bins.
    quarters : tuple of six floats, or empty
        Lower quartile, median and upper quartile of a number, in the reference and in the batch.
    labels : tuple of str
        Labels of a category: the most frequent ones of either side.
    new : dict of str to int
        Rows of the batch per label that the reference does not hold.
    arrived : bool
        Whether the batch is drawn as it arrived, with the rows that validation refused.
    beyond : tuple of two floats, or empty
        Share of the batch's numbers below and above every value of the reference.
    """

    column: str
    before: tuple[float, ...]
    now: tuple[float, ...]
    missing: tuple[float, float]
    ends: tuple[float, ...] = ()
    quarters: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()
    new: dict[str, int] = field(default_factory=dict)
    arrived: bool = False
    beyond: tuple[float, ...] = ()


def shapes(
    reference: Reference, tally: Tally, came: Tally, *, at_fault: Collection[str] = ()
) -> Iterator[Shape]:
    """Describe each column of a batch beside the reference.

    Parameters
    ----------
    reference : Reference
        The training rows.
    tally, came : Tally
        Valid rows of the batch, and all rows as they arrived.
    at_fault : collection of str
        Columns of which all rows are described, because a fault may make rows invalid.
    """
    for name, profile in sorted(reference.columns.items()):
        arrived = name in at_fault and name not in came.absent
        yield _shape(name, profile, came if arrived else tally, arrived=arrived)


def _shape(name: str, profile: Profile, tally: Tally, *, arrived: bool) -> Shape:
    whole = profile.n + profile.missing
    missing = (
        profile.missing / whole if whole else float("nan"),
        1 - tally.known(name) / tally.rows if tally.rows else float("nan"),
    )
    if isinstance(profile, CategoricalProfile):
        return _labels(name, profile, tally, missing, arrived=arrived)
    quantiles, counts = tally.quantiles[name], tally.counts[name]
    ends, edges = _range(profile, quantiles)
    if not ends:
        return Shape(name, (), (), missing, arrived=arrived)
    before = np.diff(np.concatenate([[0.0], profile.share(edges, "upto"), [1.0]]))
    level = np.linspace(0, 1, len(quantiles))
    now = np.diff(np.concatenate([[0.0], np.interp(edges, quantiles, level), [1.0]]))
    quarters = [_quantile(profile, share) for share in (0.25, 0.5, 0.75)]
    quarters += [float(quantiles[round(q * (len(quantiles) - 1))]) for q in (0.25, 0.5, 0.75)]
    return Shape(
        name,
        tuple(before.tolist()),
        tuple(now.tolist()),
        missing,
        ends=ends,
        quarters=tuple(quarters),
        arrived=arrived,
        beyond=tuple((counts[[0, -1]] / counts.sum()).tolist()),
    )


def _quantile(profile: NumericProfile, share: float) -> float:
    place = int(np.searchsorted(profile.upto, share))
    return float(profile.points[min(place, len(profile.points) - 1)])


def _range(profile: NumericProfile, quantiles: Floats) -> tuple[tuple[float, ...], Floats]:
    """Ends of the drawn range and the edges between its bins.

    There are none where a side holds no value, or the range is too wide for a number. A few whole
    numbers are in the middle of a bin each.
    """
    nothing = (), np.empty(0)
    if not profile.n or not len(quantiles):
        return nothing
    last = len(quantiles) - 1
    least, most = _quantile(profile, _EDGE), _quantile(profile, 1 - _EDGE)
    low = min(least, float(quantiles[round(_EDGE * last)]))
    high = max(most, float(quantiles[round((1 - _EDGE) * last)]))
    with np.errstate(over="ignore"):
        wide = np.float64(high) - np.float64(low)
    if not np.isfinite(wide):
        return nothing
    drawn = np.concatenate([profile.points, quantiles])
    whole = bool((drawn == np.round(drawn)).all())
    if wide > _SQUEEZED * (most - least):
        seen = np.concatenate([[least, most], quantiles[(quantiles >= low) & (quantiles <= high)]])
        margin = (most - least) / 4
        near = (seen >= least - margin) & (seen <= most + margin)
        sides = [seen[~near & (seen < least)], seen[near], seen[~near & (seen > most)]]
        parts = [(float(side.min()), float(side.max())) for side in sides if len(side)]
        return _broken(parts, whole=whole)
    if whole and wide < _WHOLE:
        return (low, high), np.arange(low + 0.5, high)
    margin = 0.0 if wide else max(abs(low), 1.0) / 2
    return (low, high), np.linspace(low - margin, high + margin, BINS + 1)[1:-1]


def _broken(parts: list[Ends], *, whole: bool) -> tuple[tuple[float, ...], Floats]:
    """Ends of the parts of a broken range, and the edges between all of their bins.

    A part of a few whole numbers has them in the middle of a bin each.
    """
    bins = -(-BINS // len(parts))
    cuts = [(left[1] + right[0]) / 2 for left, right in pairwise(parts)]
    walls = [parts[0][0] - 1.0, *cuts, parts[-1][1] + 1.0]
    edges: list[Floats] = []
    for place, (low, high) in enumerate(parts):
        outer = low, high
        if low == high:
            margin = min(low - walls[place], walls[place + 1] - high)
            outer = low - margin, high + margin
        elif whole and high - low < bins:
            outer = low - 0.5, low - 0.5 + bins
        own = np.linspace(*outer, bins + 1)[1:-1]
        edges += [np.clip(own, walls[place], walls[place + 1]), np.array(cuts[place : place + 1])]
    return tuple(end for part in parts for end in part), np.concatenate(edges)


def _labels(
    name: str,
    profile: CategoricalProfile,
    tally: Tally,
    missing: tuple[float, float],
    *,
    arrived: bool,
) -> Shape:
    counts, known, new = tally.counts[name], tally.known(name), tally.novel[name]
    if not known or not profile.n:
        return Shape(name, (), (), missing, new=new, arrived=arrived)
    before, now = profile.rows / profile.n, counts[:-1] / known
    most = np.argsort(-np.maximum(before, now), kind="stable")[:_LABELS]
    kept = sorted(most.tolist())  # the reference lists the most frequent label first
    every = list(profile.counts)
    return Shape(
        name,
        (*before[kept].tolist(), *(0.0 for _ in new)),
        (*now[kept].tolist(), *(rows / known for rows in new.values())),
        missing,
        labels=(*(every[place] for place in kept), *new),
        new=new,
        arrived=arrived,
    )
