"""Policies of retraining, what each did, and what that was worth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from pipeline.backtest.oracle import best_retrains
from pipeline.columns import Floats, Matrix

NEVER, ALWAYS, CONFIGURED, ORACLE = "never", "every batch", "as configured", "oracle"
CADENCES: Final = (2, 4, 8)
"""Numbers of batches between the retrains of policies that retrain by the calendar."""
WATCHED: Final[Mapping[str, Mapping[str, Any]]] = {
    CONFIGURED: {},
    "drift alone": {"performance_loss": 1000.0, "harmless": "retrain"},
    "performance alone": {"alpha": 1e-9},
}
"""Policies by which the monitor asks for a retrain, each with the settings of `monitoring` that
make it so: a loss that nothing reaches, and a chance of an alarm that no batch has."""


@dataclass(frozen=True)
class Run:
    """What a policy did.

    Attributes
    ----------
    policy : str
        Its name.
    losses : array of float, shape (n_batches,)
        Mean loss of each batch.
    retrains : tuple of int
        Batches before which a model was trained, also one that the gate refused.
    pages : int or None
        Decisions that people were paged about; None where no monitor decides.
    """

    policy: str
    losses: Floats
    retrains: tuple[int, ...]
    pages: int | None = None


@dataclass(frozen=True)
class Outcome:
    """What a policy was worth.

    Attributes
    ----------
    policy : str
        Its name.
    loss : float
        Mean loss of all live rows with a label.
    kept : float
        Gain over no retrain, as a share of that of a retrain before every batch; nan where that
        gains nothing.
    best : float
        Such a share of the oracle with as many retrains.
    retrains : int
        Number of retrains.
    pages : int or None
        Decisions that people were paged about; None where no monitor decides.
    delay : float
        Mean number of batches from a retrain of the oracle with as many retrains to the policy's
        next one, before the oracle's next; nan where none followed.
    followed : int
        Number of the oracle's retrains that were followed.
    cost : float
        Loss and cost of the retrains together.
    """

    policy: str
    loss: float
    kept: float
    best: float
    retrains: int
    pages: int | None
    delay: float
    followed: int
    cost: float


def scheduled(losses: Matrix) -> list[Run]:
    """Runs of the policies that need no monitor: never, every k-th batch, every batch.

    Parameters
    ----------
    losses : array of float, shape (n_batches, n_batches)
        As of `best_retrains`.
    """
    n = len(losses)
    cadences = [every for every in CADENCES if every < n]
    return [
        Run(NEVER, losses[0], ()),
        *(run_of(f"every {k} batches", losses, range(k, n, k)) for k in reversed(cadences)),
        run_of(ALWAYS, losses, range(1, n)),
    ]


def evenly(losses: Matrix, retrains: int) -> Run:
    """A run with so many retrains, as far from one another as can be."""
    n = len(losses)
    places = np.arange(1, retrains + 1) * n / (retrains + 1)
    return run_of(
        f"{retrains} evenly", losses, sorted({*places.round().astype(int).tolist()} - {0})
    )


def run_of(policy: str, losses: Matrix, retrains: Sequence[int]) -> Run:
    """The run of a policy whose model is fitted before some batches, each on all past rows."""
    n = len(losses)
    fits = np.zeros(n, dtype=np.intp)
    fits[list(retrains)] = list(retrains)
    served = np.maximum.accumulate(fits)
    return Run(policy, losses[served, np.arange(n)], tuple(retrains))


def outcomes(
    runs: Sequence[Run], losses: Matrix, rows: Floats, *, cost: float = 0.0
) -> list[Outcome]:
    """Compare runs with no retrain, with a retrain before every batch, and with the oracle.

    Parameters
    ----------
    runs : sequence of Run
        What policies did, beside the oracle.
    losses : array of float, shape (n_batches, n_batches)
        As of `best_retrains`.
    rows : array of float, shape (n_batches,)
        Rows of each batch with a label.
    cost : float
        Cost of a retrain, as a share of the loss of the first model on one batch.

    Returns
    -------
    list of Outcome
        Of each run, then of the oracle: the best retrains at this cost.
    """
    best = best_retrains(losses, rows)
    frozen, always = (
        mean(run_of("", losses, retrains).losses, rows) for retrains in ((), range(1, len(rows)))
    )
    each = cost_of_retrain(losses, rows, cost)
    gain = frozen - always

    def kept(loss: float) -> float:
        return (frozen - loss) / gain if gain > 0 else float("nan")

    def outcome(run: Run) -> Outcome:
        loss, number = mean(run.losses, rows), len(run.retrains)
        ideal = best[min(number, len(best) - 1)]
        delays = _delays(ideal, run.retrains, len(rows))
        return Outcome(
            policy=run.policy,
            loss=loss,
            kept=kept(loss),
            best=kept(mean(run_of(ORACLE, losses, ideal).losses, rows)),
            retrains=number,
            pages=run.pages,
            delay=float(np.mean(delays)) if delays else float("nan"),
            followed=len(delays),
            cost=loss + each * number,
        )

    oracles = [outcome(run_of(ORACLE, losses, retrains)) for retrains in best]
    return [*map(outcome, runs), min(oracles, key=lambda one: one.cost)]


def mean(losses: Floats, rows: Floats) -> float:
    """Mean loss over batches, weighted by their rows; batches that weigh nothing are not read."""
    return float(np.average(losses[rows > 0], weights=rows[rows > 0]))


def cost_of_retrain(losses: Matrix, rows: Floats, cost: float) -> float:
    """A cost per retrain, as a share of the first model's loss on one batch, in mean loss."""
    return cost * mean(losses[0], rows) / int((rows > 0).sum())


def _delays(wanted: Sequence[int], made: Sequence[int], n: int) -> list[int]:
    """Batches from each wanted retrain to the first made then or later, before the next wanted."""
    ends = [*wanted[1:], n]
    waits = (
        [place - start for place in made if start <= place < end]
        for start, end in zip(wanted, ends, strict=False)
    )
    return [min(wait) for wait in waits if wait]
