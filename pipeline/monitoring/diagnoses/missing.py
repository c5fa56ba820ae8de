"""Missing values, and codes that stand for missing values."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.monitoring.diagnoses.blocks import usual
from pipeline.monitoring.diagnoses.case import NATS, Case
from pipeline.monitoring.diagnoses.likelihood import Mask, shares_at, surprise
from pipeline.monitoring.diagnoses.parameters import SHARED
from pipeline.monitoring.diagnoses.segments import clause, segment
from pipeline.monitoring.findings import Cause
from pipeline.reference.profile import MISSING
from pipeline.reference.summaries import Trait

_CODES = {0.0, -1.0, -9.0, 9.0, 99.0, -99.0, 999.0, -999.0, 9999.0, -9999.0, 99999.0, -99999.0}
_CODES |= {999999.0, -999999.0, 32767.0, -32768.0, 65535.0, 2147483647.0, -2147483648.0}
_DECIMAL = (10.0, 100.0, 1_000.0, 0.1, 0.01, 0.001)
_NO_LABELS = {"", "?", "-", "--", ".", "n/a", "na", "nan", "null", "none", "nil", "unknown", "unk"}
_NO_LABELS |= {"missing", "undefined", "unspecified", "not available", "#n/a", "-1", "-999", "999"}
_NO_LABELS |= {"0", "9999", "-9999", "other", "default", "xxx", "tbd", "not set", "(none)", "<na>"}


@dataclass(frozen=True)
class Parameters:
    """What shows that values are missing, and which values are codes for it.

    Attributes
    ----------
    spike : float
        Least excess of the share of missing values over that of any ordinary batch.
    spreads : float
        Least excess of that share in its standard deviations over ordinary batches.
    groups : int
        Groups of the values of a column by which it predicts whether another one is missing.
    paired : float
        Share of the rows in which two columns are missing together or not at all, from which both
        are missing for one reason.
    together : float
        Share of their missing rows that columns of a failed join have in common.
    several : int
        Most distinct sentinels in one column, where they are not among the usual codes.
    rows : int
        Fewest rows of a frequent code.
    hardly_ever, hardly_ever_label : float
        Share of the reference below which a number, and a label, was hardly ever there.
    far : float
        Distance from the range, relative to its width, that is far from all earlier values.
    at_the_end : float
        Distance from the range, relative to its width, at which a value may lie by rounding.
    more : float
        Least ratio of the frequency of a code near the range to that of any other value.
    lost : float
        Least loss of the share of known values, relative to the share of odd values that are these
        in another unit.
    beyond : float
        Most other values outside the range, relative to the rows with a code: where there are
        more, the column was changed as a whole.
    """

    spike: float = 0.07
    spreads: float = 2.0
    groups: int = 33
    paired: float = 0.999
    together: float = 0.8
    several: int = 3
    rows: int = 10
    hardly_ever: float = 0.001
    hardly_ever_label: float = 0.002
    far: float = 0.5
    at_the_end: float = 0.02
    more: float = 3.0
    lost: float = 0.5
    beyond: float = 0.1


PARAMS = Parameters()


def join(case: Case) -> Iterator[Cause]:
    """Recognise several columns that are missing in the same rows."""
    spiked = {name: case.missing(name) for name in case.features if _null_spike(case, name)}
    left = list(spiked)
    while left:
        first = left.pop(0)
        group = [first] + [name for name in left if _overlap(spiked[first], spiked[name])]
        left = [name for name in left if name not in group]
        if len(group) < 2:  # a single column is not a join
            continue
        touched = np.logical_and.reduce([spiked[name] for name in group])
        where = segment(case, touched, group)
        share = float(touched.mean())
        yield Cause(
            "join",
            tuple(group),
            f"{', '.join(repr(name) for name in group)} are missing together in {share:.0%} of "
            f"rows{clause(where)}: did a join find no match?",
            {"share of rows": round(share, 4)},
            "Check the keys of the join that brings these columns, and load the window again.",
            share=share,
            segment=where,
        )


def nulls(case: Case) -> Iterator[Cause]:
    """Recognise far more missing values than in any ordinary batch."""
    for name in case.features:
        if not _null_spike(case, name):
            continue
        missing = case.missing(name)
        share, most = float(missing.mean()), _usual_missing(case, name)
        where = segment(case, missing, [name])
        other, alone = _left_alone(case, name)
        beside = (
            f" In {alone.mean():.0%} of rows {other!r} is there, which was always missing with it."
            if alone.any()
            else ""
        )
        yield Cause(
            "nulls",
            (name,),
            f"{name!r} is missing in {share:.0%} of rows, where at most {most:.1%} is "
            f"usual{clause(where)}.{beside}",
            {"share of rows": round(share, 4), "largest usual share": round(most, 4)},
            f"Ask the source why {name!r} is not filled in, and load the window again.",
            share=share,
            segment=where,
        )


def _usual_missing(case: Case, name: str) -> float:
    return max(case.most(Trait("missing", (name,))), _missing_before(case)[name])


def _null_spike(case: Case, name: str) -> bool:
    missing = case.missing(name)
    if len(missing) < SHARED.fewest:
        return False
    share, most = float(missing.mean()), _usual_missing(case, name)
    if share > SHARED.part and _left_alone(case, name)[1].mean() > SHARED.part:
        return True
    if share - most <= PARAMS.spike:  # what is missing by another column takes longer to know
        return False
    most = max(most, case.once("missing by", name, lambda: _missing_by_others(case, name)))
    _, sd = usual(case.reference, Trait("missing", (name,)))
    odds = share / max(1 - share, 1e-9) / (most / max(1 - most, 1e-9) + 1e-9)
    return share - most > max(PARAMS.spike, PARAMS.spreads * sd) and odds > SHARED.odds


def _left_alone(case: Case, name: str) -> tuple[str, Mask]:
    """A column that is there in rows without this one, though both were always missing together.

    A charge has a start and an end, or neither: of one alone, the other was lost. Empty, and no
    row, if there is no such column.
    """
    return case.once("left alone", name, lambda: _missing_pair(case, name))


def _missing_pair(case: Case, name: str) -> tuple[str, Mask]:
    missing = case.missing(name)
    most = "", np.zeros(len(missing), dtype=bool)
    usual = _missing_before(case)
    if not missing.any() or not 0 < usual[name] < 1:
        return most
    own = case.reference.cells[:, case.place(name)] == MISSING
    for other in case.every:
        if other == name or abs(usual[other] - usual[name]) > 1 - PARAMS.paired:
            continue
        beside = case.reference.cells[:, case.place(other)] == MISSING
        alone = missing & ~case.missing(other)
        if alone.sum() > most[1].sum() and (own == beside).mean() >= PARAMS.paired:
            most = other, alone
    return most


def _missing_before(case: Case) -> dict[str, float]:
    """Share of the training rows that lack each column."""
    columns = case.reference.columns.items()
    return case.memory.recall(
        "missing before",
        lambda: {name: one.missing / max(one.n + one.missing, 1) for name, one in columns},
    )


def _missing_by_others(case: Case, name: str) -> float:
    """Largest share that another column predicts to be missing, by what it tells in the reference.

    A tip is missing where people pay in cash: with more cash, more are. Columns with more missing
    values than usual themselves, as after a failed join, predict nothing.
    """
    reference, found = case.reference, 0.0
    missing = reference.cells[:, case.place(name)] == MISSING
    for other in case.every:
        if other == name or case.missing(other).mean() > _usual_missing(case, other):
            continue
        profile, place = reference.columns[other], case.place(other)
        ranks = [profile.ranks(side[:, place]) for side in (reference.cells, case.drawn_cells)]
        if np.isnan(ranks[0]).all():
            continue
        edges = np.unique(np.nanquantile(ranks[0], np.linspace(0, 1, PARAMS.groups)))
        before, now = (np.searchsorted(edges, one) for one in ranks)  # missing values come last
        rows = np.bincount(before, minlength=len(edges) + 1)
        rates = np.bincount(before, missing, minlength=len(edges) + 1) / np.maximum(rows, 1)
        found = max(found, float(np.where(rows > 0, rates, missing.mean())[now].mean()))
    return found


def _overlap(left: Mask, right: Mask) -> bool:
    return bool((left & right).sum() >= PARAMS.together * max(left.sum(), right.sum()))


def sentinel(case: Case) -> Iterator[Cause]:
    """Recognise a sentinel: a value far outside, or a usual code, that was not there before."""
    for name in case.features:
        found = _odd_numbers(case, name) if name in case.numeric else _odd_labels(case, name)
        if not found:
            continue
        values, touched = found
        share, where = float(touched.mean()), segment(case, touched, [name])
        listed = ", ".join(repr(value) for value in values[:3])
        if name in case.numeric and (factor := _decimal_factor(case, name, touched)):
            yield Cause(
                "unit",
                (name,),
                f"{name!r} holds {listed} in {share:.0%} of rows{clause(where)}, {factor:g} times "
                "values that came less often: another unit?",
                {NATS: surprise(share, 0.0), "factor": factor, "offset": 0.0},
                f"Ask the source which unit {name!r} has now; convert it back before it arrives.",
                share=share,
                segment=where,
            )
            continue
        yield Cause(
            "sentinel",
            (name,),
            f"{name!r} holds {listed} in {share:.0%} of rows, which the training rows do "
            f"not{clause(where)}: a code for a missing value?",
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
    often = counts >= max(PARAMS.rows, SHARED.frequent * len(values))
    low, high = profile.points[0], profile.points[-1]
    before = dict(zip(distinct, shares_at(profile, distinct), strict=True))
    odd = [
        value
        for value in distinct[often]
        if before[value] < PARAMS.hardly_ever and _is_odd(value, low, high)
    ]
    touched = np.isin(values, odd)
    # Where many other values lie outside on that side, the column was changed as a whole.
    strange = known[~np.isin(known, odd)]
    beyond = (strange < low).sum() * (min(odd, default=low) < low)
    beyond += (strange > high).sum() * (max(odd, default=high) > high)
    others = counts[~np.isin(distinct, odd)].max(initial=0)
    # Rounding puts as many values at the ends of the range as elsewhere.
    near = PARAMS.at_the_end * (high - low)
    inside = [value for value in odd if low - near <= value <= high + near]
    usual = any(counts[distinct == value][0] < PARAMS.more * others for value in inside)
    codes = len(odd) <= PARAMS.several or _CODES.issuperset(odd)
    if not odd or not codes or usual or beyond > PARAMS.beyond * touched.sum():
        return None
    return [f"{value:g}" for value in odd], touched


def _decimal_factor(case: Case, name: str, touched: Mask) -> float | None:
    """The power of ten by which odd values are known values, of which as many rows were lost."""
    values, profile = case.numbers(name), case.profile(name)
    known = values[~np.isnan(values)]
    odd, came = np.unique(values[touched], return_counts=True)
    for factor in _DECIMAL:
        meant = profile.points[np.abs(profile.points - odd[:, None] / factor).argmin(axis=1)]
        close = np.isclose(meant * factor, odd)
        now = np.asarray([(known == value).mean() for value in meant])
        lost = shares_at(profile, meant) - now
        if close.all() and (lost > PARAMS.lost * came / len(known)).all():
            return factor
    return None


def _is_odd(value: float, low: float, high: float) -> bool:
    outside = max(low - value, value - high)
    if high == low:
        return value in _CODES and abs(value) > 1 and outside > 0
    if value in _CODES:
        return True
    return bool(outside > PARAMS.far * (high - low))


def _odd_labels(case: Case, name: str) -> tuple[list[str], Mask] | None:
    places, labels = case.labels(name)
    counts, total = case.counts(name), max(sum(case.counts(name).values()), 1)
    n = np.bincount(places + 1, minlength=len(labels) + 1)[1:]
    new = [
        label
        for label, count in zip(labels, n, strict=True)
        if counts.get(label, 0) / total < PARAMS.hardly_ever_label
        and count >= max(PARAMS.rows, SHARED.frequent * len(places))
    ]
    odd = [label for label in new if label.strip().casefold() in _NO_LABELS]
    rows = n[np.isin(labels, new)].sum()
    expected = sum(x / total * rows >= SHARED.seen for x in counts.values())
    factor = SHARED.as_many
    as_many = len(new) > 1 and expected / factor <= len(new) <= factor * expected
    if not odd or len(odd) > 1 or as_many:  # several new labels are a recode
        return None
    return odd, np.isin(np.asarray([*labels, None], dtype=object)[places], odd)
