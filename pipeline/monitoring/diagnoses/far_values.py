"""Numbers in a part of the rows that lie far from all that came before."""

from dataclasses import dataclass

import numpy as np

from pipeline.columns import as_number
from pipeline.monitoring.diagnoses.case import NATS, Case
from pipeline.monitoring.diagnoses.likelihood import Mask, surprise
from pipeline.monitoring.diagnoses.parameters import SHARED
from pipeline.monitoring.diagnoses.segments import clause, segment
from pipeline.monitoring.findings import Cause


@dataclass(frozen=True)
class Parameters:
    """Which numbers are far away, and when they are another quantity and no code.

    Attributes
    ----------
    away : float
        Distance from all earlier values, in widths of their range; of positive numbers, of their
        logarithms as well.
    varied : int
        Fewest distinct values.
    usual : float
        Least share of the other rows within the earlier range.
    """

    away: float = 3.0
    varied: int = 10
    usual: float = 0.9


PARAMS = Parameters()


def far_rows(case: Case, name: str) -> Mask:
    """Mark the drawn rows whose numbers are far from all that came before.

    That is some times further than these are from one another. None is marked where too few are,
    or where the other rows have moved as well.
    """
    values = case.numbers(name)
    known = ~np.isnan(values)
    if not len(case.profile(name).points) or case.names_the_block(name):
        return np.zeros_like(known)
    sketches = [one.sketch for one in case.recent if one.sketch is not None]
    kept = [as_number(one[name]).to_numpy() for one in sketches if name in one]
    before = np.concatenate([case.profile(name).points, *kept])
    low, high = float(np.nanmin(before)), float(np.nanmax(before))
    away = PARAMS.away * (high - low)
    far: Mask = known & ((values < low - away) | (values > high + away))
    if low > 0:  # minutes among hours lie near 0, and far from any hour by their ratio
        far |= known & (values > 0) & (values < low * (low / high) ** PARAMS.away)
    near = values[known & ~far]
    share = far.sum() / max(known.sum(), 1)
    inside = (near >= low) & (near <= high)
    plain = (
        high > low
        and SHARED.part <= share <= SHARED.most
        and len(np.unique(values[far])) >= PARAMS.varied
        and inside.mean() >= PARAMS.usual
    )
    return far if plain else np.zeros_like(far)


def far_values(case: Case, name: str) -> Cause | None:
    """Recognise numbers in a part of the rows that are another quantity than the others."""
    far = far_rows(case, name)
    if not far.any():
        return None
    values, points = case.numbers(name)[far], case.profile(name).points
    share, where = float(far.mean()), segment(case, far, [name])
    return Cause(
        "unit",
        (name,),
        f"{name!r} lies between {values.min():.6g} and {values.max():.6g} in {share:.0%} of "
        f"rows{clause(where)}, where all others lie between {points[0]:.6g} and {points[-1]:.6g}: "
        "another unit, or another quantity?",
        {NATS: surprise(share, 0.0), "share of rows": round(share, 4)},
        f"Ask the source what {name!r} holds in these rows; convert it before it arrives.",
        share=round(share, 4),
        segment=where,
    )
