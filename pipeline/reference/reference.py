"""The frozen description of the training rows, with which live batches are compared.

It holds a profile per column, a sample of the rows, and a summary of each block as long as a
live batch, which shows how much ordinary batches differ.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.columns import as_number, require
from pipeline.config import Columns, Numeric
from pipeline.reference.blocks import NO_BLOCK, cut, novelties, numbered
from pipeline.reference.classifier import CLASSIFIED, separate
from pipeline.reference.identities import COLUMNS, Identity, find, kept_by_both
from pipeline.reference.merging import merged_profiles, merged_sample, rescored
from pipeline.reference.normal_scores import NormalScores
from pipeline.reference.pairs import Followed, choose, in_both, too_many
from pipeline.reference.profile import (
    CategoricalProfile,
    Cells,
    NumericProfile,
    Profile,
)
from pipeline.reference.sampling import canonical, draw, label_counts, read_codes, sketch, to_cells
from pipeline.reference.summaries import ROWS, Summary
from pipeline.reference.tally import Tally, count_batch
from pipeline.reference.traits import Traits
from pipeline.reference.usual import Usual

_CLASSIFIED_BLOCKS = 12
"""Most blocks that the classifier is tried on, spread over the reference."""


@dataclass(frozen=True)
class Reference:
    """Frozen description of the training rows.

    Attributes
    ----------
    rows : int
        Number of training rows.
    columns : dict of str to Profile
        Profile of each column, in declared order.
    blocks : tuple of Summary
        Summary of each block of a live batch's length, oldest first; empty when no length was
        given.
    separations : tuple of float
        For some blocks, p-value of a classifier that separates the block from the other rows.
    novelties : dict of str to tuple of float
        For each categorical column, p-value of each block for labels that no other block holds.
    sample : bytes
        Cells of rows drawn at random, 16 bits each, columns in alphabetical order.
    sample_blocks : bytes
        Block number of each row of the sample, 16 bits each; `NO_BLOCK` for no block.
    prediction : tuple of str
        The columns that hold the model's prediction; classifier and pairs leave them out.
    followed : tuple of pairs of str, or None
        The pairs of columns whose correlation is followed; None for all pairs.
    identities : tuple of Identity
        Arithmetic of columns that the rows obey.
    derived : dict
        What others compute from the reference once, by name; not stored.
    seed : int
        Random seed of the samples and of the classifier.
    """

    rows: int
    columns: dict[str, Profile]
    blocks: tuple[Summary, ...]
    separations: tuple[float, ...] = ()
    novelties: dict[str, tuple[float, ...]] = field(default_factory=dict)
    sample: bytes = field(default=b"", repr=False)
    sample_blocks: bytes = field(default=b"", repr=False)
    prediction: tuple[str, ...] = ()
    followed: Followed = None
    identities: tuple[Identity, ...] = ()
    derived: dict[Any, Any] = field(default_factory=dict, init=False, compare=False, repr=False)
    seed: int = 0

    @classmethod
    def fit(
        cls,
        frame: pd.DataFrame,
        columns: Columns,
        *,
        time: str | pd.Series | None = None,
        block: str | pd.Timedelta | int | None = None,
        seed: int = 0,
        prediction: tuple[str, ...] = (),
        importance: Mapping[str, float] | None = None,
    ) -> "Reference":
        """Describe training rows.

        Parameters
        ----------
        frame : DataFrame
            Training rows, with at least the declared columns.
        columns : dict of str to Column
            Declared columns.
        time : str or Series, optional
            Column or times that order the rows; by default they keep the order they have.
        block : str, Timedelta or int, optional
            Length of a live batch: a length of time (needs `time`) or a number of rows.
        seed : int
            Random seed of the stored sample and of the classifier.
        prediction : tuple of str
            The declared columns that hold the model's prediction.
        importance : mapping of str to float, optional
            How much the model relies on each column. With too many columns for all pairs to be
            followed, those of the most important columns are followed first.

        Raises
        ------
        DataError
            If declared columns are missing or a name occurs twice.
        """
        moments = frame[time] if isinstance(time, str) else time

        def blocks(order: NDArray[np.intp]) -> list[NDArray[np.intp]]:
            parts = cut(moments, block, order)
            if moments is None:
                return parts
            at = moments.to_numpy()  # rows of a block go on as they came about, however they lie
            return [part[np.argsort(at[part], kind="stable")] for part in parts]

        return cls.describe(
            frame,
            columns,
            blocks=blocks,
            seed=seed,
            prediction=prediction,
            importance=importance,
        )

    @classmethod
    def describe(
        cls,
        frame: pd.DataFrame,
        columns: Columns,
        *,
        blocks: Callable[[NDArray[np.intp]], list[NDArray[np.intp]]],
        seed: int = 0,
        prediction: tuple[str, ...] = (),
        sampled: bool = False,
        importance: Mapping[str, float] | None = None,
    ) -> "Reference":
        """Describe rows whose blocks are known.

        Parameters
        ----------
        frame, columns, seed, prediction, importance
            As of `fit`.
        blocks : callable
            From the rows' places in canonical order to those of each block.
        sampled : bool
            Whether the rows are a sample of each block: its order and repeats tell nothing, and the
            classifier, which takes most of the time, is not tried.

        Raises
        ------
        DataError
            If declared columns are missing or a name stands twice.
        """
        require(frame, list(columns))
        profiles: dict[str, Profile] = {
            name: NumericProfile.fit(as_number(frame[name]).to_numpy())
            if isinstance(column, Numeric)
            else CategoricalProfile.fit(*label_counts(frame[name]))
            for name, column in columns.items()
        }
        codes = read_codes(frame, profiles)
        order = canonical(frame, profiles, codes)
        chosen = order[draw(len(frame), seed)]
        sample = to_cells(frame, profiles, codes, chosen).tobytes()
        parts = blocks(order)
        whole = cls(
            rows=len(frame),
            columns=profiles,
            blocks=(),
            sample=sample,
            sample_blocks=numbered(parts, len(frame))[chosen].tobytes(),
            prediction=prediction,
            seed=seed,
        )
        whole = whole.following(importance or {})
        if not sampled:  # a sample may hold quantiles in place of its values
            whole = whole.obeying(frame.iloc[chosen], importance or {})
        every = max(1, -(-len(parts) // _CLASSIFIED_BLOCKS))
        summaries, separations = [], []
        for number, part in enumerate(parts):  # one by one, as the tally of a wide block is large
            tally = whole.tally(frame.iloc[part], sampled=sampled)
            summaries.append(whole.summarise(tally))
            if not sampled and number % every == 0:
                others = whole.ranks(whole.cells[~np.isin(chosen, part)][:CLASSIFIED])
                own = whole.ranks(tally.cells[:CLASSIFIED])
                separations.append(separate(others, own, seed=seed).p_value)
        return whole.with_blocks(
            summaries,
            separations=tuple(separations),
            novelties={name: novelties(codes[name][0], parts) for name in sorted(codes)},
        )

    def with_blocks(self, blocks: Sequence[Summary], **others: Any) -> "Reference":
        """Copy that keeps what was computed from columns and sample."""
        found = replace(self, blocks=tuple(blocks), **others)
        known = {"names", "features", "cells", "cell_blocks", "normal_scores", "traits"}
        vars(found).update({name: vars(self)[name] for name in known & vars(self).keys()})
        return found

    def following(self, importance: Mapping[str, float]) -> "Reference":
        """The reference with the pairs of columns to follow chosen, if it has too many pairs."""
        if not too_many(len(self.features)):
            return self
        scores = replace(self, followed=()).normal_scores
        names = [self.names[scores.columns[i]] for i in scores.leading]
        one, other = choose(
            scores.correlation[np.ix_(scores.leading, scores.leading)],
            np.asarray([max(importance.get(name, 0.0), 0.0) for name in names]),
            rows=len(self.cells),
        )
        return replace(
            self, followed=tuple((names[i], names[j]) for i, j in zip(one, other, strict=True))
        )

    def obeying(self, rows: pd.DataFrame, importance: Mapping[str, float]) -> "Reference":
        """The reference with the arithmetic that the rows of its sample obey, as they came."""
        features = (self.names[i] for i in self.features)
        numeric = [x for x in features if isinstance(self.columns[x], NumericProfile)]
        numeric.sort(key=lambda name: -importance.get(name, 0.0))
        most = numeric[:COLUMNS]
        values = {name: as_number(rows[name]).to_numpy(dtype=np.float64) for name in most}
        return replace(self, identities=find(values, self.cell_blocks))

    @cached_property
    def names(self) -> list[str]:
        """Columns in alphabetical order, so that no result depends on the declared order."""
        return sorted(self.columns)

    @cached_property
    def features(self) -> list[int]:
        """Places in `names` of the columns that the model takes: all but the prediction."""
        return [i for i, name in enumerate(self.names) if name not in self.prediction]

    @cached_property
    def cells(self) -> Cells:
        """Cells of the stored sample, shape (n_rows, n_columns)."""
        flat = np.frombuffer(self.sample, dtype="<u2")
        return flat.reshape(-1, len(self.columns)) if self.columns else flat.reshape(0, 0)

    @cached_property
    def cell_blocks(self) -> Cells:
        """Block number of each row of `cells`; `NO_BLOCK` for no block."""
        return np.frombuffer(self.sample_blocks, dtype="<u2")

    def ranks(self, cells: Cells, places: Sequence[int] | None = None) -> NDArray[np.float32]:
        """Turn cells into ranks of columns for a classifier, shape (n_rows, n_places).

        The columns are given by their places in `names`; by default they are the features.
        """
        places = self.features if places is None else places
        ranks = np.empty((len(cells), len(places)), dtype=np.float32)
        for j, i in enumerate(places):
            ranks[:, j] = self.columns[self.names[i]].ranks(cells[:, i])
        return ranks

    @cached_property
    def ranked(self) -> NDArray[np.float32]:
        """Ranks of the stored sample, as a classifier sees it."""
        return self.ranks(self.cells[:CLASSIFIED])

    @cached_property
    def normal_scores(self) -> NormalScores:
        """Normal scores of the sample, from which correlations and joint shifts are computed."""
        profiles = {i: self.columns[self.names[i]] for i in self.features}
        if self.followed is None:
            return NormalScores.fit(profiles, self.cells)
        place = {name: i for i, name in enumerate(self.names)}
        pairs = [(place[one], place[other]) for one, other in self.followed]
        one, other = np.asarray(pairs, dtype=np.intp).reshape(-1, 2).T
        return NormalScores.fit(profiles, self.cells, (one, other))

    @cached_property
    def traits(self) -> Traits:
        """All traits that batches are tested by."""
        return Traits({name: self.columns[name] for name in self.names}, self.normal_scores)

    @cached_property
    def usual(self) -> Usual:
        """How ordinary batches differ, as the blocks show."""
        return Usual(
            self.traits,
            self.normal_scores,
            self.blocks,
            self.separations,
            self.novelties,
            features=self.names,
            rows=self.rows,
            sampled=len(self.cells),
        )

    @cached_property
    def block_rows(self) -> float:
        """Rows of the median block; 1 without blocks."""
        return float(np.median([block[ROWS] for block in self.blocks])) if self.blocks else 1.0

    def tally(self, frame: pd.DataFrame, *, sampled: bool = False) -> Tally:
        """Count the rows of a batch, or of a sample of one, whose order tells nothing.

        Raises
        ------
        DataError
            If a column name occurs twice.
        """
        own = None if sampled else [self.names[i] for i in self.features]
        return count_batch(frame, self.columns, self.normal_scores, features=own, seed=self.seed)

    def summarise(self, batch: pd.DataFrame | Tally) -> Summary:
        """Describe a batch, rows or their tally, as one observation; rows leave a sketch."""
        if isinstance(batch, Tally):
            return self.traits.summarise(batch)
        rows = sketch(batch, self.columns, self.seed)
        return Summary(self.traits.summarise(self.tally(batch)), sketch=rows)

    def merge(self, other: "Reference") -> "Reference":
        """Merge with the reference of newer rows.

        Counts are exact, distributions to the steps of their grids. The summaries of the blocks
        are converted to the normal scores of the merged reference. The sample is drawn from both
        samples in proportion to their rows.

        Raises
        ------
        DataError
            If the two references do not describe the same columns.
        """
        both = (self, other)
        columns = merged_profiles(self.columns, other.columns)
        later = np.where(
            other.cell_blocks == NO_BLOCK, NO_BLOCK, other.cell_blocks + np.uint16(len(self.blocks))
        )
        sample, numbers = merged_sample(
            [side.cells for side in both],
            [self.cell_blocks, later.astype("<u2")],
            [side.rows for side in both],
            [side.columns for side in both],
            columns,
            seed=self.seed,
        )
        return replace(
            self,
            rows=self.rows + other.rows,
            columns=columns,
            blocks=tuple(
                rescored(block, side.columns, columns) for side in both for block in side.blocks
            ),
            separations=self.separations + other.separations,
            novelties={
                name: known + other.novelties[name] for name, known in self.novelties.items()
            },
            sample=sample.tobytes(),
            sample_blocks=numbers.tobytes(),
            followed=in_both(self.followed, other.followed),
            identities=kept_by_both(self.identities, other.identities),
        )
