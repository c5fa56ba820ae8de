"""What promotions promised, and what they were worth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.monitoring.performance import RIVAL_LOSS, Performance

PRIOR = 0.1
"""A kept promise of so much is what counts before there is a promotion to learn from."""


@dataclass(frozen=True)
class Promise:
    """The gain in loss over the champion before that a version promised, and what came of it.

    Attributes
    ----------
    version : int
        The version.
    promised : float
        Relative gain at the gate; 0.1 is 10% less loss.
    realised : float
        Relative gain on the rows of the batches that it has served since.
    rows : int
        Labelled rows of these batches.
    """

    version: int
    promised: float
    realised: float
    rows: int


def kept(
    promised: Mapping[int, float], performances: Mapping[int, Sequence[Performance]], loss: str
) -> list[Promise]:
    """Compare promised with realised gains, version by version.

    Parameters
    ----------
    promised : mapping of int to float
        What each version promised at the gate.
    performances : mapping of int to sequence of Performance
        Of the batches that each version has served.
    loss : str
        The metric by which models are compared.

    Returns
    -------
    list of Promise
        Of each version with labels since its promotion, oldest first.
    """
    found = []
    for version, gain in sorted(promised.items()):
        own = [one for one in performances.get(version, ()) if RIVAL_LOSS in one.metrics]
        now = sum(one.rows * one.metrics[loss] for one in own)
        before = sum(one.rows * one.metrics[RIVAL_LOSS] for one in own)
        if before > 0:
            found.append(Promise(version, gain, 1 - now / before, sum(one.rows for one in own)))
    return found


def worth(promises: Sequence[Promise]) -> float:
    """The share of a promise that can be expected to be kept, from 0 to 1.

    It is the slope of realised on promised gains through the origin, shrunk towards 1 by a promise
    of 10% that was kept (ridge regression: Hoerl & Kennard 1970, Technometrics 12(1): 55-67).
    """
    products = sum(one.promised * one.realised for one in promises)
    squares = sum(one.promised**2 for one in promises)
    return min(max((products + PRIOR**2) / (squares + PRIOR**2), 0.0), 1.0)
