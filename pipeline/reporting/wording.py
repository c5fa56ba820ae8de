"""What was found in a batch, in sentences: the size of a change, and since when."""

import math
from collections.abc import Mapping
from typing import Any, Final

from pipeline.config import RESERVED
from pipeline.monitoring.verdicts import State

STATES: Final[Mapping[State, str]] = {
    "quiet": "Quiet",
    "moved": "Moved",
    "worse": "Performance lost",
    "broken": "Broken",
}
"""A batch in words that people read first."""
_LEVELS = {
    "rows": "in this batch",
    "batches": "over the last {batches} batches together",
    "decay": "little by little since the reference",
}
_NAN = float("nan")
_SMALL, _LARGE = 0.001, 0.1
"""Shares below and from which decimals say nothing."""


def after(word: str, reason: str) -> str:
    """A reason that is read after a word for the batch, without that word."""
    rest = reason.removeprefix(f"{word}: ").removeprefix(f"{word}.")
    return rest[:1].upper() + rest[1:]


def number(value: float | None) -> str:
    """A number as people read it: no more than four digits that count."""
    if value is None or not math.isfinite(value):
        return "unknown"
    return f"{value:,.0f}" if 1e3 <= abs(value) < 1e12 else f"{value:.4g}"  # noqa: PLR2004 -- whole


def share(value: float | None) -> str:
    """A share in percent; a small one keeps a decimal."""
    if value is None or not math.isfinite(value):
        return "unknown"
    if value == 0 or abs(value) >= _LARGE:
        return f"{value:.0%}"
    return f"{value:.1%}" if abs(value) >= _SMALL else f"<{_SMALL:.1%}"


def named(name: str) -> str:
    """A column as it is displayed."""
    return name.removeprefix(RESERVED)


def change(found: Mapping[str, Any], batches: int) -> str:
    """What a test found, as a sentence without its end.

    Parameters
    ----------
    found : mapping of str to Any
        A finding as it is stored.
    batches : int
        Batches that are judged together.
    """
    size = _NAN if found["statistic"] is None else float(found["statistic"])
    names = [named(name) for name in found["columns"]]
    when = _LEVELS[found["level"]].format(batches=batches)
    return f"{_said(found['kind'], names, size)}, {when}"


def _said(kind: str, names: list[str], size: float) -> str:
    name, more = " and ".join(names), "more" if size > 0 else "fewer"
    label = kind.removeprefix("share of ")
    if label != kind:
        return f"{label} makes up {abs(100 * size):.1f} percentage points {more} of {name}"
    way = "higher" if size > 0 else "lower"
    said = {
        "location": f"{name} is {abs(size):.2f} standard deviations {way}",
        "spread": f"{name} spreads {math.exp(min(size, 50)):.2f} times as wide",
        "distribution": f"{abs(size):.0%} of the values of {name} lie elsewhere",
        "labels": f"the labels of {name} have other shares",
        "missing": f"{abs(100 * size):.1f} percentage points {more} rows lack {name}",
        "unseen": f"{abs(size):.1%} of the rows hold labels of {name} that the reference lacks",
        "correlation": f"the correlation of {name} changed by {size:+.2f}",
        "joint": f"the columns shifted together, most of all {', '.join(names)}",
        "classifier": f"a classifier can tell these rows from the reference, by {', '.join(names)}",
    }
    return said.get(kind, f"{name}: {kind} changed by {size:+.3g}")
