"""The frozen description of the training rows, against which live batches are compared.

A profile per column, a sample of the rows, and the same few numbers for every block of a
live batch's length: how far apart two ordinary batches are.
"""

import base64
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
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
from pipeline.reference.merging import carried, merged_profiles, merged_sample
from pipeline.reference.normal_scores import NormalScores
from pipeline.reference.order import ORDERED, order_of
from pipeline.reference.profile import CategoricalProfile, Cells, Floats, NumericProfile, Profile
from pipeline.reference.sampling import NO_CODES, canonical, draw, read_codes, repeats, to_cells
from pipeline.reference.statistics import hotelling_p
from pipeline.reference.summaries import (
    ROWS,
    Summary,
    Trait,
    summary_from_json,
    summary_to_json,
)
from pipeline.reference.tally import Tally
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
    def scores(self) -> NormalScores:
        """What pairs and joint locations are computed from."""
        profiles = {i: self.columns[self.names[i]] for i in self.features}
        return NormalScores.fit(profiles, self.cells)

    @cached_property
    def traits(self) -> Traits:
        """Every number that a summary may hold."""
        return Traits({name: self.columns[name] for name in self.names}, self.scores)

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
        return _ruler_of([p_value for _, p_value, _ in shifts])

    @cached_property
    def classifier_ruler(self) -> Yardstick:
        """The same for the classifier."""
        return _ruler_of(self.separations)

    @cached_property
    def novelty_rulers(self) -> dict[str, Yardstick]:
        """The same for labels that were not there before, by column."""
        return {name: _ruler_of(p_values) for name, p_values in self.novelties.items()}

    def tally(self, frame: pd.DataFrame) -> Tally:
        """Count a batch, one column at a time.

        Raises
        ------
        DataError
            If a column name stands twice.
        """
        require(frame, [])
        absent = tuple(name for name in self.names if name not in frame.columns)
        extra = tuple(str(name) for name in frame.columns if name not in self.columns)
        codes = read_codes(frame, self.columns)
        counts, beyond, order = {}, {}, {}
        for name in self.names:
            profile = self.columns[name]
            if isinstance(profile, NumericProfile):
                order[name] = order_of(_leading_values(frame, name), profile)
                known = _known(frame, name)
                counts[name] = profile.count(known)
                beyond[name] = _beyond(profile, known)
            else:
                counts[name] = profile.count(*codes.get(name, NO_CODES))
        chosen = canonical(frame, self.columns, codes)[draw(len(frame), self.seed)]
        cells = to_cells(frame, self.columns, codes, chosen)
        return Tally(
            rows=len(frame),
            counts=counts,
            beyond=beyond,
            absent=absent,
            extra=tuple(sorted(extra)),
            chosen=chosen,
            cells=cells,
            correlation=self.scores.correlations(cells),
            repeats=repeats(frame, [self.names[i] for i in self.features], codes),
            order=order,
        )

    def summarise(self, batch: pd.DataFrame | Tally) -> Summary:
        """A batch as one observation: location, spread, missing share, shares of labels, pairs.

        Beside these, which are tested, what faults are told by: the largest excess of the share
        of one value (`atom`), the share of rows that repeat another, and of the most frequent, and
        how numbers go on from row to row (`strays`, `step`, `even`), which alone depends on the
        order of the rows.

        Locations are means of normal scores, so in standard deviations of the reference;
        spreads are standard deviations of those scores. A value that is undefined (no row) is
        left out.
        """
        tally = batch if isinstance(batch, Tally) else self.tally(batch)
        summary: Summary = {ROWS: float(tally.rows)}
        if tally.rows == 0:
            return summary
        correlations = iter(self.scores.of_leading(tally.correlation))
        for trait in self.traits.all:
            value = next(correlations) if trait.kind == "correlation" else self._value(trait, tally)
            if np.isfinite(value):
                summary[trait] = float(value)
        for name in self.names:
            summary[Trait("atom", (name,))] = self.atom(name, tally)
        for name, order in tally.order.items():
            summary[Trait("strays", (name,))] = order.strays
            summary[Trait("step", (name,))] = order.step
            summary[Trait("even", (name,))] = order.even
        summary[Trait("copies")] = 1 - len(tally.repeats) / tally.rows
        summary[Trait("repeats")] = float(tally.repeats[0] / tally.rows)
        return summary

    def atom(self, name: str, tally: Tally) -> float:
        """Largest excess of the share of one cell over the reference, from 0 to 1."""
        counts, profile = tally.counts[name], self.columns[name]
        if tally.known(name) == 0 or profile.n == 0:
            return 0.0
        weights = (
            profile.weights
            if isinstance(profile, NumericProfile)
            else np.append(profile.rows, 0.0) / profile.n
        )
        return float((counts / counts.sum() - weights).max(initial=0.0))

    def _value(self, trait: Trait, tally: Tally) -> float:
        (name,) = trait.columns
        profile, counts, known = self.columns[name], tally.counts[name], tally.known(name)
        if trait.kind == "missing":
            return 1 - known / tally.rows
        if known == 0:
            return float("nan")
        if isinstance(profile, CategoricalProfile):
            return float(counts[list(profile.counts).index(trait.label)] / known)
        if trait.kind == "location":
            return float(counts @ profile.scores) / known
        return float(np.sqrt(profile.variance(counts)))

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
        return [self.names[self.scores.columns[i]] for i in self.scores.numeric]

    def joint(
        self, locations: Floats, rows: float, *, floor: float, inside: bool = False
    ) -> tuple[float, float, float]:
        """Shift of all locations together.

        Parameters
        ----------
        locations : array of float
            Of a batch.
        rows : float
            Rows behind them.
        floor : float
            Size whose chance is asked for.
        inside : bool
            Whether those rows are part of the reference.

        Returns
        -------
        size : float
            Root mean square over columns of the shift, in standard deviations along the axes
            of the reference's cloud, less what chance adds.
        p_value, reach : float
            Textbook chances of a size as large as this, and as the floor; NaN when there is
            nothing to judge.
        """
        axes = self.scores.axes(min(rows, len(self.cells)))
        freedom, n = axes.shape[1], len(self.cells)
        noise = (1 / rows if rows else np.inf) + (-1 if inside else 1) / max(self.rows, 1)
        if not 0 < freedom < n or not 0 < noise < np.inf:
            return float("nan"), float("nan"), float("nan")
        squared = float(((locations @ axes) ** 2).sum())
        chances = hotelling_p(
            np.asarray([squared, freedom * (floor**2 + noise)]) / noise,
            freedom=freedom,
            n_covariance=n,
        )
        size = float(np.sqrt(max(squared / freedom - noise, 0.0)))
        return size, float(chances[0]), float(chances[1])

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
            "columns": {
                name: {"type": "numeric" if isinstance(profile, NumericProfile) else "categorical"}
                | asdict(profile)
                for name, profile in self.columns.items()
            },
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
            columns={name: _profile(profile) for name, profile in values["columns"].items()},
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


def _known(frame: pd.DataFrame, name: str) -> Floats:
    if name not in frame.columns:
        return np.empty(0)
    values = as_number(frame[name]).to_numpy()
    return np.sort(values[np.isfinite(values)])


def _leading_values(frame: pd.DataFrame, name: str) -> Floats:
    if name not in frame.columns:
        return np.empty(0)
    return as_number(frame[name][:ORDERED]).to_numpy(dtype=np.float64)


def _beyond(profile: NumericProfile, known: Floats) -> float:
    if len(known) == 0 or profile.n == 0:
        return 0.0
    low, high = profile.points[0], profile.points[-1]
    with np.errstate(over="ignore"):
        below, above = known[known < low], known[known > high]
        return float(((low - below).sum() + (above - high).sum()) / len(known))


def _label_counts(values: pd.Series) -> tuple[dict[str, int], int]:
    """Rows per label, and rows without one."""
    codes, labels = as_codes(values)
    counts = np.bincount(codes + 1, minlength=len(labels) + 1)
    return dict(zip(labels, counts[1:].tolist(), strict=True)), int(counts[0])


def _profile(values: dict[str, Any]) -> Profile:
    rest = {key: value for key, value in values.items() if key != "type"}
    return NumericProfile(**rest) if values["type"] == "numeric" else CategoricalProfile(**rest)
