"""Share one false-alarm budget among all tests of a batch."""

from collections.abc import Iterable, Mapping, Sequence
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
    "range": 0.01,
    "unseen": 0.01,
    "location of batches": 2.0,
    "spread of batches": 0.4,
    "share of batches": 0.4,
    "missing of batches": 0.4,
    "pairs of batches": 0.4,
}
"""Weight of each family of tests in the false-alarm budget.

Families with few observations get most: a handful of batches needs a mild level to show anything,
while thousands of rows reach even the strictest level when something is wrong.
"""
DECAY = 0.04
"""Part of the budget reserved for slow decay, so that its run length is always equal."""


@dataclass(frozen=True)
class Group:
    """Tests of one family, which share one part of the budget."""

    family: str
    tests: Sequence[Finding]

    @property
    def reach(self) -> float:
        """Upper bound of the chance that any test of the group differs by its floor."""
        return sum(test.reach for test in self.tests if np.isfinite(test.p_value))


def apply_budget(
    groups: Iterable[Group], decay: Sequence[Finding], alpha: float
) -> tuple[list[Finding], float]:
    """Share `alpha` among the families that were tested, and decide each test.

    A family whose noise reaches its floors less often than its share allows keeps only what it
    can use; the rest goes to the other families.

    Parameters
    ----------
    groups : iterable of Group
        Tests at the levels of rows and of batches.
    decay : sequence of Finding
        Tests of slow decay, which take their part first.
    alpha : float
        Chance that a batch with nothing wrong alarms, over all tests together.

    Returns
    -------
    list of Finding, float
        All tests with their adjusted p-values and decisions, and the part of `alpha` that was
        spent at the level of batches.
    """
    groups = _by_family(groups)
    rest = alpha * (1 - DECAY) if decay else alpha
    shares = _shares({group.family: group.reach for group in groups}, rest)
    decided = [
        found
        for group in groups
        for found in decide_family(group.tests, alpha, shares[group.family])
    ]
    spent = sum(
        shares[group.family]
        for group in groups
        if any(test.level == "batches" for test in group.tests)
    )
    return decided + [_decide_decay(found, alpha) for found in decay], spent


@dataclass(frozen=True)
class Bounds:
    """What the budget allows when nothing is wrong.

    Attributes
    ----------
    alarm, persisted : float
        Largest chance that a batch alarms, and that drift seems to persist.
    levels : dict of str to float
        Largest p-value of one test with which it is found, by family.
    """

    alarm: float
    persisted: float
    levels: dict[str, float]


def bounds(groups: Iterable[Group], alpha: float, *, decay: bool) -> Bounds:
    """How often tests are found by chance, and how clear one test has to be.

    Parameters
    ----------
    groups : iterable of Group
        Tests at the levels of rows and of batches.
    alpha : float
        Chance that a batch with nothing wrong alarms, over all tests together.
    decay : bool
        Whether slow decay is tested as well.
    """
    groups, kept = _by_family(groups), DECAY * alpha if decay else 0.0
    shares = _shares({group.family: group.reach for group in groups}, alpha - kept)
    batches = [group.family for group in groups if any(t.level == "batches" for t in group.tests)]
    return Bounds(
        alarm=sum(shares.values()) + kept,
        persisted=sum(shares[family] for family in batches) + kept,
        levels={group.family: min(_level(group, shares[group.family]), alpha) for group in groups},
    )


def _level(group: Group, share: float) -> float:
    """The p-value p at which the sum of min(reach, p) over a family equals its share."""
    reach = np.sort([test.reach for test in group.tests if np.isfinite(test.p_value)])
    spent = np.concatenate([[0.0], np.cumsum(reach)])
    for below, least in enumerate(reach):
        level = (share - spent[below]) / (len(reach) - below)
        if level <= least:
            return float(level)
    return 1.0


def _by_family(groups: Iterable[Group]) -> list[Group]:
    families: dict[str, list[Finding]] = {}
    for group in groups:
        families.setdefault(group.family, []).extend(group.tests)
    return [Group(family, tests) for family, tests in sorted(families.items())]


def _shares(reach: Mapping[str, float], alpha: float) -> dict[str, float]:
    """Part of `alpha` that each family gets: by weight, but no more than its reach."""
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


def decide_family(tests: Sequence[Finding], alpha: float, share: float) -> list[Finding]:
    """Spend the budget of a family on the tests that could reach their floor by chance.

    At the level p, a test with nothing wrong counts as drifted with chance min(reach, p). The sum
    of these chances over all tests bounds the chance that any test does (Boole's inequality):
    Bonferroni's bound, sharpened by what the floors already exclude.

    Parameters
    ----------
    tests : sequence of Finding
        Of the family.
    alpha : float
        Adjusted p-value up to which a test counts as drifted.
    share : float
        Largest chance that any test of the family is found where nothing is wrong.

    Returns
    -------
    list of Finding
        The tests with their adjusted p-values and decisions, in their order.
    """
    known = [test for test in tests if np.isfinite(test.p_value)]
    reach = np.sort([test.reach for test in known])
    spent = np.concatenate([[0.0], np.cumsum(reach)])
    p_values = np.asarray([test.p_value for test in tests])
    below = np.searchsorted(reach, p_values)
    chance = spent[below] + (len(reach) - below) * p_values
    decided = []
    for test, value in zip(tests, chance, strict=True):
        if not np.isfinite(test.p_value):
            decided.append(test)
            continue
        shared = float(value) * alpha / share if share > 0 else 0.0
        adjusted = min(max(shared, test.p_value), 1.0)
        decided.append(_called(test, adjusted, alpha))
    return decided


def _decide_decay(found: Finding, alpha: float) -> Finding:
    """Decide a test of slow decay by whether its weighted evidence reaches the run length."""
    return _called(found, min(found.p_value / DECAY, 1.0), alpha)


def _called(found: Finding, adjusted: float, alpha: float) -> Finding:
    drifted = adjusted <= alpha and abs(found.statistic) >= found.floor
    return replace(found, adjusted=adjusted, drifted=bool(drifted))
