"""What the tags of a version have to hold: people can delete them in MLflow, or write over them."""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

import pandas as pd

_REQUIRED: Final = ("until", "rows", "sha256")
"""Tags that training gives to every version."""
_FORMS: Final[Mapping[str, Callable[[str], Any]]] = {
    "until": pd.Timestamp,
    "since": pd.Timestamp,
    "rows": int,
    "champion": int,
    "shadow": int,
    "promised_gain": float,
    "packages": json.loads,
    "forgotten": json.loads,
}
"""How the tags are read that are more than text."""


def lost(tags: Mapping[str, str]) -> list[str]:
    """Names of the tags that are missing, or do not hold what is read from them."""
    missing = [tag for tag in _REQUIRED if not tags.get(tag)]
    return missing + [tag for tag in _FORMS if tags.get(tag) and not _is_readable(tag, tags[tag])]


def _is_readable(tag: str, text: str) -> bool:
    try:
        value = _FORMS[tag](text)
    except ValueError:
        return False
    return value is not pd.NaT
