"""Shuffles: values in other rows than their own, in a column that looks sound by itself."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy.stats import ks_2samp

from pipeline.columns import Floats
from pipeline.monitoring.diagnoses.case import NATS, Case, Mask, Places
from pipeline.monitoring.diagnoses.likelihood import mixture, of_blocks, surprise, touched_rows
from pipeline.monitoring.diagnoses.relations import ExpectedLabels
from pipeline.monitoring.diagnoses.segments import clause, segment
from pipeline.monitoring.diagnoses.sequences import strayed, usual_share
from pipeline.monitoring.findings import Cause

_SUPPORTED = 0.3
"""Least share of rows for which the other columns can predict."""
_MARKED = 0.2
"""Least correlation whose loss is noticed."""
_FEWEST = 50
"""Fewest rows by which a relation is judged."""
_TELLS = 0.2
"""Least nats per row from the other columns, where a part of the rows is judged."""
_TOTAL = 25.0
"""Least nats over all rows."""
_EACH, _EACH_LABEL = 0.8, 0.1
"""Least nats per affected row, of a numeric column and of labels, which carry less."""
_PART, _MOST = 0.05, 0.45
"""Least and largest share of affected rows where only a part is affected."""
_AS_EVER = 1.3
"""Factor of the usual distance from the prediction up to which the other rows still fit."""
_BLOCKS, _STEADY = 3, 6.0
"""Fewest blocks that show how steady a relation is, and its least fall in their sd."""
_OTHER_SHARES = 0.12
"""Largest distance at which the shares of labels count as unchanged."""
_SAYS, _SOUND = 0.05, 0.5
"""Least nats per row by which columns are related, and the share of them that counts.

A sound column keeps that share; for a shuffled column it turns into evidence against it."""
_ALIKE = 0.35
"""Largest distance of the distribution of misplaced values from that of all values."""


def shuffled(case: Case) -> Iterator[Cause]:
    """Recognise values in the wrong rows: usual by themselves, unrelated to the rest."""
    found = [cause for name in case.features if (cause := _found(case, name))]
    if len(found) > 1:  # a column may only have lost its relation to another
        still = [
            cause
            for cause in found
            if _found(replace(case, blamed=case.blamed | _names(found, cause)), cause.columns[0])
        ]
        found = still or found
    yield from found


def with_rival(case: Case, cause: Cause) -> Cause:
    """Check whether another column is shuffled instead of the column that a cause names.

    Where a single source of the prediction is all that contradicts the column, that source may be
    the shuffled column. If the rest of the columns show the named column to be sound, the source
    is at fault; if they show nothing, either may be, and the cause names both.
    """
    name = cause.columns[0]
    misplaced = _misplaced(case, name)
    sources = (case.expected(name) if name in case.numeric else case.expected_labels(name)).sources
    for other in filter(sources.__contains__, case.every):
        rest = replace(case, blamed=case.blamed | {other})
        if _found(rest, name):
            continue
        rows_left = _number_rows(rest, name) if name in case.numeric else _label_rows(rest, name)
        touched = rows_left.judged if misplaced is None else rows_left.judged & misplaced[0]
        before = -rows_left.before.mean()
        now = -rows_left.gain[touched].mean() if touched.any() else 0.0
        # Rows chosen because they contradict the other column look odd to the rest as well.
        least = 0.0 if misplaced is None else -_SOUND * before
        if before > _SAYS and now < least:  # the rest contradict the column, too
            continue
        sound = misplaced is not None and before > _SAYS and now > _SOUND * before
        columns = (other,) if sound else (name, other)
        rows = f" in {cause.share:.0%} of rows{clause(cause.segment)}" if cause.share < 1 else ""
        fits, lost = (repr(name), repr(other)) if sound else ("each", "one of them")
        sentence = (
            f"{name!r} and {other!r} do not fit one another{rows}, and {fits} may fit the rest: "
            f"were the values of {lost} put in other rows?"
        )
        cure = f"Check the join or the sort by which {lost} comes to its rows."
        return replace(cause, columns=columns, sentence=sentence, cure=cure)
    return cause


def _names(causes: Sequence[Cause], but: Cause) -> set[str]:
    return {cause.columns[0] for cause in causes if cause is not but}


def _found(case: Case, name: str) -> Cause | None:
    return _related(case, name) or (_in_order(case, name) if name in case.numeric else None)


def _in_order(case: Case, name: str) -> Cause | None:
    """Recognise misplaced values in a column that used to continue from row to row."""
    touched = strayed(case, name)
    if touched is None:
        return None
    values = case.numbers(name)
    known = ~np.isnan(values)
    apart = ks_2samp(values[touched & known], values[known], method="asymp").statistic
    if apart > _ALIKE:
        return None
    share, before = float(touched.mean()), usual_share(case, name)
    where = segment(case, touched, [name])
    return Cause(
        "shuffled",
        (name,),
        f"{share:.0%} of the values of {name!r}{f', where {where},' if where else ''} stick out "
        f"from between those of the rows before and after, where {before:.1%} used to, and other "
        "columns continue as usual: were they put in other rows?",
        {
            NATS: surprise(share, before),
            "share that sticks out": round(share, 4),
            "usual share": round(before, 4),
        },
        f"Check the join or the sort by which {name!r} comes to its rows.",
        share=round(share, 4),
        segment=where,
    )


def _related(case: Case, name: str) -> Cause | None:
    if not case.suspect(name) or case.foreign(name):
        return None
    lost = _lost_number(case, name) if name in case.numeric else _lost_label(case, name)
    if lost is not None:
        return _all_rows(name, *lost)
    misplaced = _misplaced(case, name)
    return _some_rows(case, name, *misplaced) if misplaced is not None else None


def _all_rows(name: str, nats: float, before: float, now: float) -> Cause:
    return Cause(
        "shuffled",
        (name,),
        f"{name!r} has its usual distribution, but hardly any relation to the other columns is "
        "left: were its values put in other rows?",
        {
            NATS: round(float(nats), 3),
            "relation before": round(before, 3),
            "relation now": round(now, 3),
        },
        f"Check the join or the sort by which {name!r} comes to its rows.",
    )


def _some_rows(case: Case, name: str, touched: Mask, share: float, nats: float) -> Cause:
    where = segment(case, touched, [name])
    return Cause(
        "shuffled",
        (name,),
        f"{share:.0%} of the values of {name!r}{f', where {where},' if where else ''} do not fit "
        "the other columns of their rows, while the rest still do: were they put in other rows?",
        {NATS: round(nats, 3), "share of rows": round(share, 4)},
        f"Check the join or the sort by which {name!r} comes to its rows.",
        share=round(share, 4),
        segment=where,
    )


class _Rows(NamedTuple):
    """How much likelier rows are without the other columns than with them.

    Attributes
    ----------
    gain : array of float, shape (n_drawn,)
        Nats of each drawn row; 0 where it cannot be judged.
    judged : array of bool, shape (n_drawn,)
        Drawn rows that can be judged.
    before : array of float, shape (n_rows,)
        Nats of the rows of the reference.
    blocks : array of int, shape (n_rows,)
        Block number of each row of the reference.
    values : array, shape (n_drawn,)
        Normal scores of the column, or numbers of its classes.
    """

    gain: Floats
    judged: Mask
    before: Floats
    blocks: Places
    values: Floats


def _number_rows(case: Case, name: str) -> _Rows:
    expected, loosened = case.expected(name), case.loosened(name)
    values = case.numbers(name)
    judged = ~np.isnan(values) & case.supported(name)
    scores = case.normal_scores(name, values)
    gain = np.where(judged, -loosened.log_ratio(scores), 0.0)
    before = -replace(expected, now=expected.before).log_ratio(expected.scores)
    return _Rows(gain, judged, before, expected.blocks, scores)


def _label_rows(case: Case, name: str) -> _Rows:
    expected = case.expected_labels(name)
    classes, judged = _classes(case, name, expected)
    gain = np.where(
        judged, expected.shares[classes] - expected.now[np.arange(len(classes)), classes], 0.0
    )
    rows = np.arange(len(expected.classes))
    before = expected.shares[expected.classes] - expected.before[rows, expected.classes]
    return _Rows(gain, judged, before, expected.blocks, classes.astype(np.float64))


def _misplaced(case: Case, name: str) -> tuple[Mask, float, float] | None:
    """Find rows that the other columns contradict while most rows fit.

    Returns the rows, their share, and nats per row; None if there are none.
    """
    number = name in case.numeric
    rows = _number_rows(case, name) if number else _label_rows(case, name)
    n, known = int(rows.judged.sum()), -rows.before.sum()
    if n < max(_FEWEST, _SUPPORTED * len(rows.judged)) or known <= _TELLS * len(rows.before):
        return None
    share, total = mixture(rows.gain[rows.judged])
    usual = 2 * max(of_blocks(rows.blocks, rows.before).max(initial=0.0), 0.0) * n
    touched = touched_rows(rows.gain, share) & rows.judged
    least = _EACH if number else _EACH_LABEL
    enough = total - usual > _TOTAL and total > least * share * n
    if not enough or not _PART < share < _MOST or touched.sum() < _FEWEST / 2:
        return None
    apart = ks_2samp(rows.values[touched], rows.values[rows.judged], method="asymp").statistic
    if apart > _ALIKE or (number and not _as_ever(case, name, rows, share)):
        return None
    return touched, share, total / n


def _as_ever(case: Case, name: str, rows: _Rows, share: float) -> bool:
    """Whether the other rows lie as close to their prediction as they used to."""
    expected = case.expected(name)
    left = np.abs(rows.values - case.loosened(name).now)[rows.judged]
    before = np.median(np.abs(expected.scores - expected.before))
    return bool(np.quantile(left, 0.5 * (1 - share)) < _AS_EVER * before)


def _lost_number(case: Case, name: str) -> tuple[float, float, float] | None:
    """Nats per row that a numeric column lost, and its relation to the others before and now.

    None unless hardly any relation is left.
    """
    expected = case.expected(name)
    values = case.numbers(name)
    there = ~np.isnan(values) & case.supported(name)
    few = there.sum() < max(_FEWEST, _SUPPORTED * len(values))
    if few or not expected.before.any():  # too few rows to tell
        return None
    before = float(np.corrcoef(expected.before, expected.scores)[0, 1])
    scores = case.normal_scores(name, values)[there]
    predicted = expected.now[there]
    if scores.std() < 0.2 or predicted.std() < 1e-6 or before < 0.3:  # nothing to lose
        return None
    now = float(np.corrcoef(predicted, scores)[0, 1])
    gone = abs(now) <= 2.5 / np.sqrt(there.sum()) + 0.1 * before
    if not gone:
        return None
    usual = [
        np.corrcoef(expected.before[rows], expected.scores[rows])[0, 1]
        for number in np.unique(expected.blocks)
        if (rows := expected.blocks == number).sum() >= 30  # too few to tell
        and expected.scores[rows].std() > 0.1  # constant in the block
    ]
    least = min(usual, default=before)
    if least < 0.3 or now > 0.5 * least:
        return None
    error = np.sqrt(case.run(name) / there.sum())
    if not _several_lost(case, name) and not _at_once(case, name, usual, now, error):
        return None
    return -float(expected.log_ratio(scores, predicted=predicted).mean()), before, now


def _lost_label(case: Case, name: str) -> tuple[float, float, float] | None:
    expected = case.expected_labels(name)
    before = expected.information
    classes, there = _classes(case, name, expected)
    if before < 0.05 or there.sum() < _FEWEST:  # nothing to lose
        return None
    gains = (expected.now[np.arange(len(classes)), classes] - expected.shares[classes])[there]
    now = float(gains.mean())
    if now > 0.15 * before:
        return None
    shares = np.bincount(classes[there], minlength=len(expected.shares)) / there.sum()
    if float(np.abs(shares - np.exp(expected.shares)).sum() / 2) > _OTHER_SHARES:
        return None
    seen = (
        expected.before[np.arange(len(expected.classes)), expected.classes]
        - expected.shares[expected.classes]
    )
    usual = [
        seen[rows].mean()
        for number in np.unique(expected.blocks)
        if (rows := expected.blocks == number).sum() >= 30  # too few to tell
    ]
    error = float(gains.std()) / np.sqrt(len(gains))
    if before < _TELLS and not _at_once(case, name, usual, now, error):
        return None
    return -now, before, now


def _at_once(case: Case, name: str, usual: Sequence[float], now: float, error: float) -> bool:
    """Whether a relation that was steady in all blocks vanished between two batches."""
    if len(usual) < _BLOCKS or not _abrupt(case, name):
        return False
    return bool(np.mean(usual) - now > _STEADY * np.hypot(np.std(usual, ddof=1), error))


def _classes(case: Case, name: str, expected: ExpectedLabels) -> tuple[Places, Mask]:
    """Class of each drawn row, and which rows have a label."""
    places, labels = case.labels(name)
    rank = {label: i for i, label in enumerate(expected.labels)}
    return np.asarray([*(rank.get(x, len(rank)) for x in labels), 0])[places], places >= 0


def _several_lost(case: Case, name: str) -> bool:
    """Whether clear correlations with several columns vanished; a single one may drift."""
    partners = case.partners(name, marked=_MARKED)
    lost = [
        other
        for other in partners
        if abs(case.correlation_now(name, other)) < 0.35 * abs(case.correlation(name, other))
    ]
    if not partners:
        return case.expected(name).variance < 0.75  # a relation that no pair of columns shows
    near = case.expected(name).variance < 0.4  # drift hardly undoes such a relation
    return len(lost) > 1 or near


def _abrupt(case: Case, name: str) -> bool:
    """Whether the previous batch, or else the reference, still had the relation."""
    if not case.recent:
        return True
    for trait, value in case.recent[-1].items():
        if trait.kind == "correlation" and name in trait.columns:
            before = case.correlation(*trait.columns)
            if abs(before) >= _MARKED:
                return abs(value - before) < 0.4 * abs(before)  # most of the relation
    return False
