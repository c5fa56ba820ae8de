"""Numbers in another unit: multiplied by a factor, with an offset added.

The diagnosis undoes a candidate transformation and computes, row by row, how much likelier the
value then is under the reference's distribution and given the other columns.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.stats import theilslopes

from pipeline.columns import Floats
from pipeline.monitoring.diagnoses.case import Case
from pipeline.monitoring.diagnoses.clocks import cycle
from pipeline.monitoring.diagnoses.conversions import CONVERSIONS
from pipeline.monitoring.diagnoses.far_values import far_values
from pipeline.monitoring.diagnoses.grids import off_grid
from pipeline.monitoring.diagnoses.likelihood import Change, Origin, touched_rows
from pipeline.monitoring.diagnoses.novelty import new_numbers, repeats
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
from pipeline.reference.profile import NumericProfile
from pipeline.reference.summaries import Trait


@dataclass(frozen=True)
class Parameters:
    """Which units are tried, and what shows that a column is in one of them.

    Attributes
    ----------
    settled : int
        Number of likeliest candidates that are compared with ordinary drift.
    line : float
        Weight of the gain of a line: a known unit is preferred to one that explains hardly more.
    overwhelming : float
        Nats per affected row that leave no doubt.
    confirmed : float
        Nats per affected row from the other columns by which they confirm a change.
    shrunk : float
        Nats per affected row from which values may have shrunk in a part of the rows: near zero,
        other values lie as well.
    alone, straight : float
        Enough evidence for a known unit that the other columns do not contradict. It is the nats
        per affected row times how well these rows, put back, match the others; and the R2 of their
        quantiles.
    contradicted : float
        Nats per affected row with which the other columns contradict a change.
    unexplained : float
        Of numbers that repeat, most values that no training row has and that a change does not
        explain, for each that it does.
    exact : float
        Largest residual variance with which the other columns predict values, not only sizes.
    off : float
        Distance from a prediction, in standard deviations, from which a value contradicts it.
    paired : int
        Most rows through which a line is drawn.
    much_alike : float
        How well rows put back match the unaffected rows, as `SHARED.alike`, where that leaves no
        doubt.
    nearly : float
        Share of rows that a small factor has to affect.
    large_part : float
        Share of rows from which a part needs no large factor.
    sure_factor, far_part : float
        Factors that are plain in a part of the rows: by themselves, and in rows of a segment.
    far_factor : float
        Factor that drift is taken never to reach.
    least_factor : float
        Factor that only a unit explains; smaller factors need the other columns as evidence.
    scaled : float
        Largest offset, relative to the median, of a small factor through the quartiles: a calm
        week is narrow, with any median.
    far_in_sd, far_in_steps : float
        Median displacement by a known unit, in standard deviations of the column and in its largest
        steps between two blocks, that drift is taken never to reach if the width fits as well.
    far_away : float
        Median displacement by a known unit, in ranges of the column, that drift is taken never to
        reach.
    tail : float
        Share of rows at either end that the range of a column leaves out.
    width : float
        Tolerance of the growth of the width, relative to the factor, both as logarithms.
    all_rows : float
        Share of rows above which all rows are said to be affected.
    """

    settled: int = 3
    line: float = 0.9
    overwhelming: float = 6.0
    confirmed: float = 2.0
    shrunk: float = 3.0
    alone: float = 2.5
    straight: float = 0.95
    contradicted: float = 0.5
    unexplained: float = 0.25
    exact: float = 0.1
    off: float = 3.0
    paired: int = 400
    much_alike: float = 0.85
    nearly: float = 0.9
    large_part: float = 0.15
    sure_factor: float = 5.0
    far_part: float = 9.0
    far_factor: float = 3.0
    least_factor: float = 1.7
    scaled: float = 0.1
    far_in_sd: float = 3.0
    far_in_steps: float = 10.0
    far_away: float = 2.0
    tail: float = 0.005
    width: float = 0.45
    all_rows: float = 0.95


PARAMS = Parameters()


def unit(case: Case) -> Iterator[Cause]:
    """Recognise a column in another unit: multiplied by a factor, with an offset added."""
    for name in case.numeric:
        cause = case.once("unit", name, partial(_found, case, name))
        yield from [cause] if cause else []


def _found(case: Case, name: str) -> Cause | None:
    asked = transformable(case, name) and not cycle(case.profile(name))
    return (_unit_of(case, name) if asked else None) or far_values(case, name)


def _unit_of(case: Case, name: str) -> Cause | None:
    column = column_of(case, name)
    values = column.values
    if fit := off_grid(case, name, values):
        return _cause(case, name, values, fit)
    fits = [
        fit
        for change in (*_candidates(values, case.profile(name)), *_line(case, name, values))
        if (fit := fit_change(column, change))
    ]
    likeliest = sorted(fits, key=lambda fit: -even(values, fit) * fit.total)[: PARAMS.settled]
    sound = [settled(case, name, values, fit) for fit in likeliest]
    kept = [fit for fit in sound if _explains(case, name, values, fit)]
    if not kept:
        return None
    # A known unit is preferred to a line that explains hardly more.
    best = max(
        kept,
        key=lambda fit: (
            even(values, fit)
            * fit.total
            * (PARAMS.line if fit.change.origin is Origin.RELATION else 1)
        ),
    )
    return _cause(case, name, values, best)


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
        scaled = abs(offset) < PARAMS.scaled * abs(middle)
        if factor > PARAMS.far_factor or (factor < 1 / PARAMS.far_factor and scaled):
            yield Change(factor, offset, "an affine change", Origin.QUARTILES)


def _line(case: Case, name: str, values: Floats) -> Iterator[Change]:
    """Draw a line through values that contradict the other columns, over their predictions.

    It is estimated as by Theil (1950) and Sen (1968, J. Am. Stat. Assoc. 63: 1379-1389).
    """
    expected, points = case.expected(name), case.profile(name).points
    if expected.variance > PARAMS.exact:
        return
    predicted = expected.now[: len(values)]
    off = np.abs(case.normal_scores(name, values) - predicted) > PARAMS.off * np.sqrt(
        expected.variance
    )
    off &= ~np.isnan(values) & case.supported(name)[: len(values)]
    meant = np.interp(predicted[off], case.normal_scores(name, points), points)[: PARAMS.paired]
    if len(meant) < 2 * SHARED.fewest or np.ptp(meant) == 0:
        return
    line = theilslopes(values[off][: PARAMS.paired], meant)
    if line.slope > 0:
        yield Change(float(line.slope), float(line.intercept), "another scale", Origin.RELATION)


def _explains(case: Case, name: str, values: Floats, fit: Fit) -> bool:
    """Whether a fit explains the column and neither chance nor drift does."""
    if not fit.convincing:
        return False
    explains = _explains_a_part if fit.share < SHARED.most else _explains_the_whole
    return explains(case, name, values, fit)


def _explains_a_part(case: Case, name: str, values: Floats, fit: Fit) -> bool:
    """Whether a change explains a part of the rows, which have to fit the others once put back."""
    if fit.change.origin is Origin.QUARTILES:
        return False
    size, likeness = abs(np.log(fit.change.factor)), even(values, fit)
    touched = touched_rows(fit.gain, fit.share)
    profile = case.profile(name)
    odd = new_numbers(profile, values) & ~touched  # the last hours of a night, but not the first
    if repeats(profile) and odd.sum() > PARAMS.unexplained * touched.sum():
        return False
    # Rows of a segment may differ from the others by themselves, but not that far.
    if likeness <= SHARED.alike and (
        size <= np.log(PARAMS.far_part) or segment_of(case, name, touched) == ""
    ):
        return False
    large = fit.share > PARAMS.large_part
    if fit.change.origin is Origin.RELATION:  # a line fits more easily than a known unit
        return large and min(fit.each, fit.related) > PARAMS.overwhelming
    # A few odd rows of one day fit many small factors, and shrunk values lie near zero, where
    # other values lie as well.
    sure = fit.change.factor > 1 or fit.each > PARAMS.shrunk
    if sure and size > np.log(PARAMS.sure_factor):
        return True
    return large and (
        _related(likeness, fit) or _alone(case, name, values, likeness=likeness, fit=fit)
    )


def _related(likeness: float, fit: Fit) -> bool:
    """Whether the other columns confirm a change of a part of the rows."""
    clear = likeness > PARAMS.much_alike or fit.each > PARAMS.overwhelming
    return clear and fit.related > PARAMS.confirmed


def _alone(case: Case, name: str, values: Floats, *, likeness: float, fit: Fit) -> bool:
    """Whether a change of a part of the rows is plain without the other columns."""
    enough = likeness * fit.each > PARAMS.alone and fit.related > -PARAMS.contradicted
    return enough and _straight(case, name, values, fit) > PARAMS.straight


def _explains_the_whole(case: Case, name: str, values: Floats, fit: Fit) -> bool:
    """Whether a change explains all rows, and growth or drift does not."""
    narrow = fit.related < PARAMS.confirmed and not _as_wide(case, name, values, fit)
    if narrow or fit.change.origin is Origin.RELATION:
        return False
    profile, size = case.profile(name), abs(np.log(fit.change.factor))
    displaced = _displaced(values, fit)
    low, high = profile.span(PARAMS.tail)
    if fit.change.origin is Origin.KNOWN and displaced > PARAMS.far_away * (high - low) > 0:
        return True
    if fit.change.factor == 1:
        return False
    if fit.change.origin is Origin.KNOWN and displaced > _furthest(case, name) > 0:
        return True
    far = size > np.log(PARAMS.far_factor)
    # Where the predicting columns moved as well, the factor has to be larger than their move.
    if not far and (case.supported(name).mean() <= SHARED.supported or fit.share < PARAMS.nearly):
        return False
    return bool(size > np.log(PARAMS.least_factor) or fit.related > SHARED.convincing)


def _displaced(values: Floats, fit: Fit) -> float:
    """Median displacement of the values by a change, in the unit of the column."""
    known = values[~np.isnan(values)]
    return float(np.median(np.abs(known - fit.change.undone(known))))


def _furthest(case: Case, name: str) -> float:
    """How far drift is taken to move a column between two batches at most, in its unit.

    Some standard deviations of the column, and many times its largest step between two blocks.
    """
    trait = Trait("location", (name,))
    means = [batch[trait] for batch in (*case.reference.blocks, *case.recent) if trait in batch]
    step = float(np.abs(np.diff(means)).max()) if len(means) > 1 else np.inf
    return case.profile(name).sd * max(PARAMS.far_in_sd, PARAMS.far_in_steps * step)


def _as_wide(case: Case, name: str, values: Floats, fit: Fit) -> bool:
    """Whether a column became wider by the factor instead of only moving."""
    known = values[touched_rows(fit.gain, fit.share) & ~np.isnan(values)]
    before, now = _spread_of(case.profile(name)), _interquartile(known)
    if before == 0 or now == 0 or fit.change.factor == 1:
        return True
    usual = _usual_spread(case, name)
    factor = np.log(fit.change.factor)
    return bool(abs(np.log(now / before) - usual - factor) < PARAMS.width * abs(factor))


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
    where = segment_of(case, name, touched)
    squared = _straight(case, name, values, fit)
    moved = f" and raised by {fit.change.offset:.4g}" if fit.change.offset > 0 else ""
    moved = f" and lowered by {-fit.change.offset:.4g}" if fit.change.offset < 0 else moved
    rows = "" if fit.share > PARAMS.all_rows else f" in {fit.share:.0%} of rows"
    return Cause(
        "unit",
        (name,),
        f"{name!r} looks multiplied by {fit.change.factor:.4g}{moved}{rows}"
        f"{clause(where)} (R2 {squared:.4f} over 99 quantiles): "
        f"{fit.change.words}?",
        evidence(fit)
        | {
            "factor": float(f"{fit.change.factor:.6g}"),
            "offset": float(f"{fit.change.offset:.6g}"),
            "R2 of 99 quantiles": round(squared, 4),
        },
        f"Ask the source which unit {name!r} has now; convert it back before it arrives.",
        share=round(fit.share, 4),
        segment=where,
    )
