"""Merge the parts of two references without going back to their rows."""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import special

from pipeline.columns import Floats
from pipeline.errors import DataError
from pipeline.reference.order import interquartile
from pipeline.reference.profile import (
    MISSING,
    CategoricalProfile,
    Cells,
    NumericProfile,
    Profile,
)
from pipeline.reference.sampling import SAMPLE
from pipeline.reference.summaries import Summary, Trait

Columns = Mapping[str, Profile]
_QUANTILES: Floats = (np.arange(256) + 0.5) / 256


def merged_profiles(older: Columns, newer: Columns) -> dict[str, Profile]:
    """Merge the profiles of each column of two references.

    Raises
    ------
    DataError
        If the two references do not describe the same columns.
    """
    merged: dict[str, Profile] = {}
    different = set(older) ^ set(newer)
    for name in [name for name in older if name in newer]:
        before, after = older[name], newer[name]
        if type(before) is type(after):
            merged[name] = before.merge(after)  # type: ignore[arg-type]
        else:
            different.add(name)
    if different:
        message = (
            "References to be merged must describe the same columns. Got a difference in "
            f"{', '.join(sorted(different))}. Fit both with the same declaration."
        )
        raise DataError(message)
    return merged


def merged_sample(
    samples: Sequence[Cells],
    blocks: Sequence[Cells],
    rows: Sequence[int],
    columns: Sequence[Columns],
    new: Columns,
    *,
    seed: int,
) -> tuple[Cells, Cells]:
    """Draw from two samples in proportion to the rows that each stands for, in random order.

    Parameters
    ----------
    samples : two arrays of uint16, shape (n_rows, n_columns)
        Cells of the rows, columns in alphabetical order.
    blocks : two arrays of uint16, shape (n_rows,)
        Block number of each row of the samples.
    rows : two ints
        Number of rows that each sample stands for.
    columns : two mappings of str to Profile
        Profiles of the two references, in whose cells the samples are given.
    new : mapping of str to Profile
        Merged profiles, in whose cells the drawn rows are returned.
    seed : int
        Random seed of the draw.

    Returns
    -------
    two arrays of uint16, shapes (n_drawn, n_columns) and (n_drawn,)
        Cells and block numbers of the drawn rows.
    """
    random = np.random.default_rng([seed, sum(rows)])
    # Each part must find enough rows in its sample.
    largest = [len(x) * sum(rows) // n for x, n in zip(samples, rows, strict=True) if n]
    size = min([SAMPLE, *largest])
    parts, numbers = [], []
    for cells, number, n, old in zip(samples, blocks, rows, columns, strict=True):
        kept = random.permutation(len(cells))[: round(size * n / max(sum(rows), 1))]
        chosen = cells[kept]
        numbers.append(number[kept])
        parts.append(
            np.column_stack(
                [_recoded(chosen[:, i], old[name], new[name]) for i, name in enumerate(sorted(new))]
            )
            if new
            else chosen
        )
    both = np.vstack(parts)
    order = random.permutation(len(both))
    return both[order].astype("<u2"), np.concatenate(numbers)[order].astype("<u2")


def _recoded(cells: Cells, old: Profile, new: Profile) -> Cells:
    if isinstance(old, NumericProfile) and isinstance(new, NumericProfile):
        return new.cells(old.values(cells))
    if isinstance(old, CategoricalProfile) and isinstance(new, CategoricalProfile):
        labels = list(old.counts)
        places = np.where(cells == MISSING, -1, np.minimum(cells, max(len(labels) - 1, 0)))
        return new.cells(places.astype(np.intp), labels)
    message = f"A column cannot be recoded from {type(old).__name__} to {type(new).__name__}."
    raise TypeError(message)


def rescored(block: Summary, old: Columns, new: Columns) -> Summary:
    """Convert the summary of a block to the normal scores of a merged reference.

    The normal scores of the block are taken as normally distributed, so that their quantile is
    the location and, times the spread, that of a standard normal: these quantiles are read back as
    values, which are scored again. Shares, missing values and rank correlations stay,
    except that correlations with a column whose most frequent label has changed are dropped.
    """
    renamed = {name for name in old if _leading(old[name]) != _leading(new[name])}
    moved = {
        trait: value
        for trait, value in block.items()
        if not (trait.kind == "correlation" and renamed & set(trait.columns))
    }
    for name, profile in old.items():
        target, location = new[name], block.get(Trait("location", (name,)))
        if location is None or not isinstance(profile, NumericProfile):
            continue
        if not isinstance(target, NumericProfile):
            continue
        spread = block.get(Trait("spread", (name,)), 1.0)
        rank = special.ndtr(location + spread * special.ndtri(_QUANTILES))
        values = np.interp(rank, profile.edges, np.repeat(profile.points, 2))
        scores = target.normal_scores[target.cells(values)]
        wide, step = interquartile(target), Trait("step", (name,))
        if step in block and wide > 0:
            moved[step] = block[step] * interquartile(profile) / wide
        moved[Trait("location", (name,))] = float(scores.mean())
        moved[Trait("spread", (name,))] = float(scores.std())
    return Summary(moved)


def _leading(profile: Profile) -> str:
    return next(iter(profile.counts), "") if isinstance(profile, CategoricalProfile) else ""
