"""Units that the digits of a column tell: values off its grid that are on it once converted."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.columns import Floats
from pipeline.monitoring.diagnoses.case import Case
from pipeline.monitoring.diagnoses.conversions import CONVERSIONS
from pipeline.monitoring.diagnoses.likelihood import Change, Mask, plain_gain
from pipeline.monitoring.diagnoses.parameters import SHARED
from pipeline.monitoring.diagnoses.transformations import Fit


@dataclass(frozen=True)
class Parameters:
    """What a grid is, and when values off it are those of another unit.

    Attributes
    ----------
    distinct : int
        Fewest distinct training values that show a grid.
    digits : int
        Decimal digits, from the first of the largest value on, that are looked at.
    exact : float
        Distance from a grid, in steps, up to which a value lies on it.
    errors : tuple of floats
        Relative errors of a factor that are tried: 2.204623 and 2.2046 are the same unit.
    back : float
        Least share of the values off the grid that lie on it once converted.
    chance : float
        Largest share of other values, with as many digits, that the conversion brings there too.
    inside : float
        Least share of the converted values within the range of the training values.
    apart : float
        Least share of converted values that the grid does not hold by itself.
    span : int
        Steps of the converted grid among which other values are drawn.
    """

    distinct: int = 8
    digits: int = 10
    exact: float = 1e-6
    errors: tuple[float, ...] = (1e-6, 3e-6, 1e-5, 3e-5, 1e-4)
    back: float = 0.98
    chance: float = 0.2
    inside: float = 0.9
    apart: float = 0.1
    span: int = 50


PARAMS = Parameters()


def off_grid(case: Case, name: str, values: Floats) -> Fit | None:
    """Find the known unit by which values that are off the training grid lie on it again.

    Ages are whole years and prices whole cents; hardly any other values are so when divided by
    2.2046. A conversion counts only if it would not bring other values of as many digits there.

    Parameters
    ----------
    case : Case
        The batch.
    name : str
        A numeric column.
    values : array of float, shape (n_rows,)
        Its values in the first drawn rows.
    """
    profile = case.profile(name)
    points = profile.points
    step = _step(points) if len(points) >= PARAMS.distinct else 0.0
    if step == 0:
        return None
    off = ~np.isnan(values) & ~_on(values, step)
    if off.sum() < SHARED.fewest or off.mean() < SHARED.part:
        return None
    digit = _step(values[off])
    fits = [
        fit
        for change in _changes()
        for error in PARAMS.errors
        if (fit := _fit(points, values, off=off, grid=(step, digit), by=change, error=error))
    ]
    # Twice a whole number is a whole number: of several units, the distribution tells which.
    return max(
        fits,
        key=lambda fit: fit.total + plain_gain(profile, values, fit.change)[off].sum(),
        default=None,
    )


def _fit(
    points: Floats,
    values: Floats,
    *,
    off: Mask,
    grid: tuple[float, float],
    by: Change,
    error: float,
) -> Fit | None:
    """How well a conversion brings the values that are off the grid back to it.

    `grid` is the step of the training values, and that of the values off it.
    """
    (step, digit), came = grid, values[off]
    true = by.undone(came)
    # A converted value was perhaps rounded, by half of its last digit.
    near = digit / 2 / by.factor / step + error * np.abs(true) / step
    back = float(_on(true, step, near).mean())
    inside = float(((true >= points[0]) & (true <= points[-1])).mean())
    apart = float((~_on(points * by.factor + by.offset, step)).mean())
    if back < PARAMS.back or inside < PARAMS.inside or apart < PARAMS.apart:
        return None
    moved = np.random.default_rng(0).uniform(1, PARAMS.span, len(came)) * by.factor * step
    moved = np.round(moved / digit) * digit if digit else moved
    chance = max(float(_on(by.undone(came + moved), step, near).mean()), 1 / len(came))
    if chance > PARAMS.chance:
        return None
    share = min(float(off.mean()) / apart, 1.0)
    gain = np.where(off, np.log(back / chance), 0.0)
    total = float(gain.sum())
    return Fit(by, share, total, gain, 0.0) if total > SHARED.total else None


def _changes() -> Iterator[Change]:
    for factor, offset, sent, meant in CONVERSIONS:
        yield Change(factor, offset, f"{sent} for {meant}")
        yield Change(1 / factor, -offset / factor, f"{meant} for {sent}")


def _on(values: Floats, step: float, near: Floats | float = 0.0) -> Mask:
    """Which values lie on the multiples of a step, or within a part of a step of them."""
    steps = values / step
    return np.abs(steps - np.round(steps)) <= near + PARAMS.exact * np.maximum(
        1, 1e-6 * np.abs(steps)
    )


def _step(values: Floats) -> float:
    """The coarsest decimal step of whose multiples all values are; 0 if there is none."""
    largest = float(np.abs(values).max(initial=0.0))
    if not 0 < largest < np.inf:
        return 0.0
    start = int(np.floor(np.log10(largest)))
    powers = 10.0 ** np.arange(start, start - PARAMS.digits, -1)
    steps = [k * float(power) for power in powers for k in (5, 2, 1)]
    return next((step for step in steps if _on(values, step).all()), 0.0)
