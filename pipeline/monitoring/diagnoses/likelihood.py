"""How likely rows are under the reference, and mixtures of sound and faulty rows."""

from enum import Enum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.columns import Floats
from pipeline.reference.masses import ATOM
from pipeline.reference.profile import NumericProfile

Mask = NDArray[np.bool_]
Places = NDArray[np.intp]
_FEWEST = 30
"""Fewest rows of a block that is taken into account."""


class Origin(Enum):
    """Where a transformation comes from; a line fits more easily than a known unit."""

    KNOWN = "a known conversion"
    QUARTILES = "a line through the quartiles"
    RELATION = "a line through rows that contradict the other columns"


class Change(NamedTuple):
    """A transformation: the value that arrives is factor * true value + offset."""

    factor: float
    offset: float
    words: str
    origin: Origin = Origin.KNOWN

    def undone(self, values: Floats) -> Floats:
        """Undo the transformation: the true values."""
        return (values - self.offset) / self.factor


def log_mass(profile: NumericProfile, values: Floats, scale: float = 1.0) -> tuple[Floats, Mask]:
    """Logarithm of the reference's mass at each value, and which values hit an atom.

    At atoms, single values with a share of their own, it is that share. Elsewhere it is the share
    in a 512th of the range, interpolated between the 64 quantiles, with tails that fall off as a
    power. Missing values count 0. Values that were divided by a large scale lie closer together,
    so they have to lie closer to an atom to hit it.
    """
    points = profile.points
    if len(points) < 2:  # a constant is a single atom
        constant = (
            np.isclose(values, points[0]) if len(points) else np.zeros(len(values), dtype=bool)
        )
        return np.where(constant, 0.0, -14.0), constant
    masses, low, high = profile.masses, points[0], points[-1]
    nearest = _nearest(points, values)
    close = np.abs(values - points[nearest]) <= 1e-6 * (high - low) / max(scale, 1)
    hit = masses.atoms[nearest] & close
    last = len(masses.density) - 1
    inside = np.clip(np.searchsorted(masses.edges, values, side="right") - 1, 0, last)
    beyond = np.maximum(np.maximum(low - values, values - high), 0.0) / (high - low)
    tail = -8.0 - 2 * np.log1p(20 * beyond)
    logs = np.where(beyond > 0, tail, masses.density[inside])
    logs = np.where(hit, masses.logs[nearest], logs)
    return np.where(np.isnan(values), 0.0, logs), hit


def _nearest(points: Floats, values: Floats) -> Places:
    place = np.clip(np.searchsorted(points, values), 1, len(points) - 1)
    return np.where(
        np.abs(values - points[place - 1]) < np.abs(values - points[place]), place - 1, place
    )


def plain_gain(
    profile: NumericProfile, values: Floats, change: Change, *, mass: Floats | None = None
) -> Floats:
    """Nats by which each value by itself is likelier once a transformation is undone.

    Values and result have shape (n_rows,); a missing value counts 0. `mass` is the logarithm of the
    reference's mass at the values, where it is known already.
    """
    mass = log_mass(profile, values)[0] if mass is None else mass
    new, atom = log_mass(profile, change.undone(values), abs(change.factor))
    gain = new - mass - np.where(atom, 0.0, np.log(abs(change.factor)))
    return np.where(np.isnan(values), 0.0, gain)


def drift_gain(profile: NumericProfile, values: Floats, wander: float) -> float:
    """Nats over all rows that an ordinary drift explains: a move and a small change of width.

    Relations to other columns do not enter: no drift of the column alone could restore them.

    Parameters
    ----------
    profile : NumericProfile
        The column in the reference.
    values : array of float, shape (n_rows,)
        Values as they arrived.
    wander : float
        Standard deviation of a batch's mean, in standard deviations of the column.
    """
    low, middle, high = np.nanquantile(values, [0.25, 0.5, 0.75])
    before = np.interp([0.25, 0.5, 0.75], np.asarray(profile.upto), profile.points)
    scale = (high - low) / (before[2] - before[0]) if before[2] > before[0] else 1.0
    scale = float(np.clip(scale, 0.6, 1.7))
    furthest = (1.5 + 3 * wander) * profile.sd
    points, weight = profile.points, np.asarray(profile.upto) - np.asarray(profile.below)
    # Whether most values are steps, as whole years are, in the reference and in the batch.
    counted = weight[weight >= ATOM].sum() > 0.5
    step = float(np.median(np.diff(points))) if counted else 0.0
    if counted:
        steps = (values[~np.isnan(values)] - points[0]) / step
        counted = bool((np.abs(steps - np.round(steps)) < 1e-6).mean() > 0.9)
    best = 0.0
    for factor in (1.0, scale):
        offset = float(np.clip(middle - factor * before[1], -furthest, furthest))
        change = Change(factor, offset, "drift")
        if counted:  # a drifted value lies on a step again
            undone = change.undone(values)
            near = points[_nearest(points, undone)]
            undone = np.where(np.abs(near - undone) <= step, near, undone)
            gain = log_mass(profile, undone)[0] - log_mass(profile, values)[0]
            gain = np.where(np.isnan(values), 0.0, gain)
        else:
            gain = plain_gain(profile, values, change)
        best = max(best, float(gain.sum()))
    return best


def of_blocks(blocks: Places, gain: Floats) -> Floats:
    """Nats per row that a hypothesis gains on each block of the reference, where it is false.

    Parameters
    ----------
    blocks : array of int, shape (n_rows,)
        Block number of each row.
    gain : array of float, shape (n_rows,)
        Nats by which each row is likelier under the hypothesis.
    """
    parts = [gain[blocks == number] for number in np.unique(blocks)]
    return np.asarray([mixture(part)[1] / len(part) for part in parts if len(part) >= _FEWEST])


def mixture(gain: Floats) -> tuple[float, float]:
    """Estimate the share of rows for which a hypothesis holds, and its gain in nats.

    Parameters
    ----------
    gain : array of float, shape (n_rows,)
        Nats by which each row is likelier under the hypothesis.

    Notes
    -----
    The share of a mixture of two known densities is estimated by maximum likelihood, with
    expectation and maximisation (Dempster, Laird & Rubin 1977, J. R. Stat. Soc. B 39: 1-38). The
    gain is that of the mixture over all rows.
    """
    odds = np.exp(np.clip(gain, -30, 30))
    share = 0.5
    for _ in range(30):
        new = float((share * odds / (1 - share + share * odds)).mean())
        if abs(new - share) < 1e-4:  # converged
            break
        share = new
    return share, float(np.log(1 - share + share * odds).sum())


def touched_rows(gain: Floats, share: float) -> Mask:
    """Mark the rows for which a hypothesis is more likely true than false."""
    odds = np.exp(np.clip(gain, -30, 30))
    likely: Mask = share * odds > 1 - share
    return likely


def shares_at(profile: NumericProfile, values: Floats) -> Floats:
    """Share of the reference at exactly each value, from 0 to 1, shape (n_rows,)."""
    place = np.minimum(np.searchsorted(profile.points, values), len(profile.points) - 1)
    shares = (np.asarray(profile.upto) - np.asarray(profile.below))[place]
    return np.where(profile.points[place] == values, shares, 0.0)


def surprise(share: float, before: float) -> float:
    """Nats per row by which a share, from 0 to 1, is likelier under a fault than by chance.

    It is the share times the logarithm of its ratio to the share before: the contribution of these
    rows to the divergence of Kullback & Leibler (1951, Ann. Math. Stat. 22: 79-86).
    """
    return round(share * float(np.log(share / max(before, 1e-4))), 3)


def sampling_distance(shares: Floats, *rows: float) -> float:
    """Mean total variation distance of the shares of two samples, or of one from the truth.

    Each difference is nearly normal, with mean size its standard deviation times root 2/pi.

    Parameters
    ----------
    shares : array of float, shape (n_labels,)
        Shares of labels.
    *rows : float
        Rows of each sample.
    """
    variance = shares * (1 - shares) * sum(1 / n for n in rows)
    return float(np.sqrt(variance).sum() / np.sqrt(2 * np.pi))
