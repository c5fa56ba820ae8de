"""Faults that leave single values: none, one of them, coarser ones."""

from collections.abc import Iterator

import numpy as np
from scipy.stats import ks_2samp

from pipeline.monitoring.diagnoses.case import NATS, Case, Mask
from pipeline.monitoring.diagnoses.segments import segment
from pipeline.monitoring.findings import Cause
from pipeline.profile import CategoricalProfile, Floats, NumericProfile

_CODES = {0.0, -1.0, -9.0, 9.0, 99.0, -99.0, 999.0, -999.0, 9999.0, -9999.0, 99999.0, -99999.0}
_CODES |= {999999.0, -999999.0, 32767.0, -32768.0, 65535.0, 2147483647.0, -2147483648.0}
_NO_LABELS = {"", "?", "-", "--", ".", "n/a", "na", "nan", "null", "none", "nil", "unknown", "unk"}
_NO_LABELS |= {"missing", "undefined", "unspecified", "not available", "#n/a", "-1", "-999", "999"}
_NO_LABELS |= {"0", "9999", "-9999", "other", "default", "xxx", "tbd", "not set", "(none)", "<na>"}
_SEVERAL = 3
"""Most values that stand for none in one column, where they are no usual codes."""
_SPIKE = 0.07
_ODDS = 3.0
_ATOM = 0.02
_FEWEST = 25
"""Rows that make a value frequent."""
_FEW_VALUES, _MANY_VALUES = 5, 50
"""Distinct values of which an outermost one may pile up, and any one may."""
_MODE, _ALONE = 1.2, 2.0
"""Times that an outermost value, and a new one, is as frequent as any other."""
_TOGETHER = 0.8
_BESIDE = 50
"""Rows beside a grid that show their digits."""
_OTHER_DIGITS = 0.5
"""Distance of the last digits, where a part is rounded, above which the others are other values."""
_QUANTILES = 300
"""Points of a grid that shares of the reference are taken from, about."""


def join(case: Case) -> Iterator[Cause]:
    """Several columns whose values are missing in the same rows."""
    spiked = {name: case.missing(name) for name in case.features if _null_spike(case, name)}
    left = list(spiked)
    while left:
        first = left.pop(0)
        group = [first] + [name for name in left if _overlap(spiked[first], spiked[name])]
        left = [name for name in left if name not in group]
        if len(group) < 2:  # one column was not joined
            continue
        touched = np.logical_and.reduce([spiked[name] for name in group])
        where = segment(case, touched, group)
        share = float(touched.mean())
        yield Cause(
            "join",
            tuple(group),
            f"{', '.join(repr(name) for name in group)} are missing together in {share:.0%} of "
            f"rows{_where(where)}: did a join find no partner?",
            {"share of rows": round(share, 4)},
            "Check the keys of the join that brings these columns, and load the window again.",
            share=share,
            segment=where,
        )


def nulls(case: Case) -> Iterator[Cause]:
    """Far more missing values than any ordinary batch has."""
    for name in case.features:
        if not _null_spike(case, name):
            continue
        missing = case.missing(name)
        share, most = float(missing.mean()), _usual_missing(case, name)
        where = segment(case, missing, [name])
        yield Cause(
            "nulls",
            (name,),
            f"{name!r} is missing in {share:.0%} of rows, where at most {most:.1%} is "
            f"usual{_where(where)}.",
            {"share of rows": round(share, 4), "largest usual share": round(most, 4)},
            f"Ask the source why {name!r} is not filled in, and load the window again.",
            share=share,
            segment=where,
        )


def _usual_missing(case: Case, name: str) -> float:
    profile = case.reference.columns[name]
    overall = profile.missing / max(profile.n + profile.missing, 1)
    return max(case.most(f"{name}|missing"), overall)


def _null_spike(case: Case, name: str) -> bool:
    missing = case.missing(name)
    if len(missing) < 20:  # one of a few is no share
        return False
    share, most = float(missing.mean()), _usual_missing(case, name)
    _, sd = case.usual(f"{name}|missing")
    odds = share / max(1 - share, 1e-9) / (most / max(1 - most, 1e-9) + 1e-9)
    return share - most > max(_SPIKE, 2 * sd) and odds > _ODDS


def _overlap(one: Mask, other: Mask) -> bool:
    return bool((one & other).sum() >= _TOGETHER * max(one.sum(), other.sum()))


def sentinel(case: Case) -> Iterator[Cause]:
    """A value that stands for none: far outside, or a code that was not there before."""
    for name in case.features:
        found = _odd_numbers(case, name) if name in case.numeric else _odd_labels(case, name)
        if not found:
            continue
        values, touched = found
        share, where = float(touched.mean()), segment(case, touched, [name])
        listed = ", ".join(repr(value) for value in values[:3])
        yield Cause(
            "sentinel",
            (name,),
            f"{name!r} holds {listed} in {share:.0%} of rows, which the training rows do "
            f"not{_where(where)}: a code for a missing value?",
            {"share of rows": round(share, 4), "value": listed},
            f"Have {listed} in {name!r} turned into a missing value at the source, and ask why "
            "it is missing.",
            share=share,
            segment=where,
        )


def _odd_numbers(case: Case, name: str) -> tuple[list[str], Mask] | None:
    values, profile = case.numbers(name), case.profile(name)
    known = values[~np.isnan(values)]
    if len(known) == 0 or profile.n == 0:
        return None
    distinct, counts = np.unique(known, return_counts=True)
    often = counts >= max(10, _ATOM * len(values))
    low, high = profile.points[0], profile.points[-1]
    before = dict(zip(distinct, _shares_at(profile, distinct), strict=True))
    odd = [
        value
        for value in distinct[often]
        if before[value] < 0.001 and _is_odd(value, low, high)  # hardly ever
    ]
    touched = np.isin(values, odd)
    # Where many other values lie outside on its side, the column was changed as a whole.
    strange = known[~np.isin(known, odd)]
    beyond = (strange < low).sum() * (min(odd, default=low) < low)
    beyond += (strange > high).sum() * (max(odd, default=high) > high)
    others = counts[~np.isin(distinct, odd)].max(initial=0)
    inside = [value for value in odd if low <= value <= high]
    usual = any(counts[distinct == value][0] < 3 * others for value in inside)
    codes = len(odd) <= _SEVERAL or _CODES.issuperset(odd)
    if not odd or not codes or usual or beyond > 0.1 * touched.sum():
        return None
    return [f"{value:g}" for value in odd], touched


def _is_odd(value: float, low: float, high: float) -> bool:
    outside = max(low - value, value - high)
    if high == low:
        return value in _CODES and abs(value) > 1 and outside > 0
    if value in _CODES:
        return True
    return bool(outside > 0.5 * (high - low))  # far from all there was


def _odd_labels(case: Case, name: str) -> tuple[list[str], Mask] | None:
    places, labels = case.labels(name)
    counts, total = case.counts(name), max(sum(case.counts(name).values()), 1)
    n = np.bincount(places + 1, minlength=len(labels) + 1)[1:]
    odd = [
        label
        for label, count in zip(labels, n, strict=True)
        if label.strip().casefold() in _NO_LABELS
        and counts.get(label, 0) / total < 0.002  # hardly ever
        and count >= max(10, _ATOM * len(places))
    ]
    if not odd or len(odd) > 1:  # codes of many labels are a recode
        return None
    return odd, np.isin(np.asarray([*labels, None], dtype=object)[places], odd)


def _shares_at(profile: NumericProfile, values: Floats) -> Floats:
    """Share of the reference at each value."""
    place = np.minimum(np.searchsorted(profile.points, values), len(profile.points) - 1)
    shares = (np.asarray(profile.upto) - np.asarray(profile.below))[place]
    return np.where(profile.points[place] == values, shares, 0.0)


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
            f"usual{_where(where)}: did it stop changing?",
            {
                NATS: _surprise(share, before),
                "share of rows": round(share, 4),
                "usual share": round(before, 4),
                "value": value,
            },
            f"Check the sensor, the cache or the default behind {name!r}, and load the window "
            "again.",
            share=share,
            segment=where,
        )


def _stuck_number(case: Case, name: str) -> tuple[str, Mask, float] | None:
    top = None if case.reference.atom(name, case.tally) < _ATOM else _top_value(case, name)
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
    touched = case.numbers(name) == value
    if not constant and not _out_of_place(case, name, touched, before):
        return None
    return f"{value:g}", touched, before


def _out_of_place(case: Case, name: str, touched: Mask, before: float) -> bool:
    """Whether rows with a value are any rows, and not those that would have it anyway."""
    expected = case.expected(name)
    told = expected.now
    if touched.mean() < 0.2:  # a muggy day has as much of one dew point
        return False
    if expected.variance > 0.8:  # the other columns do not tell
        return before < 0.01
    return bool(ks_2samp(told[touched], told[~touched]).statistic < 0.2)


def _top_value(case: Case, name: str) -> tuple[float, float, float] | None:
    """The value whose share grew most, its share, and that in the reference."""
    values, profile = case.numbers(name), case.profile(name)
    known = values[~np.isnan(values)]
    if len(known) < 20 or len(profile.grid) < 2:  # a constant cannot get stuck
        return None
    distinct, counts = np.unique(known, return_counts=True)
    shares = counts / len(known)
    grown = shares - _shares_at(profile, distinct)
    best = int(grown.argmax())
    return float(distinct[best]), float(shares[best]), float(shares[best] - grown[best])


def _stuck_label(case: Case, name: str) -> tuple[str, Mask, float] | None:
    places, labels = case.labels(name)
    known = places[places >= 0]
    profile = case.reference.columns[name]
    if len(known) < 20 or not isinstance(profile, CategoricalProfile) or profile.n == 0:
        return None
    counts = np.bincount(known, minlength=len(labels))
    best = int(counts.argmax())
    share, before = counts[best] / len(known), profile.counts.get(labels[best], 0) / profile.n
    most = case.most(f"{name}|atom")
    if before == 0 or share < 0.98 or before > 0.9 or share - before < 1.5 * most:  # all of it
        return None
    return repr(labels[best]), places == best, float(before)


def clipped(case: Case) -> Iterator[Cause]:
    """Values pile up at a bound that the training rows go beyond."""
    for name in case.numeric:
        top = None if case.reference.atom(name, case.tally) < _ATOM else _top_value(case, name)
        if top is None:
            continue
        bound, share, before = top
        values, profile = case.numbers(name), case.profile(name)
        known = values[~np.isnan(values)]
        usual = share - before < max(_ATOM, 1.3 * case.most(f"{name}|atom") + 0.01)
        outermost = bound in (known.min(), known.max())
        cliff = outermost and _cliff(known, bound) and share - before > 2 * _ATOM
        often = share - before > max(3 * _ATOM, case.most(f"{name}|atom"))
        edge = cliff or (outermost and often and _times(known, bound) > _MODE)
        new = _new_atom(case, name, known, top)
        if usual and not edge and not new:
            continue
        point = np.asarray([bound])
        over = 1 - float(profile.share(point, "upto")[0]), float((known > bound).mean())
        under = float(profile.share(point, "below")[0]), float((known < bound).mean())
        upper, lower = over[0] - over[1], under[0] - under[1]
        excess = share - before
        low, high = profile.points[[0, -1]]
        if before > 0.3 * excess or not low < bound < high:  # it piled up before
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
        if gone[0] < 0.02 or (partly and not new and (not even or excess < 0.06)):
            continue
        where = segment(case, values == bound, [name])
        yield Cause(
            "clipped",
            (name,),
            f"{name!r} is {bound:g} in {share:.0%} of rows, and {gone[1]:.1%} lie {side} it where "
            f"{gone[0]:.1%} used to{_where(where)}: cut off at that value?",
            {
                NATS: _surprise(share, before),
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
    atoms = profile.points[np.asarray(profile.upto) - np.asarray(profile.below) > _ATOM / 2]
    return _times(known, bound, atoms) > _ALONE


def _cliff(known: Floats, bound: float) -> bool:
    """Whether the outermost value is far more frequent than its neighbours."""
    distinct, counts = np.unique(known, return_counts=True)
    near = np.argsort(np.abs(distinct - bound), kind="stable")[1:6]
    at = counts[distinct == bound][0]
    return bool(len(near) > 2 and at > 3 * counts[near].max() and at > 0.04 * len(known))


def rounded(case: Case) -> Iterator[Cause]:
    """Values on a coarser grid than in the training rows."""
    for name in case.numeric:
        found = _coarser(case, name)
        if found is None:
            continue
        what, share, before, touched = found
        grown = (share - before) / (1 - before)
        where = segment(case, touched, [name]) if grown < 0.9 else ""  # nearly all
        yield Cause(
            "rounded",
            (name,),
            f"{share:.0%} of the values of {name!r} are {what}, where {before:.0%} used to "
            f"be{_where(where)}: rounded on the way?",
            {
                NATS: _surprise(share, before),
                "share now": round(share, 4),
                "share before": round(before, 4),
                "grid": what,
            },
            f"Find where {name!r} loses its digits: a cast, a format, a new device.",
            share=round(grown, 4),
            segment=where,
        )


def _coarser(case: Case, name: str) -> tuple[str, float, float, Mask] | None:
    values, profile = case.numbers(name), case.profile(name)
    top = _top_value(case, name)
    weight, own = _mass(profile), np.asarray(profile.upto) - np.asarray(profile.below)
    atoms = own > _ATOM
    if own[atoms].sum() > 0.5:  # then they are what the column holds
        atoms[:] = False
    # A value that is frequent by itself says nothing of the grid.
    alone = np.append(profile.points[atoms], [] if top is None else top[0])
    there = ~np.isnan(values) & ~np.isin(values, alone)
    weight = np.where(atoms, 0.0, weight)
    few = there.sum() < 20 or len(profile.grid) < 8  # too few have digits
    if few or not _same_size(profile, values[there]):
        return None
    # Rows of one hour share a value: they count as many as there would be without.
    _, counts = np.unique(values[there], return_counts=True)
    apart = counts.sum() ** 2 / (counts**2).sum()
    best: tuple[float, tuple[str, float, float, Mask]] | None = None
    for what, step, on in _grids(profile.points, values):
        before = float(weight @ on[: len(weight)] / weight.sum())
        touched = on[len(weight) :]
        share = float(touched[there].mean())
        if before > 0.5 or share <= before:  # as coarse already
            continue
        distinct = len(np.unique(values[there & touched]))
        # Few values come in runs; those that never came before do not.
        strange = not np.isin(values[there & touched], profile.points).mean() > 0.5
        few = len(profile.grid) < 60 and share < 0.98
        error = np.sqrt(max(before * (1 - before), 0.01) * (1 / _QUANTILES + 1 / apart))
        least = 0.05 + error if strange and before < 0.05 else 0.1 + 3 * error
        if share - before < least or distinct < 3 or (few and not strange):
            continue
        if share < 0.98 and not _as_before(profile.points, weight, values[there], step):
            continue
        told = _surprise(share, before)
        if best is None or told > best[0]:
            best = told, (what, share, before, touched & there)
    return None if best is None else best[1]


def _as_before(points: Floats, weight: Floats, known: Floats, step: float) -> bool:
    """Whether the values beside a grid end on the digits on which those beside it used to.

    A new tariff has steps of its own; of values that are rounded in part, the rest is as ever.
    """
    if step == 0:  # of no decimal grid
        return True
    weights = weight, np.ones(len(known))
    for turn in (1.0, 10.0):  # the digits after the grid's, and its own last
        counts = []
        for x, w in zip((points / step, known / step), weights, strict=True):
            beside = np.abs(x - np.round(x)) > 1e-6
            ends = np.mod(x[beside], turn)
            counts.append(np.histogram(ends, bins=20, range=(0.0, turn), weights=w[beside])[0])
        shares = [count / max(count.sum(), 1e-12) for count in counts]
        if counts[1].sum() > _BESIDE and np.abs(shares[0] - shares[1]).sum() / 2 > _OTHER_DIGITS:
            return False
    return True


def _mass(profile: NumericProfile) -> Floats:
    """Share of the reference that each point of the grid stands for, half of its gaps with it."""
    below, upto = np.asarray(profile.below), np.asarray(profile.upto)
    gaps = np.concatenate([[0.0], below[1:] - upto[:-1], [0.0]])
    mass: Floats = upto - below + (gaps[:-1] + gaps[1:]) / 2
    return mass


def _same_size(profile: NumericProfile, known: Floats) -> bool:
    """Whether values are about as large and as wide as before; another unit changes that."""
    low, middle, high = np.quantile(known, [0.1, 0.5, 0.9])
    before = np.interp([0.1, 0.9], np.asarray(profile.upto), profile.points)
    wide = before[1] - before[0]
    near = profile.points[0] - wide <= middle <= profile.points[-1] + wide
    return bool(near and wide / 4 <= high - low <= 4 * wide)


def _grids(points: Floats, values: Floats) -> Iterator[tuple[str, float, Mask]]:
    """Grids from fine to coarse, their step, and which points and then values lie on each."""
    both = np.concatenate([points, values])
    known = np.zeros(len(both), dtype=bool)
    with np.errstate(invalid="ignore", over="ignore"):
        largest = np.abs(points).max()
        start = int(np.floor(np.log10(max(largest, 1e-12)))) - 6
        for power in range(start, start + 8):
            for factor in (1, 2, 5):
                step = factor * 10.0**power
                on = np.abs(both / step - np.round(both / step)) < 1e-6  # rounding
                yield f"multiples of {step:g}", step, on
                known |= on & on[: len(points)].all()
        # A cast leaves digits that no decimal grid holds.
        yield "16-bit numbers", 0.0, (both.astype(np.float16).astype(np.float64) == both) & ~known


def _surprise(share: float, before: float) -> float:
    """Nats a row by which a share is likelier when it was made than when it came about."""
    return round(share * float(np.log(share / max(before, 1e-4))), 3)


def _where(text: str) -> str:
    return f", where {text}" if text else ""
