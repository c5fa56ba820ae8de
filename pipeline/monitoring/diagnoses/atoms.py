"""Single values that are far more frequent than they were: stuck at one, or cut off there."""

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.stats import ks_2samp

from pipeline.monitoring.diagnoses.case import NATS, Case, Mask, Places
from pipeline.monitoring.diagnoses.likelihood import shares_at, surprise
from pipeline.monitoring.diagnoses.segments import clause, segment
from pipeline.monitoring.findings import Cause
from pipeline.profile import CategoricalProfile, Floats, NumericProfile

FREQUENT = 0.02
"""Share of its own that makes a value one of a few."""
_FEWEST = 25
"""Rows that make a value frequent."""
_FEW_VALUES, _MANY_VALUES = 5, 50
"""Distinct values of which an outermost one may pile up, and any one may."""
_LEAP, _LEAP_LABEL, _BEYOND = 0.2, 0.12, 4.0
"""Growth of a share, and of a label's, that no drift explains while the rest is as it was, and the
same in times of the most in any block."""
_PROPORTION = 0.1
"""Distance of the other labels' shares of one another below which they are as they were."""
_UNSEEN, _EXACTLY = 3.0, 0.3
"""Times that a share grew more than any did in a block, and how nearly one side lost as much."""
_KNOWN = 0.9
"""Share of values that came before, in a column of steps."""
_MODE, _ALONE = 1.2, 2.0
"""Times that an outermost value, and a new one, is as frequent as any other."""


def stuck(case: Case) -> Iterator[Cause]:
    """One ordinary value far more often than in any ordinary batch."""
    for name in case.features:
        found = _stuck_number(case, name) if name in case.numeric else _stuck_label(case, name)
        if found is None:
            continue
        value, touched, before = found
        share, where = float(touched.mean()), segment(case, touched, [name])
        yield Cause(
            "stuck",
            (name,),
            f"{name!r} is {value} in {share:.0%} of rows, where {before:.1%} is "
            f"usual{clause(where)}: did it stop changing?",
            {
                NATS: surprise(share, before),
                "share of rows": round(share, 4),
                "usual share": round(before, 4),
                "value": value,
            },
            f"Check the sensor, the cache or the default behind {name!r}, and load the window "
            "again.",
            share=round((share - before) / (1 - before), 4),
            segment=where,
        )


def _stuck_number(case: Case, name: str) -> tuple[str, Mask, float] | None:
    top = None if case.reference.atom(name, case.tally) < FREQUENT else top_value(case, name)
    if top is None:
        return None
    value, share, before = top
    profile = case.profile(name)
    most, excess = case.most(f"{name}|atom"), share - before
    many = len(profile.grid) > 50  # of many values, none is frequent
    least = 0.05 if before < 0.02 and many else 0.12 if len(profile.grid) > 8 else 0.25
    constant = share > 0.98 and before < 0.8  # hardly another value
    if excess < 1.5 * most or not (constant or excess - most > least):
        return None
    values = case.numbers(name)
    touched = values == value
    leap = excess > max(_LEAP, _BEYOND * most) and _rest_as_before(profile, values, value)
    if not constant and not _out_of_place(case, name, touched, rare=leap or before < 0.01):
        return None
    return f"{value:g}", touched, before


def _rest_as_before(profile: NumericProfile, values: Floats, but: float) -> bool:
    """Whether the values beside one lie as they did; what moves a column moves them as well."""
    rest = np.sort(values[~np.isnan(values) & (values != but)])
    if len(rest) < _FEWEST:
        return False
    low, high = (profile.share(np.asarray([but]), side)[0] for side in ("below", "upto"))
    before = profile.share(rest, "upto")
    before = (before - np.where(rest > but, high - low, 0.0)) / (1 - high + low)
    now = np.searchsorted(rest, rest, side="right") / len(rest)
    return bool(np.abs(before - now).max() < _PROPORTION + 1 / np.sqrt(len(rest)))


def _out_of_place(case: Case, name: str, touched: Mask, *, rare: bool) -> bool:
    """Whether rows with a value are any rows, and not those that would have it anyway."""
    expected = case.expected(name)
    told = expected.now
    if touched.mean() < 0.2:  # a muggy day has as much of one dew point
        return False
    if expected.variance > 0.8:  # the other columns do not tell
        return rare
    return bool(ks_2samp(told[touched], told[~touched]).statistic < 0.2)


def _stuck_label(case: Case, name: str) -> tuple[str, Mask, float] | None:
    places, labels = case.labels(name)
    known = places[places >= 0]
    profile = case.reference.columns[name]
    if len(known) < 20 or not isinstance(profile, CategoricalProfile) or profile.n == 0:
        return None
    counts = np.bincount(known, minlength=len(labels))
    best = int(counts.argmax())
    share, before = counts[best] / len(known), profile.counts.get(labels[best], 0) / profile.n
    most, excess = case.most(f"{name}|atom"), share - before
    leap = excess > max(_LEAP_LABEL, _BEYOND * most) and _in_proportion(
        counts, labels, best, profile
    )
    constant = share > 0.98 and before < 0.9 and excess > 1.5 * most  # hardly another label
    if before == 0 or not (leap or constant):
        return None
    return repr(labels[best]), places == best, float(before)


def _in_proportion(
    counts: Places, labels: Sequence[str], grown: int, profile: CategoricalProfile
) -> bool:
    """Whether all other labels lost in proportion, as labels that one was written over do."""
    came = dict(zip(labels, counts, strict=True))
    others = sorted({*profile.counts, *labels} - {labels[grown]})
    shares = [
        np.asarray([side.get(label, 0) for label in others]) for side in (profile.counts, came)
    ]
    shares = [side / max(side.sum(), 1) for side in shares]
    several = (shares[0] > FREQUENT).sum() > 1  # of one alone nothing can be told
    return bool(several and np.abs(shares[0] - shares[1]).sum() / 2 < _PROPORTION)


def clipped(case: Case) -> Iterator[Cause]:
    """Values pile up at a bound that the training rows go beyond."""
    for name in case.numeric:
        top = None if case.reference.atom(name, case.tally) < FREQUENT else top_value(case, name)
        if top is None:
            continue
        bound, share, before = top
        values, profile = case.numbers(name), case.profile(name)
        known = values[~np.isnan(values)]
        usual = share - before < max(FREQUENT, 1.3 * case.most(f"{name}|atom") + 0.01)
        outermost = bound in (known.min(), known.max())
        cliff = outermost and _cliff(known, bound) and share - before > 2 * FREQUENT
        often = share - before > max(3 * FREQUENT, case.most(f"{name}|atom"))
        edge = cliff or (outermost and often and _times(known, bound) > _MODE)
        new = _new_atom(case, name, known, top)
        point = np.asarray([bound])
        over = 1 - float(profile.share(point, "upto")[0]), float((known > bound).mean())
        under = float(profile.share(point, "below")[0]), float((known < bound).mean())
        upper, lower = over[0] - over[1], under[0] - under[1]
        excess = share - before
        exact = (
            excess * len(known) > _FEWEST
            and np.isin(known, profile.points).mean() > _KNOWN
            and excess > max(FREQUENT, _UNSEEN * case.most(f"{name}|atom"))
            and min(abs(upper), abs(lower)) < _EXACTLY * excess
            and abs(max(upper, lower) - excess) < _EXACTLY * excess
        )
        if usual and not edge and not new and not exact:
            continue
        low, high = profile.points[[0, -1]]
        piled = before > 0.3 * excess and not exact
        if piled or not low < bound < high:  # it piled up before
            continue
        if upper > 0.5 * excess and lower < 0.5 * excess and over[0] <= 0.4:  # a tail
            side, gone = "above", over
        elif lower > 0.5 * excess and upper < 0.5 * excess and under[0] <= 0.4:
            side, gone = "below", under
        elif edge:
            side, gone = ("above", over) if bound == known.max() else ("below", under)
        elif new and not _evenly_lost(excess, over, under):
            side, gone = ("above", over) if over[0] < under[0] else ("below", under)
        else:
            continue
        partly = gone[1] > 0.05 * gone[0]
        even = abs((gone[0] - gone[1]) / excess - 1) < 0.3 and min(upper, lower) < 0.2 * excess
        if gone[0] < 0.02 or (partly and not new and not exact and (not even or excess < 0.06)):
            continue
        where = segment(case, values == bound, [name])
        yield Cause(
            "clipped",
            (name,),
            f"{name!r} is {bound:g} in {share:.0%} of rows, and {gone[1]:.1%} lie {side} it where "
            f"{gone[0]:.1%} used to{clause(where)}: cut off at that value?",
            {
                NATS: surprise(share, before),
                "bound": bound,
                "share at the bound": round(share, 4),
                f"share {side} it before": round(gone[0], 4),
                f"share {side} it now": round(gone[1], 4),
            },
            f"Check the range of the sensor or of the type that carries {name!r}.",
            share=round(max(1 - gone[1] / gone[0], 0.0), 4) if gone[0] else 1.0,
            segment=where,
        )


def _times(known: Floats, bound: float, but: Floats | None = None) -> float:
    """How often a value comes, in times of the most frequent other one."""
    distinct, counts = np.unique(known, return_counts=True)
    others = counts[(distinct != bound) & ~np.isin(distinct, [] if but is None else but)]
    if len(distinct) < _FEW_VALUES:
        return 0.0
    return float(counts[distinct == bound][0] / max(others.max(initial=0), 1))


def _evenly_lost(excess: float, over: tuple[float, float], under: tuple[float, float]) -> bool:
    """Whether the rows that hold a value now came from both sides of it, and not from one."""
    stuck = sum((now - before * (1 - excess)) ** 2 for before, now in (over, under))
    cut, whole = (over, under) if over[0] < under[0] else (under, over)
    clipped = (cut[1] - cut[0] + excess) ** 2 + (whole[1] - whole[0]) ** 2
    return stuck < clipped


def _new_atom(case: Case, name: str, known: Floats, top: tuple[float, float, float]) -> bool:
    """Whether one of many values is frequent that hardly came before, in no block, and no other."""
    bound, share, before = top
    profile, excess = case.profile(name), share - before
    if before > 0.005 or excess < max(0.025, 2 * case.most(f"{name}|atom")):  # half a percent
        return False
    if len(np.unique(known)) < _MANY_VALUES or excess * len(known) < _FEWEST:
        return False
    atoms = profile.points[np.asarray(profile.upto) - np.asarray(profile.below) > FREQUENT / 2]
    return _times(known, bound, atoms) > _ALONE


def _cliff(known: Floats, bound: float) -> bool:
    """Whether the outermost value is far more frequent than its neighbours."""
    distinct, counts = np.unique(known, return_counts=True)
    near = np.argsort(np.abs(distinct - bound), kind="stable")[1:6]
    at = counts[distinct == bound][0]
    return bool(len(near) > 2 and at > 3 * counts[near].max() and at > 0.04 * len(known))


def top_value(case: Case, name: str) -> tuple[float, float, float] | None:
    """The value whose share grew most, its share, and that in the reference."""
    values, profile = case.numbers(name), case.profile(name)
    known = values[~np.isnan(values)]
    if len(known) < 20 or len(profile.grid) < 2:  # a constant cannot get stuck
        return None
    distinct, counts = np.unique(known, return_counts=True)
    shares = counts / len(known)
    grown = shares - shares_at(profile, distinct)
    best = int(grown.argmax())
    return float(distinct[best]), float(shares[best]), float(shares[best] - grown[best])
