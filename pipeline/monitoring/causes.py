"""Broken or moved: the faults, if any, that explain how a batch differs.

A diagnosis is a function from a case (the rows as they came beside the reference) to the
causes that it recognises; each is independent of the others. A column whose fault is known
is not asked about again. To add a diagnosis, write the function and put it in a list.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import pandas as pd

from pipeline.monitoring.diagnoses.batch_faults import duplicate, frozen, schema, volume
from pipeline.monitoring.diagnoses.case import NATS, Case
from pipeline.monitoring.diagnoses.clocks import shifted
from pipeline.monitoring.diagnoses.missing import join, nulls, sentinel
from pipeline.monitoring.diagnoses.permutations import permuted
from pipeline.monitoring.diagnoses.pile_ups import clipped, stuck
from pipeline.monitoring.diagnoses.rounding import rounded
from pipeline.monitoring.diagnoses.shuffles import shuffled, with_rival
from pipeline.monitoring.diagnoses.spellings import recode
from pipeline.monitoring.diagnoses.swaps import swapped_labels, swapped_numbers
from pipeline.monitoring.diagnoses.units import sign, unit
from pipeline.monitoring.findings import Cause, Finding
from pipeline.reference import Reference
from pipeline.reference.summaries import Summary
from pipeline.reference.tally import Tally

_EXCHANGED = {"join", "nulls", "sentinel"}
"""Causes that a column shows as well when it holds the values of another one."""
_ALL = 0.9
"""Share of rows above which a column holds no other one's values."""
_CERTAIN = 3.0
"""Nats that a row with an odd or missing value counts for."""

Diagnosis = Callable[[Case], Iterator[Cause]]
PLAIN: tuple[Diagnosis, ...] = (
    schema,
    volume,
    swapped_labels,
    join,
    nulls,
    sentinel,
    frozen,
    duplicate,
)
"""Of what shows at once. What a batch of few rows, or of frozen ones, holds says nothing more."""
TOGETHER: tuple[Diagnosis, ...] = (
    swapped_numbers,
    sign,
    unit,
    shifted,
    recode,
    rounded,
    clipped,
    stuck,
    permuted,
    shuffled,
)
"""Of columns among others. A fault of one shows in its relations to the rest, so that these
compete: the one that explains most comes first, and the others are asked again without it."""


def diagnose(
    reference: Reference,
    rows: pd.DataFrame,
    tally: Tally,
    summary: Summary,
    *,
    recent: Sequence[Summary],
    findings: Sequence[Finding],
    standing: Sequence[Cause] = (),
) -> tuple[Cause, ...]:
    """Faults in the rows of a batch.

    Parameters
    ----------
    reference : Reference
        The training rows.
    rows : DataFrame
        The batch as it came, before any row was refused.
    tally, summary : Tally, Summary
        The same rows, counted and as one observation.
    recent : sequence of Summary
        Earlier batches, oldest first.
    findings : sequence of Finding
        What the tests say of the batch.
    standing : sequence of Cause
        Faults of the batches right before, if these are set aside.
    """
    case = Case(reference, rows, tally, summary, recent, findings, standing)
    with np.errstate(all="ignore"):  # absurd values overflow, and are no less absurd for it
        return tuple(_causes(case))


def _rank(case: Case, cause: Cause) -> tuple[bool, bool, float]:
    """What goes on comes first; of two that contradict one another, the column that changed."""
    related = cause.cause in {"permuted", "shuffled"}
    alone = not related or case.changed(cause.columns[0])
    return _stood(case, cause), alone, float(cause.evidence[NATS])


def _stood(case: Case, cause: Cause) -> bool:
    return case.stood(cause.cause, *cause.columns) > 0


def _explains(pair: Cause, cause: Cause) -> bool:
    """Whether an exchange of two columns explains far more than values that are odd or missing."""
    if cause.share > _ALL or not set(cause.columns) <= set(pair.columns):
        return False
    return float(pair.evidence[NATS]) > cause.share * _CERTAIN


def _causes(case: Case) -> Iterator[Cause]:
    for diagnosis in PLAIN:
        for cause in diagnosis(case):
            if case.blamed & set(cause.columns):
                continue
            doubted = cause.cause in _EXCHANGED and not _stood(case, cause)
            pairs = swapped_numbers(case) if doubted else ()
            likelier = next((pair for pair in pairs if _explains(pair, cause)), cause)
            yield likelier
            case = case.without(likelier)
            if cause.cause in {"volume", "frozen"}:
                return
    while found := [cause for diagnosis in TOGETHER for cause in diagnosis(case)]:
        most = max(found, key=partial(_rank, case))
        if most.cause == "shuffled":
            most = next(_behind(case, found, most), None) or with_rival(case, most)
        yield most
        case = case.without(most)


def _behind(case: Case, found: Sequence[Cause], lost: Cause) -> Iterator[Cause]:
    """Faults of other columns, which are ones without this as well, that explain the loss."""
    alone = {
        (one.cause, one.columns)
        for diagnosis in TOGETHER
        if diagnosis is not shuffled
        for one in diagnosis(case.without(lost))
    }
    for cause in found:
        if (cause.cause, cause.columns) in alone and all(
            one.columns != lost.columns for one in shuffled(case.without(cause))
        ):
            yield cause
