"""Swaps: two columns that hold each other's values."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import ks_2samp

from pipeline.columns import Floats
from pipeline.monitoring.diagnoses.blocks import usual
from pipeline.monitoring.diagnoses.case import NATS, Case
from pipeline.monitoring.diagnoses.likelihood import (
    Mask,
    Places,
    drift_gain,
    log_mass,
    mixture,
    touched_rows,
)
from pipeline.monitoring.diagnoses.parameters import SHARED
from pipeline.monitoring.diagnoses.planes import planes, squared
from pipeline.monitoring.diagnoses.resemblance import likeliest_pairs
from pipeline.monitoring.diagnoses.segments import clause, segment
from pipeline.monitoring.findings import Cause
from pipeline.reference.summaries import Trait


@dataclass(frozen=True)
class Parameters:
    """Which pairs are examined, and what shows that two columns were exchanged.

    Attributes
    ----------
    candidates : int
        Most pairs of columns that are examined closely.
    rows, touched : int
        Rows by which pairs of columns are preselected, and most scores whose relation to the pair
        is looked at.
    glance : float
        Share of the least nats that a pair has to gain in the preselection.
    common : float
        Share of labels that two columns may have in common without looking exchanged.
    convincing_all : float
        Least nats per affected row, where most rows are affected.
    part : float
        Smallest share of affected rows that is looked for, among rows that differ from the others.
    alike : float
        Largest Kolmogorov-Smirnov distance of rows put back from the unaffected rows.
    both : float
        Least share of one column's gain that the other column gains, where the gain is small.
    loss : float
        Largest share of one column's gain that the other may lose, because it drifted as well.
    judged, unjudged : float
        Least gain of either column where a part of the rows is affected, in convincing gains:
        where the other columns can judge it, and where they cannot.
    """

    candidates: int = 4
    rows: int = 1_000
    touched: int = 150
    glance: float = 0.5
    common: float = 0.02
    convincing_all: float = 0.7
    part: float = 0.08
    alike: float = 0.3
    both: float = 0.7
    loss: float = 0.3
    judged: float = 0.5
    unjudged: float = 3.0


PARAMS = Parameters()


def swapped_numbers(case: Case) -> Iterator[Cause]:
    """Recognise two numeric columns that hold each other's values."""
    varied = [
        name
        for name in filter(case.is_number, case.every)
        if len(case.profile(name).grid) > 2 and not case.names_the_block(name)
    ]
    for left, right in _candidates(case, varied):
        gains = _numbers_gain(case, left, right)
        share, _ = mixture(gains[0] + gains[1])
        # Where a part of the rows is affected, the others show what is usual in this batch.
        if share < SHARED.most and not _goes_on(case, (left, right), gains):
            gains = _numbers_gain(case, left, right, loose=True)
            share, _ = mixture(gains[0] + gains[1])
            touched = touched_rows(gains[0] + gains[1], share)
            if share < PARAMS.part or not _two_kinds(case, left, right, touched):
                continue
        yield from _exchanged(case, (left, right), gains, _drifted(case, left, right))


def _two_kinds(case: Case, left: str, right: str, touched: Mask) -> bool:
    """Whether the affected rows, put back, are distributed as the others in both columns."""
    a, b = case.numbers(left), case.numbers(right)
    there = ~np.isnan(a) & ~np.isnan(b)
    back, rest = touched & there, ~touched & there
    if min(back.sum(), rest.sum()) < SHARED.fewest:
        return False
    far = max(ks_2samp(b[back], a[rest]).statistic, ks_2samp(a[back], b[rest]).statistic)
    return bool(far < PARAMS.alike)


def swapped_labels(case: Case) -> Iterator[Cause]:
    """Recognise two categorical columns that hold each other's labels."""
    for left, right in _candidates(case, [name for name in case.every if not case.is_number(name)]):
        yield from _exchanged(case, (left, right), _labels_gain(case, left, right))


def _candidates(case: Case, names: Sequence[str]) -> list[tuple[str, str]]:
    """Preselect pairs of columns that look exchanged, the likeliest first."""
    suspects = {name for name in names if name in case.features and case.suspect(name)}
    stood = {
        (min(one.columns), max(one.columns))
        for one in case.standing
        if one.cause == "swapped"
        and set(one.columns) <= set(names)
        and one.share > SHARED.nearly_all
    }
    standing = sorted(stood)
    scored = sorted(
        (-likely, pair)
        for pair in likeliest_pairs(case, names, suspects)
        if (likely := _quick(case, *pair)) > 0
    )
    likeliest = [pair for _, pair in scored[: PARAMS.candidates] if pair not in standing]
    return standing + likeliest


def _goes_on(case: Case, pair: tuple[str, str], gains: tuple[Floats, Floats]) -> bool:
    """Whether columns exchanged in the batches right before still look exchanged."""
    return (
        case.stood("swapped", *pair) > SHARED.nearly_all
        and float((gains[0] + gains[1]).sum()) > SHARED.total
    )


def _drifted(case: Case, left: str, right: str) -> float:
    """Nats that an ordinary drift of both columns would explain as well."""
    return sum(
        drift_gain(
            case.profile(name),
            case.numbers(name),
            usual(case.reference, Trait("location", (name,)))[1],
        )
        for name in (left, right)
    )


def _exchanged(
    case: Case, pair: tuple[str, str], gains: tuple[Floats, Floats], drifted: float = 0.0
) -> Iterator[Cause]:
    if _goes_on(case, pair, gains):
        both = gains[0] + gains[1]
        yield _cause(case, pair, 1.0, float(both.sum()), touched_rows(both, 1.0))
        return
    (left, right), (first, second) = pair, gains
    share, total = mixture(first + second)
    touched = touched_rows(first + second, share)
    each = SHARED.convincing if share < SHARED.most else PARAMS.convincing_all
    if share < SHARED.part or total - drifted < max(SHARED.total, each * share * len(touched)):
        return
    if not touched.any():
        return
    less, more = sorted((first[touched].mean(), second[touched].mean()))
    # A column that also drifted may lose a little, if other columns can judge it.
    known = min(case.supported(name, without=(left, right)).mean() for name in (left, right))
    sure = share >= SHARED.most and known > SHARED.supported
    if total < SHARED.convincing * share * len(touched):  # then both columns have to gain
        least = PARAMS.both * more
    elif sure:
        least = -PARAMS.loss * more
    else:
        judged = known > SHARED.supported
        least = SHARED.convincing * (PARAMS.judged if judged else PARAMS.unjudged)
    if less < least:
        return
    yield _cause(case, pair, share, total, touched)


def _cause(case: Case, pair: tuple[str, str], share: float, total: float, touched: Mask) -> Cause:
    left, right = pair
    where = segment(case, touched, [left, right]) if share < SHARED.most else ""
    rows = "" if share >= SHARED.most else f" in {share:.0%} of rows"
    return Cause(
        "swapped",
        (left, right),
        f"{left!r} and {right!r} look exchanged{rows}"
        f"{clause(where)}: each fits the other's place better.",
        {NATS: round(float(total / len(touched)), 3), "share of rows": round(share, 4)},
        f"Check the order of the columns where {left!r} and {right!r} are written.",
        share=round(share, 4),
        segment=where,
    )


def _quick(case: Case, left: str, right: str) -> float:
    """How much better two columns fit in each other's place, by quick tests; 0 if not better."""
    return case.memory.recall(("quick", left, right), lambda: _quickly(case, left, right))


def _quickly(case: Case, left: str, right: str) -> float:
    if not case.is_number(left):
        shares = []
        for name, instead in ((left, right), (right, left)):
            places, labels = case.labels(name)
            known = places[places >= 0]
            counts = case.counts(instead)
            fits = np.asarray([label in counts for label in labels], dtype=bool)
            shares.append(float(fits[known].mean()) if len(known) else 0.0)
        return max(min(shares) - PARAMS.common, 0.0)
    values = {name: case.numbers(name)[: PARAMS.rows] for name in (left, right)}
    scores, residuals = case.memory.recall("residuals", lambda: _residuals(case))
    predicting = planes(case.reference)
    plain, moves = np.zeros(len(scores)), []
    for name, instead in ((left, right), (right, left)):
        belongs = values[instead]
        if name in case.leading:
            k = case.leading[name]
            moves.append((k, case.normal_scores(name, belongs) - scores[:, k]))
        there = ~np.isnan(belongs) & ~np.isnan(values[name])
        gain = log_mass(case.profile(name), belongs)[0] - _mass(case, name)
        plain += np.where(there, gain, 0.0)
    touched = _most_touched(predicting, [k for k, _ in moves])
    before = residuals[:, touched]
    after = before + sum(move[:, None] * predicting[k, touched] for k, move in moves)
    related = (squared(before) - squared(after)).sum(axis=1) / 2
    share, total = mixture(plain + related)
    return total if share > SHARED.part and total > PARAMS.glance * SHARED.total else 0.0


def _residuals(case: Case) -> tuple[Floats, Floats]:
    """Scores of the first drawn rows, and their standardised distances from their planes."""
    scores = case.reference.normal_scores.of(case.drawn_cells[: PARAMS.rows])
    return scores, scores @ planes(case.reference)


def _mass(case: Case, name: str) -> Floats:
    """Logarithm of the mass of the values of the first drawn rows."""
    return case.memory.recall(
        ("mass", name), lambda: log_mass(case.profile(name), case.numbers(name)[: PARAMS.rows])[0]
    )


def _most_touched(predicting: Floats, moved: Sequence[int]) -> Places:
    """Scores whose distance from their plane depends most on some scores."""
    weight = np.abs(predicting[moved]).max(axis=0, initial=0.0)
    return np.sort(np.argsort(-weight, kind="stable")[: PARAMS.touched])


def _numbers_gain(
    case: Case, left: str, right: str, *, loose: bool = False
) -> tuple[Floats, Floats]:
    """Nats per row by which each column is likelier with the values of the other."""
    gains = []
    for name, instead in ((left, right), (right, left)):
        # Under the hypothesis, the values that arrived in `instead` belong to `name`.
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


def _labels_gain(case: Case, left: str, right: str) -> tuple[Floats, Floats]:
    gains = []
    for name, instead in ((left, right), (right, left)):
        counts = case.counts(name)
        total = max(sum(counts.values()), 1)
        expected = case.expected_labels(name, without=(instead,))
        logs = []
        there = np.ones(len(expected.now), dtype=bool)
        for column in (instead, name):
            places, labels = case.labels(column)
            rank = {label: i for i, label in enumerate(expected.labels)}
            classes = np.asarray([*(rank.get(x, len(rank)) for x in labels), len(rank)])[places]
            share = np.asarray([*(counts.get(x, 0.5) / total for x in labels), 1.0])[places]
            rows = np.arange(len(classes))
            logs.append(np.log(share) + expected.now[rows, classes] - expected.shares[classes])
            there &= places >= 0
        gains.append(np.where(there, logs[0] - logs[1], 0.0))
    return gains[0], gains[1]
