"""How likely rows are: by a column's own distribution, and as a mixture of sound and faulty."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.reference.profile import Floats, NumericProfile

Mask = NDArray[np.bool_]
Places = NDArray[np.intp]
_ATOM = 0.01
"""Share of its own that makes a value an atom."""
_FEWEST = 30
"""Rows of a block below which nothing is learnt from it."""


class Change(NamedTuple):
    """A transformation: what comes is the factor times the true value, plus the offset."""

    factor: float
    offset: float
    words: str

    def undone(self, values: Floats) -> Floats:
        """The true values."""
        return (values - self.offset) / self.factor


def log_mass(profile: NumericProfile, values: Floats, scale: float = 1.0) -> tuple[Floats, Mask]:
    """Logarithm of how much of the reference lies at each value, and which are its atoms.

    Atoms are single values with a share of their own; elsewhere it is the share in a
    512th of the range, straight between the 64th quantiles, with tails that fall off as a
    power. Missing values count 0. Values that were divided by a scale have to lie nearer to an
    atom by as much, or all of them would be one.
    """
    points = profile.points
    if len(points) < 2:  # a constant is one atom
        same = np.isclose(values, points[0]) if len(points) else np.zeros(len(values), dtype=bool)
        return np.where(same, 0.0, -14.0), same
    weight = np.asarray(profile.upto) - np.asarray(profile.below)
    atoms = weight >= _ATOM
    low, high = points[0], points[-1]
    step = (high - low) / 512
    nearest = _nearest(points, values)
    hit = atoms[nearest] & (np.abs(values - points[nearest]) <= 1e-6 * (high - low) / max(scale, 1))
    edges = np.unique(np.append(np.arange(0, len(points), 8), len(points) - 1))
    rest = np.where(atoms, 0.0, weight).cumsum()
    gaps = np.append(0.0, np.asarray(profile.below)[1:] - np.asarray(profile.upto)[:-1]).cumsum()
    mass = np.diff((rest + gaps)[edges])
    wide = np.maximum(np.diff(points[edges]), step)
    density = np.maximum(mass / wide * step, np.exp(-12.0))
    inside = np.clip(np.searchsorted(points[edges], values, side="right") - 1, 0, len(mass) - 1)
    beyond = np.maximum(np.maximum(low - values, values - high), 0.0) / (high - low)
    tail = -8.0 - 2 * np.log1p(20 * beyond)
    logs = np.where(beyond > 0, tail, np.log(density)[inside])
    logs = np.where(hit, np.log(np.maximum(weight[nearest], 1e-9)), logs)
    return np.where(np.isnan(values), 0.0, logs), hit


def _nearest(points: Floats, values: Floats) -> Places:
    place = np.clip(np.searchsorted(points, values), 1, len(points) - 1)
    return np.where(
        np.abs(values - points[place - 1]) < np.abs(values - points[place]), place - 1, place
    )


def plain_gain(profile: NumericProfile, values: Floats, change: Change) -> Floats:
    """Nats by which each value alone is likelier once a transformation is undone.

    Both arrays have shape (n_rows,); a missing value counts 0.
    """
    new, atom = log_mass(profile, change.undone(values), abs(change.factor))
    gain = new - log_mass(profile, values)[0] - np.where(atom, 0.0, np.log(abs(change.factor)))
    return np.where(np.isnan(values), 0.0, gain)


def drift_gain(profile: NumericProfile, values: Floats, wander: float) -> float:
    """Nats over all rows that an ordinary drift explains: moved, and a little wider or narrower.

    What the column lost in its relation to the others, no drift of it alone gives back.

    Parameters
    ----------
    profile : NumericProfile
    values : array of float, shape (n_rows,)
        As they came.
    wander : float
        Standard deviation of a batch's mean, in standard deviations of the column.
    """
    low, middle, high = np.nanquantile(values, [0.25, 0.5, 0.75])
    before = np.interp([0.25, 0.5, 0.75], np.asarray(profile.upto), profile.points)
    scale = (high - low) / (before[2] - before[0]) if before[2] > before[0] else 1.0
    scale = float(np.clip(scale, 0.6, 1.7))
    furthest = (1.5 + 3 * wander) * profile.sd
    points, weight = profile.points, np.asarray(profile.upto) - np.asarray(profile.below)
    # Most values are those of a few, as numbers of years are; so are those that came.
    counted = weight[weight >= _ATOM].sum() > 0.5
    if counted:
        steps = (values[~np.isnan(values)] - points[0]) / np.median(np.diff(points))
        counted = bool((np.abs(steps - np.round(steps)) < 1e-6).mean() > 0.9)
    best = 0.0
    for factor in (1.0, scale):
        offset = float(np.clip(middle - factor * before[1], -furthest, furthest))
        change = Change(factor, offset, "drift")
        if counted:  # what moved by itself is one of them again
            near = points[_nearest(points, change.undone(points))]
            undone = near[np.clip(np.searchsorted(points, values), 0, len(points) - 1)]
            gain = log_mass(profile, undone)[0] - log_mass(profile, values)[0]
            gain = np.where(np.isnan(values), 0.0, gain)
        else:
            gain = plain_gain(profile, values, change)
        best = max(best, float(gain.sum()))
    return best


def of_blocks(blocks: Places, gain: Floats) -> Floats:
    """Nats a row that a hypothesis gains on each block of the reference, where it is not true.

    Parameters
    ----------
    blocks : array of int, shape (n_rows,)
        Number of the block of each row.
    gain : array of float, shape (n_rows,)
        Nats by which each row is likelier under the hypothesis.
    """
    parts = [gain[blocks == number] for number in np.unique(blocks)]
    return np.asarray([mixture(part)[1] / len(part) for part in parts if len(part) >= _FEWEST])


def mixture(gain: Floats) -> tuple[float, float]:
    """Share of rows that a hypothesis is true of, and nats it gains over all rows.

    Parameters
    ----------
    gain : array of float, shape (n_rows,)
        Nats by which each row is likelier under the hypothesis.

    Notes
    -----
    Maximum likelihood of the share of a mixture of two known densities, by expectation and
    maximisation (Dempster, Laird & Rubin 1977, J. R. Stat. Soc. B 39: 1-38).
    """
    odds = np.exp(np.clip(gain, -30, 30))
    share = 0.5
    for _ in range(30):
        new = float((share * odds / (1 - share + share * odds)).mean())
        if abs(new - share) < 1e-4:  # settled
            break
        share = new
    return share, float(np.log(1 - share + share * odds).sum())


def touched_rows(gain: Floats, share: float) -> Mask:
    """Rows that a hypothesis is more likely true of than not."""
    odds = np.exp(np.clip(gain, -30, 30))
    likely: Mask = share * odds > 1 - share
    return likely


def shares_at(profile: NumericProfile, values: Floats) -> Floats:
    """Share of the reference at each value, 0 to 1; both of shape (n_rows,)."""
    place = np.minimum(np.searchsorted(profile.points, values), len(profile.points) - 1)
    shares = (np.asarray(profile.upto) - np.asarray(profile.below))[place]
    return np.where(profile.points[place] == values, shares, 0.0)


def surprise(share: float, before: float) -> float:
    """Nats a row by which a share, 0 to 1, is likelier when it was made than when it came about.

    The share times the logarithm of its ratio to the one before: what its rows add to the
    divergence of Kullback & Leibler (1951, Ann. Math. Stat. 22: 79-86).
    """
    return round(share * float(np.log(share / max(before, 1e-4))), 3)
