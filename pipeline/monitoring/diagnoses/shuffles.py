"""Shuffles: values in other rows than their own, in a column that looks sound by itself."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.stats import ks_2samp

from pipeline.columns import Floats
from pipeline.monitoring.diagnoses.case import NATS, Case
from pipeline.monitoring.diagnoses.likelihood import (
    Mask,
    Places,
    mixture,
    of_chance,
    surprise,
    touched_rows,
)
from pipeline.monitoring.diagnoses.lost_relations import classes_of, lost_label, lost_number
from pipeline.monitoring.diagnoses.parameters import SHARED
from pipeline.monitoring.diagnoses.segments import clause, segment
from pipeline.monitoring.diagnoses.sequences import strayed, usual_share
from pipeline.monitoring.findings import Cause


@dataclass(frozen=True)
class Parameters:
    """What shows that values are in the wrong rows.

    Attributes
    ----------
    each, each_label : float
        Least nats per affected row, of a numeric column and of labels, which carry less.
    part, most : float
        Least and largest share of affected rows where only a part is affected.
    fewest : int
        Fewest affected rows.
    as_ever : float
        Factor of the usual distance from the prediction up to which the other rows still fit.
    sound : float
        Share that counts of the nats per row by which columns are related. A sound column keeps
        that share; for a shuffled column it turns into evidence against it.
    alike : float
        Largest distance of the distribution of misplaced values from that of all values.
    """

    each: float = 0.8
    each_label: float = 0.1
    part: float = 0.05
    most: float = 0.45
    fewest: int = 25
    as_ever: float = 1.3
    sound: float = 0.5
    alike: float = 0.35


PARAMS = Parameters()


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
        least = 0.0 if misplaced is None else -PARAMS.sound * before
        if before > SHARED.says and now < least:  # the rest contradict the column, too
            continue
        sound = misplaced is not None and before > SHARED.says and now > PARAMS.sound * before
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
    if apart > PARAMS.alike:
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
    lost = lost_number(case, name) if name in case.numeric else lost_label(case, name)
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
    classes, judged = classes_of(case, name, expected)
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
    few = n < max(SHARED.fewest_related, SHARED.supported * len(rows.judged))
    if few or known <= SHARED.tells * len(rows.before):
        return None
    share, total = mixture(rows.gain[rows.judged])
    usual = of_chance(rows.blocks, rows.before) * n
    touched = touched_rows(rows.gain, share) & rows.judged
    least = PARAMS.each if number else PARAMS.each_label
    enough = total - usual > SHARED.total and total > least * share * n
    if not enough or not PARAMS.part < share < PARAMS.most or touched.sum() < PARAMS.fewest:
        return None
    apart = ks_2samp(rows.values[touched], rows.values[rows.judged], method="asymp").statistic
    if apart > PARAMS.alike or (number and not _as_ever(case, name, rows, share)):
        return None
    return touched, share, total / n


def _as_ever(case: Case, name: str, rows: _Rows, share: float) -> bool:
    """Whether the other rows lie as close to their prediction as they used to."""
    expected = case.expected(name)
    left = np.abs(rows.values - case.loosened(name).now)[rows.judged]
    before = np.median(np.abs(expected.scores - expected.before))
    return bool(np.quantile(left, 0.5 * (1 - share)) < PARAMS.as_ever * before)
