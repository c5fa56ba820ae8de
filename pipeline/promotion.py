"""The gate: challenger against champion and trivial baseline, on the same newest rows."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.config import Promotion

Floats = NDArray[np.float64]
_RESAMPLES = 2_000


@dataclass(frozen=True)
class Gain:
    """How much smaller one model's loss is than another's, on the same rows.

    Attributes
    ----------
    over : str
        The other model.
    mean : float
        Relative gain; 0.02 is 2% less loss.
    low, high : float
        Ends of the interval of the configured confidence, one-sided each.
    """

    over: str
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Decision:
    """Whether a version becomes champion, and why.

    Attributes
    ----------
    promoted : bool
        The outcome.
    reason : str
        One sentence.
    rows : int
        Labelled rows it was judged on.
    gains : tuple of Gain
        Over the trivial baseline and, where there is one, the champion.
    """

    promoted: bool
    reason: str
    rows: int
    gains: tuple[Gain, ...]

    def to_markdown(self) -> str:
        """The decision as MLflow shows it."""
        verdict = "Promoted" if self.promoted else "Refused"
        lines = [
            f"- over the {gain.over}: {gain.mean:+.2%} ({gain.low:+.2%} to {gain.high:+.2%})"
            for gain in self.gains
        ]
        heading = f"**{verdict}.** {self.reason} Judged on {self.rows:,} rows; gain in loss:"
        return "\n".join([heading, "", *lines])


def decide(
    losses: pd.DataFrame, *, times: pd.Series, part: pd.Timedelta, policy: Promotion, seed: int
) -> Decision:
    """Judge a challenger by its losses.

    Parameters
    ----------
    losses : DataFrame
        Loss of each row in columns ``challenger``, ``baseline`` and, unless this is the
        first version, ``champion``.
    times : Series
        Time of each row; rows of one `part` are resampled together.
    part : Timedelta
        Length of time within which rows depend on one another.
    policy : Promotion
        What is asked of a challenger.
    seed : int
        Of the bootstrap.

    References
    ----------
    Kuensch (1989), Ann. Stat. 17(3): 1217-1241, for the bootstrap of blocks.
    """
    if len(losses) < policy.min_rows:
        reason = (
            f"A challenger must be judged on at least {policy.min_rows} labelled rows that no "
            f"model was fitted on. Got {len(losses)}. Wait for more labels."
        )
        return Decision(promoted=False, reason=reason, rows=len(losses), gains=())
    group = ((times - times.min()) // part).to_numpy()
    if len(np.unique(group)) < 2:  # noqa: PLR2004 -- one part has no spread
        reason = (
            f"A challenger must be judged on at least 2 stretches of {part}, or its interval is "
            "not known. Got 1. Wait for more labels."
        )
        return Decision(promoted=False, reason=reason, rows=len(losses), gains=())
    others = [name for name in ("baseline", "champion") if name in losses]
    gains = tuple(_gain(losses[["challenger", name]], group, policy, seed) for name in others)
    problems = [
        problem for gain in gains if (problem := _problem(gain, policy, first=len(gains) == 1))
    ]
    if problems:
        return Decision(promoted=False, reason=problems[0], rows=len(losses), gains=gains)
    last = gains[-1]
    reason = f"The gain over the {last.over} is {last.mean:+.2%}, at least {last.low:+.2%}."
    return Decision(promoted=True, reason=reason, rows=len(losses), gains=gains)


def _problem(gain: Gain, policy: Promotion, *, first: bool) -> str:
    sure = f"with {policy.confidence:.0%} confidence"
    got = f"Got {gain.mean:+.2%} ({gain.low:+.2%} to {gain.high:+.2%})."
    if gain.over == "champion":
        rule = f"The challenger's gain over the champion must exceed {policy.min_gain:.1%} {sure}."
        return "" if gain.low > policy.min_gain else f"{rule} {got}"
    if first:
        rule = f"The first version must be better than the trivial baseline {sure}."
        return "" if gain.low > 0 else f"{rule} {got}"
    # Keeping a champion that is worse still would help nobody.
    rule = f"The challenger must not be worse than the trivial baseline {sure}."
    return "" if gain.high > 0 else f"{rule} {got}"


def _gain(losses: pd.DataFrame, group: NDArray[Any], policy: Promotion, seed: int) -> Gain:
    sums = losses.groupby(group).sum().to_numpy()
    random = np.random.default_rng(seed)
    drawn = random.integers(len(sums), size=(_RESAMPLES, len(sums)))
    resampled: Any = sums[drawn].sum(axis=1)
    gains = _relative(resampled[:, 0], resampled[:, 1])
    low, high = np.quantile(gains, [1 - policy.confidence, policy.confidence])
    mean = _relative(*losses.mean().to_numpy()[:, np.newaxis])[0]
    return Gain(str(losses.columns[1]), float(mean), float(low), float(high))


def _relative(challenger: Floats, other: Floats) -> Floats:
    """Relative gain; over a model without loss there is none, and any loss loses everything."""
    gains = np.where(challenger > 0, -1.0, 0.0)
    shares: Floats = np.divide(challenger, other, out=1 - gains, where=other > 0)
    return 1 - shares
