"""What is usual: how ordinary batches differ, as the blocks of a reference show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from pipeline.columns import Floats
from pipeline.reference.joint import JointShift, joint_shift
from pipeline.reference.normal_scores import NormalScores
from pipeline.reference.summaries import ROWS, Summary, Trait
from pipeline.reference.traits import Traits
from pipeline.reference.variation import (
    FEWEST_BLOCKS,
    Observed,
    Units,
    Yardstick,
    chi_square_yardstick,
    yardstick,
)

_LEAST_VARIANCE = 1e-6


@dataclass(frozen=True, eq=False)
class Usual:
    """How the blocks of a reference differ from one another.

    Attributes
    ----------
    traits : Traits
        All traits that batches are tested by.
    scores : NormalScores
        Normal scores of the sampled rows.
    blocks : sequence of Summary
        The blocks, oldest first.
    separations : sequence of float
        For some blocks, p-value of a classifier that separates the block from the other rows.
    novelties : mapping of str to sequence of float
        For each categorical column, p-value of each block for labels that no other block holds.
    features : sequence of str
        Columns in alphabetical order.
    rows, sampled : int
        Training rows, and those of them whose scores were computed.
    """

    traits: Traits
    scores: NormalScores
    blocks: Sequence[Summary]
    separations: Sequence[float]
    novelties: Mapping[str, Sequence[float]]
    features: Sequence[str]
    rows: int
    sampled: int

    @cached_property
    def observed(self) -> Observed:
        """The reference's blocks as observations."""
        return self.traits.observed(self.blocks)

    def variance(self, name: str) -> float:
        """Variance of a numeric column's normal scores within a block, 1 where rows are one pool.

        That of the whole reference holds the differences between blocks as well, so that a batch
        like every block would be narrower than it. Without `FEWEST_BLOCKS` blocks it is 1.
        """
        place = self._places.get(Trait("spread", (name,)))
        if place is None or self.observed.count[place] < FEWEST_BLOCKS:
            return 1.0
        rows = float(self.observed.usual_size[place])
        excess = float(self.observed.weighted_mean[place])
        return max((1 + excess) * rows / max(rows - 1, 1), _LEAST_VARIANCE)

    def correlation(self, one: NDArray[np.intp], other: NDArray[np.intp]) -> Floats:
        """Correlation of pairs of scores within a block, shape (n_pairs,), by their places.

        The mean of the blocks in Fisher's z, for pairs that blocks hold; that of all rows for
        other labels of the two columns, and without `FEWEST_BLOCKS` blocks.
        """
        usual: Floats = self.scores.correlation[one, other]
        kept = self.traits.of_kind("correlation")
        means = np.tanh(self.observed.weighted_mean[kept])
        known = np.isfinite(means) & (self.observed.count[kept] >= FEWEST_BLOCKS)
        left, right = (side[known] for side in self.scores.followed)
        mean = dict(
            zip(zip(left.tolist(), right.tolist(), strict=True), means[known].tolist(), strict=True)
        )
        pairs = zip(one.tolist(), other.tolist(), usual.tolist(), strict=True)
        return np.asarray([mean.get((a, b), value) for a, b, value in pairs])

    @cached_property
    def _places(self) -> dict[Trait, int]:
        return {trait: i for i, trait in enumerate(self.traits.all)}

    @cached_property
    def units(self) -> Units:
        """Variance and skewness that a single row contributes to each trait.

        The variance of a row's square is that of the usual variance, not of the pool's.
        """
        pooled, within = self.traits.units, np.ones(len(self.traits.all))
        for place, trait in enumerate(self.traits.all):
            if trait.kind == "spread":
                within[place] = self.variance(*trait.columns)
        return Units(pooled.variance * within**2, pooled.skewness)

    @cached_property
    def ruler(self) -> Yardstick:
        """How much ordinary batches differ in each trait."""
        traits = self.traits
        kinds = np.asarray([trait.kind for trait in traits.all])
        # Location and spread of a column are linked, and so are its shares.
        linked = [
            (*trait.columns, "shares" if trait.kind == "share" else "numbers")
            if trait.kind in {"location", "spread", "share"}
            else trait
            for trait in traits.all
        ]
        groups = pd.factorize(pd.Series(linked, dtype=object))[0]
        return yardstick(self.observed, self.units, kinds=kinds, groups=groups)

    @cached_property
    def joint_ruler(self) -> Yardstick:
        """How much ordinary batches differ in all locations together."""
        shifts = [
            self.joint(self.locations(block), block[ROWS], floor=0.0, inside=True)
            for block in self.blocks
        ]
        return _ruler_of([shift.p_value for shift in shifts])

    @cached_property
    def classifier_ruler(self) -> Yardstick:
        """How much the classifier's evidence varies between ordinary blocks."""
        return _ruler_of(self.separations)

    @cached_property
    def novelty_rulers(self) -> dict[str, Yardstick]:
        """How much the evidence of new labels varies between ordinary blocks, by column."""
        return {name: _ruler_of(p_values) for name, p_values in self.novelties.items()}

    def locations(self, summary: Summary) -> Floats:
        """Mean normal score of each numeric feature over all rows, a missing value counting 0."""
        return np.asarray(
            [
                summary.get(Trait("location", (name,)), 0.0)
                * (1 - summary.get(Trait("missing", (name,)), 0.0))
                for name in self.numeric
            ]
        )

    @cached_property
    def numeric(self) -> list[str]:
        """Names of the features that have normal scores, in the order of `locations`."""
        return [self.features[self.scores.columns[i]] for i in self.scores.numeric]

    def joint(
        self, locations: Floats, rows: float, *, floor: float, inside: bool = False
    ) -> JointShift:
        """Measure the shift of all locations of a batch together.

        Parameters
        ----------
        locations : array of float, shape (n_numeric,)
            Means of a batch, as `locations` gives them.
        rows : float
            Rows behind the means.
        floor : float
            Size of shift whose chance is asked for.
        inside : bool
            Whether the rows are part of the reference.
        """
        return joint_shift(
            locations,
            self.scores.axes(min(rows, self.sampled)),
            rows=rows,
            n_reference=self.rows,
            n_covariance=self.sampled,
            floor=floor,
            inside=inside,
        )


def _ruler_of(p_values: Sequence[float]) -> Yardstick:
    """Estimate the yardstick of one test from its p-values for the blocks."""
    finite = np.asarray([p for p in p_values if np.isfinite(p)])
    squares = special.chdtri(1, np.clip(finite, 1e-300, 1.0))
    return chi_square_yardstick(np.asarray([squares.sum()]), np.asarray([len(finite)]))
