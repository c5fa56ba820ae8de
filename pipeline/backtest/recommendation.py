"""Which policy of retraining to use, in words, as far as the past can tell."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from pipeline.backtest.policies import (
    ALWAYS,
    CONFIGURED,
    NEVER,
    ORACLE,
    WATCHED,
    Outcome,
    Run,
)
from pipeline.columns import Floats, Matrix

FEWEST: Final = 8
"""Live batches with labels from which on policies are compared."""
SURELY: Final = 0.05
"""Chance, over all policies, that one is called better than no retrain and is not."""
_RESAMPLES: Final = 2_000


@dataclass(frozen=True)
class Recommendation:
    """What to do.

    Attributes
    ----------
    policy : str
        The policy to use; empty where the past cannot tell.
    sentence : str
        Why, and how.
    settings : mapping of str to Any
        Settings of `monitoring` that make it so; empty where nothing in the file has to change, or
        nothing in it can make it so.
    """

    policy: str
    sentence: str
    settings: Mapping[str, Any]


def recommend(
    runs: Sequence[Run], results: Sequence[Outcome], rows: Floats, *, each: float, seed: int
) -> Recommendation:
    """Recommend a policy.

    Policies are compared by their loss and the cost of their retrains, over stretches of batches
    drawn with replacement, the same for all. A policy has to be surely better than no retrain. Of
    the policies within one standard error of the best, the one with the fewest retrains is
    recommended (the rule of Breiman et al. for trees), and the configured one if it has no more.

    Parameters
    ----------
    runs : sequence of Run
        What policies did; the first made no retrain.
    results : sequence of Outcome
        What they were worth, in the order of `runs`, and the oracle.
    rows : array of float, shape (n_batches,)
        Rows of each batch with a label.
    each : float
        Cost of one retrain, in mean loss.
    seed : int
        Seed of the draws.

    References
    ----------
    Breiman, Friedman, Olshen and Stone (1984), Classification and Regression Trees, section 3.4.3;
    Politis and Romano (1992), A circular block-resampling procedure for stationary data.
    """
    seen = int((rows > 0).sum())
    if seen < FEWEST:
        return _undecided(
            f"Your history is too short to tell: {_count(seen, 'live batch', 'live batches')} "
            f"with labels, and policies are compared from {FEWEST} on."
        )
    drawn = _resampled(runs, rows, seed) + each * np.array([len(run.retrains) for run in runs])
    over_never = drawn - drawn[:, :1]
    sure = np.quantile(over_never[:, 1:], 1 - SURELY / (len(runs) - 1), axis=0) < 0
    if not sure.any():
        return _without_gain(runs, over_never)
    named = {result.policy: result for result in results if result.policy != ORACLE}
    policies = list(named)
    best = min(range(1, len(runs)), key=lambda place: named[policies[place]].cost)
    errors = (drawn - drawn[:, [best]]).std(axis=0)
    near = [
        named[name]
        for place, name in enumerate(policies)
        if place and named[name].cost - named[policies[best]].cost <= errors[place]
    ]
    chosen = min(near, key=lambda one: (one.retrains, one.policy != CONFIGURED, one.cost))
    sentence = f"{_why(chosen, named)}{_beside(chosen, named, seen)}"
    return Recommendation(chosen.policy, sentence, WATCHED.get(chosen.policy, {}))


def _resampled(runs: Sequence[Run], rows: Floats, seed: int) -> Matrix:
    """Mean loss of each run over draws of batches, shape (n_draws, n_runs).

    Neighbouring batches are alike, so stretches of them are drawn, as long as the cube root of
    their number.
    """
    known = np.flatnonzero(rows > 0)
    n = len(known)
    length = round(n ** (1 / 3))
    starts = np.random.default_rng(seed).integers(n, size=(_RESAMPLES, -(-n // length)))
    places = ((starts[:, :, None] + np.arange(length)) % n).reshape(_RESAMPLES, -1)[:, :n]
    weights = rows[known][places]
    lost = np.array([run.losses[known] for run in runs]).T[places]
    means: Matrix = (lost * weights[:, :, None]).sum(axis=1) / weights.sum(axis=1)[:, None]
    return means


def _without_gain(runs: Sequence[Run], over_never: Matrix) -> Recommendation:
    """What to do where no policy is surely better than no retrain."""
    names = [run.policy for run in runs]
    if CONFIGURED in names:
        own = over_never[:, names.index(CONFIGURED)]
        if np.quantile(own, SURELY) > 0:
            return Recommendation(
                NEVER,
                "Do not retrain: with what is configured, loss and cost are surely larger than "
                "without a retrain, and no policy is surely better. No setting turns retrains off; "
                "`promotion.approval: manual` lets a person decide about each version.",
                {},
            )
    return _undecided(
        "Your history is too short to tell: no policy is surely better than no retrain, by draws "
        "of its batches."
    )


def _undecided(why: str) -> Recommendation:
    return Recommendation("", f"{why} Keep what is configured, and compare again later.", {})


def _why(chosen: Outcome, named: Mapping[str, Outcome]) -> str:
    how = _HOW.get(chosen.policy, _BY_CALENDAR.format(chosen.policy))
    if chosen.policy == ALWAYS:
        return f"{how} no policy with fewer retrains comes within one standard error of it."
    made = f"{_count(chosen.retrains, 'retrain')} instead of {named[ALWAYS].retrains}"
    if np.isnan(chosen.kept):
        return f"{how} it gains with {made}, and a retrain before every batch gains nothing."
    share = f"{chosen.kept:.0%} of the gain of a retrain before every batch"
    return f"{how} it keeps {share} with {made}."


def _beside(chosen: Outcome, named: Mapping[str, Outcome], seen: int) -> str:
    """From which cost of a retrain on the configured policy, which makes fewer, is better."""
    own = named.get(CONFIGURED)
    if own is None or own.retrains >= chosen.retrains or np.isnan(own.kept):
        return ""
    saved = (own.loss - chosen.loss) / (chosen.retrains - own.retrains)
    cost = saved / (named[NEVER].loss / seen)
    return (
        f" What is configured keeps {own.kept:.0%} with {_count(own.retrains, 'retrain')}; it is "
        f"better where a retrain costs more than {cost:.1%} of the first model's loss on a batch "
        f"(`--cost {cost:.2g}`)."
    )


_HOW: Final = {
    CONFIGURED: "Retrain as configured:",
    "drift alone": "Retrain on drift alone, and not when performance is lost:",
    "performance alone": "Retrain when performance is lost, and not on drift:",
}
_BY_CALENDAR: Final = (
    "Retrain {}, by a schedule of the deployment `train` in Prefect, as no setting of the file "
    "does it:"
)


def _count(n: int, one: str, many: str = "") -> str:
    return f"{n} {one if n == 1 else many or f'{one}s'}"
