"""One false-alarm budget, shared out over every test of a batch."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.monitoring.findings import Finding

BUDGET = {
    "location": 0.30,
    "joint": 0.28,
    "pairs": 0.14,
    "distribution": 0.08,
    "classifier": 0.05,
    "prediction": 0.05,
    "labels": 0.04,
    "spread": 0.03,
    "missing": 0.02,
    "unseen": 0.01,
    "location of batches": 2.0,
    "spread of batches": 0.4,
    "share of batches": 0.4,
    "missing of batches": 0.4,
    "pairs of batches": 0.4,
}
"""Parts of the false-alarm budget, shared out over the families that were tested.

Most goes where observations are few: a handful of batches needs a mild level to say anything,
while thousands of rows reach the strictest one when something is wrong.
"""
DECAY = 0.04
"""Part of the budget that slow decay takes first, so that its run length is always the same."""


@dataclass(frozen=True)
class Group:
    """Tests of one level that draw on one part of the budget."""

    family: str
    tests: Sequence[Finding]

    @property
    def reach(self) -> float:
        """Bound of the chance that any of them differs by its floor."""
        return sum(test.reach for test in self.tests if np.isfinite(test.p_value))


def apply_budget(
    groups: Iterable[Group], decay: Sequence[Finding], alpha: float
) -> tuple[list[Finding], float]:
    """Share `alpha` out over the families that were tested.

    A family whose noise cannot reach its floors more often than its share keeps only what it
    can use; the rest goes to the others. The second value is what was spent on batches.
    """
    groups = _by_family(groups)
    rest = alpha * (1 - DECAY) if decay else alpha
    shares = _shares({group.family: group.reach for group in groups}, rest)
    decided = [
        found
        for group in groups
        for found in _decide_family(group.tests, alpha, shares[group.family])
    ]
    spent = sum(share for family, share in shares.items() if family.endswith("of batches"))
    return decided + [_decide_decay(found, alpha) for found in decay], spent


def _by_family(groups: Iterable[Group]) -> list[Group]:
    families: dict[str, list[Finding]] = {}
    for group in groups:
        families.setdefault(group.family, []).extend(group.tests)
    return [Group(family, tests) for family, tests in sorted(families.items())]


def _shares(reach: Mapping[str, float], alpha: float) -> dict[str, float]:
    """Part of `alpha` of each family: by weight, but no more than its reach."""
    shares = dict.fromkeys(reach, 0.0)
    open_families = {family for family, value in reach.items() if value > 0}
    left = alpha
    while open_families:
        whole = sum(BUDGET[family] for family in sorted(open_families))
        full = {
            family for family in open_families if reach[family] <= left * BUDGET[family] / whole
        }
        if not full:
            return shares | {family: left * BUDGET[family] / whole for family in open_families}
        shares |= {family: reach[family] for family in full}
        left -= sum(reach[family] for family in sorted(full))
        open_families -= full
    return shares


def _decide_family(tests: Sequence[Finding], alpha: float, share: float) -> Iterator[Finding]:
    """Spend a family's budget on the tests that could reach their floor by chance.

    A test with nothing wrong is called drifted with chance min(reach, p) at the level p, so
    the sum of that over all tests bounds the chance that any is: Bonferroni's bound, made
    sharper by what the floors already exclude.
    """
    known = [test for test in tests if np.isfinite(test.p_value)]
    reach = np.sort([test.reach for test in known])
    spent = np.concatenate([[0.0], np.cumsum(reach)])
    p_values = np.asarray([test.p_value for test in tests])
    below = np.searchsorted(reach, p_values)
    chance = spent[below] + (len(reach) - below) * p_values
    for test, value in zip(tests, chance, strict=True):
        if not np.isfinite(test.p_value):
            yield test
            continue
        shared = float(value) * alpha / share if share > 0 else 0.0
        adjusted = min(max(shared, test.p_value), 1.0)
        yield _called(test, adjusted, alpha)


def _decide_decay(found: Finding, alpha: float) -> Finding:
    """Called when its evidence, its weight included, reaches the run length."""
    return _called(found, min(found.p_value / DECAY, 1.0), alpha)


def _called(found: Finding, adjusted: float, alpha: float) -> Finding:
    drifted = adjusted <= alpha and abs(found.statistic) >= found.floor
    return replace(found, adjusted=adjusted, drifted=bool(drifted))
