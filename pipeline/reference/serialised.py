"""A reference as values of JSON, as it is stored beside its model."""

import base64
from typing import Any

import numpy as np

from pipeline.reference.identities import Identity
from pipeline.reference.profile import profile_from_dict, profile_to_dict
from pipeline.reference.reference import Reference
from pipeline.reference.summaries import summary_from_json, summary_to_json


def reference_to_dict(reference: Reference) -> dict[str, Any]:
    """Convert a reference to JSON-able values; undefined numbers become None."""
    columns, followed = reference.columns, reference.followed
    return {
        "rows": reference.rows,
        "columns": {name: profile_to_dict(profile) for name, profile in columns.items()},
        "blocks": [summary_to_json(block) for block in reference.blocks],
        "separations": [p if np.isfinite(p) else None for p in reference.separations],
        "novelties": {name: list(p_values) for name, p_values in reference.novelties.items()},
        "sample": base64.b64encode(reference.sample).decode(),
        "sample_blocks": base64.b64encode(reference.sample_blocks).decode(),
        "prediction": list(reference.prediction),
        "followed": None if followed is None else [list(pair) for pair in followed],
        "identities": [one._asdict() for one in reference.identities],
        "seed": reference.seed,
    }


def reference_from_dict(values: dict[str, Any]) -> Reference:
    """Read a reference from the values of `reference_to_dict`, of this or an earlier version."""
    followed, named = values.get("followed"), values["prediction"]
    stored = Reference(
        rows=values["rows"],
        columns={name: profile_from_dict(profile) for name, profile in values["columns"].items()},
        blocks=tuple(summary_from_json(block) for block in values["blocks"]),
        separations=tuple(np.nan if p is None else p for p in values["separations"]),
        novelties={name: tuple(known) for name, known in values["novelties"].items()},
        sample=base64.b64decode(values["sample"]),
        sample_blocks=base64.b64decode(values["sample_blocks"]),
        prediction=(named,) if isinstance(named, str) else tuple(named or ()),
        followed=None if followed is None else tuple((one, other) for one, other in followed),
        identities=tuple(
            Identity(**one | {"columns": tuple(one["columns"])})
            for one in values.get("identities", [])
        ),
        seed=values["seed"],
    )
    # References of earlier versions hold all pairs, however many.
    return stored.following({}) if followed is None else stored
