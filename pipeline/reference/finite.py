"""Values as JSON can hold them, which has no word for an undefined number."""

from typing import Any

import numpy as np

_SHORTER = 1e4
"""Whole numbers below it are rounded to integers, which take fewer bytes."""


def finite(value: Any, *, digits: int | None = None) -> Any:
    """Convert nested values so that JSON can hold them: undefined numbers become None.

    Parameters
    ----------
    value : Any
        Numbers, texts, and dicts, lists and tuples of these.
    digits : int, optional
        Significant digits that numbers are rounded to; by default they stay as they are.

    Examples
    --------
    >>> finite({"loss": float("nan"), "rows": (2.0, 1 / 3)}, digits=3)
    {'loss': None, 'rows': [2, 0.333]}
    """
    if isinstance(value, dict):
        return {key: finite(item, digits=digits) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item, digits=digits) for item in value]
    if not isinstance(value, float):
        return value
    if not np.isfinite(value):
        return None
    if digits is None:
        return value
    short = float(f"{value:.{digits}g}")
    return int(short) if short.is_integer() and abs(short) < _SHORTER else short
