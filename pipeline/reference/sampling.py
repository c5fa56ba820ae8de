"""Draw rows at random, independently of their order, as cells of a reference's profiles."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.columns import as_codes, as_number, as_text
from pipeline.reference.profile import MISSING, CategoricalProfile, Cells, NumericProfile, Profile

SAMPLE = 10_000
"""Most rows of the reference and of a batch by which pairs and the classifier are judged."""
SKETCHED = 1_000
"""Most rows that a batch leaves as they came."""
Codes = dict[str, tuple[NDArray[np.intp], list[str]]]
"""Labels of each categorical column: the place of each row's label in a list of labels."""
NO_CODES: tuple[NDArray[np.intp], list[str]] = (np.empty(0, dtype=np.intp), [])


def read_codes(frame: pd.DataFrame, columns: Mapping[str, Profile]) -> Codes:
    """Read the labels of the categorical columns that a frame has."""
    return {
        name: as_codes(frame[name])
        for name, profile in columns.items()
        if isinstance(profile, CategoricalProfile) and name in frame.columns
    }


def canonical(
    frame: pd.DataFrame, columns: Mapping[str, Profile], codes: Codes
) -> NDArray[np.intp]:
    """Order rows by their content alone; returns their positions."""
    return np.argsort(row_hashes(frame, sorted(columns), codes))


def repeats(frame: pd.DataFrame, names: Sequence[str], codes: Codes) -> NDArray[np.intp]:
    """Count how often each distinct row of some columns occurs, in descending order."""
    _, counts = np.unique(row_hashes(frame, names, codes), return_counts=True)
    return np.sort(counts)[::-1]


def row_hashes(frame: pd.DataFrame, names: Sequence[str], codes: Codes) -> NDArray[np.uint64]:
    """Hash each row to 64 bits that depend on its content alone, shape (n_rows,)."""
    random = np.random.default_rng(0)
    total = np.zeros(len(frame), dtype=np.uint64)
    for name in names:
        if name not in frame.columns:
            continue
        odd = random.integers(2**63, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        if name not in codes:
            values = as_number(frame[name]).to_numpy() + 0.0  # makes -0.0 equal to 0.0
            values[~np.isfinite(values)] = np.nan
            bits = values.view(np.uint64)
        else:
            places, labels = codes[name]
            hashed = pd.util.hash_array(np.asarray(labels, dtype=object), categorize=False)
            bits = np.append(hashed, np.uint64(0))[places]
        total += (bits ^ (bits >> np.uint64(32))) * odd
    return total ^ (total >> np.uint64(29))


def draw(n: int, seed: int) -> NDArray[np.intp]:
    """Draw up to `SAMPLE` of `n` rows: places in the canonical order, in random order."""
    return np.random.default_rng([seed, n]).permutation(n)[:SAMPLE]


def to_cells(
    frame: pd.DataFrame,
    columns: Mapping[str, Profile],
    codes: Codes,
    chosen: NDArray[np.intp],
) -> Cells:
    """Find the cells of chosen rows, shape (n_chosen, n_columns), columns alphabetical."""
    names = sorted(columns)
    cells = np.full((len(chosen), len(names)), MISSING, dtype=np.uint16)
    for i, name in enumerate(names):
        profile = columns[name]
        if name not in frame.columns:
            continue
        if isinstance(profile, NumericProfile):
            cells[:, i] = profile.cells(as_number(frame[name]).to_numpy()[chosen])
        else:
            places, labels = codes[name]
            cells[:, i] = profile.cells(places[chosen], labels)
    return cells


def sketch(rows: pd.DataFrame, columns: Mapping[str, Profile], seed: int) -> pd.DataFrame:
    """Up to `SKETCHED` rows at random, in their order, of the columns that are there."""
    chosen = np.random.default_rng([seed, len(rows)]).permutation(len(rows))[:SKETCHED]
    some = rows.iloc[np.sort(chosen)].reset_index(drop=True)
    return pd.DataFrame(
        {
            name: as_number(some[name])
            if isinstance(profile, NumericProfile)
            else as_text(some[name])
            for name, profile in columns.items()
            if name in some.columns
        }
    )


def label_counts(values: pd.Series) -> tuple[dict[str, int], int]:
    """Count rows per label, and rows without a label."""
    codes, labels = as_codes(values)
    counts = np.bincount(codes + 1, minlength=len(labels) + 1)
    return dict(zip(labels, counts[1:].tolist(), strict=True)), int(counts[0])
