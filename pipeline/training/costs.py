"""Decisions about two classes at the threshold that costs least, and what they cost.

Elkan (2001), The foundations of cost-sensitive learning, IJCAI: 973-978.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.columns import Floats
from pipeline.config import Costs

KEY = "costs"
"""Where a manifest holds the costs."""


def costs_of(manifest: Mapping[str, Any]) -> Costs | None:
    """Costs in the manifest of a version; None if it has none."""
    return Costs.model_validate(manifest[KEY]) if manifest.get(KEY) else None


def decide(costs: Costs, predictions: Floats) -> NDArray[np.int64]:
    """Decide for 1 where the chance of 1 reaches the threshold, else for 0, shape (n_rows,)."""
    return (predictions >= costs.threshold).astype(np.int64)


def decision_metrics(costs: Costs, target: Floats, predictions: Floats) -> dict[str, float]:
    """Compute what decisions cost, and how often they are right.

    Parameters
    ----------
    costs : Costs
        What wrong decisions cost.
    target, predictions : array of float, shape (n_rows,)
        The truth, 0 or 1, and the predicted chance of 1.

    Returns
    -------
    dict of str to float
        ``cost``: mean cost of a row, in the unit of the costs. ``precision``: share of ones among
        rows decided for 1, NaN if there are none. ``recall``: share of the ones that were decided
        for 1, NaN if no row is 1.
    """
    decided, ones = decide(costs, predictions), target == 1
    found, alarms, all_ones = (int(one.sum()) for one in (decided * ones, decided, ones))
    lost = costs.false_positive * (alarms - found) + costs.false_negative * (all_ones - found)
    return {
        "cost": lost / len(target),
        "precision": found / alarms if alarms else float("nan"),
        "recall": found / all_ones if all_ones else float("nan"),
    }
