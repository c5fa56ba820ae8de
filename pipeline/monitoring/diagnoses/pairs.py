"""Columns that look well alone: exchanged with another, or shuffled."""

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
from scipy.stats import ks_2samp

from pipeline.monitoring.diagnoses.case import NATS, Case, Mask
from pipeline.monitoring.diagnoses.likelihood import log_mass, mixture, touched_rows
from pipeline.monitoring.diagnoses.segments import segment
from pipeline.monitoring.findings import Cause
from pipeline.profile import Floats

_CONVINCING = 1.0
_TOTAL = 25.0
_MARKED = 0.2
"""Correlation that is worth missing."""
_MOST = 0.7
"""Share of rows above which a fault is taken to touch them all."""
_PART = 0.08
"""Smallest share of rows that is looked for where not all are touched."""
_ALIKE = 0.3
"""Largest Kolmogorov-Smirnov distance of rows put back from those that were not touched."""
_CANDIDATES = 4
_SUPPORTED = 0.3
"""Share of rows of which the other columns must be able to tell."""
_GLANCE = 1_000
"""Rows that pairs are looked over with."""
_LOSS = 0.3
"""Share of one column's gain that the other may lose: it may have drifted as well."""


def swapped_numbers(case: Case) -> Iterator[Cause]:
    """Two columns of numbers with each other's values."""
    varied = [
        name
        for name in case.numeric
        if len(case.profile(name).grid) > 2 and not case.names_the_block(name)
    ]
    for one, other in _candidates(case, varied):
        first, second = _numbers_gain(case, one, other)
        share, _ = mixture(first + second)
        if share < _MOST:  # then the other rows say what is usual in this batch
            first, second = _numbers_gain(case, one, other, loose=True)
            share, _ = mixture(first + second)
            touched = touched_rows(first + second, share)
            if share < _PART or not _two_kinds(case, one, other, touched):
                continue
        yield from _exchanged(case, one, other, first, second)


def _two_kinds(case: Case, one: str, other: str, touched: Mask) -> bool:
    """Whether the touched rows, put back, lie where the others do, in both columns."""
    a, b = case.numbers(one), case.numbers(other)
    there = ~np.isnan(a) & ~np.isnan(b)
    back, rest = touched & there, ~touched & there
    if min(back.sum(), rest.sum()) < 20:  # too few rows to tell
        return False
    far = max(ks_2samp(b[back], a[rest]).statistic, ks_2samp(a[back], b[rest]).statistic)
    return bool(far < _ALIKE)


def swapped_labels(case: Case) -> Iterator[Cause]:
    """Two columns of labels with each other's."""
    for one, other in _candidates(case, case.categorical):
        yield from _exchanged(case, one, other, *_labels_gain(case, one, other))


def _candidates(case: Case, names: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs that look exchanged at a glance, the likeliest first."""
    scored = sorted(
        (-likely, pair)
        for pair in combinations(names, 2)
        if any(map(case.suspect, pair)) and (likely := _quick(case, *pair)) > 0
    )
    return [pair for _, pair in scored[:_CANDIDATES]]


def _exchanged(case: Case, one: str, other: str, first: Floats, second: Floats) -> Iterator[Cause]:
    share, total = mixture(first + second)
    touched = touched_rows(first + second, share)
    if share < 0.04 or total < max(_TOTAL, _CONVINCING * share * len(touched)):
        return
    if not touched.any():
        return
    less, more = sorted((first[touched].mean(), second[touched].mean()))
    # One may lose a little where it drifted as well, if the other columns are there to tell.
    known = min(case.supported(name, without=(one, other)).mean() for name in (one, other))
    sure = share >= _MOST and known > _SUPPORTED
    least = -_LOSS * more if sure else _CONVINCING / 2 if known > _SUPPORTED else 3 * _CONVINCING
    if less < least:
        return
    where = segment(case, touched, [one, other]) if share < _MOST else ""
    rows = "" if share >= _MOST else f" in {share:.0%} of rows"
    yield Cause(
        "swapped",
        (one, other),
        f"{one!r} and {other!r} look exchanged{rows}"
        f"{f', where {where}' if where else ''}: each fits the other's place better.",
        {NATS: round(float(total / len(touched)), 3), "share of rows": round(share, 4)},
        f"Check the order of the columns where {one!r} and {other!r} are written.",
        share=round(share, 4),
        segment=where,
    )


def _quick(case: Case, one: str, other: str) -> float:
    """How much better two columns fit each other's place, by planes; 0 when they do not."""
    if one in case.categorical:
        shares = []
        for name, instead in ((one, other), (other, one)):
            places, labels = case.labels(name)
            known = places[places >= 0]
            counts = case.counts(instead)
            fits = np.asarray([label in counts for label in labels], dtype=bool)
            shares.append(float(fits[known].mean()) if len(known) else 0.0)
        return max(min(shares) - 0.02, 0.0)
    values = {name: case.numbers(name)[:_GLANCE] for name in (one, other)}
    scores = case.reference.scores.of(case.drawn_cells[:_GLANCE])
    exchanged, plain = scores.copy(), np.zeros(len(scores))
    for name, instead in ((one, other), (other, one)):
        belongs = values[instead]
        if name in case.leading:
            exchanged[:, case.leading[name]] = case.scores(name, belongs)
        profile = case.profile(name)
        there = ~np.isnan(belongs) & ~np.isnan(values[name])
        gain = log_mass(profile, belongs)[0] - log_mass(profile, values[name])[0]
        plain += np.where(there, gain, 0.0)
    related = (case.misfit(scores) - case.misfit(exchanged)).sum(axis=1) / 2
    share, total = mixture(plain + related)
    return total if share > 0.04 and total > _TOTAL / 2 else 0.0


def _numbers_gain(
    case: Case, one: str, other: str, *, loose: bool = False
) -> tuple[Floats, Floats]:
    """Nats by which each column's rows are likelier with the other's values."""
    gains = []
    for name, instead in ((one, other), (other, one)):
        # What came under `instead` belongs to `name`.
        came, belongs = case.numbers(name), case.numbers(instead)
        expected = (case.loosened if loose else case.expected)(name, without=(instead,))
        profile = case.profile(name)
        new, raw = log_mass(profile, belongs)[0], log_mass(profile, came)[0]
        related = expected.log_ratio(case.scores(name, belongs)) - expected.log_ratio(
            case.scores(name, came)
        )
        related = related * case.supported(name, without=(instead,))
        there = ~np.isnan(came) & ~np.isnan(belongs)
        gains.append(np.where(there, new - raw + related, 0.0))
    return gains[0], gains[1]


def _labels_gain(case: Case, one: str, other: str) -> tuple[Floats, Floats]:
    gains = []
    for name, instead in ((one, other), (other, one)):
        counts = case.counts(name)
        total = max(sum(counts.values()), 1)
        told = case.told(name, without=(instead,))
        logs = []
        there = np.ones(len(told.now), dtype=bool)
        for column in (instead, name):
            places, labels = case.labels(column)
            rank = {label: i for i, label in enumerate(told.labels)}
            classes = np.asarray([*(rank.get(x, len(rank)) for x in labels), len(rank)])[places]
            share = np.asarray([*(counts.get(x, 0.5) / total for x in labels), 1.0])[places]
            rows = np.arange(len(classes))
            logs.append(np.log(share) + told.now[rows, classes] - told.shares[classes])
            there &= places >= 0
        gains.append(np.where(there, logs[0] - logs[1], 0.0))
    return gains[0], gains[1]


def shuffled(case: Case) -> Iterator[Cause]:
    """Values that lie in other rows than their own: alone as ever, unrelated to the rest."""
    found = [
        *(one for name in case.numeric if (one := _lost_number(case, name))),
        *(one for name in case.categorical if (one := _lost_label(case, name))),
    ]
    for told, name, before, now in found:
        yield Cause(
            "shuffled",
            (name,),
            f"{name!r} is distributed as ever, but says hardly anything of the other columns any "
            "more: were its values put in other rows?",
            {
                NATS: round(float(told), 3),
                "relation before": round(before, 3),
                "relation now": round(now, 3),
            },
            f"Check the join or the sort by which {name!r} comes to its rows.",
        )


def _lost_number(case: Case, name: str) -> tuple[float, str, float, float] | None:
    """Nats a row that its relation to the others lost, where hardly any of it is left."""
    if not case.suspect(name):
        return None
    expected = case.expected(name)
    values = case.numbers(name)
    there = ~np.isnan(values) & case.supported(name)
    few = there.sum() < max(50, _SUPPORTED * len(values))
    if few or not expected.before.any():  # too few rows to tell
        return None
    before = float(np.corrcoef(expected.before, expected.scores)[0, 1])
    scores = case.scores(name, values)[there]
    told = expected.now[there]
    if scores.std() < 0.2 or told.std() < 1e-6 or before < 0.3:  # nothing to lose
        return None
    now = float(np.corrcoef(told, scores)[0, 1])
    gone = abs(now) <= 2.5 / np.sqrt(there.sum()) + 0.1 * before
    if not gone or not _several_lost(case, name):
        return None
    usual = [
        np.corrcoef(expected.before[rows], expected.scores[rows])[0, 1]
        for number in np.unique(expected.blocks)
        if (rows := expected.blocks == number).sum() >= 30  # too few to tell
        and expected.scores[rows].std() > 0.1  # constant in it
    ]
    least = min(usual, default=before)
    if least < 0.3 or now > 0.5 * least:
        return None
    return -float(expected.log_ratio(scores, predicted=told).mean()), name, before, now


def _lost_label(case: Case, name: str) -> tuple[float, str, float, float] | None:
    if not case.suspect(name):
        return None
    told = case.told(name)
    before = told.information
    places, labels = case.labels(name)
    rank = {label: i for i, label in enumerate(told.labels)}
    classes = np.asarray([*(rank.get(x, len(rank)) for x in labels), 0])[places]
    there = places >= 0
    if before < 0.1 or there.sum() < 50:  # nothing to lose
        return None
    rows = np.arange(len(classes))
    now = float((told.now[rows, classes] - told.shares[classes])[there].mean())
    if now > 0.15 * before:
        return None
    shares = np.bincount(classes[there], minlength=len(told.shares)) / there.sum()
    if float(np.abs(shares - np.exp(told.shares)).sum() / 2) > 0.2:  # not as ever
        return None
    return -now, name, before, now


def _several_lost(case: Case, name: str) -> bool:
    """Whether marked correlations with at least two columns went; one may drift by itself."""
    partners = case.partners(name, marked=_MARKED)
    lost = [
        other
        for other in partners
        if abs(case.correlation_now(name, other)) < 0.35 * abs(case.correlation(name, other))
    ]
    if not partners:
        return case.expected(name).variance < 0.75  # a relation no pair shows
    near = case.expected(name).variance < 0.4  # hardly a drift undoes that
    return len(lost) > 1 or near or (len(partners) == 1 and bool(lost) and _abrupt(case, name))


def _abrupt(case: Case, name: str) -> bool:
    """Whether the one marked relation was still there in the batch before."""
    if not case.recent:
        return False
    for key, value in case.recent[-1].items():
        if key.endswith("|correlation") and name in key.removesuffix("|correlation").split(" ~ "):
            before = case.correlation(*key.removesuffix("|correlation").split(" ~ "))
            if abs(before) >= _MARKED:
                return abs(value - before) < 0.4 * abs(before)  # most of it
    return False
