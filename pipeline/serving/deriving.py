"""Requests whose rows hold what a feature is derived from, instead of the feature."""

from typing import Any

import pandas as pd

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
    rows = [dict(row) if isinstance(row, dict) else row for row in rows]
    used: list[tuple[int, str]] = []
    for name, derived in model.derive.items():
        wanted = set(derived.columns)
        places = [
            place
            for place, row in enumerate(rows)
            if isinstance(row, dict) and name not in row and wanted <= row.keys()
        ]
        raw = {c: pd.Series([rows[place][c] for place in places], dtype=object) for c in wanted}
        values = derive(pd.DataFrame(raw), derived, model.columns[name]).astype(object)
        for place, value in zip(places, values.where(values.notna(), None), strict=True):
            rows[place][name] = value
        used += [(place, c) for place in places for c in wanted - model.columns.keys()]
    for place, column in used:
        rows[place].pop(column, None)
    return given | {"rows": rows}
