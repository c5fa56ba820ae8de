"""The numbers that describe a batch, and how summaries become matrices for tests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pipeline.columns import Floats
from pipeline.reference.normal_scores import NormalScores, fisher
from pipeline.reference.profile import (
    CategoricalProfile,
    NumericProfile,
    Profile,
    largest_excess,
)
from pipeline.reference.sampling import SAMPLE
from pipeline.reference.summaries import ROWS, Kind, Summary, Trait
from pipeline.reference.tally import Tally
from pipeline.reference.variation import Observed, Units

RARE_PAIRS = 25
"""Expected rows with the rarer value of both columns that a correlation needs."""
_SMALLEST_SPREAD = 1e-6


@dataclass(frozen=True)
class Traits:
    """All traits that batches are tested by, and how summaries become matrices.

    Attributes
    ----------
    profiles : dict of str to Profile
        Profile of each column, in alphabetical order of the columns.
    normal_scores : NormalScores
        Normal scores of the features among the columns.
    """

    profiles: Mapping[str, Profile]
    normal_scores: NormalScores

    @cached_property
    def all(self) -> list[Trait]:
        """The tested traits, in alphabetical order of columns, correlations last."""
        traits = []
        for name, profile in self.profiles.items():
            traits.append(Trait("missing", (name,)))
            if isinstance(profile, CategoricalProfile):
                traits += [Trait("share", (name,), label) for label in profile.followed]
            elif profile.normal_scores.any():
                traits.append(Trait("location", (name,)))
                traits.append(Trait("spread", (name,)))
        names = list(self.profiles)
        column = self.normal_scores.columns
        return traits + [
            Trait("correlation", (names[column[one]], names[column[other]]))
            for one, other in zip(
                *(side.tolist() for side in self.normal_scores.followed), strict=True
            )
        ]

    def summarise(self, tally: Tally) -> Summary:
        """Describe a batch as one observation.

        Beside the tested traits, a summary holds numbers that faults are recognised by: the
        largest excess of the share of a value (`atom`), the share of rows that repeat another
        row (`copies`), the share of the most frequent row (`repeats`), how numbers continue from
        row to row (`strays`, `step`, `even`), and the rows of the longest stretch of one value
        and of the longest without a value (`stretch`, `gap`). Only the last five depend on the
        order of the rows.

        Locations are means of normal scores, in standard deviations of the reference; spreads
        are standard deviations of these scores. Undefined values are left out.
        """
        summary = Summary({ROWS: float(tally.rows)})
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
        for name, found in tally.stretches.items():
            summary[Trait("stretch", (name,))] = float(found.value.rows)
            summary[Trait("gap", (name,))] = float(found.missing.rows)
        if len(tally.repeats):
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
        """Turn summaries into rows of a matrix, with one column per trait, on additive scales.

        Correlations become Fisher's z and spreads the excess of the variance over 1. A
        correlation is NaN where too few rows hold the rarer value for it to be nearly normal.
        """
        values = np.asarray(
            [[summary.get(trait, np.nan) for trait in self.all] for summary in summaries],
            dtype=np.float64,
        ).reshape(len(summaries), len(self.all))
        pairs, spreads = self.of_kind("correlation"), self.of_kind("spread")
        values[:, spreads] = np.log(np.maximum(values[:, spreads], _SMALLEST_SPREAD))
        values = self.vectors_of(values)
        few = np.zeros(values.shape, dtype=bool)
        rarest = self.normal_scores.rarest[list(self.normal_scores.followed)].prod(axis=0)
        few[:, pairs] = self.rows_behind(summaries)[:, pairs] * rarest < RARE_PAIRS
        return np.where(few, np.nan, values)

    def observed(self, summaries: Sequence[Summary]) -> Observed:
        """Turn summaries into observations: their `vectors` and the rows behind each entry."""
        return Observed(self.vectors(summaries), self.rows_behind(summaries))

    def vectors_of(self, effects: Floats) -> Floats:
        """Turn effects into `vectors`: correlations into Fisher's z, log spreads into variances."""
        values = effects.copy()
        pairs, spreads = self.of_kind("correlation"), self.of_kind("spread")
        values[:, pairs] = fisher(effects[:, pairs])
        values[:, spreads] = np.expm1(2 * effects[:, spreads])
        return values

    def effects(self, vectors: Floats) -> Floats:
        """Turn `vectors` into effects, which floors are compared with; inverts `vectors_of`."""
        values = vectors.copy()
        pairs, spreads = self.of_kind("correlation"), self.of_kind("spread")
        values[:, pairs] = np.tanh(vectors[:, pairs])
        values[:, spreads] = np.log(np.maximum(1 + vectors[:, spreads], _SMALLEST_SPREAD**2)) / 2
        return values

    def of_kind(self, kind: Kind) -> NDArray[np.bool_]:
        """Mark the traits of a kind, shape (n_traits,)."""
        return np.asarray([trait.kind == kind for trait in self.all], dtype=bool)

    def rows_behind(self, summaries: Sequence[Summary]) -> Floats:
        """Number of rows behind each entry of `vectors`; never below 0.5."""
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
        """Variance and skewness that a single row contributes to each column of `vectors`."""
        pairs = self.normal_scores.of_leading(self.normal_scores.variance)
        skews = self.normal_scores.skewness[list(self.normal_scores.followed)].prod(axis=0)
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
    """Variance and skewness of one row's contribution to a trait of one column.

    Elementary: of a share p, a row counts 1 with the chance p and else 0, which has the variance
    p (1 - p) and the skewness (1 - 2 p) / root(p (1 - p)).
    """
    if isinstance(profile, NumericProfile) and trait.kind == "location":
        return 1.0, profile.moments.skewness
    if isinstance(profile, NumericProfile) and trait.kind == "spread":
        return profile.moments.square_variance, profile.moments.square_skewness
    if isinstance(profile, CategoricalProfile) and trait.kind == "share":
        share, n = profile.counts[trait.label] / profile.n, profile.n
    else:
        n = profile.n + profile.missing
        share = profile.missing / max(n, 1)
    # As if at least one row had the rarer outcome.
    share = np.clip(share, 1 / max(n, 2), 1 - 1 / max(n, 2))
    variance = share * (1 - share)
    return variance, (1 - 2 * share) / np.sqrt(variance)
