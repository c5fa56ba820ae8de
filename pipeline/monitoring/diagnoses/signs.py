"""Turned signs: numbers that arrive multiplied by -1."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from pipeline.monitoring.diagnoses.case import Case
from pipeline.monitoring.diagnoses.likelihood import Change, touched_rows
from pipeline.monitoring.diagnoses.parameters import SHARED
from pipeline.monitoring.diagnoses.segments import clause
from pipeline.monitoring.diagnoses.transformations import (
    Fit,
    column_of,
    even,
    evidence,
    fit_change,
    segment_of,
    settled,
    transformable,
)
from pipeline.monitoring.findings import Cause


@dataclass(frozen=True)
class Parameters:
    """What shows a turned sign.

    Attributes
    ----------
    each : float
        Least nats per affected row, where the relations to several columns turned as well.
    plain : float
        Least nats per affected row from the column itself, where they did not.
    marked, left : float
        Correlations that may change their sign: their least size before, and their least size now,
        so that they did not just vanish.
    """

    each: float = 0.3
    plain: float = 0.5
    marked: float = 0.15
    left: float = 0.1


PARAMS = Parameters()


def sign(case: Case) -> Iterator[Cause]:
    """Recognise a column whose sign was turned."""
    for name in case.numeric:
        if transformable(case, name):
            cause = case.once("sign", name, partial(_sign_of, case, name))
            yield from [cause] if cause else []


def _sign_of(case: Case, name: str) -> Cause | None:
    column = column_of(case, name)
    values = column.values
    fit = fit_change(column, Change(-1.0, 0.0, "a turned sign"))
    if fit is None:
        return None
    fit = settled(case, name, values, fit)
    if not _turned(case, name, fit) or even(values, fit) < SHARED.alike:
        return None
    where = segment_of(case, name, touched_rows(fit.gain, fit.share))
    return Cause(
        "sign",
        (name,),
        f"{name!r} looks multiplied by -1 in {fit.share:.0%} of rows{clause(where)}.",
        evidence(fit) | {"share below zero now": round(float(np.mean(values < 0)), 4)},
        f"Ask the source which sign {name!r} has, and load the window again.",
        share=round(fit.share, 4),
        segment=where,
    )


def _turned(case: Case, name: str, fit: Fit) -> bool:
    """Whether the column itself shows a turned sign, or its relations to several others do."""
    plain = fit.gain[touched_rows(fit.gain, fit.share)].mean() - fit.related
    if len(_flipped(case, name)) > 1:
        return fit.total > SHARED.total and fit.each > PARAMS.each
    return fit.convincing and bool(plain > PARAMS.plain)


def _flipped(case: Case, name: str) -> list[str]:
    """Columns whose clear correlation with a column has changed its sign."""
    return [
        other
        for other in case.partners(name, marked=PARAMS.marked)
        if case.correlation(name, other) * case.correlation_now(name, other) < 0
        and abs(case.correlation_now(name, other)) > PARAMS.left
    ]
