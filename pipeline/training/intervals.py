"""Intervals that hold a stated share of targets: split conformal prediction on held-out rows.

Residuals of rows that a fit has not seen say how far below and above a prediction targets lie. If
later rows are exchangeable with these rows, an interval between two of their order statistics
holds a new target with at least the stated chance, whatever the model and the distribution. Rows
of other times are not quite exchangeable, so that the coverage is monitored like any metric.

Vovk, Gammerman and Shafer (2005), Algorithmic Learning in a Random World; Lei, G'Sell, Rinaldo,
Tibshirani and Wasserman (2018), JASA 113: 1094-1111, for the split; Barber, Candes, Ramdas and
Tibshirani (2023), Ann. Stat. 51: 816-845, for what is lost where rows are not exchangeable.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import ceil, floor
from typing import Any, Self

import numpy as np

from pipeline.columns import Floats, Matrix
from pipeline.errors import ConfigError

KEY = "interval"
"""Where a manifest holds the margins."""
COVERAGE = "interval_coverage"
"""Metric: share of rows whose target lies in its interval."""


@dataclass(frozen=True)
class Margins:
    """How far the ends of an interval lie from a prediction.

    Attributes
    ----------
    coverage : float
        Share of targets that intervals shall hold, between 0 and 1.
    low, high : float
        What is added to a prediction for the lower and the upper end, in units of the target.
    rows : int
        Held-out rows that they were computed from.
    """

    coverage: float
    low: float
    high: float
    rows: int

    @classmethod
    def of(cls, target: Floats, predictions: Floats, coverage: float) -> Self:
        """Compute margins from held-out rows.

        Each end leaves out half of the rest: with n rows and a rest of a, the k-th smallest and
        the k-th largest residual, where k = floor((n + 1) * a / 2). The target may so be skewed.

        Parameters
        ----------
        target, predictions : array of float, shape (n_rows,)
            Targets of rows, and what a fit predicted that had not seen them.
        coverage : float
            Share of targets to hold.

        Raises
        ------
        ConfigError
            If the rows are too few for such a share.
        """
        n = len(target)
        # A rest such as 1 - 0.9 is not exact, and must not cost a rank.
        rank = floor((n + 1) * (1 - coverage) / 2 + 1e-9)
        if rank < 1:
            needed = ceil(2 / (1 - coverage) - 1e-9) - 1
            message = (
                f"training.intervals must suit the held-out rows: a coverage of {coverage:g} needs "
                f"{needed} of them. Got {n}. Lower it, or raise training.holdout."
            )
            raise ConfigError(message)
        residuals = np.sort(target - predictions)
        return cls(coverage, float(residuals[rank - 1]), float(residuals[n - rank]), n)

    @classmethod
    def read(cls, manifest: Mapping[str, Any]) -> Self | None:
        """Margins in the manifest of a version; None if it has none."""
        return cls(**manifest[KEY]) if manifest.get(KEY) else None

    def to_dict(self) -> dict[str, Any]:
        """The margins as a manifest holds them."""
        return asdict(self)

    def around(self, predictions: Floats) -> Matrix:
        """Lower and upper ends for predictions of shape (n_rows,), shape (n_rows, 2)."""
        return np.stack([predictions + self.low, predictions + self.high], axis=1)

    def covered(self, target: Floats, predictions: Floats) -> float:
        """Share of rows whose target lies in its interval, ends included."""
        residuals = target - predictions
        # An end is itself a residual, which the sum and the difference may round apart.
        slack = 1e-9 * np.maximum(np.abs(target), np.abs(predictions))
        return float(np.mean((residuals >= self.low - slack) & (residuals <= self.high + slack)))


def held_out_metrics(target: Floats, predictions: Floats, coverage: float) -> dict[str, float]:
    """What the held-out rows themselves say of their intervals.

    Parameters
    ----------
    target, predictions : array of float, shape (n_rows,)
        Of held-out rows, in time order.
    coverage : float
        Share of targets to hold.

    Returns
    -------
    dict of str to float
        ``interval_coverage``: of the newer half of the rows, by margins of the older half, which
        shows what time does to them; it is left out where half of the rows are too few.
        ``interval_width``: by margins of all rows, in units of the target.

    Raises
    ------
    ConfigError
        If the rows are too few for such a share.
    """
    whole, half = Margins.of(target, predictions, coverage), len(target) // 2
    found = {"interval_width": whole.high - whole.low}
    if (half + 1) * (1 - coverage) / 2 >= 1:
        older = Margins.of(target[:half], predictions[:half], coverage)
        found[COVERAGE] = older.covered(target[half:], predictions[half:])
    return found
