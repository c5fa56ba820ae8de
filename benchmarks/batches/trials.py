"""Trials: clean batches with one fault put in, each rebuilt from its name, and how it is scored.

A fault that cannot be seen is no trial. It is counted as not applicable and replaced where less
than half of the touched rows differ (5% for clipping, whose bound must be rare before); for a
shuffle, where no rank correlation of 0.3 with another column exists in the touched rows and in
the reference; for moved labels or hours, swapped columns and signs, where neither the shares
(by 0.1) nor such correlations change; for a sentinel that occurs anyway; for a unit or rounding
that leaves under five values; for duplicates where a fifth of the rows repeat by themselves; for
odd values that are not twice as far out as any before; for a rare label of under ten rows.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import ks_2samp

from benchmarks.batches import histories
from benchmarks.batches.faults import CYCLES, DAYS, MONTHS, Mask, Names, Random, differing
from benchmarks.batches.histories import Case, Verdict, report_on
from benchmarks.batches.variants import REPORTED, VARIANTS, Variant
from pipeline.monitoring.findings import Cause, DriftReport
from pipeline.reference.summaries import Summary

FRACTIONS = (1.0, 0.3, 0.1)
LINKED, SHOWS = 0.3, 0.1
WHOLE = {"frozen", "duplicate", "volume"}
CODES = {
    *("season", "yr", "mnth", "holiday", "workingday", "weathersit", "SEX", "EDUCATION"),
    *("MARRIAGE", "PAY_0", "PAY_2", "PAY_3", "PAY_4", "PAY_5", "PAY_6", "education-num"),
    *("pickup_community_area", "dropoff_community_area", "dropoff_census_tract"),
    "trip_start_month",
}
"""Numeric columns that hold codes: they have no unit and no sign."""
ATTEMPTS = 60
FEW = 10
"""Rows that a fault of a rare label has to touch."""


@dataclass(frozen=True, eq=False)
class Trial:
    """A batch with a fault.

    Attributes
    ----------
    name : str
        `cause:fraction:number:seed`, from which `trial` builds the trial.
    columns : tuple of str
        The faulty columns; empty if the whole batch is faulty.
    how, by : str
        Which rows were touched, in words, and the column whose values chose them.
    with_recent : bool
        Whether the comparison is given summaries of earlier batches.
    invisible : int
        Faults that were tried before this one and could not be seen.
    """

    name: str
    case: Case = field(repr=False)
    variant: Variant
    columns: Names
    how: str
    by: str
    mask: Mask = field(repr=False)
    frame: pd.DataFrame = field(repr=False)
    with_recent: bool
    invisible: int

    @property
    def recent(self) -> list[Summary]:
        return self.case.recent if self.with_recent else []

    def judge(self) -> Verdict:
        return report_on(self.case.reference, self.frame, self.recent)

    def __str__(self) -> str:
        columns = " ".join(self.columns)
        what = f"{self.variant.cause}/{self.variant.name} {self.case.key} {columns}"
        return f"{self.name} {what} [{self.how}]{' recent' if self.with_recent else ''}"


def trial(name: str, sets: Names = ()) -> Trial | None:
    """The trial of a name on some sets; None if no fault of its kind can be seen anywhere."""
    cause, fraction, number, seed = name.split(":")
    share, k = float(fraction), int(number)
    random = np.random.default_rng([zlib.crc32(cause.encode()), round(share * 10), k, int(seed)])
    variants = [one for one in VARIANTS if one.cause == cause]
    variants = [one for one in variants if share == 1 or not one.all_rows]
    keys = list(histories.keys(sets))
    invisible = 0
    for attempt in range(ATTEMPTS if variants else 0):
        place = k % len(variants) if attempt == 0 else int(random.integers(len(variants)))
        variant = variants[place]
        place = k if attempt == 0 else int(random.integers(len(keys)))
        case = histories.case(keys[place % len(keys)])
        columns = _columns(variant, case, random)
        if columns is None or (variant.source == "earlier" and not case.earlier):
            continue
        chosen = _rows(case, columns, share, k, random, runs=cause == "frozen")
        if chosen is None:
            continue
        mask, how, by = chosen
        frame = _damaged(variant, case, columns, mask, random)
        if not visible(variant, case, columns, mask, frame):
            invisible += 1
            continue
        recent = bool(case.earlier) and (k % 3 == 0 or variant.source == "earlier")
        return Trial(name, case, variant, columns, how, by, mask, frame, recent, invisible)
    return None


def _damaged(
    variant: Variant, case: Case, columns: Names, mask: Mask, random: Random
) -> pd.DataFrame:
    apply = variant.apply
    if variant.source:
        apply = partial(apply, rows=case.before if variant.source == "before" else case.earlier[-1])
    return apply(case.current, columns, mask, random)


def measures(case: Case) -> list[str]:
    """Numeric columns with a unit and at least five values."""
    return [
        str(name)
        for name in case.current
        if name not in case.labels
        and name not in CODES
        and name not in CYCLES
        and case.before[name].nunique() >= 5
        and case.current[name].nunique() >= 5
    ]


def _columns(variant: Variant, case: Case, random: Random) -> Names | None:
    """Random columns of the kind a variant needs; None where the data set has too few."""
    names = [str(name) for name in case.current]
    counts = {"two numbers": 2, "two labels": 2, "several": int(random.integers(3, 6))}
    pools = {
        "number": measures(case),
        "two numbers": measures(case),
        "label": case.labels,
        "two labels": case.labels,
        "hour": [name for name in names if CYCLES.get(name, (0, 0, 0))[2] in {24, 48}],
        "weekday": [name for name in names if CYCLES.get(name, (0, 0, 0))[2] == DAYS],
        "month": [name for name in names if CYCLES.get(name, (0, 0, 0))[2] == MONTHS],
    }
    if variant.on == "batch":
        return ()
    pool = pools.get(variant.on, names)
    pool = [name for name in pool if not variant.only or name in variant.only]
    count = counts.get(variant.on, 1)
    if len(pool) < count:
        return None
    return tuple(str(name) for name in random.choice(pool, count, replace=False))


def _rows(
    case: Case, columns: Names, share: float, k: int, random: Random, *, runs: bool
) -> tuple[Mask, str, str] | None:
    """Touched rows, a description of them, and the column that chose them.

    Trials of odd number touch a segment. Otherwise rows that freeze are neighbours, and others
    are drawn at random.
    """
    n = len(case.current)
    if share == 1:
        return np.ones(n, dtype=bool), "all", ""
    if k % 2 == 0 and runs:
        return _stretch(case.current, share, random)
    if k % 2 == 0:
        return random.random(n) < share, "random", ""
    ways = [_label_segment, _hours, _stretch]
    for way in ways[(k // 2) % 3 :]:
        found = way(case.current.drop(columns=list(columns)), share, random)
        if found is not None:
            return found
    return None


def _label_segment(
    frame: pd.DataFrame, share: float, random: Random
) -> tuple[Mask, str, str] | None:
    """Rows with a few labels of one column, which make up about the share."""
    pool = [name for name in frame if frame[name].dtype.kind not in "iuf" or name in CODES]
    for name in random.permutation(np.asarray(pool, dtype=object)).tolist():
        counts = frame[name].value_counts(normalize=True)
        chosen: list[Any] = []
        taken = 0.0
        for label in random.permutation(np.asarray(counts.index, dtype=object)).tolist():
            of_label = float(counts.to_numpy()[counts.index == label].sum())
            if taken + of_label <= 1.4 * share:
                chosen.append(label)
                taken += of_label
            if taken >= 0.6 * share:
                mask = frame[name].isin(chosen).to_numpy()
                few = ",".join(map(str, chosen[:3]))
                return mask, f"{name}={few}", str(name)
    return None


def _hours(frame: pd.DataFrame, share: float, random: Random) -> tuple[Mask, str, str] | None:
    """Rows between two hours or two days, about the share."""
    pool = [name for name in frame if name in CYCLES]
    if not pool:
        return None
    name = str(random.choice(pool))
    values = np.unique(frame[name].dropna())
    first = int(random.integers(len(values)))
    for last in range(first, len(values)):
        mask = frame[name].between(values[first], values[last]).to_numpy()
        if mask.mean() >= 0.6 * share:
            if mask.mean() > 1.5 * share:
                return None
            return mask, f"{name} {values[first]:g}-{values[last]:g}", name
    return None


def _stretch(frame: pd.DataFrame, share: float, random: Random) -> tuple[Mask, str, str]:
    n, start = len(frame), int(random.integers(round(len(frame) * (1 - share)) + 1))
    mask = (np.arange(n) >= start) & (np.arange(n) < start + round(n * share))
    return mask, f"rows {start}-{start + round(n * share)}", ""


def visible(variant: Variant, case: Case, columns: Names, mask: Mask, frame: pd.DataFrame) -> bool:
    """Whether a fault can be seen at all, by the rules in this module's docstring."""
    cause, clean = variant.cause, case.current
    if cause == REPORTED:
        return _impossible(
            case.before[columns[0]], frame[columns[0]][frame[columns[0]] != clean[columns[0]]]
        )
    if variant.few:
        return bool(differing(clean, frame, columns, mask).sum() >= FEW)
    share = differing(clean, frame, columns, mask).mean() if mask.sum() >= 30 else 0.0
    if share < (0.05 if cause == "clipped" else 0.5):
        return False
    if not columns:
        return bool(cause != "duplicate" or clean.duplicated().mean() < 0.2)
    if cause in {"shuffled", "sign", "permuted", "shifted", "swapped"}:
        return _shows(cause, case, columns, mask, frame)
    before, now = case.before[columns[0]], clean[columns[0]]
    touched = frame[columns[0]][mask] if columns[0] in frame else now[mask]
    known = True
    if cause == "clipped":
        bound = touched.max() if variant.name > "0.5" else touched.min()
        common = max((before == bound).mean(), (now == bound).mean())
        known = common < 0.05 and now.nunique() >= 20
    elif cause in {"unit", "rounded"}:
        known = min(now[mask].nunique(), touched.nunique()) >= 5
    elif cause == "sentinel":
        value = touched.iloc[0]
        known = max((before == value).mean(), (now == value).mean()) < 5e-4
    return bool(known)


def _impossible(before: pd.Series, values: pd.Series) -> bool:
    """Whether values lie further beyond all values before than these lie apart."""
    wide = before.max() - before.min()
    apart = np.maximum(values - before.max(), before.min() - values)
    return bool(values.notna().any() and (apart[values.notna()] > wide).all())


def _shows(cause: str, case: Case, columns: Names, mask: Mask, frame: pd.DataFrame) -> bool:
    """Whether the shares of values, or a link to another column, show a fault."""
    now, touched = case.current[columns[0]][mask], frame[columns[0]][mask]
    if cause != "shuffled" and distance(now, touched) >= SHOWS:
        return True
    if cause == "swapped":
        return _distinct(case, columns, mask)
    return links(case, columns[0], mask) >= LINKED


def distance(one: pd.Series, other: pd.Series) -> float:
    """Kolmogorov-Smirnov distance between known numbers, total variation between labels."""
    one, other = one.dropna(), other.dropna()
    if one.dtype.kind in "iuf" and other.dtype.kind in "iuf":
        both = len(one) and len(other)
        return float(ks_2samp(one, other, method="asymp").statistic) if both else 1.0
    shares = [values.value_counts(normalize=True) for values in (one, other)]
    return float(shares[0].sub(shares[1], fill_value=0).abs().sum() / 2)


def links(case: Case, column: str, mask: Mask) -> float:
    """Strongest rank correlation with another column in both reference and touched rows."""
    before, now, owners = _correlations(case, mask)
    own = owners == column
    both = np.fmin(np.abs(before), np.abs(now)) * (np.sign(before) == np.sign(now))
    return float(np.nan_to_num(both[own][:, ~own]).max(initial=0.0))


def _distinct(case: Case, columns: Names, mask: Mask) -> bool:
    """Whether two numeric columns are correlated with others in clearly different ways."""
    before, now, owners = _correlations(case, mask)
    rest = ~np.isin(owners, columns)
    gaps = [
        (table[owners == columns[0]][0] - table[owners == columns[1]][0])[rest]
        for table in (before, now)
    ]
    both = np.fmin(np.abs(gaps[0]), np.abs(gaps[1])) * (np.sign(gaps[0]) == np.sign(gaps[1]))
    return bool(np.nan_to_num(both).max(initial=0.0) >= LINKED)


def _correlations(case: Case, mask: Mask) -> tuple[Any, Any, Any]:
    """Correlations in the reference and in the touched rows, and the columns they belong to.

    Correlated are ranks, points on the clock and indicators of frequent labels.
    """
    before = case.before.iloc[:: max(1, len(case.before) // 5_000)]
    tables, owners = [], np.asarray([])
    for frame in (before, case.current[mask]):
        views = dict(_views(frame, case))
        owners = np.asarray([name for name, _ in views])
        with np.errstate(invalid="ignore", divide="ignore"):
            tables.append(np.corrcoef(np.asarray(list(views.values()))))
    return tables[0], tables[1], owners


def _views(frame: pd.DataFrame, case: Case) -> Iterator[tuple[tuple[str, str], Any]]:
    for name in map(str, frame):
        if name in case.labels:
            for label in case.before[name].value_counts().index[:5]:
                yield (name, str(label)), (frame[name] == label).to_numpy(dtype=float)
            continue
        ranks = frame[name].rank()
        yield (name, ""), ranks.fillna(ranks.mean()).fillna(0.0).to_numpy()
        if name in CYCLES:
            first, step, steps = CYCLES[name]
            angle = 2 * np.pi * (frame[name].fillna(first) - first) / step / steps
            yield (name, "cos"), np.cos(angle).to_numpy()
            yield (name, "sin"), np.sin(angle).to_numpy()


def score(report: DriftReport | Verdict, one: Trial) -> dict[str, Any]:
    """How well a report describes a trial's fault.

    Returns
    -------
    dict
        Among others `broken`: a fault was found in the right place. `right`: it has the right
        name as well. `spurious`: causes named for columns that were not touched. `segment`:
        whether the column that chose the touched rows was named; None where none did. `share`:
        whether the stated share of rows is right within a third; None if the cause is wrong.
    """
    whole = one.variant.cause in WHOLE
    judged_broken = report.outcome in {"broken", "mixed"}
    here = [
        cause
        for cause in report.causes
        if (whole and (not cause.columns or one.variant.cause == "frozen"))
        or (set(cause.columns) & set(one.columns))
    ]
    names = {one.variant.cause, *one.variant.also}
    right = [cause for cause in here if cause.cause in names]
    spurious = [cause.name for cause in report.causes if cause not in here and cause.columns]
    counted = [
        note
        for note in getattr(report, "notes", ())
        if note.startswith(f"{next(iter(one.columns), '')!r} holds")
    ]
    reported = one.variant.cause == REPORTED and bool(counted or here)
    segment = None
    if one.by:
        segment = any(cause.segment.startswith(f"{one.by} ") for cause in here)
    return {
        "trial": one.name,
        "set": one.case.set,
        "rows": len(one.case.current),
        "cause": one.variant.cause,
        "variant": one.variant.name,
        "fraction": float(one.name.split(":")[1]),
        "how": one.how,
        "columns": list(one.columns),
        "recent": one.with_recent,
        "outcome": report.outcome,
        "named": [cause.name for cause in report.causes],
        "error": getattr(report, "error", ""),
        "seconds": getattr(report, "seconds", 0.0),
        "broken": reported or bool(judged_broken and here),
        "right": reported or bool(judged_broken and right),
        "spurious": spurious,
        "segment": segment,
        "share": _near(right, float(one.mask.mean())) if right else None,
        "invisible": one.invisible,
        "text": str(one),
    }


def _near(causes: list[Cause], share: float) -> bool:
    return any(abs(cause.share - share) <= share / 3 for cause in causes)


@cache
def prepared(name: str, sets: Names = ()) -> str | None:
    """Key of the case a trial is built on, so that trials of one reference run together."""
    built = trial(name, sets)
    return built.case.key if built else None
