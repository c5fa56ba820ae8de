"""The frozen description of the training rows, against which live batches are compared.

A profile per column (grid of quantiles or counts of labels), and the same few numbers for
every block of a live batch's length: how far apart two ordinary batches are.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.columns import as_number, as_text, conform
from pipeline.config import Columns, Numeric
from pipeline.monitoring.statistics import (
    design_effect,
    homogeneity_p,
    kolmogorov_p,
    proportions_p,
)

GRID = 512
"""Quantiles kept of a numeric column; the distance is then exact to about 1/512."""
LABELS = 5
"""Most frequent labels of a column whose shares are followed from batch to batch."""
CLIP = 5.0
"""Reference standard deviations beyond which a value counts as that far in a block's mean."""

Floats = NDArray[np.float64]
Summary = dict[str, float]
"""One batch as one observation: `column|statistic` to value, and `|rows`."""


@dataclass(frozen=True)
class Effect:
    """How much the blocks of the reference differ, for one column and one test.

    Attributes
    ----------
    effect : float
        Design effect; 1 for independent rows, NaN with fewer than two blocks.
    dependent : bool
        Whether it is too large for independent rows.
    blocks : int
        Blocks it was estimated from.
    """

    effect: float
    dependent: bool
    blocks: int


@dataclass(frozen=True)
class NumericProfile:
    """One numeric column of the reference.

    Attributes
    ----------
    n, missing : int
        Rows with and without a finite value.
    mean, sd : float
        Of the finite values, in the column's unit.
    grid, below, upto : list of float
        Quantiles, and the share of rows below and up to each.
    values, nulls : Effect
        Design effects of the distribution and of the missing share.
    """

    n: int
    missing: int
    mean: float
    sd: float
    grid: list[float]
    below: list[float]
    upto: list[float]
    values: Effect
    nulls: Effect


@dataclass(frozen=True)
class CategoricalProfile:
    """One categorical column of the reference.

    Attributes
    ----------
    n, missing : int
        Rows with and without a label.
    counts : dict of str to int
        Rows per label, most frequent first.
    values, nulls : Effect
        Design effects of the shares and of the missing share.
    """

    n: int
    missing: int
    counts: dict[str, int]
    values: Effect
    nulls: Effect


Profile = NumericProfile | CategoricalProfile


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
    """

    rows: int
    columns: dict[str, Profile]
    blocks: tuple[Summary, ...]

    @classmethod
    def fit(
        cls,
        frame: pd.DataFrame,
        columns: Columns,
        *,
        time: str | pd.Series | None = None,
        block: str | int | None = None,
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
        block : str or int, optional
            Length of a live batch, as a pandas offset (needs `time`) or a number of rows.

        Raises
        ------
        DataError
            If declared columns are missing or a name stands twice.
        """
        rows = conform(frame, columns)
        order = frame[time] if isinstance(time, str) else time
        parts = _blocks(len(rows), order, block)
        profiles = {
            name: _numeric(rows[name], parts)
            if isinstance(column, Numeric)
            else _categorical(rows[name], parts)
            for name, column in columns.items()
        }
        bare = cls(len(rows), profiles, ())
        return cls(len(rows), profiles, tuple(bare.summarise(rows.iloc[part]) for part in parts))

    def summarise(self, frame: pd.DataFrame) -> Summary:
        """A batch as one observation: location, spread, missing share, shares of labels.

        Locations and spreads are in standard deviations of the reference, spreads as
        logarithms. A value that is undefined (no row, no spread) is left out.
        """
        summary: Summary = {"|rows": float(len(frame))}
        for name, profile in self.columns.items():
            if isinstance(profile, NumericProfile):
                values = as_number(frame[name]).to_numpy()
                summary |= _numeric_summary(name, profile, values)
            else:
                summary |= _categorical_summary(name, profile, as_text(frame[name]))
        return summary

    def to_dict(self) -> dict[str, Any]:
        """The reference as JSON-able values; NaN stands as None."""
        values = asdict(self)
        for profile in values["columns"].values():
            profile["type"] = "numeric" if "grid" in profile else "categorical"
            for test in ("values", "nulls"):
                effect = profile[test]["effect"]
                profile[test]["effect"] = effect if np.isfinite(effect) else None
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Reference":
        """Read what `to_dict` gave."""
        profiles = {name: _profile(profile) for name, profile in values["columns"].items()}
        return cls(values["rows"], profiles, tuple(values["blocks"]))


def _profile(values: dict[str, Any]) -> Profile:
    effects = {
        test: Effect(
            float("nan") if values[test]["effect"] is None else values[test]["effect"],
            values[test]["dependent"],
            values[test]["blocks"],
        )
        for test in ("values", "nulls")
    }
    rest = {key: value for key, value in values.items() if key != "type"} | effects
    return NumericProfile(**rest) if values["type"] == "numeric" else CategoricalProfile(**rest)


def _blocks(n: int, order: pd.Series | None, block: str | int | None) -> list[NDArray[np.intp]]:
    """Positions of the rows of each block, in time; a block under half the usual is left out."""
    if block is None or n == 0:
        return []
    if isinstance(block, int):
        rank = np.arange(n) if order is None else order.argsort(kind="stable").argsort()
        number = np.asarray(rank) // block
    elif order is None:
        message = "A block given as a length of time needs the time of each row."
        raise ValueError(message)
    else:
        start = order.min().normalize()
        number = ((order - start) // pd.Timedelta(block)).to_numpy()
    parts = [np.flatnonzero(number == k) for k in np.unique(number)]
    usual = np.median([len(part) for part in parts])
    return [part for part in parts if len(part) >= usual / 2]


def _numeric(values: pd.Series, parts: list[NDArray[np.intp]]) -> NumericProfile:
    x = values.to_numpy()
    finite = np.isfinite(x)
    known = np.sort(x[finite])
    steps = np.linspace(0, 1, GRID)
    grid = np.unique(np.quantile(known, steps, method="nearest")) if len(known) else np.empty(0)
    distances = []
    for part in parts:
        inside = np.sort(x[part][finite[part]])
        distance = grid_distance(grid, *cumulative(known, grid), inside)
        # Against the other blocks: the block is a part of the whole.
        share = 1 - len(inside) / max(len(known), 1)
        others = len(known) - len(inside)
        p = (
            kolmogorov_p(distance / share, n_reference=others, n_current=len(inside))
            if others
            else float("nan")
        )
        distances.append(p)
    below, upto = cumulative(known, grid)
    mean, sd = _moments(known)
    return NumericProfile(
        n=len(known),
        missing=len(x) - len(known),
        mean=mean,
        sd=sd,
        grid=grid.tolist(),
        below=below.tolist(),
        upto=upto.tolist(),
        values=_effect(distances),
        nulls=_null_effect(~finite, parts),
    )


def _moments(known: Floats) -> tuple[float, float]:
    """Mean and standard deviation of sorted values; a constant has exactly none."""
    if len(known) == 0:
        return 0.0, 0.0
    if known[0] == known[-1]:
        return float(known[0]), 0.0
    largest = np.abs(known[[0, -1]]).max()  # divided out, or squares overflow
    return float((known / largest).mean() * largest), float((known / largest).std() * largest)


def _categorical(values: pd.Series, parts: list[NDArray[np.intp]]) -> CategoricalProfile:
    counts = values.value_counts().sort_index().sort_values(ascending=False, kind="stable")
    codes = pd.Categorical(values, categories=counts.index).codes
    whole = counts.to_numpy(dtype=np.float64)
    p_values = []
    for part in parts:
        inside = np.bincount(codes[part][codes[part] >= 0], minlength=len(whole)).astype(float)
        p_values.append(homogeneity_p(whole - inside, inside) if len(whole) else float("nan"))
    return CategoricalProfile(
        n=int(whole.sum()),
        missing=int(values.isna().sum()),
        counts={str(label): int(n) for label, n in counts.items()},
        values=_effect(p_values),
        nulls=_null_effect(values.isna().to_numpy(), parts),
    )


def _effect(p_values: list[float]) -> Effect:
    effect, dependent = design_effect(p_values)
    return Effect(effect, dependent, int(np.isfinite(p_values).sum()))


def _null_effect(missing: NDArray[np.bool_], parts: list[NDArray[np.intp]]) -> Effect:
    whole = int(missing.sum())
    if whole in (0, len(missing)):
        return Effect(float("nan"), dependent=False, blocks=0)
    p_values = []
    for part in parts:
        inside = int(missing[part].sum())
        p_values.append(
            proportions_p(
                reference=whole - inside,
                n_reference=len(missing) - len(part),
                current=inside,
                n_current=len(part),
            )
        )
    return _effect(p_values)


def cumulative(ordered: Floats, grid: Floats) -> tuple[Floats, Floats]:
    """Shares of sorted values below and up to each point of a grid."""
    n = max(len(ordered), 1)
    below = np.searchsorted(ordered, grid, side="left") / n
    upto = np.searchsorted(ordered, grid, side="right") / n
    return below, upto


def grid_distance(grid: Floats, below: Floats, upto: Floats, ordered: Floats) -> float:
    """Kolmogorov-Smirnov distance at the points of a grid, on both sides of each."""
    if len(grid) == 0 or len(ordered) == 0:
        return float("nan")
    low, high = cumulative(ordered, grid)
    return float(max(np.abs(low - below).max(), np.abs(high - upto).max()))


def _numeric_summary(name: str, profile: NumericProfile, values: Floats) -> Summary:
    known = values[np.isfinite(values)]
    summary = {} if len(values) == 0 else {f"{name}|missing": 1 - len(known) / len(values)}
    if len(known) == 0 or profile.sd == 0:
        return summary
    with np.errstate(over="ignore"):
        scores = np.clip((known - profile.mean) / profile.sd, -CLIP, CLIP)
    summary[f"{name}|location"] = float(scores.mean())
    spread = float(scores.std()) if scores.min() < scores.max() else 0.0
    return summary | ({f"{name}|spread": float(np.log(spread))} if spread > 0 else {})


def _categorical_summary(name: str, profile: CategoricalProfile, values: pd.Series) -> Summary:
    if len(values) == 0:
        return {}
    known = values.dropna()
    summary = {f"{name}|missing": 1 - len(known) / len(values)}
    followed = list(profile.counts)[:LABELS]
    if len(known) == 0 or len(profile.counts) < 2:  # noqa: PLR2004 -- one label has no share
        return summary
    counts = known.value_counts()
    return summary | {
        f"{name}|share of {label}": float(counts.get(label, 0)) / len(known) for label in followed
    }
