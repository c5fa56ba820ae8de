"""Indicators that a batch is watched by beside drift and loss: predictions, confidence, valid rows.

Each is the mean of a number that every row has, so that it has a baseline of training rows and a
limit as the loss has, and is judged with its own noise.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import pandas as pd

from pipeline.monitoring.means import Baseline, difference
from pipeline.monitoring.performance import FALSE_A_YEAR, LIKELY

LIMIT: Final = 0.05
"""Relative change of an indicator from its baseline beyond which it has moved."""


@dataclass(frozen=True)
class Indicator:
    """An indicator of a batch beside that of training.

    Attributes
    ----------
    name : str
        Its name in MLflow and in ``/metrics``.
    before, now : float
        Mean of the training rows and of the batch.
    change : float
        Relative change; 0.05 is 5% more. NaN where `before` is 0.
    low, high : float
        Ends of its interval, each with 95% confidence.
    moved : bool
        Whether it surely moved, and by more than `LIMIT` with 80% confidence.
    """

    name: str
    before: float
    now: float
    change: float
    low: float
    high: float
    moved: bool


def compare_indicators(
    baselines: Mapping[str, Baseline], current: Mapping[str, pd.Series], length: pd.Timedelta
) -> tuple[Indicator, ...]:
    """Compare the indicators of a batch with those of the rows of training.

    An indicator has moved if it is beyond `LIMIT`, up or down, with 80% confidence, and if
    indicators that have not changed would show that at most 0.1 times a year, all together
    (Bonferroni over indicators and directions). The errors are those of `performance.realised`; in
    so far a tail, Welch's degrees of freedom let up to twice as many pass.

    Parameters
    ----------
    baselines : mapping of str to Baseline
        Of each indicator.
    current : mapping of str to Series of float, indexed by time
        The number of each row of the batch; indicators without rows are left out.
    length : Timedelta
        Length of a batch.
    """
    known = {name: rows for name, rows in current.items() if name in baselines and len(rows)}
    level = FALSE_A_YEAR * (length / pd.Timedelta("365D")) / (2 * max(len(known), 1))
    return tuple(
        _indicator(name, rows, baselines[name], length, level) for name, rows in known.items()
    )


def _indicator(
    name: str, rows: pd.Series, baseline: Baseline, length: pd.Timedelta, level: float
) -> Indicator:
    found = difference(baseline, rows, length)
    sure, likely = 1 - min(level, 0.05), LIKELY
    up = found.at_least(likely) > LIMIT and found.at_least(sure) > 0
    down = found.at_most(likely) < -LIMIT and found.at_most(sure) < 0
    return Indicator(
        name=name,
        before=baseline.mean,
        now=float(rows.mean()),
        change=found.mean,
        low=found.at_least(0.95),
        high=found.at_most(0.95),
        moved=bool(up or down),
    )
