"""The frozen description of the training rows, against which live batches are compared.

A profile per column, a sample of the rows, and the same few numbers for every block of a
live batch's length: how far apart two ordinary batches are.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from pipeline.columns import as_codes, as_number, require
from pipeline.config import Columns, Numeric
from pipeline.reference.blocks import NO_BLOCK, cut, novelties, numbered
from pipeline.reference.classifier import CLASSIFIED, separate
from pipeline.reference.joint import JointShift, joint_shift
from pipeline.reference.merging import carried, merged_profiles, merged_sample
from pipeline.reference.normal_scores import NormalScores
from pipeline.reference.profile import (
    CategoricalProfile,
    Cells,
    Floats,
    NumericProfile,
    Profile,
    profile_from_dict,
    profile_to_dict,
)
from pipeline.reference.sampling import canonical, draw, read_codes, to_cells
from pipeline.reference.summaries import (
    ROWS,
    Summary,
    Trait,
    summary_from_json,
    summary_to_json,
)
from pipeline.reference.tally import Tally, count_batch
from pipeline.reference.traits import Traits
from pipeline.reference.variation import Observed, Yardstick, chi_square_yardstick, yardstick

_CLASSIFIED_BLOCKS = 12
"""Blocks that the classifier is tried on, spread over the reference."""


@dataclass(frozen=True)
class Reference:
    """The training rows as live batches see them.

    Attributes
    ----------
    rows : int
        Rows described.
    columns : dict of str to Profile
        By name, in declared order.
    blocks : tuple of Summary
        One per block of a live batch's length, oldest first; empty when none was named.
    separations : tuple of float
        P-value of the classifier that tells a block from the other rows, for some blocks.
    novelties : dict of str to tuple of float
        For each categorical column, p-value of each block's labels that no other block holds.
    sample : bytes
        Cells of rows drawn at random, 16 bits each, columns in alphabetical order.
    sample_blocks : bytes
        Number of the block of each of those rows, 16 bits each; `NO_BLOCK` for none.
    prediction : str or None
        The column that holds the model's answer; it is no input of the classifier or pairs.
    seed : int
        Of the samples and of the classifier.
    """

    rows: int
    columns: dict[str, Profile]
    blocks: tuple[Summary, ...]
    separations: tuple[float, ...] = ()
    novelties: dict[str, tuple[float, ...]] = field(default_factory=dict)
    sample: bytes = field(default=b"", repr=False)
    sample_blocks: bytes = field(default=b"", repr=False)
    prediction: str | None = None
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
        prediction: str | None = None,
    ) -> "Reference":
        """Describe rows.

        Parameters
        ----------
        frame : DataFrame
            Rows with at least the declared columns.
        columns : dict of str to Column
            Declared columns.
        time : str or Series, optional
            Orders the rows; without it they are taken as they lie.
        block : str, Timedelta or int, optional
            Length of a live batch, as a length of time (needs `time`) or a number of rows.
        seed : int
            Of the stored sample and of the classifier.
        prediction : str, optional
            The declared column that holds the model's answer.

        Raises
        ------
        DataError
            If declared columns are missing or a name stands twice.
        """
        require(frame, list(columns))
        profiles: dict[str, Profile] = {
            name: NumericProfile.fit(as_number(frame[name]).to_numpy())
            if isinstance(column, Numeric)
            else CategoricalProfile.fit(*_label_counts(frame[name]))
            for name, column in columns.items()
        }
        codes = read_codes(frame, profiles)
        order = canonical(frame, profiles, codes)
        chosen = order[draw(len(frame), seed)]
        sample = to_cells(frame, profiles, codes, chosen).tobytes()
        moments = frame[time] if isinstance(time, str) else time
        parts = cut(moments, block, order)
        if moments is not None:  # rows of a block go on as they came about, however they lie
            parts = [
                part[np.argsort(moments.iloc[part].to_numpy(), kind="stable")] for part in parts
            ]
        whole = cls(
            rows=len(frame),
            columns=profiles,
            blocks=(),
            sample=sample,
            sample_blocks=numbered(parts, len(frame))[chosen].tobytes(),
            prediction=prediction,
            seed=seed,
        )
        tallies = [whole.tally(frame.iloc[part]) for part in parts]
        every = max(1, -(-len(parts) // _CLASSIFIED_BLOCKS))
        separations = [
            separate(
                whole.ranks(whole.cells[~np.isin(chosen, part)][:CLASSIFIED]),
                whole.ranks(tally.cells[:CLASSIFIED]),
                seed=seed,
            ).p_value
            for part, tally in list(zip(parts, tallies, strict=True))[::every]
        ]
        blocks = [whole.summarise(tally) for tally in tallies]
        return replace(
            whole,
            blocks=tuple(blocks),
            separations=tuple(separations),
            novelties={name: novelties(codes[name][0], parts) for name in sorted(codes)},
        )

    @cached_property
    def names(self) -> list[str]:
        """Columns in alphabetical order, so that no result depends on the declared one."""
        return sorted(self.columns)

    @cached_property
    def features(self) -> list[int]:
        """Places in `names` of the columns that a model is given."""
        return [i for i, name in enumerate(self.names) if name != self.prediction]

    @cached_property
    def cells(self) -> Cells:
        """The stored sample, shape (n_rows, n_columns)."""
        flat = np.frombuffer(self.sample, dtype="<u2")
        return flat.reshape(-1, len(self.columns)) if self.columns else flat.reshape(0, 0)

    @cached_property
    def cell_blocks(self) -> Cells:
        """Number of the block of each row of `cells`, `NO_BLOCK` for none."""
        return np.frombuffer(self.sample_blocks, dtype="<u2")

    def ranks(self, cells: Cells) -> NDArray[np.float32]:
        """Cells of the features as a classifier sees them, shape (n_rows, n_features)."""
        ranks = np.empty((len(cells), len(self.features)), dtype=np.float32)
        for j, i in enumerate(self.features):
            ranks[:, j] = self.columns[self.names[i]].ranks(cells[:, i])
        return ranks

    @cached_property
    def ranked(self) -> NDArray[np.float32]:
        """The stored sample as a classifier sees it."""
        return self.ranks(self.cells[:CLASSIFIED])

    @cached_property
    def normal_scores(self) -> NormalScores:
        """What pairs and joint locations are computed from."""
        profiles = {i: self.columns[self.names[i]] for i in self.features}
        return NormalScores.fit(profiles, self.cells)

    @cached_property
    def traits(self) -> Traits:
        """Every number that a summary may hold."""
        return Traits({name: self.columns[name] for name in self.names}, self.normal_scores)

    @cached_property
    def observed(self) -> Observed:
        """The blocks as observations."""
        return self.traits.observed(self.blocks)

    @cached_property
    def block_rows(self) -> float:
        """Rows of a usual block; 1 when there is none."""
        return float(np.median([block[ROWS] for block in self.blocks])) if self.blocks else 1.0

    @cached_property
    def ruler(self) -> Yardstick:
        """How much ordinary batches differ, per trait."""
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
        return yardstick(self.observed, traits.units, kinds=kinds, groups=groups)

    @cached_property
    def joint_ruler(self) -> Yardstick:
        """The same for all locations together."""
        shifts = [
            self.joint(self.locations(block), block[ROWS], floor=0.0, inside=True)
            for block in self.blocks
        ]
        return _ruler_of([shift.p_value for shift in shifts])

    @cached_property
    def classifier_ruler(self) -> Yardstick:
        """The same for the classifier."""
        return _ruler_of(self.separations)

    @cached_property
    def novelty_rulers(self) -> dict[str, Yardstick]:
        """The same for labels that were not there before, by column."""
        return {name: _ruler_of(p_values) for name, p_values in self.novelties.items()}

    def tally(self, frame: pd.DataFrame) -> Tally:
        """Count the rows of a batch.

        Raises
        ------
        DataError
            If a column name stands twice.
        """
        features = [self.names[i] for i in self.features]
        return count_batch(
            frame, self.columns, self.normal_scores, features=features, seed=self.seed
        )

    def summarise(self, batch: pd.DataFrame | Tally) -> Summary:
        """Describe a batch, rows or their tally, as one observation."""
        tally = batch if isinstance(batch, Tally) else self.tally(batch)
        return self.traits.summarise(tally)

    def locations(self, summary: Summary) -> Floats:
        """Mean score over all rows of each numeric feature, a missing value counting as 0."""
        return np.asarray(
            [
                summary.get(Trait("location", (name,)), 0.0)
                * (1 - summary.get(Trait("missing", (name,)), 0.0))
                for name in self.numeric
            ]
        )

    @cached_property
    def numeric(self) -> list[str]:
        """Names of the features with normal scores, in the order of `locations`."""
        return [self.names[self.normal_scores.columns[i]] for i in self.normal_scores.numeric]

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
            self.normal_scores.axes(min(rows, len(self.cells))),
            rows=rows,
            n_reference=self.rows,
            n_covariance=len(self.cells),
            floor=floor,
            inside=inside,
        )

    def merge(self, other: "Reference") -> "Reference":
        """The reference of both sets of rows; `other` holds the newer ones.

        Counts add up exactly, distributions to the steps of their grids. Blocks keep their
        numbers, carried over to the scores of the whole. The sample is drawn from both in
        proportion.

        Raises
        ------
        DataError
            If the two do not describe the same columns.
        """
        both = (self, other)
        columns = merged_profiles(self.columns, other.columns)
        later = np.where(
            other.cell_blocks == NO_BLOCK, NO_BLOCK, other.cell_blocks + np.uint16(len(self.blocks))
        )
        sample, numbers = merged_sample(
            [one.cells for one in both],
            [self.cell_blocks, later.astype("<u2")],
            [one.rows for one in both],
            [one.columns for one in both],
            columns,
            seed=self.seed,
        )
        return replace(
            self,
            rows=self.rows + other.rows,
            columns=columns,
            blocks=tuple(
                carried(block, one.columns, columns) for one in both for block in one.blocks
            ),
            separations=self.separations + other.separations,
            novelties={
                name: known + other.novelties[name] for name, known in self.novelties.items()
            },
            sample=sample.tobytes(),
            sample_blocks=numbers.tobytes(),
        )

    def to_dict(self) -> dict[str, Any]:
        """The reference as JSON-able values; what is undefined is None."""
        return {
            "rows": self.rows,
            "columns": {name: profile_to_dict(profile) for name, profile in self.columns.items()},
            "blocks": [summary_to_json(block) for block in self.blocks],
            "separations": [p if np.isfinite(p) else None for p in self.separations],
            "novelties": {name: list(p_values) for name, p_values in self.novelties.items()},
            "sample": base64.b64encode(self.sample).decode(),
            "sample_blocks": base64.b64encode(self.sample_blocks).decode(),
            "prediction": self.prediction,
            "seed": self.seed,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Reference":
        """Read what `to_dict` gave."""
        return cls(
            rows=values["rows"],
            columns={
                name: profile_from_dict(profile) for name, profile in values["columns"].items()
            },
            blocks=tuple(summary_from_json(block) for block in values["blocks"]),
            separations=tuple(np.nan if p is None else p for p in values["separations"]),
            novelties={name: tuple(known) for name, known in values["novelties"].items()},
            sample=base64.b64decode(values["sample"]),
            sample_blocks=base64.b64decode(values["sample_blocks"]),
            prediction=values["prediction"],
            seed=values["seed"],
        )


def _ruler_of(p_values: Sequence[float]) -> Yardstick:
    """A yardstick of one test, from its p-values for the blocks."""
    finite = np.asarray([p for p in p_values if np.isfinite(p)])
    squares = special.chdtri(1, np.clip(finite, 1e-300, 1.0))
    return chi_square_yardstick(np.asarray([squares.sum()]), np.asarray([len(finite)]))


def _label_counts(values: pd.Series) -> tuple[dict[str, int], int]:
    """Rows per label, and rows without one."""
    codes, labels = as_codes(values)
    counts = np.bincount(codes + 1, minlength=len(labels) + 1)
    return dict(zip(labels, counts[1:].tolist(), strict=True)), int(counts[0])
