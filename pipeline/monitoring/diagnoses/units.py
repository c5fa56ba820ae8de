"""Transformed numbers: another unit or another sign.

Each diagnosis undoes a candidate transformation and computes, row by row, how much likelier the
value then is under the reference's distribution and given the other columns.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np
from scipy.stats import ks_2samp, theilslopes

from pipeline.columns import Floats
from pipeline.monitoring.diagnoses.case import NATS, Case, Mask
from pipeline.monitoring.diagnoses.clocks import cycle
from pipeline.monitoring.diagnoses.conversions import CONVERSIONS
from pipeline.monitoring.diagnoses.likelihood import (
    Change,
    Origin,
    mixture,
    touched_rows,
)
from pipeline.monitoring.diagnoses.segments import clause, segment
from pipeline.monitoring.diagnoses.transformations import (
    CONVINCING,
    MOST,
    ROWS,
    TOTAL,
    Column,
    Fit,
    fit_change,
    settled,
)
from pipeline.monitoring.findings import Cause
from pipeline.reference.profile import NumericProfile
from pipeline.reference.summaries import Trait

_SETTLED = 3
"""Number of likeliest candidates that are compared with ordinary drift."""
_OVERWHELMING = 6.0
"""Nats per affected row that leave no doubt."""
_ALONE, _STRAIGHT = 2.5, 0.95
"""Enough evidence for a known unit that the other columns do not contradict.

It is the nats per affected row times how well these rows, put back, match the others; and the R2 of
their quantiles."""
_EXACT = 0.1
"""Largest residual variance with which the other columns predict values, not only sizes."""
_PAIRED = 400
"""Most rows through which a line is drawn."""
_FEWEST = 20
"""Fewest rows of either kind that are compared."""
_ALIKE, _MUCH_ALIKE = 0.6, 0.85
"""How well rows put back match the unaffected rows: 1 less the distance of distributions."""
_NEARLY = 0.9
"""Share of rows that a small factor has to affect."""
_SUPPORTED = 0.3
"""Least share of rows for which the other columns can predict."""
_LARGE_PART = 0.15
"""Share of rows from which a part needs no large factor."""
_SURE_FACTOR, _FAR_PART = 5.0, 9.0
"""Factors that are plain in a part of the rows: by themselves, and in rows of a segment."""
_FAR_FACTOR = 3.0
"""Factor that drift is taken never to reach."""
_LEAST_FACTOR = 1.7
"""Factor that only a unit explains; smaller factors need the other columns as evidence."""


def unit(case: Case) -> Iterator[Cause]:
    """Recognise a column in another unit: multiplied by a factor, with an offset added."""
    for name in case.numeric:
        if _transformable(case, name) and not cycle(case.profile(name)):
            cause = case.once("unit", name, partial(_unit_of, case, name))
            yield from [cause] if cause else []


def _unit_of(case: Case, name: str) -> Cause | None:
    column = Column(case, name, case.numbers(name)[:ROWS])
    values = column.values
    fits = [
        fit
        for change in (*_candidates(values, case.profile(name)), *_line(case, name, values))
        if (fit := fit_change(column, change))
    ]
    likeliest = sorted(fits, key=lambda fit: -_even(values, fit) * fit.total)[:_SETTLED]
    sound = [settled(case, name, values, fit) for fit in likeliest]
    kept = [fit for fit in sound if _explains(case, name, values, fit)]
    if not kept:
        return None
    # A known unit is preferred to a line that explains hardly more.
    best = max(
        kept,
        key=lambda fit: (
            _even(values, fit) * fit.total * (0.9 if fit.change.origin is Origin.RELATION else 1)
        ),
    )
    return _cause(case, name, values, best)


def sign(case: Case) -> Iterator[Cause]:
    """Recognise a column whose sign was turned."""
    for name in case.numeric:
        if _transformable(case, name):
            cause = case.once("sign", name, partial(_sign_of, case, name))
            yield from [cause] if cause else []


def _sign_of(case: Case, name: str) -> Cause | None:
    values = case.numbers(name)[:ROWS]
    fit = fit_change(Column(case, name, values), Change(-1.0, 0.0, "a turned sign"))
    if fit is None:
        return None
    fit = settled(case, name, values, fit)
    if not _turned(case, name, fit) or _even(values, fit) < _ALIKE:
        return None
    where = _segment(case, name, touched_rows(fit.gain, fit.share))
    return Cause(
        "sign",
        (name,),
        f"{name!r} looks multiplied by -1 in {fit.share:.0%} of rows{clause(where)}.",
        _evidence(fit) | {"share below zero now": round(float(np.mean(values < 0)), 4)},
        f"Ask the source which sign {name!r} has, and load the window again.",
        share=round(fit.share, 4),
        segment=where,
    )


def _transformable(case: Case, name: str) -> bool:
    """Whether a column can be judged: it varies, is no index, and something about it changed."""
    profile, values = case.profile(name), case.numbers(name)
    known = values[~np.isnan(values)]
    if not (case.suspect(name) or profile.n == 0 or _outside(profile, known) > 0.01):
        return False
    return len(known) >= 20 and len(profile.grid) > 2 and not case.names_the_block(name)


def _outside(profile: NumericProfile, known: Floats) -> float:
    """Share of values outside the range of the reference."""
    if not len(known) or not len(profile.points):
        return 0.0
    return float(((known < profile.points[0]) | (known > profile.points[-1])).mean())


def _candidates(values: Floats, profile: NumericProfile) -> Iterator[Change]:
    for factor, offset, sent, meant in CONVERSIONS:
        yield Change(factor, offset, f"{sent} for {meant}")
        yield Change(1 / factor, -offset / factor, f"{meant} for {sent}")
    # Any other line through the quartiles, where the whole column was changed.
    low, middle, high = np.nanquantile(values, [0.25, 0.5, 0.75])
    before = np.interp([0.25, 0.5, 0.75], np.asarray(profile.upto), profile.points)
    if high > low and before[2] > before[0]:
        factor = float((high - low) / (before[2] - before[0]))
        offset = float(middle - factor * before[1])
        scaled = abs(offset) < 0.1 * abs(middle)  # a calm week is narrow, with any median
        if factor > _FAR_FACTOR or (factor < 1 / _FAR_FACTOR and scaled):
            yield Change(factor, offset, "an affine change", Origin.QUARTILES)


def _line(case: Case, name: str, values: Floats) -> Iterator[Change]:
    """Draw a line through values that contradict the other columns, over their predictions.

    It is estimated as by Theil (1950) and Sen (1968, J. Am. Stat. Assoc. 63: 1379-1389).
    """
    expected, points = case.expected(name), case.profile(name).points
    if expected.variance > _EXACT:
        return
    predicted = expected.now[: len(values)]
    off = np.abs(case.normal_scores(name, values) - predicted) > 3 * np.sqrt(expected.variance)
    off &= ~np.isnan(values) & case.supported(name)[: len(values)]
    meant = np.interp(predicted[off], case.normal_scores(name, points), points)[:_PAIRED]
    if len(meant) < 2 * _FEWEST or np.ptp(meant) == 0:
        return
    line = theilslopes(values[off][:_PAIRED], meant)
    if line.slope > 0:
        yield Change(float(line.slope), float(line.intercept), "another scale", Origin.RELATION)


def _explains(case: Case, name: str, values: Floats, fit: Fit) -> bool:
    """Whether a fit explains the column and neither chance nor drift does."""
    if not fit.convincing:
        return False
    explains = _explains_a_part if fit.share < MOST else _explains_the_whole
    return explains(case, name, values, fit)


def _explains_a_part(case: Case, name: str, values: Floats, fit: Fit) -> bool:
    """Whether a change explains a part of the rows, which have to fit the others once put back."""
    if fit.change.origin is Origin.QUARTILES:
        return False
    size, even = abs(np.log(fit.change.factor)), _even(values, fit)
    # Rows of a segment may differ from the others by themselves, but not that far.
    if even <= _ALIKE:
        touched = touched_rows(fit.gain, fit.share)
        if size <= np.log(_FAR_PART) or _segment(case, name, touched) == "":
            return False
    large = fit.share > _LARGE_PART
    if fit.change.origin is Origin.RELATION:  # a line fits more easily than a known unit
        return large and min(fit.each, fit.related) > _OVERWHELMING
    # A few odd rows of one day fit many small factors, and shrunk values lie near zero, where
    # other values lie as well.
    sure = fit.change.factor > 1 or fit.each > 3 * CONVINCING
    if sure and size > np.log(_SURE_FACTOR):
        return True
    return large and (_related(even, fit) or _alone(case, name, values, even=even, fit=fit))


def _related(even: float, fit: Fit) -> bool:
    """Whether the other columns confirm a change of a part of the rows."""
    clear = even > _MUCH_ALIKE or fit.each > _OVERWHELMING
    return clear and fit.related > 2 * CONVINCING


def _alone(case: Case, name: str, values: Floats, *, even: float, fit: Fit) -> bool:
    """Whether a change of a part of the rows is plain without the other columns."""
    enough = even * fit.each > _ALONE and fit.related > -CONVINCING / 2
    return enough and _straight(case, name, values, fit) > _STRAIGHT


def _explains_the_whole(case: Case, name: str, values: Floats, fit: Fit) -> bool:
    """Whether a change explains all rows, and growth or drift does not."""
    narrow = fit.related < 2 * CONVINCING and not _as_wide(case, name, values, fit)
    if narrow or fit.change.origin is Origin.RELATION:
        return False
    profile, size = case.profile(name), abs(np.log(fit.change.factor))
    if fit.change.factor == 1:
        return abs(fit.change.offset) > 2 * float(profile.points[-1] - profile.points[0])
    far = size > np.log(_FAR_FACTOR)
    # Where the predicting columns moved as well, the factor has to be larger than their move.
    if not far and (case.supported(name).mean() <= _SUPPORTED or fit.share < _NEARLY):
        return False
    return bool(size > np.log(_LEAST_FACTOR) or fit.related > CONVINCING)


def _as_wide(case: Case, name: str, values: Floats, fit: Fit) -> bool:
    """Whether a column became wider by the factor instead of only moving."""
    known = values[touched_rows(fit.gain, fit.share) & ~np.isnan(values)]
    before, now = _spread_of(case.profile(name)), _interquartile(known)
    if before == 0 or now == 0 or fit.change.factor == 1:
        return True
    usual = _usual_spread(case, name)
    factor = np.log(fit.change.factor)
    return bool(abs(np.log(now / before) - usual - factor) < 0.45 * abs(factor))


def _even(values: Floats, fit: Fit) -> float:
    """How well the affected rows, put back, match the other rows, from 0 to 1.

    The warm days of a week, put back from another unit, would be colder than the rest.
    """
    if fit.share >= MOST:
        return 1.0
    known = ~np.isnan(values)
    touched = touched_rows(fit.gain, fit.share)
    undone = fit.change.undone(values[touched & known])
    others = values[~touched & known]
    if min(len(undone), len(others)) < _FEWEST:
        return 0.0
    return 1 - float(ks_2samp(undone, others).statistic)


def _interquartile(values: Floats) -> float:
    return float(np.subtract(*np.quantile(values, [0.75, 0.25]))) if len(values) else 0.0


def _spread_of(profile: NumericProfile) -> float:
    return float(np.subtract(*np.interp([0.75, 0.25], np.asarray(profile.upto), profile.points)))


def _usual_spread(case: Case, name: str) -> float:
    """Mean logarithm of the spread of a block."""
    spreads = [block.get(Trait("spread", (name,)), np.nan) for block in case.reference.blocks]
    known = [spread for spread in spreads if np.isfinite(spread)]
    return float(np.log(np.maximum(known, 1e-3)).mean()) if known else 0.0


def _straight(case: Case, name: str, values: Floats, fit: Fit) -> float:
    """R2 of the quantiles of the affected rows against the reference's quantiles."""
    known = values[touched_rows(fit.gain, fit.share) & ~np.isnan(values)]
    profile, levels = case.profile(name), np.arange(1, 100) / 100
    before = np.interp(levels, np.asarray(profile.upto), profile.points)
    r = np.corrcoef(np.quantile(known, levels), before)[0, 1] if len(known) else 0.0
    return float(r**2)


def _cause(case: Case, name: str, values: Floats, fit: Fit) -> Cause:
    touched = touched_rows(fit.gain, fit.share)
    where = _segment(case, name, touched)
    squared = _straight(case, name, values, fit)
    moved = f" and raised by {fit.change.offset:.4g}" if fit.change.offset > 0 else ""
    moved = f" and lowered by {-fit.change.offset:.4g}" if fit.change.offset < 0 else moved
    rows = "" if fit.share > 0.95 else f" in {fit.share:.0%} of rows"  # all rows
    return Cause(
        "unit",
        (name,),
        f"{name!r} looks multiplied by {fit.change.factor:.4g}{moved}{rows}"
        f"{clause(where)} (R2 {squared:.4f} over 99 quantiles): "
        f"{fit.change.words}?",
        _evidence(fit)
        | {
            "factor": float(f"{fit.change.factor:.6g}"),
            "offset": float(f"{fit.change.offset:.6g}"),
            "R2 of 99 quantiles": round(squared, 4),
        },
        f"Ask the source which unit {name!r} has now; convert it back before it arrives.",
        share=round(fit.share, 4),
        segment=where,
    )


def _evidence(fit: Fit) -> dict[str, float | str]:
    return {
        NATS: round(mixture(fit.gain)[1] / len(fit.gain), 3),
        "share of rows": round(fit.share, 4),
        "of them from other columns": round(fit.related, 2),
    }


def _turned(case: Case, name: str, fit: Fit) -> bool:
    """Whether the column itself shows a turned sign, or its relations to several others do."""
    plain = fit.gain[touched_rows(fit.gain, fit.share)].mean() - fit.related
    if len(_flipped(case, name)) > 1:
        return fit.total > TOTAL and fit.each > 0.3 * CONVINCING
    return fit.convincing and bool(plain > 0.5)


def _flipped(case: Case, name: str) -> list[str]:
    """Columns whose clear correlation with a column has changed its sign."""
    return [
        other
        for other in case.partners(name, marked=0.15)
        if case.correlation(name, other) * case.correlation_now(name, other) < 0
        and abs(case.correlation_now(name, other)) > 0.1  # and did not just vanish
    ]


def _segment(case: Case, name: str, touched: Mask) -> str:
    whole = np.zeros(len(case.drawn), dtype=bool)
    able = whole.copy()
    whole[: len(touched)], able[: len(touched)] = touched, True
    return segment(case, whole, [name], able)
