"""The numbers that batches are tested by, as rows of a matrix."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from pipeline.reference.normal_scores import NormalScores, fisher
from pipeline.reference.profile import (
    CategoricalProfile,
    Floats,
    NumericProfile,
    Profile,
    largest_excess,
)
from pipeline.reference.sampling import SAMPLE
from pipeline.reference.summaries import ROWS, Kind, Summary, Trait
from pipeline.reference.tally import Tally
from pipeline.reference.variation import Observed, Units

RARE_PAIRS = 25
"""Expected rows of the rarer value of both columns below which a batch has no correlation."""
_SMALLEST_SPREAD = 1e-6


@dataclass(frozen=True)
class Traits:
    """Every number that batches are tested by, and how summaries become matrices.

    Attributes
    ----------
    profiles : dict of str to Profile
        By column, in alphabetical order.
    normal_scores : NormalScores
        Of the features among them.
    """

    profiles: Mapping[str, Profile]
    normal_scores: NormalScores

    @cached_property
    def all(self) -> list[Trait]:
        """In alphabetical order of columns, correlations last."""
        traits = []
        for name, profile in self.profiles.items():
            traits.append(Trait("missing", (name,)))
            if isinstance(profile, CategoricalProfile):
                traits += [Trait("share", (name,), label) for label in profile.followed]
            elif profile.normal_scores.any():
                traits.append(Trait("location", (name,)))
                traits.append(Trait("spread", (name,)))
        names = list(self.profiles)
        leading = [names[self.normal_scores.columns[i]] for i in self.normal_scores.leading]
        return traits + [Trait("correlation", pair) for pair in combinations(leading, 2)]

    def summarise(self, tally: Tally) -> Summary:
        """Describe a batch as one observation.

        Beside the numbers that are tested, a summary holds what faults are recognised by: the
        largest excess of the share of one value (`atom`), the shares of rows that repeat another
        row and of the most frequent row, and how numbers go on from row to row (`strays`, `step`,
        `even`), which alone depends on the order of the rows.

        Locations are means of normal scores, in standard deviations of the reference; spreads
        are standard deviations of these scores. A value that is undefined (no row) is left out.
        """
        summary: Summary = {ROWS: float(tally.rows)}
        if tally.rows == 0:
            return summary
        correlations = iter(self.normal_scores.of_leading(tally.correlation))
        for trait in self.all:
            value = next(correlations) if trait.kind == "correlation" else self._value(trait, tally)
            if np.isfinite(value):
                summary[trait] = float(value)
        for name, profile in self.profiles.items():
            summary[Trait("atom", (name,))] = largest_excess(profile, tally.counts[name])
        for name, order in tally.order.items():
            summary[Trait("strays", (name,))] = order.strays
            summary[Trait("step", (name,))] = order.step
            summary[Trait("even", (name,))] = order.even
        summary[Trait("copies")] = 1 - len(tally.repeats) / tally.rows
        summary[Trait("repeats")] = float(tally.repeats[0] / tally.rows)
        return summary

    def _value(self, trait: Trait, tally: Tally) -> float:
        (name,) = trait.columns
        profile, counts, known = self.profiles[name], tally.counts[name], tally.known(name)
        if trait.kind == "missing":
            return 1 - known / tally.rows
        if known == 0:
            return float("nan")
        if isinstance(profile, CategoricalProfile):
            return float(counts[list(profile.counts).index(trait.label)] / known)
        if trait.kind == "location":
            return float(counts @ profile.normal_scores) / known
        return float(np.sqrt(profile.variance(counts)))

    def vectors(self, summaries: Sequence[Summary]) -> Floats:
        """Summaries as rows of a matrix, one column per trait, on scales that add up.

        Correlations become Fisher's z and spreads the excess of the variance. A correlation
        with too few rows of the rarer value to be near normal is NaN.
        """
        values = np.asarray(
            [[summary.get(trait, np.nan) for trait in self.all] for summary in summaries],
            dtype=np.float64,
        ).reshape(len(summaries), len(self.all))
        pairs, spreads = self.of_kind("correlation"), self.of_kind("spread")
        values[:, spreads] = np.log(np.maximum(values[:, spreads], _SMALLEST_SPREAD))
        values = self.vectors_of(values)
        few = np.zeros(values.shape, dtype=bool)
        rarest = self.normal_scores.of_leading(
            np.outer(self.normal_scores.rarest, self.normal_scores.rarest)
        )
        few[:, pairs] = self.rows_behind(summaries)[:, pairs] * rarest < RARE_PAIRS
        return np.where(few, np.nan, values)

    def observed(self, summaries: Sequence[Summary]) -> Observed:
        """Summaries as observations, `vectors` with the rows behind them."""
        return Observed(self.vectors(summaries), self.rows_behind(summaries))

    def vectors_of(self, effects: Floats) -> Floats:
        """Correlations as Fisher's z, logarithms of spreads as the excess of the variance."""
        values = effects.copy()
        pairs, spreads = self.of_kind("correlation"), self.of_kind("spread")
        values[:, pairs] = fisher(effects[:, pairs])
        values[:, spreads] = np.expm1(2 * effects[:, spreads])
        return values

    def effects(self, vectors: Floats) -> Floats:
        """The inverse of `vectors_of`: what floors are compared with."""
        values = vectors.copy()
        pairs, spreads = self.of_kind("correlation"), self.of_kind("spread")
        values[:, pairs] = np.tanh(vectors[:, pairs])
        values[:, spreads] = np.log(np.maximum(1 + vectors[:, spreads], _SMALLEST_SPREAD**2)) / 2
        return values

    def of_kind(self, kind: Kind) -> NDArray[np.bool_]:
        """Which traits are of a kind."""
        return np.asarray([trait.kind == kind for trait in self.all], dtype=bool)

    def rows_behind(self, summaries: Sequence[Summary]) -> Floats:
        """Rows behind each entry of `vectors`."""
        rows = np.asarray([[summary[ROWS]] for summary in summaries]).reshape(-1, 1)
        missing = np.asarray(
            [
                [
                    0.0
                    if trait.kind in ("missing", "correlation")
                    else summary.get(Trait("missing", trait.columns), 0.0)
                    for trait in self.all
                ]
                for summary in summaries
            ]
        ).reshape(len(summaries), len(self.all))
        paired = self.of_kind("correlation")
        known = np.where(paired, np.minimum(rows, SAMPLE) - 3, rows * (1 - missing))
        sizes: Floats = np.maximum(known, 0.5)
        return sizes

    @cached_property
    def units(self) -> Units:
        """What one row contributes to each of `vectors`."""
        pairs = self.normal_scores.of_leading(self.normal_scores.variance)
        skews = self.normal_scores.of_leading(
            np.outer(self.normal_scores.skewness, self.normal_scores.skewness)
        )
        correlated = iter(zip(pairs, skews, strict=True))
        found = [
            next(correlated)
            if trait.kind == "correlation"
            else _unit(trait, self.profiles[trait.columns[0]])
            for trait in self.all
        ]
        variance, skewness = np.asarray(found, dtype=np.float64).reshape(-1, 2).T
        return Units(variance, skewness)


def _unit(trait: Trait, profile: Profile) -> tuple[float, float]:
    """Variance and skewness of one row's contribution to a trait of one column."""
    if isinstance(profile, NumericProfile) and trait.kind == "location":
        return 1.0, profile.moments.skewness
    if isinstance(profile, NumericProfile) and trait.kind == "spread":
        return profile.moments.square_variance, profile.moments.square_skewness
    if isinstance(profile, CategoricalProfile) and trait.kind == "share":
        share, n = profile.counts[trait.label] / profile.n, profile.n
    else:
        n = profile.n + profile.missing
        share = profile.missing / max(n, 1)
    share = np.clip(share, 1 / max(n, 2), 1 - 1 / max(n, 2))  # one row, where there was none
    variance = share * (1 - share)
    return variance, (1 - 2 * share) / np.sqrt(variance)
