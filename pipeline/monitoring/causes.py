"""Decide whether a batch is broken or moved: find the faults that explain how it differs.

A diagnosis is a function from a case (the batch as it arrived, and the reference) to the causes
that it recognises; diagnoses do not depend on one another. A column whose fault is known is not
diagnosed again. To add a diagnosis, write the function and put it into a list below.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from pipeline.monitoring.calibration import Limits
from pipeline.monitoring.diagnoses.batch_faults import duplicate, frozen, schema, volume
from pipeline.monitoring.diagnoses.case import NATS, Case
from pipeline.monitoring.diagnoses.clipped import clipped
from pipeline.monitoring.diagnoses.clocks import shifted
from pipeline.monitoring.diagnoses.dependencies import BREAKS, rule_broken
from pipeline.monitoring.diagnoses.identities import contradicted, inconsistent
from pipeline.monitoring.diagnoses.missing import join, nulls, sentinel
from pipeline.monitoring.diagnoses.permutations import permuted
from pipeline.monitoring.diagnoses.rounding import rounded
from pipeline.monitoring.diagnoses.shuffles import shuffled, with_rival
from pipeline.monitoring.diagnoses.signs import sign
from pipeline.monitoring.diagnoses.spellings import recode
from pipeline.monitoring.diagnoses.stretches import missing_in_a_row, stuck_in_a_row
from pipeline.monitoring.diagnoses.stuck import stuck
from pipeline.monitoring.diagnoses.swaps import swapped_labels, swapped_numbers
from pipeline.monitoring.diagnoses.units import unit
from pipeline.monitoring.doubts import Doubt
from pipeline.monitoring.findings import Cause, Finding
from pipeline.reference import Reference
from pipeline.reference.summaries import Summary
from pipeline.reference.tally import Tally

_EXCHANGED = {"join", "nulls", "sentinel"}
"""Causes that a column may also show when it holds the values of another column."""

_OF_VALUES = {"clipped", "rounded", "stuck"}
"""Causes that rest on which values came: those of the other column where two were exchanged."""


@dataclass(frozen=True)
class Parameters:
    """When a batch is judged, and when an exchange explains odd values.

    Attributes
    ----------
    fewest : int
        Rows of a reference below which it does not tell what is usual.
    most : float
        Share of affected rows above which the column does not hold another column's values.
    certain : float
        Nats that each row with an odd or missing value counts for.
    """

    fewest: int = 50
    most: float = 0.9
    certain: float = 3.0


PARAMS = Parameters()

Diagnosis = Callable[[Case], Iterator[Cause]]
PLAIN: tuple[Diagnosis, ...] = (
    schema,
    volume,
    swapped_labels,
    join,
    nulls,
    missing_in_a_row,
    sentinel,
    stuck_in_a_row,
    frozen,
    duplicate,
)
"""Diagnoses of faults that are plain by themselves, in the order they are asked.

After a fault of volume or frozen rows, the values of the batch prove nothing more."""
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
    rule_broken,
    shuffled,
)
"""Diagnoses of columns in relation to other columns.

A fault of one column also shows in the columns related to it, so these diagnoses compete: the cause
that explains most is taken first, and all are asked again without its columns."""


def diagnose(
    reference: Reference,
    rows: pd.DataFrame,
    tally: Tally,
    summary: Summary,
    *,
    recent: Sequence[Summary],
    findings: Sequence[Finding],
    standing: Sequence[Cause] = (),
    find_limits: Callable[..., Limits] = lambda **_: {},
) -> tuple[tuple[Cause, ...], list[str]]:
    """Find the faults of a batch: what breaks with the reference and with the last sound batches.

    Rows and tally are those that *arrived*, because many faults make rows invalid and show only
    there. The summary, as the summaries it is compared with (the reference's blocks and the recent
    batches), is of *valid* rows: only so can a batch be recognised as an earlier one sent again.
    What is usual for a fault is read from these summaries, so it is what valid rows show.

    Parameters
    ----------
    reference : Reference
        The training rows.
    rows : DataFrame
        The batch as it arrived, with the rows that validation refused.
    tally : Tally
        Counts of the rows as they arrived.
    summary : Summary
        The valid rows of the batch as one observation.
    recent : sequence of Summary
        Valid rows of earlier batches, oldest first.
    findings : sequence of Finding
        Tests of the valid rows.
    standing : sequence of Cause
        Faults of the batches right before this batch, if these are in quarantine.
    find_limits : callable
        Finds the evidence that sound blocks show of the causes of some `columns`; asked only about
        columns of which something is said.

    Returns
    -------
    tuple of Cause
        What is believed.
    list of str
        Sentences about each cause that is not, and about columns that were not examined.
    """
    if reference.rows < PARAMS.fewest:
        return (), []
    case = Case(reference, rows, tally, summary, recent, findings, standing)
    doubt = Doubt(case, find_limits)
    with np.errstate(all="ignore"):  # extreme values overflow, and stay extreme
        causes = tuple(_causes(case, doubt))
    return causes, [*_left_out(case), *doubt.notes(causes)]


def _left_out(case: Case) -> Iterator[str]:
    """Say in how many columns faults were not looked for."""
    if case.wide:
        yield (
            f"Faults are looked for in {len(case.examined)} of {len(case.known):,} columns, "
            "because all would take too long: the columns that drifted and matter most to the "
            "model, and those that changed most."
        )


def _rank(case: Case, cause: Cause) -> tuple[bool, bool, float]:
    """Key by which competing causes are ranked.

    A fault that continues comes first; of two columns that contradict one another, the column that
    changed by itself; then the cause that explains most.
    """
    related = cause.cause in {"permuted", "shuffled"}
    alone = not related or case.changed(cause.columns[0])
    return _stood(case, cause), alone, float(cause.evidence[NATS])


def _stood(case: Case, cause: Cause) -> bool:
    return case.stood(cause.cause, *cause.columns) > 0


def _explains(pair: Cause, cause: Cause) -> bool:
    """Whether an exchange of two columns explains far more than odd or missing values do."""
    if cause.share > PARAMS.most or not set(cause.columns) <= set(pair.columns):
        return False
    return float(pair.evidence[NATS]) > cause.share * PARAMS.certain


def _causes(case: Case, doubt: Doubt) -> Iterator[Cause]:
    for diagnosis in PLAIN:
        for cause in diagnosis(case):
            if case.blamed & set(cause.columns) or doubt(diagnosis, cause, case.blamed):
                continue
            likelier = _likelier(case, cause)
            yield likelier
            case = case.without(likelier)
            if cause.cause in {"volume", "frozen"}:
                return
    while most := _most(case, doubt):
        yield most
        case = case.without(most)


def _most(case: Case, doubt: Doubt) -> Cause | None:
    """The cause that explains most; None if nothing is found.

    Arithmetic that shows what happened to a column is exact, and comes first; that it is broken,
    and no more, is said where nothing else is.
    """
    broken = _competing(case, doubt, (inconsistent,))
    exact = [cause for cause in broken if cause.cause != "inconsistent"]
    found = _competing(case, doubt, TOGETHER)
    if exact:
        first = exact[0]
        return next((x for x in found if _names(x) == _names(first)), first)
    found = [cause for cause in found if not _refuted(case, broken, cause)]
    if not found:
        return next(iter(broken), None)
    most = _or_exchange(case, found, max(found, key=partial(_rank, case)))
    if most.cause == "shuffled" and BREAKS not in most.evidence:
        return next(_behind(case, found, most), None) or with_rival(case, most)
    return most


def _or_exchange(case: Case, found: Sequence[Cause], cause: Cause) -> Cause:
    """The exchange of two columns that explains their odd values as well, or else the cause."""
    if cause.cause not in _OF_VALUES or _stood(case, cause):
        return cause
    own = set(cause.columns)
    pairs = [one for one in found if one.cause == "swapped" and own <= set(one.columns)]
    return max(pairs, key=partial(_rank, case), default=cause)


def _refuted(case: Case, broken: Sequence[Cause], found: Cause) -> bool:
    """Whether broken arithmetic shows that a cause is none.

    It would leave a rule broken, or is a relation lost to the columns of broken rules alone.
    """
    if not broken or contradicted(case, found):
        return bool(broken)
    if found.cause != "shuffled":
        return False
    for cause in broken:
        case = case.without(cause)
    return all(other.columns != found.columns for other in shuffled(case))


def _names(cause: Cause) -> tuple[str, frozenset[str]]:
    return cause.cause, frozenset(cause.columns)


def _likelier(case: Case, cause: Cause) -> Cause:
    """The exchange of two columns that explains odd or missing values better, or else the cause."""
    doubted = cause.cause in _EXCHANGED and not _stood(case, cause)
    pairs = swapped_numbers(case) if doubted else ()
    return next((pair for pair in pairs if _explains(pair, cause)), cause)


def _competing(case: Case, doubt: Doubt, diagnoses: Sequence[Diagnosis]) -> list[Cause]:
    """Causes that diagnoses of columns in relation to others find and that are believed."""
    return [
        cause
        for diagnosis in diagnoses
        for cause in diagnosis(case)
        if not doubt(diagnosis, cause, case.blamed)
    ]


def _behind(case: Case, found: Sequence[Cause], lost: Cause) -> Iterator[Cause]:
    """Faults of other columns that explain a lost relation.

    They must be recognised without the column that lost the relation as well.
    """
    alone = {
        (cause.cause, cause.columns)
        for diagnosis in TOGETHER
        if diagnosis is not shuffled
        for cause in diagnosis(case.without(lost))
    }
    for cause in found:
        if (cause.cause, cause.columns) in alone and all(
            other.columns != lost.columns for other in shuffled(case.without(cause))
        ):
            yield cause
