"""Test the rows of a single batch against the reference."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from pipeline.columns import Floats
from pipeline.monitoring.budget import Group
from pipeline.monitoring.findings import FLOORS, Finding
from pipeline.reference import Reference
from pipeline.reference.classifier import CLASSIFIED, separate
from pipeline.reference.normal_scores import LARGEST_CORRELATION, fisher
from pipeline.reference.profile import CategoricalProfile, NumericProfile
from pipeline.reference.sampling import SAMPLE
from pipeline.reference.statistics import (
    beyond_p,
    calibrated,
    difference_skewness,
    homogeneity,
    kolmogorov_p,
    mean_p,
    novelty_p,
    proportions_p,
)
from pipeline.reference.summaries import Summary, Trait
from pipeline.reference.tally import QUANTILES, Tally
from pipeline.reference.traits import RARE_PAIRS
from pipeline.reference.variation import FEWEST_BLOCKS, Yardstick, grown

Since = Mapping[Trait, int]
"""Number of batches that the change of each trait covers."""
_FLOORS = FLOORS["rows"]
_FEWEST_PAIRS = 8
"""Rows below which correlations are not tested."""
_FEWEST_RANGED = 8
"""Values below which their median is not tested: it would be a few values of a long tail."""


class Scale(NamedTuple):
    """A design effect and its degrees of freedom."""

    effect: float
    freedom: float


@dataclass(frozen=True)
class Judged:
    """A batch and the reference that it is compared with.

    Attributes
    ----------
    reference : Reference
        The training rows.
    tally : Tally
        Counts of the batch.
    summary : Summary
        The batch as one observation.
    since : mapping of Trait to int
        Number of batches that the change of each trait covers.
    """

    reference: Reference
    tally: Tally
    summary: Summary
    since: Since

    @cached_property
    def _places(self) -> dict[Trait, int]:
        return {trait: i for i, trait in enumerate(self.reference.traits.all)}

    def place(self, trait: Trait) -> int | None:
        """Place of a trait among all that batches are tested by; None if it is not among them."""
        return self._places.get(trait)

    def scale(self, *traits: Trait, rows: float) -> Scale:
        """Largest design effect of some traits, scaled to a batch of `rows` rows."""
        ruler = self.reference.usual.ruler
        places = [self._places[trait] for trait in traits if trait in self._places]
        if not places:
            return Scale(1.0, np.inf)
        effect = grown(ruler.effect[places].max(), n=rows, n_block=self.reference.block_rows)
        return Scale(float(effect), float(ruler.freedom[places].min()))

    def found(
        self, name: str, kind: str, size: float, levels: Floats, scale: Scale, *, trait: Trait
    ) -> Finding:
        """Make the finding of a test of one column.

        Parameters
        ----------
        name : str
            The column.
        kind : str
            What was compared.
        size : float
            Observed difference.
        levels : array of float, shape (2,)
            Textbook chances of the observed difference and of the floor.
        scale : Scale
            Design effect by which the chances are calibrated.
        trait : Trait
            Trait whose change dates the finding.
        """
        p_value, reach = calibrated(levels, effect=scale.effect, freedom=scale.freedom)
        since = self.since.get(trait, 1)
        chances = float(p_value), _FLOORS[kind], float(reach)
        return Finding((name,), "rows", kind, size, *chances, since)


def row_tests(batch: Judged, *, classifier: bool = True) -> Iterator[Group]:
    """Run all tests of the rows of a batch, grouped by the part of the budget they share.

    The classifier, which takes most of the time, can be left out.
    """
    reference = batch.reference
    for name in reference.names:
        profile = reference.columns[name]
        tests = (
            _number_tests(batch, name, profile)
            if isinstance(profile, NumericProfile)
            else _label_tests(batch, name, profile)
        )
        for test in [*tests, _missing_test(batch, name)]:
            yield Group("prediction" if name in reference.prediction else test.kind, [test])
    yield Group("pairs", list(_pair_tests(batch)))
    yield Group("joint", [_joint_test(batch)])
    if classifier:
        yield Group("classifier", [_classifier_test(batch)])


def _number_tests(batch: Judged, name: str, profile: NumericProfile) -> Iterator[Finding]:
    counts, n, m = batch.tally.counts[name], batch.tally.known(name), profile.n
    location, spread = Trait("location", (name,)), Trait("spread", (name,))
    if profile.normal_scores.any() and min(n, m) > 1:
        yield _location_test(batch, name, profile)
        yield _spread_test(batch, name, profile)
    distance = profile.distance(counts) if min(n, m) else float("nan")
    levels = kolmogorov_p(
        np.asarray([distance, _FLOORS["distribution"]]), n_reference=m, n_current=n
    )
    scale = batch.scale(location, spread, rows=n)
    yield batch.found(name, "distribution", distance, levels, scale, trait=location)
    yield from _range_test(batch, name, profile)


def _location_test(batch: Judged, name: str, profile: NumericProfile) -> Finding:
    n, m, trait = batch.tally.known(name), profile.n, Trait("location", (name,))
    noise, skewness = 1 / n + 1 / m, difference_skewness(n, m) * profile.moments.skewness
    size = float(batch.tally.counts[name] @ profile.normal_scores) / n
    z = np.asarray([size, _FLOORS["location"]]) / np.sqrt(noise)
    scale = batch.scale(trait, rows=n)
    levels = mean_p(z, skewness=skewness)
    return batch.found(name, "location", size, levels, scale, trait=trait)


def _spread_test(batch: Judged, name: str, profile: NumericProfile) -> Finding:
    """Test the variance of the normal scores, whose own variance follows from their kurtosis.

    Elementary: a variance is a mean of squares, so that its variance is that of one square over
    the rows. The size is that of the spread in logarithms, half that of the variance.
    """
    n, m, trait = batch.tally.known(name), profile.n, Trait("spread", (name,))
    noise, skewness = 1 / n + 1 / m, difference_skewness(n, m) * profile.moments.square_skewness
    error = np.sqrt(profile.moments.square_variance * noise)
    usual = batch.reference.usual.variance(name)
    excess = profile.variance(batch.tally.counts[name]) * n / (n - 1) / usual - 1
    floor = -np.expm1(-2 * _FLOORS["spread"])
    levels = mean_p(np.asarray([excess, floor]) / error, skewness=skewness)
    scale = batch.scale(trait, rows=n)
    size = float(np.log(max(1 + excess, 1e-12)) / 2)
    return batch.found(name, "spread", size, levels, scale, trait=trait)


def _range_test(batch: Judged, name: str, profile: NumericProfile) -> Iterator[Finding]:
    """Test how far the median lies beyond the range that holds the median of every block.

    Ranks cannot tell 10 ranges from 10,000, so that where blocks differ much even a column that
    lies wholly elsewhere is no surprise to them. This range holds the median of any part of the
    training rows that is as long as the batch and the shortest block, because fewer than half of
    such a part lie beyond either end. So it bounds how much blocks differ.
    """
    usual, trait = batch.reference.usual, Trait("location", (name,))
    place, n = batch.place(trait), batch.tally.known(name)
    blocks = 0 if place is None else int(usual.observed.count[place])
    if place is None or blocks < FEWEST_BLOCKS or n < _FEWEST_RANGED:
        return
    known = np.isfinite(usual.observed.values[:, place])
    shortest = float(usual.observed.sizes[known, place].min())
    low, high = profile.span(min(shortest, n) / (2 * profile.n))
    if low == high:  # nearly all rows hold one value
        low, high = profile.grid[0], profile.grid[-1]
    median = batch.tally.quantiles[name][QUANTILES // 2]
    with np.errstate(over="ignore", invalid="ignore"):
        size = float((median - np.clip(median, low, high)) / (np.float64(high) - low))
    if not np.isfinite(size):  # the range is too wide for a number
        return
    floor = _FLOORS["range"]
    p_value, reach = beyond_p([abs(size), floor], blocks=blocks).tolist()
    since = batch.since.get(trait, 1)
    yield Finding((name,), "rows", "range", size, p_value, floor, reach, since)


def _label_tests(batch: Judged, name: str, profile: CategoricalProfile) -> Iterator[Finding]:
    """Test the shares of labels by chi-square, and labels that the reference never held.

    By Cauchy and Schwarz, half the sum of absolute differences of shares is at most half the root
    of chi-square over the effective rows. With many labels chance alone makes that large, so the
    size reported is taken from the chi-square beyond its mean by chance, which is its degrees of
    freedom times the design effect.
    """
    now, before, floor = batch.tally.counts[name][:-1], profile.rows, _FLOORS["labels"]
    n, m = float(now.sum()), profile.n
    shares = [Trait("share", (name,), label) for label in profile.followed]
    scale = batch.scale(*shares, rows=n)
    squares, freedom = homogeneity(before, now)
    rows, chance = 4 * n * m / max(n + m, 1), freedom * scale.effect
    size = float(np.sqrt(max(squares - chance, 0.0) / rows)) if rows else float("nan")
    yield Finding(
        columns=(name,),
        level="rows",
        kind="labels",
        statistic=size,
        p_value=_rao_scott(squares, freedom, scale),
        floor=floor,
        reach=_rao_scott(chance + rows * floor**2, freedom, scale),
        since=max((batch.since.get(trait, 1) for trait in shares), default=1),
    )
    yield _unseen_test(batch, name, profile)


def _rao_scott(squares: float, freedom: int, scale: Scale) -> float:
    """Test chi-square over the design effect (Rao & Scott 1981, J. Am. Stat. Assoc. 76)."""
    if not np.isfinite(squares):
        return float("nan")
    if freedom == 0:
        return 1.0
    if np.isinf(scale.freedom):
        return float(special.chdtrc(freedom, squares / scale.effect))
    ratio = squares / scale.effect / freedom
    return float(special.fdtrc(freedom, freedom * scale.freedom, ratio))


def _unseen_test(batch: Judged, name: str, profile: CategoricalProfile) -> Finding:
    """Test how many rows hold labels that the reference never held, beyond the expected share."""
    n, unseen = int(batch.tally.known(name)), int(batch.tally.counts[name][-1])
    singletons = int((profile.rows == 1).sum())
    expected, floor = singletons / max(profile.n, 1), _FLOORS["unseen"]
    chances = [
        novelty_p(unseen=count, n_current=n, singletons=singletons, n_reference=profile.n)
        for count in (unseen, int(np.ceil((expected + floor) * n)))
    ]
    ruler = batch.reference.usual.novelty_rulers[name]
    levels = _scaled(chances, ruler, n, batch.reference.block_rows)
    size = max(unseen / max(n, 1) - expected, 0.0)
    return Finding((name,), "rows", "unseen", size, levels[0], floor, levels[1])


def _missing_test(batch: Judged, name: str) -> Finding:
    profile, floor = batch.reference.columns[name], _FLOORS["missing"]
    trait = Trait("missing", (name,))
    n, rows = batch.tally.rows, profile.n + profile.missing
    missing, share = n - round(batch.tally.known(name)), profile.missing / max(rows, 1)
    near = [round((share + step * floor) * n) for step in (1, -1)]
    counts = np.asarray([missing, *(count for count in near if 0 <= count <= n)])
    chances = proportions_p(
        reference=profile.missing, n_reference=rows, current=counts, n_current=n
    )
    seen = (
        0.0 if name in batch.tally.absent and n else chances[0]
    )  # a missing column is a fact, not a sample
    levels = np.asarray([seen, chances[1:].max(initial=0.0)])
    size = missing / max(n, 1) - share
    return batch.found(name, "missing", size, levels, batch.scale(trait, rows=n), trait=trait)


def _pair_tests(batch: Judged) -> Iterator[Finding]:
    """Test each pair of columns by its most significant pair of scores.

    The p-value is corrected for the number of pairs of scores that the columns have.
    """
    reference, n, m = batch.reference, len(batch.tally.cells), len(batch.reference.cells)
    i, j, starts = reference.normal_scores.pairs
    if not len(i) or min(n, m) < _FEWEST_PAIRS:
        return
    change, p_values, reach = _correlations(batch, i, j)
    tests = np.add.reduceat(np.isfinite(p_values).astype(int), starts)
    filled = np.where(np.isfinite(p_values), p_values, 2.0)
    ends = np.append(starts[1:], len(i))
    most = [
        start + int(filled[start:end].argmin()) for start, end in zip(starts, ends, strict=True)
    ]
    # Pairs of columns are in the order of their traits.
    kept = reference.traits.of_kind("correlation")
    ruler = reference.usual.ruler
    traits = [trait for trait in reference.traits.all if trait.kind == "correlation"]
    scale = {
        "effect": grown(ruler.effect[kept], n=n, n_block=min(reference.block_rows, SAMPLE)),
        "freedom": ruler.freedom[kept],
    }
    seen = calibrated(np.minimum(filled[most], 1.0), **scale) * tests
    floors = calibrated(np.minimum(np.add.reduceat(reach, starts), 1.0), **scale)
    blocks = len(reference.blocks) >= FEWEST_BLOCKS
    tested = (tests > 0) & (ruler.measured[kept] | (not blocks))
    p_values = np.where(tested, np.minimum(seen, 1.0), np.nan)
    for trait, k, p_value, chance in zip(
        traits, most, p_values.tolist(), floors.tolist(), strict=True
    ):
        yield Finding(
            columns=trait.columns,
            level="rows",
            kind="correlation",
            statistic=float(change[k]),
            p_value=p_value,
            floor=_FLOORS["correlation"],
            reach=chance,
            since=batch.since.get(trait, 1),
        )


def _correlations(
    batch: Judged, i: NDArray[np.intp], j: NDArray[np.intp]
) -> tuple[Floats, Floats, Floats]:
    """Change of the correlation of pairs of scores; textbook chances of it and of the floor."""
    scores, n, m = batch.reference.normal_scores, len(batch.tally.cells), len(batch.reference.cells)
    before, now = batch.reference.usual.correlation(i, j), batch.tally.correlation[i, j]
    error = np.sqrt(scores.variance[i, j] * (1 / (n - 3) + 1 / (m - 3)))
    skewness = scores.skewness[i] * scores.skewness[j] * difference_skewness(n, m)
    with np.errstate(invalid="ignore", divide="ignore"):
        z = (fisher(now) - fisher(before)) / error
        slope = 1 - np.minimum(np.abs(before), LARGEST_CORRELATION) ** 2
        floor = _FLOORS["correlation"] / (slope * error)
    rare = scores.rarest[i] * scores.rarest[j] * min(n, m) < RARE_PAIRS
    p_values = np.where(rare, np.nan, mean_p(z, skewness=skewness))
    reach = np.where(np.isfinite(p_values), mean_p(floor, skewness=skewness), 0.0)
    return now - before, p_values, reach


def _joint_test(batch: Judged) -> Finding:
    reference, rows, floor = batch.reference, batch.tally.rows, _FLOORS["joint"]
    mean = reference.usual.locations(batch.summary)
    size, *chances = reference.usual.joint(mean, rows, floor=floor)
    levels = _scaled(chances, reference.usual.joint_ruler, rows, reference.block_rows)
    order = np.argsort(-np.abs(mean), kind="stable")[:3]
    most = tuple(reference.usual.numeric[i] for i in order)
    return Finding(most, "rows", "joint", size, levels[0], floor, levels[1])


def _classifier_test(batch: Judged) -> Finding:
    reference, cells, floor = batch.reference, batch.tally.cells, _FLOORS["classifier"]
    ranks = reference.ranks(cells[:CLASSIFIED])
    found = separate(reference.ranked, ranks, seed=reference.seed)
    chances = [found.p_value, found.chance(floor)]
    block = min(reference.block_rows, SAMPLE)
    levels = _scaled(chances, reference.usual.classifier_ruler, len(cells), block)
    columns = tuple(reference.names[reference.features[i]] for i in found.columns)
    return Finding(columns, "rows", "classifier", found.area - 0.5, levels[0], floor, levels[1])


def _scaled(
    chances: list[float], ruler: Yardstick, rows: float, block_rows: float
) -> tuple[float, float]:
    effect = grown(ruler.effect, n=rows, n_block=block_rows)
    seen, reach = calibrated(np.asarray(chances), effect=effect, freedom=ruler.freedom)
    return float(seen), float(reach)
