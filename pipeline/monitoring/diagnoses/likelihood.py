"""How likely rows are under the reference, and mixtures of sound and faulty rows."""

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.columns import Floats
from pipeline.monitoring.diagnoses.parameters import SHARED
from pipeline.reference.masses import ATOM
from pipeline.reference.profile import NumericProfile

Mask = NDArray[np.bool_]
Places = NDArray[np.intp]


@dataclass(frozen=True)
class Parameters:
    """How likely values count that the reference hardly holds, and how drift and shares are fitted.

    Attributes
    ----------
    off_constant : float
        Logarithm of the mass at any value but that of a constant column.
    close : float
        Distance from an atom, relative to the range, up to which a value hits it.
    tail, tail_power, tail_scale : float
        Logarithm of the mass at the ends of the range; the power with which it falls off beyond
        them, and how many of its units the range is wide.
    narrowest, widest : float
        Factors up to which ordinary drift changes the width of a column.
    furthest, wanders : float
        Furthest move by ordinary drift: standard deviations of the column, and of the means of
        batches, which are added.
    mostly, nearly_all : float
        Shares of the reference and of the batch that have to lie on steps, such as whole years, in
        a column of steps.
    on_step : float
        Distance from a step, in steps, up to which a value lies on it.
    block_factor : float
        Factor by which a gain has to exceed that on the block of the reference that gains most.
    largest : float
        Most nats that a row counts for or against a hypothesis when its share is estimated.
    rounds : int
        Most rounds in which the share of affected rows is estimated.
    converged : float
        Change of the share in a round below which it is estimated.
    least_share : float
        Share that a value without rows in the reference counts as.
    """

    off_constant: float = -14.0
    close: float = 1e-6
    tail: float = -8.0
    tail_power: float = 2.0
    tail_scale: float = 20.0
    narrowest: float = 0.6
    widest: float = 1.7
    furthest: float = 1.5
    wanders: float = 3.0
    mostly: float = 0.5
    nearly_all: float = 0.9
    on_step: float = 1e-6
    block_factor: float = 2.0
    largest: float = 30.0
    rounds: int = 30
    converged: float = 1e-4
    least_share: float = 1e-4


PARAMS = Parameters()


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
        return np.where(constant, 0.0, PARAMS.off_constant), constant
    masses, low, high = profile.masses, points[0], points[-1]
    nearest = _nearest(points, values)
    close = np.abs(values - points[nearest]) <= PARAMS.close * (high - low) / max(scale, 1)
    hit = masses.atoms[nearest] & close
    last = len(masses.density) - 1
    inside = np.clip(np.searchsorted(masses.edges, values, side="right") - 1, 0, last)
    beyond = np.maximum(np.maximum(low - values, values - high), 0.0) / (high - low)
    tail = PARAMS.tail - PARAMS.tail_power * np.log1p(PARAMS.tail_scale * beyond)
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
    undone, step = change.undone(values), _step(profile, values)
    if step:  # whole knots were rounded to whole kilometres an hour
        undone = _on_points(profile, undone, step / 2 / abs(change.factor))
    new, atom = log_mass(profile, undone, abs(change.factor))
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
    scale = float(np.clip(scale, PARAMS.narrowest, PARAMS.widest))
    furthest = (PARAMS.furthest + PARAMS.wanders * wander) * profile.sd
    step, best = _step(profile, values), 0.0
    for factor in (1.0, scale):
        # It grows wider about its middle: about 0 it would move by any distance.
        moved = before[1] + float(np.clip(middle - before[1], -furthest, furthest))
        change = Change(factor, moved - factor * before[1], "drift")
        if step:  # a drifted value lies on a step again
            undone = _on_points(profile, change.undone(values), step)
            gain = log_mass(profile, undone)[0] - log_mass(profile, values)[0]
            gain = np.where(np.isnan(values), 0.0, gain)
        else:
            gain = plain_gain(profile, values, change)
        best = max(best, float(gain.sum()))
    return best


def _step(profile: NumericProfile, values: Floats) -> float:
    """The step of a column of which most values are steps, as whole years are, now as before.

    0 for any other column.
    """
    points, weight = profile.points, np.asarray(profile.upto) - np.asarray(profile.below)
    if len(points) < 2 or weight[weight >= ATOM].sum() <= PARAMS.mostly:
        return 0.0
    step = float(np.median(np.diff(points)))
    steps = (values[~np.isnan(values)] - points[0]) / step
    on = np.abs(steps - np.round(steps)) < PARAMS.on_step
    return step if len(on) and on.mean() > PARAMS.nearly_all else 0.0


def _on_points(profile: NumericProfile, values: Floats, near: float) -> Floats:
    """Values moved to the nearest value of the reference, where it is near."""
    points = profile.points[_nearest(profile.points, values)]
    return np.where(np.abs(points - values) <= near, points, values)


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
    return np.asarray(
        [mixture(part)[1] / len(part) for part in parts if len(part) >= SHARED.fewest_of_a_block]
    )


def of_chance(blocks: Places, gain: Floats) -> float:
    """Nats per row that a hypothesis has to exceed: a multiple of the most that any block gains.

    Parameters are as in `of_blocks`; 0 where no block gains, or none is large enough.
    """
    nats: float = PARAMS.block_factor * max(of_blocks(blocks, gain).max(initial=0.0), 0.0)
    return nats


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
    odds = np.exp(np.clip(gain, -PARAMS.largest, PARAMS.largest))
    share = 0.5
    for _ in range(PARAMS.rounds):
        true = share * odds
        new = float((true / (1 - share + true)).sum() / len(odds))  # `mean` takes twice as long
        if abs(new - share) < PARAMS.converged:
            break
        share = new
    return share, float(np.log(1 - share + share * odds).sum())


def at_most(gain: Floats) -> float:
    """Bound the nats that a mixture gains, whatever the share of rows; parameter of `mixture`."""
    return float(np.maximum(gain, 0.0).sum())


def touched_rows(gain: Floats, share: float) -> Mask:
    """Mark the rows for which a hypothesis is more likely true than false."""
    odds = np.exp(np.clip(gain, -PARAMS.largest, PARAMS.largest))
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
    return round(share * float(np.log(share / max(before, PARAMS.least_share))), 3)


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
