"""The gate: challenger against champion and trivial baseline, on the same newest rows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.config import Promotion

Floats = NDArray[np.float64]
_RESAMPLES = 2_000
_SHOWN = 5
"""Slices that MLflow's page names."""


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

    def __str__(self) -> str:
        return f"- over the {self.over}: {self.mean:+.2%} ({self.low:+.2%} to {self.high:+.2%})"


@dataclass(frozen=True)
class GateResult:
    """Whether a version becomes champion, and why.

    Attributes
    ----------
    promoted : bool
        The outcome.
    reason : str
        One sentence, or one for each problem.
    rows : int
        Labelled rows it was judged on.
    gains : tuple of Gain
        Over the trivial baseline and, where there is one, the champion.
    slices : tuple of Gain
        Over the champion, on each slice with rows enough; the worst first.
    """

    promoted: bool
    reason: str
    rows: int
    gains: tuple[Gain, ...] = ()
    slices: tuple[Gain, ...] = ()

    def to_markdown(self) -> str:
        """The decision as MLflow shows it."""
        verdict = "Passed" if self.promoted else "Refused"
        heading = f"**{verdict}.** {self.reason}"
        if not self.gains:
            return heading
        lines = [heading, "", f"Judged on {self.rows:,} rows; gain in loss:", ""]
        lines += [str(gain) for gain in self.gains]
        if self.slices:
            lines += ["", f"The worst of {len(self.slices)} slices:", ""]
            lines += [str(gain) for gain in self.slices[:_SHOWN]]
        return "\n".join(lines)


def judge(
    losses: pd.DataFrame,
    *,
    times: pd.Series,
    part: pd.Timedelta,
    policy: Promotion,
    seed: int,
    slices: pd.DataFrame | None = None,
    problems: Sequence[str] = (),
) -> GateResult:
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
    slices : DataFrame, optional
        Values of each row by which slices are made, one column a kind.
    problems : sequence of str
        What is already known to be wrong with it.

    References
    ----------
    Kuensch (1989), Ann. Stat. 17(3): 1217-1241, for the bootstrap of blocks.
    """
    known = list(problems)
    group = ((times - times.min()) // part).to_numpy() if len(times) else np.empty(0)
    if len(losses) < policy.min_rows:
        known.append(
            f"A challenger must be judged on at least {policy.min_rows} labelled rows that no "
            f"model was fitted on. Got {len(losses)}. Wait for more labels."
        )
    elif len(np.unique(group)) < 2:  # noqa: PLR2004 -- one part has no spread
        known.append(
            f"A challenger must be judged on at least 2 stretches of {part}, or its interval is "
            "not known. Got 1. Wait for more labels."
        )
    if known:
        return GateResult(promoted=False, reason=" ".join(known), rows=len(losses))
    others = [name for name in ("baseline", "champion") if name in losses]
    gains = tuple(_gain(losses[["challenger", name]], group, policy, seed) for name in others)
    parts = _by_slice(losses, group, slices, policy, seed) if "champion" in losses else ()
    known = [_problem(gain, policy, first=len(gains) == 1) for gain in gains]
    known += [_slice_problem(gain, policy) for gain in parts]
    mean = float(losses["challenger"].mean())
    if policy.max_loss is not None and not mean <= policy.max_loss:
        known.append(
            f"A challenger's loss must be at most {policy.max_loss:g} (promotion.max_loss). "
            f"Got {mean:.4g}."
        )
    last = gains[-1]
    reason = f"The gain over the {last.over} is {last.mean:+.2%}, at least {last.low:+.2%}."
    reason = " ".join(filter(None, known)) or reason
    return GateResult(not any(known), reason, len(losses), gains, parts)


def unusable(predicted: Floats, *, chances: bool) -> list[str]:
    """What is wrong with predictions, whatever the labels say.

    Parameters
    ----------
    predicted : array of float, shape (n_rows,)
    chances : bool
        Whether they are chances, from 0 to 1.
    """
    if not len(predicted):
        return []
    got = f"Got {np.nanmin(predicted):.4g} to {np.nanmax(predicted):.4g}"
    odd = int((~np.isfinite(predicted)).sum())
    problems = []
    if odd:
        problems.append(f"Predictions must be finite numbers. {odd} of {len(predicted)} are not.")
    elif chances and (predicted.min() < 0 or predicted.max() > 1):
        problems.append(f"Predicted chances must lie from 0 to 1. {got}.")
    elif np.ptp(predicted) == 0:
        problems.append(f"Predictions must tell rows apart. All {len(predicted)} are the same.")
    return problems


def _by_slice(
    losses: pd.DataFrame,
    group: NDArray[Any],
    slices: pd.DataFrame | None,
    policy: Promotion,
    seed: int,
) -> tuple[Gain, ...]:
    """Gain over the champion on each value that rows enough have, the worst first."""
    if slices is None:
        return ()
    found = []
    for name, values in slices.items():
        for value, places in values.groupby(values, observed=True).indices.items():
            several = len(np.unique(group[places])) > 1
            if len(places) >= policy.slice_rows and several:
                columns = losses[["challenger", "champion"]].iloc[places]
                gain = _gain(columns, group[places], policy, seed)
                found.append(replace(gain, over=f"champion where {name} = {value}"))
    return tuple(sorted(found, key=lambda gain: gain.mean))


def _slice_problem(gain: Gain, policy: Promotion) -> str:
    if gain.mean >= -policy.slice_loss or gain.high >= 0:  # within what is allowed, or by chance
        return ""
    return (
        f"A challenger may lose at most {policy.slice_loss:.0%} on a slice. Against the "
        f"{gain.over} it loses {-gain.mean:.1%}."
    )


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
