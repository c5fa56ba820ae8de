"""Two columns with each other's values."""

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
from scipy.stats import ks_2samp

from pipeline.monitoring.diagnoses.case import NATS, Case, Mask
from pipeline.monitoring.diagnoses.likelihood import drift_gain, log_mass, mixture, touched_rows
from pipeline.monitoring.diagnoses.segments import clause, segment
from pipeline.monitoring.findings import Cause
from pipeline.reference.profile import Floats
from pipeline.reference.summaries import Trait

_CONVINCING, _CONVINCING_ALL = 1.0, 0.7
"""Nats per touched row below which nothing is said, of a part of the rows and of most."""
_TOTAL = 25.0
_ALL = 0.9
"""Share of rows above which a fault of the batches before touched them all."""
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
_BOTH = 0.7
"""Share of one column's gain that the other has to gain as well, where they say little."""
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
        gains = _numbers_gain(case, one, other)
        share, _ = mixture(gains[0] + gains[1])
        # Where not all are touched, the other rows say what is usual in this batch.
        if share < _MOST and not _goes_on(case, (one, other), gains):
            gains = _numbers_gain(case, one, other, loose=True)
            share, _ = mixture(gains[0] + gains[1])
            touched = touched_rows(gains[0] + gains[1], share)
            if share < _PART or not _two_kinds(case, one, other, touched):
                continue
        yield from _exchanged(case, (one, other), gains, _drifted(case, one, other))


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
        yield from _exchanged(case, (one, other), _labels_gain(case, one, other))


def _candidates(case: Case, names: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs that look exchanged at a glance, the likeliest first."""
    scores = case.reference.normal_scores.of(case.drawn_cells[:_GLANCE])
    pairs = list(combinations(names, 2))
    standing = [pair for pair in pairs if case.stood("swapped", *pair) > _ALL]
    scored = sorted(
        (-likely, pair)
        for pair in pairs
        if any(map(case.suspect, pair)) and (likely := _quick(case, scores, *pair)) > 0
    )
    likeliest = [pair for _, pair in scored[:_CANDIDATES] if pair not in standing]
    return standing + likeliest


def _goes_on(case: Case, pair: tuple[str, str], gains: tuple[Floats, Floats]) -> bool:
    """Whether columns that were exchanged in the batches right before are likelier so still."""
    return case.stood("swapped", *pair) > _ALL and float((gains[0] + gains[1]).sum()) > _TOTAL


def _drifted(case: Case, one: str, other: str) -> float:
    """Nats that an ordinary drift of both columns explains as well."""
    return sum(
        drift_gain(
            case.profile(name), case.numbers(name), case.usual(Trait("location", (name,)))[1]
        )
        for name in (one, other)
    )


def _exchanged(
    case: Case, pair: tuple[str, str], gains: tuple[Floats, Floats], drifted: float = 0.0
) -> Iterator[Cause]:
    if _goes_on(case, pair, gains):
        both = gains[0] + gains[1]
        yield _cause(case, pair, 1.0, float(both.sum()), touched_rows(both, 1.0))
        return
    (one, other), (first, second) = pair, gains
    share, total = mixture(first + second)
    touched = touched_rows(first + second, share)
    each = _CONVINCING if share < _MOST else _CONVINCING_ALL
    if share < 0.04 or total - drifted < max(_TOTAL, each * share * len(touched)):
        return
    if not touched.any():
        return
    less, more = sorted((first[touched].mean(), second[touched].mean()))
    # One may lose a little where it drifted as well, if the other columns are there to tell.
    known = min(case.supported(name, without=(one, other)).mean() for name in (one, other))
    sure = share >= _MOST and known > _SUPPORTED
    if total < _CONVINCING * share * len(touched):  # then both have to say it
        least = _BOTH * more
    elif sure:
        least = -_LOSS * more
    else:
        least = _CONVINCING / 2 if known > _SUPPORTED else 3 * _CONVINCING
    if less < least:
        return
    yield _cause(case, pair, share, total, touched)


def _cause(case: Case, pair: tuple[str, str], share: float, total: float, touched: Mask) -> Cause:
    one, other = pair
    where = segment(case, touched, [one, other]) if share < _MOST else ""
    rows = "" if share >= _MOST else f" in {share:.0%} of rows"
    return Cause(
        "swapped",
        (one, other),
        f"{one!r} and {other!r} look exchanged{rows}"
        f"{clause(where)}: each fits the other's place better.",
        {NATS: round(float(total / len(touched)), 3), "share of rows": round(share, 4)},
        f"Check the order of the columns where {one!r} and {other!r} are written.",
        share=round(share, 4),
        segment=where,
    )


def _quick(case: Case, scores: Floats, one: str, other: str) -> float:
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
    exchanged, plain = scores.copy(), np.zeros(len(scores))
    for name, instead in ((one, other), (other, one)):
        belongs = values[instead]
        if name in case.leading:
            exchanged[:, case.leading[name]] = case.normal_scores(name, belongs)
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
        related = expected.log_ratio(case.normal_scores(name, belongs)) - expected.log_ratio(
            case.normal_scores(name, came)
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
