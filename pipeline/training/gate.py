"""The gate: challenger against champion and trivial baseline, on the same newest rows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.columns import Floats
from pipeline.config import Promotion

_RESAMPLES = 2_000
_ROUNDED = 1e-3
"""How far from 1 the rounded probabilities of a row may sum."""


@dataclass(frozen=True)
class Gain:
    """How much smaller the challenger's loss is than another model's, on the same rows.

    Attributes
    ----------
    over : str
        The other model.
    mean : float
        Relative gain; 0.02 is 2% less loss.
    low, high : float
        Ends of its interval; each is one-sided, at the configured confidence.
    """

    over: str
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class GateResult:
    """Whether a version may become champion, and why.

    Attributes
    ----------
    promoted : bool
        Whether it passed.
    reason : str
        One sentence, or one sentence for each problem.
    rows : int
        Number of labelled rows that it was judged on.
    gains : tuple of Gain
        Gains over the trivial baseline and, if there is one, over the champion.
    slices : tuple of Gain
        Gains over the champion on each slice with enough rows, the worst first.
    warning : str
        What people have to know although it passed; empty: nothing.
    expected : float or None
        Gain over the champion to expect in service: the mean gain, times what earlier promises were
        worth; None without a champion.
    """

    promoted: bool
    reason: str
    rows: int
    gains: tuple[Gain, ...] = ()
    slices: tuple[Gain, ...] = ()
    warning: str = ""
    expected: float | None = None


def judge_challenger(
    losses: pd.DataFrame,
    *,
    times: pd.Series,
    part: pd.Timedelta,
    policy: Promotion,
    seed: int,
    slices: pd.DataFrame | None = None,
    problems: Sequence[str] = (),
    worth: float = 1.0,
) -> GateResult:
    """Judge a challenger by its losses beside the losses of other models.

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
        What a challenger has to show.
    seed : int
        Seed of the bootstrap.
    slices : DataFrame, optional
        Values of each row that define slices, one column for each kind of slice.
    problems : sequence of str
        Problems of the challenger that are known already.
    worth : float
        Share of earlier promised gains that was realised, from 0 to 1. Gains over the champion
        count for so much.

    References
    ----------
    Kuensch (1989), Ann. Stat. 17(3): 1217-1241, for the bootstrap of blocks.
    """
    group = ((times - times.min()) // part).to_numpy() if len(times) else np.empty(0)
    known = [*filter(None, [*problems, _too_few(losses, group, part, policy)])]
    if known:
        return GateResult(promoted=False, reason=" ".join(known), rows=len(losses))
    others = [name for name in ("baseline", "champion") if name in losses]
    gains = tuple(_gain(losses[["challenger", name]], group, policy, seed) for name in others)
    parts = _by_slice(losses, group, slices, policy, seed) if "champion" in losses else ()
    *_, last = gains = _as_realised(gains, worth)
    expected = _worth(last.mean, worth) if len(gains) > 1 else None
    found = [_problem(gain, policy, first=len(gains) == 1) for gain in gains]
    warning = ""
    if found[0] and _serves_anyway(losses, policy):
        warning, found[0] = f"{_beside(gains[0], policy)} {_ANYWAY[len(gains) == 1]}", ""
    found += [_slice_problem(gain, policy) for gain in parts]
    found.append(_loss_problem(float(losses["challenger"].mean()), policy))
    passed = not any(found)
    reason = " ".join(
        filter(None, [_sentence(last, expected, worth, policy), warning] if passed else found)
    )
    return GateResult(
        passed, reason, len(losses), gains, parts, warning if passed else "", expected
    )


def _sentence(gain: Gain, expected: float | None, worth: float, policy: Promotion) -> str:
    if gain.over == "champion" and gain.mean < 0:
        return (
            f"It loses {-gain.mean:.2%} against the champion, at most {-gain.low:.2%}; "
            f"promotion.min_gain allows {-policy.min_gain:.1%}, as it has learnt newer rows."
        )
    reason = f"The gain over the {gain.over} is {gain.mean:+.2%}, at least {gain.low:+.2%}."
    if worth == 1 or expected is None:
        return reason
    return f"{reason} Earlier gains were worth {worth:.0%} in service: expect {expected:+.2%}."


def _as_realised(gains: tuple[Gain, ...], worth: float) -> tuple[Gain, ...]:
    """Gains whose lower end over the champion counts as far as earlier gains were realised."""
    return tuple(
        replace(gain, low=_worth(gain.low, worth)) if gain.over == "champion" else gain
        for gain in gains
    )


def _worth(gain: float, worth: float) -> float:
    """A gain as far as gains were realised; a loss stays as it is."""
    return gain * worth if gain > 0 else gain


_ANYWAY = {
    True: "It serves anyway (promotion.first: serve).",
    False: "The champion is worse still, so the better of the two serves.",
}


def _serves_anyway(losses: pd.DataFrame, policy: Promotion) -> bool:
    """Whether a version that does not beat the trivial baseline is the best there is."""
    if "champion" not in losses:
        return policy.first == "serve"
    return bool(losses["champion"].mean() > losses["challenger"].mean())


def _too_few(
    losses: pd.DataFrame, group: NDArray[Any], part: pd.Timedelta, policy: Promotion
) -> str:
    """Say why there are too few labelled rows for a decision; empty if there are enough."""
    if len(losses) < policy.min_rows:
        return (
            f"A challenger must be judged on at least {policy.min_rows} labelled rows that no "
            f"model was fitted on. Got {len(losses)}. Wait for more labels."
        )
    if len(np.unique(group)) < 2:  # noqa: PLR2004 -- one part has no spread
        return (
            f"A challenger must be judged on at least 2 stretches of {part}, or its gain has no "
            "interval. Got 1. Wait for more labels."
        )
    return ""


def prediction_problems(predicted: Floats, *, chances: bool) -> list[str]:
    """Say what is wrong with predictions, whatever the labels are.

    Parameters
    ----------
    predicted : array of float, shape (n_rows,) or (n_rows, n_classes)
        The predictions.
    chances : bool
        Whether they are probabilities, from 0 to 1.
    """
    if not len(predicted):
        return []
    odd = int((~np.isfinite(predicted)).reshape(len(predicted), -1).any(axis=1).sum())
    if odd:
        return [f"Predictions must be finite numbers. Got {odd} of {len(predicted)} that are not."]
    if chances and (predicted.min() < 0 or predicted.max() > 1):
        got = f"Got {predicted.min():.4g} to {predicted.max():.4g}."
        return [f"Predicted probabilities must lie from 0 to 1. {got}"]
    if predicted.ndim > 1 and np.abs(sums := predicted.sum(axis=1) - 1).max() > _ROUNDED:
        got = f"Got sums up to {1 + sums[np.abs(sums).argmax()]:.4g}."
        return [f"Predicted probabilities of a row must sum to 1. {got}"]
    if not np.ptp(predicted, axis=0).any():
        return [f"All {len(predicted)} predictions are the same, so that they are of no use."]
    return []


def _by_slice(
    losses: pd.DataFrame,
    group: NDArray[Any],
    slices: pd.DataFrame | None,
    policy: Promotion,
    seed: int,
) -> tuple[Gain, ...]:
    """Compute the gain over the champion on each slice with enough rows, the worst first."""
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


def _loss_problem(mean: float, policy: Promotion) -> str:
    if policy.max_loss is None or mean <= policy.max_loss:
        return ""
    return (
        f"A challenger's loss must be at most {policy.max_loss:g} (promotion.max_loss). "
        f"Got {mean:.4g}."
    )


def _slice_problem(gain: Gain, policy: Promotion) -> str:
    if gain.mean >= -policy.slice_loss or gain.high >= 0:  # within what is allowed, or by chance
        return ""
    return (
        f"A challenger may lose at most {policy.slice_loss:.0%} on a slice. Against the "
        f"{gain.over} it loses {-gain.mean:.1%}."
    )


def _problem(gain: Gain, policy: Promotion, *, first: bool) -> str:
    got = _beside(gain, policy)
    if gain.over == "champion":
        rule = f"The challenger must surely gain more than {policy.min_gain:.1%} on the champion."
        return "" if gain.low > policy.min_gain else f"{rule} {got}"
    if first:
        rule = "The first version must surely be better than one prediction for all rows."
        cure = "With promotion.first: serve, it would serve anyway and be watched."
        return "" if gain.low > 0 else f"{rule} {got} {cure}"
    # A champion that is worse still must not be kept.
    rule = "The challenger must not be worse than one prediction for all rows."
    return "" if gain.high > 0 else f"{rule} {got}"


def _beside(gain: Gain, policy: Promotion) -> str:
    """Say how a loss compares with another one, and how sure that is."""
    other = "the champion's" if gain.over == "champion" else "that of one prediction for all rows"
    ends = sorted((gain.low, gain.high), key=abs)
    return (
        f"Its loss is {_smaller(gain.mean)} than {other}; with {policy.confidence:.0%} confidence "
        f"for each end, {_smaller(ends[0])} to {_smaller(ends[1])}."
    )


def _smaller(gain: float) -> str:
    return f"{abs(gain):.2%} {'smaller' if gain >= 0 else 'larger'}"


def is_poor(reason: str) -> bool:
    """Whether a version passed that is worse than one prediction for all rows, by its reason."""
    return any(anyway in reason for anyway in _ANYWAY.values())


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
    """Compute the relative gain; over a model without loss it is 0 at best, and -1 otherwise."""
    gains = np.where(challenger > 0, -1.0, 0.0)
    shares: Floats = np.divide(challenger, other, out=1 - gains, where=other > 0)
    return 1 - shares
