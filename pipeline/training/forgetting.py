"""The folder of a version without some rows; the fitted model stays as it is."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.columns import conform
from pipeline.training.bundle import HOLDOUT, Bundle
from pipeline.training.golden import Golden, installed
from pipeline.training.model import Model

Resembles = Callable[..., NDArray[np.intp]]
"""For each row, the place of a row that it has the values of, or -1."""


def forget_rows(
    folder: Path,
    *,
    key: str,
    has_key: Callable[[pd.Series], NDArray[np.bool_]],
    own: pd.DataFrame,
    like: Resembles,
) -> Counter[str]:
    """Remove rows from all tables of a bundle, and check that it loads and predicts as before.

    Held-out rows are found by their key. Golden, sampled and the newest held-out rows carry no
    key, and are found by their values. A golden row stays for the awkward value in it: all other
    values that it shares with such a row become those of another golden row.

    Parameters
    ----------
    folder : Path
        Of the bundle, which is rewritten.
    key : str
        Name of the column of keys.
    has_key : callable
        Which keys are to be removed.
    own : DataFrame
        Rows to be removed, as far as their values are known.
    like : callable
        For each row of a table, the place of the row in `own` that has its values, or -1; `but`
        values may differ.

    Returns
    -------
    Counter
        How many rows were removed, or changed, by the kind of row.
    """
    done: Counter[str] = Counter()
    for name, kind in (("heldout.parquet", "held-out rows"), ("sample.parquet", "sampled rows")):
        rows = pd.read_parquet(folder / name)
        theirs = has_key(rows[key]) if key in rows else like(rows) >= 0
        if theirs.any():
            rows[~theirs].reset_index(drop=True).to_parquet(folder / name)
            done[kind] += int(theirs.sum())
    if (folder / HOLDOUT).is_dir():
        kept = Golden.load(folder / HOLDOUT)
        theirs = like(kept.rows) >= 0
        if theirs.any():
            rest = kept.rows[~theirs].reset_index(drop=True)
            encoded, predictions = kept.encoded[~theirs], kept.predictions[~theirs]
            Golden(rest, encoded, predictions, kept.packages).save(folder / HOLDOUT)
            done["newest held-out rows"] += int(theirs.sum())
    changed = _forget_golden(folder, own, like)
    if changed:
        done["golden rows"] += changed
    if done:
        Bundle.load(folder)
    return done


def _forget_golden(folder: Path, own: pd.DataFrame, like: Resembles) -> int:
    """Give other values to golden rows that differ from a row in one value at most; how many."""
    golden = Golden.load(folder / "golden")
    alike = like(golden.rows, but=1)
    donors = golden.rows[alike < 0]
    rows = golden.rows.copy()
    changed = 0
    for place in np.flatnonzero(alike >= 0).tolist():
        row, theirs = golden.rows.iloc[place], own.iloc[alike[place]]
        shared = [name for name in map(str, own) if row[name] == theirs[name]]
        made = golden.rows.iloc[[place] * len(donors)].reset_index(drop=True)
        made[shared] = donors[shared].reset_index(drop=True)
        unlike = made[like(made, but=1) < 0]
        if len(unlike):
            rows.iloc[[place]] = unlike.iloc[[0]].to_numpy()
            changed += 1
    if changed:
        model = Model.load(folder / "model")
        rows = conform(rows, model.columns)
        rewritten = Golden(rows, model.encode(rows), model.predict(rows), installed())
        rewritten.save(folder / "golden")
    return changed
