"""Requests whose rows hold what a feature is derived from, instead of the feature."""

from typing import Any

import pandas as pd

from pipeline.config import Derived
from pipeline.derivation import derive
from pipeline.training.model import Model


def with_features(given: Any, model: Model) -> Any:
    """Replace what features are derived from by the features, in the rows of a request.

    A row that holds a feature already, or lacks what it is derived from, is left as it came: the
    contract refuses what it does not know.

    Parameters
    ----------
    given : Any
        A request as it was read, whatever it holds.
    model : Model
        Its functions are those that made the training rows.
    """
    rows = given.get("rows") if isinstance(given, dict) else None
    if not model.derive or not isinstance(rows, list):
        return given
    return given | {"rows": _derived([dict(r) if isinstance(r, dict) else r for r in rows], model)}


def _derived(rows: list[Any], model: Model) -> list[Any]:
    """Derive in place, feature by feature, for all rows that hold what it takes."""
    used: set[tuple[int, str]] = set()
    for name, derived in model.derive.items():
        places = [i for i, row in enumerate(rows) if _lacks(row, name, derived)]
        raw = {c: pd.Series([rows[i][c] for i in places], dtype=object) for c in derived.columns}
        values = derive(pd.DataFrame(raw), derived, model.columns[name]).astype(object)
        for place, value in zip(places, values.where(values.notna(), None), strict=True):
            rows[place][name] = value
        used |= {(i, c) for i in places for c in derived.columns if c not in model.columns}
    for place, column in used:
        rows[place].pop(column)
    return rows


def _lacks(row: Any, name: str, derived: Derived) -> bool:
    """Whether a row holds what a feature is derived from, and not the feature."""
    return isinstance(row, dict) and name not in row and set(derived.columns) <= row.keys()
