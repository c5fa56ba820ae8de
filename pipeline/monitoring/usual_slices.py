"""How far the slices of training rows are from the other rows of their blocks."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.columns import Floats, as_codes, as_number
from pipeline.monitoring.slices import MOST
from pipeline.reference import Reference
from pipeline.reference.profile import MISSING, NumericProfile
from pipeline.reference.variation import FEWEST_BLOCKS, chi_square_yardstick

COLUMNS = 20
"""Most columns that are compared by slice, beside the prediction: the most important ones."""
IN_BLOCK = 10
"""Fewest rows of a slice, and of the rest, of a block that shows how far apart the two are."""
KEY = ["slice", "column", "kind", "label"]
"""What a number of a slice is known by."""
_DIGITS = 6


@dataclass(frozen=True)
class UsualSlices:
    """How far the slices of training are from the other rows of their blocks.

    Attributes
    ----------
    sliced : dict of str to tuple of str
        The slices that are followed, by the column that rows are sliced by.
    table : DataFrame
        One row for each number of each slice, with its ``slice``, ``column``, ``kind`` and
        ``label``; ``before`` and ``others``: means of the slice and of the rest; ``apart``: their
        usual difference within a block; ``variance``, ``third``, ``others_variance`` and
        ``others_third``: central moments of a row; ``precision``: of the difference in the usual
        block if rows were independent; ``blocks``: as many of equal size as tell as much;
        ``effect`` and ``freedom``: design effect as of a `Yardstick`, NaN for infinite freedom.
    """

    sliced: dict[str, tuple[str, ...]]
    table: pd.DataFrame

    @classmethod
    def fit(
        cls,
        reference: Reference,
        rows: pd.DataFrame,
        slices: pd.DataFrame,
        *,
        blocks: Sequence[NDArray[np.intp]],
        fewest: int,
        importance: Mapping[str, float],
    ) -> Self:
        """Describe the slices of the rows of a reference.

        Only the `MOST` slices with the most rows are followed, each in at most `COLUMNS` columns
        and the prediction, but not in the column that it is cut from. Numbers are followed by their
        mean normal score, labels by the shares of the five most frequent ones, both by the share of
        missing values.

        Parameters
        ----------
        reference : Reference
            The rows as a whole.
        rows : DataFrame
            Its rows, predictions included; columns that are left out are not followed.
        slices : DataFrame
            The slices of each row, as of `slices_of`.
        blocks : sequence of array of int
            Positions of the rows of each block.
        fewest : int
            Fewest rows of a slice that is followed.
        importance : mapping of str to float
            How much the model relies on each column.
        """
        sliced = _followed(slices, fewest)
        features = [x for x in reference.names if x in rows and x not in reference.prediction]
        features.sort(key=lambda name: -importance.get(name, 0.0))
        names = [*features[:COLUMNS], *reference.prediction]
        block = np.full(len(rows), -1)
        for place, part in enumerate(blocks):
            block[part] = place
        inside = block >= 0
        places = {of: places_of(slices[of], kept) for of, kept in sliced.items()}
        found: list[dict[str, Any]] = []
        for number in numbers_of(reference, rows, names):
            for of, kept in sliced.items():
                if of == number.column or not len(blocks):
                    continue
                key = (places[of] * len(blocks) + block)[inside]
                shape = len(kept) + 1, len(blocks)
                sums = Sums(*power_sums(number.values[inside], key, shape))
                found += _described(number, kept, sums)
        whole = cls(sliced, pd.DataFrame(found, columns=None if found else KEY))
        return whole if whole.table.empty else cls(sliced, _with_effects(whole))

    @property
    def groups(self) -> pd.Series:
        """The column that rows are sliced by, and what is compared, of each row of the table."""
        of = {name: of for of, kept in self.sliced.items() for name in kept}
        parts = [self.table["slice"].map(of), *(self.table[name] for name in ("column", "kind"))]
        return parts[0] + "\n" + parts[1] + "\n" + parts[2]

    def to_dict(self) -> dict[str, Any]:
        """The slices as they are stored."""
        shown = self.table.astype(object).where(self.table.notna(), None)
        return {"sliced": {of: list(kept) for of, kept in self.sliced.items()}} | {
            "table": {str(name): [_short(value) for value in shown[name]] for name in shown}
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote."""
        sliced = {of: tuple(kept) for of, kept in stored["sliced"].items()}
        table = pd.DataFrame(stored["table"])
        numbers = {name: np.float64 for name in table if name not in KEY}
        return cls(sliced, table.astype(numbers))


class Number(NamedTuple):
    """A number that each row has, NaN where its column is missing, and what it says of a column."""

    column: str
    kind: str
    label: str
    values: Floats


class Sums(NamedTuple):
    """Rows, and sums of the first three powers of a number, by slice and block."""

    rows: Floats
    first: Floats
    second: Floats
    third: Floats

    def central(self) -> tuple[Floats, Floats, Floats]:
        """Means, and sums of squares and cubes around these."""
        rows, first, second, third = self
        mean = first / np.maximum(rows, 1)
        squares = np.maximum(second - mean * first, 0.0)
        return mean, squares, third - 3 * mean * second + 2 * mean**2 * first


def _followed(slices: pd.DataFrame, fewest: int) -> dict[str, tuple[str, ...]]:
    """The largest slices, by the column that rows are sliced by."""
    sizes = {
        str(name): (int(rows), str(of))
        for of in slices
        for name, rows in slices[of].value_counts().items()
        if rows >= fewest
    }
    largest = sorted(sizes, key=lambda name: (-sizes[name][0], name))[:MOST]
    return {str(of): tuple(name for name in largest if sizes[name][1] == str(of)) for of in slices}


def places_of(names: pd.Series, kept: Sequence[str]) -> NDArray[np.intp]:
    """Place of the slice of each row; rows of all other slices have the last one."""
    places = pd.Index(list(kept), dtype="str").get_indexer(pd.Index(names))
    return np.where(places < 0, len(kept), places)


def numbers_of(
    reference: Reference, rows: pd.DataFrame, columns: Sequence[str]
) -> Iterator[Number]:
    """The numbers that some columns are compared by."""
    for name in columns:
        profile = reference.columns[name]
        if name not in rows:
            continue
        if isinstance(profile, NumericProfile):
            cells = profile.cells(as_number(rows[name]).to_numpy(dtype=np.float64))
            there = cells != MISSING
            if profile.normal_scores.any():
                scores = profile.normal_scores[np.where(there, cells, 0)]
                yield Number(name, "location", "", np.where(there, scores, np.nan))
        else:
            cells = profile.cells(*as_codes(rows[name]))
            there = cells != MISSING
            for place, label in enumerate(profile.scored):
                own = (cells == place).astype(np.float64)
                yield Number(name, "share", label, np.where(there, own, np.nan))
        yield Number(name, "missing", "", (~there).astype(np.float64))


def power_sums(
    values: Floats, key: NDArray[np.intp], shape: tuple[int, ...], *, powers: int = 3
) -> list[Floats]:
    """Count the rows that have a number, and sum its powers, by key; NaN is left out.

    Parameters
    ----------
    values : array of float, shape (n_rows,)
        The number of each row.
    key : array of int, shape (n_rows,)
        What each row is summed by, from 0 on.
    shape : tuple of int
        Shape of the sums; the keys are places in them, row by row.
    powers : int
        How many powers are summed.

    Returns
    -------
    list of array of float
        Rows, and the sum of each power.
    """
    known = np.isfinite(values)
    if not known.all():
        values, key = values[known], key[known]
    size = int(np.prod(shape))
    sums, raised = [np.bincount(key, minlength=size)], np.ones(len(values))
    for _ in range(powers):
        raised = raised * values
        sums.append(np.bincount(key, weights=raised, minlength=size))
    return [one.astype(np.float64).reshape(shape) for one in sums]


def _described(number: Number, kept: Sequence[str], sums: Sums) -> Iterator[dict[str, Any]]:
    """What is usual of a number of each slice; nothing where too few blocks tell it."""
    whole = Sums(*(one.sum(axis=0) for one in sums))
    _, squares, _ = whole.central()
    rows = float(whole.rows.sum())
    # A number that never differs could differ in one row more: half a row (Jeffreys' prior).
    least = max(float(squares.sum()), 0.5) / max(rows, 1.0)
    for place, name in enumerate(kept):
        own = Sums(*(one[place] for one in sums))
        rest = Sums(*(a - b for a, b in zip(whole, own, strict=True)))
        used = np.minimum(own.rows, rest.rows) >= IN_BLOCK
        if used.sum() < FEWEST_BLOCKS:
            continue
        one, other = (_side(Sums(*(sums[used] for sums in side)), least) for side in (own, rest))
        weights = 1 / (one.variance / one.rows + other.variance / other.rows)
        apart = float(np.average(one.means - other.means, weights=weights))
        squares = weights * (one.means - other.means - apart) ** 2
        yield {
            **dict(zip(KEY, (name, *number[:3]), strict=True)),
            "before": float(np.average(one.means, weights=one.rows)),
            "others": float(np.average(other.means, weights=other.rows)),
            "apart": apart,
            "variance": one.variance,
            "third": one.third,
            "others_variance": other.variance,
            "others_third": other.third,
            "precision": float(weights.mean()),
            "blocks": float(weights.sum() ** 2 / (weights**2).sum()),
            "squares": float(squares.sum()),
            "fourth": float((squares**2).sum()),
            "count": int(used.sum()),
        }


class _Side(NamedTuple):
    """Means and rows of the blocks of a slice or of the rest, and central moments of a row."""

    means: Floats
    rows: Floats
    variance: float
    third: float


def _side(sums: Sums, least: float) -> _Side:
    rows = float(sums.rows.sum())
    means = sums.first / sums.rows
    _, squares, cubes = Sums(*(one.sum() for one in sums)).central()
    variance = (float(squares) + least) / (rows + 1)
    return _Side(means, sums.rows, variance, float(cubes) / rows)


def _with_effects(usual: UsualSlices) -> pd.DataFrame:
    """Replace what the blocks show of each number by its design effect.

    Where a column depends on the block in one slice, it counts as dependent in all slices of the
    same column. The effect is a variance, and a variance of values with long tails is worth fewer
    degrees of freedom: as its own variance is 2 / (B - 1) + excess kurtosis / B, in squares of
    itself, so many as a normal sample would need (Box 1953, Biometrika 40: 318-335). A few blocks
    hardly show the tails of one number, so that none counts as shorter than they are on average for
    its kind.
    """
    table = usual.table
    ruler = chi_square_yardstick(
        table["squares"].to_numpy(),
        table["count"].to_numpy() - 1,
        kinds=table["kind"].to_numpy(),
        groups=pd.factorize(usual.groups)[0],
    )
    excess = _excess_kurtosis(table)
    for kind in table["kind"].unique():
        own = ruler.dependent & (table["kind"] == kind).to_numpy()
        if own.any():
            excess[own] = np.maximum(excess[own], excess[own].mean())
    blocks = table["blocks"].to_numpy()
    freedom = 2 / (2 / np.maximum(blocks - 1, 1.0) + np.maximum(excess, 0.0) / blocks)
    described = table.drop(columns=["squares", "fourth", "count"])
    return described.assign(effect=ruler.effect, freedom=np.where(ruler.dependent, freedom, np.nan))


def _excess_kurtosis(table: pd.DataFrame) -> Floats:
    """Kurtosis beyond that of a normal distribution of how the blocks differ, without its bias.

    References
    ----------
    Joanes & Gill (1998), The Statistician 47(1): 183-189: G2.
    """
    n, squares = (table[name].to_numpy(np.float64) for name in ("count", "squares"))
    biased = n * table["fourth"].to_numpy() / np.maximum(squares**2, 1e-300) - 3
    found: Floats = (n - 1) / ((n - 2) * (n - 3)) * ((n + 1) * biased + 6)
    return found


def _short(value: Any) -> Any:
    """A number as it is stored."""
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
