"""The numbers that batches are tested by, as rows of a matrix."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from pipeline.reference.normal_scores import NormalScores, fisher
from pipeline.reference.profile import CategoricalProfile, Floats, NumericProfile, Profile
from pipeline.reference.sampling import SAMPLE
from pipeline.reference.summaries import ROWS, Kind, Summary, Trait
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
    scores : NormalScores
        Of the features among them.
    """

    profiles: Mapping[str, Profile]
    scores: NormalScores

    @cached_property
    def all(self) -> list[Trait]:
        """In alphabetical order of columns, correlations last."""
        traits = []
        for name, profile in self.profiles.items():
            traits.append(Trait("missing", (name,)))
            if isinstance(profile, CategoricalProfile):
                traits += [Trait("share", (name,), label) for label in profile.followed]
            elif profile.scores.any():
                traits.append(Trait("location", (name,)))
                traits.append(Trait("spread", (name,)))
        names = list(self.profiles)
        leading = [names[self.scores.columns[i]] for i in self.scores.leading]
        return traits + [Trait("correlation", pair) for pair in combinations(leading, 2)]

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
        rarest = self.scores.of_leading(np.outer(self.scores.rarest, self.scores.rarest))
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
        pairs = self.scores.of_leading(self.scores.variance)
        skews = self.scores.of_leading(np.outer(self.scores.skewness, self.scores.skewness))
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
