"""Pile-ups: the value of a column that is far more frequent than before."""

import numpy as np

from pipeline.monitoring.diagnoses.case import Case
from pipeline.monitoring.diagnoses.likelihood import shares_at
from pipeline.monitoring.diagnoses.parameters import SHARED
from pipeline.reference.profile import largest_excess


def grown_value(case: Case, name: str) -> tuple[float, float, float] | None:
    """The result of `top_value` where the share of some value grew noticeably."""
    excess = largest_excess(case.profile(name), case.tally.counts[name])
    return None if excess < SHARED.frequent else top_value(case, name)


def top_value(case: Case, name: str) -> tuple[float, float, float] | None:
    """Find the value whose share grew most: value, share now, share in the reference."""
    values, profile = case.numbers(name), case.profile(name)
    known = values[~np.isnan(values)]
    if len(known) < SHARED.fewest or len(profile.grid) < 2:  # a constant cannot get stuck
        return None
    distinct, counts = np.unique(known, return_counts=True)
    shares = counts / len(known)
    grown = shares - shares_at(profile, distinct)
    best = int(grown.argmax())
    return float(distinct[best]), float(shares[best]), float(shares[best] - grown[best])
