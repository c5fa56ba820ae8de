"""What was found in a batch, in sentences: the size of a change, and since when."""

import math
from collections.abc import Collection, Mapping
from typing import Any, Final

from pipeline.config import RESERVED
from pipeline.monitoring.performance import RIVAL_LOSS, Performance
from pipeline.monitoring.stored import THOUSAND, drifted_of, rows_of
from pipeline.monitoring.verdicts import Evidence, State

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
_MOST_METRICS = 2
"""Metrics that a sentence about the loss holds."""
_NAN = float("nan")
_SEEN = 10
"""Thousandths of the values beyond training from which they are worth a word."""
_CAPPED = 2.5
"""Standard deviations from which a normal score says no more than that."""
_SMALL, _LARGE = 0.001, 0.1
"""Shares below and from which decimals say nothing."""


def after(word: str, reason: str) -> str:
    """A reason that is read after a word for the batch, without that word."""
    faults = reason.removeprefix(f"{word}: ")
    if faults != reason:
        return f"Recognised: {faults}"
    rest = reason.removeprefix(f"{word}.")
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


def change(found: Mapping[str, Any], batches: int, shapes: Mapping[str, Mapping[str, Any]]) -> str:
    """What a test found, as a sentence without its end, in the unit of the column if it is known.

    Parameters
    ----------
    found : mapping of str to Any
        A finding as it is stored.
    batches : int
        Batches that are judged together.
    shapes : mapping of str to mapping
        Stored shapes by column; a private column has none.
    """
    size = _NAN if found["statistic"] is None else float(found["statistic"])
    names = [named(name) for name in found["columns"]]
    when = _LEVELS[found["level"]].format(batches=batches)
    one = shapes.get(found["columns"][0]) if len(found["columns"]) == 1 else None
    seen = _seen(found["kind"], size, one) if one and one["before"] else ""
    own = _IN_ITS_UNIT.get((found["kind"], size > 0)) if seen else None
    said = f"{names[0]} {own}" if own else _said(found["kind"], names, size)
    if not seen:
        return f"{said}, {when}"
    here = "" if found["level"] == "rows" else "in this batch, "
    return f"{said}, {when}: {here}{seen}"


_IN_ITS_UNIT: Final = {
    ("location", True): "is higher",
    ("location", False): "is lower",
    ("spread", True): "spreads wider",
    ("spread", False): "spreads less wide",
}
"""Changes whose size says less than the numbers of the column: normal scores end at about 3."""


def _seen(kind: str, size: float, one: Mapping[str, Any]) -> str:
    """What people see of a change in the numbers or labels of the column; empty: nothing."""
    if one["labels"]:
        return middle(one) if kind == "labels" else ""
    least, median, most, *now = one["quarters"]
    if kind == "spread":
        wider = (now[2] - now[0]) - (most - least)
        halves = f"{number(least)} to {number(most)} \u2192 {number(now[0])} to {number(now[2])}"
        return f"middle half {halves}" if size * wider > 0 else ""
    beyond = _beyond(one)
    if kind == "location":
        moved = [middle(one)] if size * (now[1] - median) > 0 else []
        half = f"half of training lies in {number(least)} to {number(most)}"
        if least == most:
            half = f"at least half of training is {number(least)}"
        parts = [*moved, beyond[size > 0]]
        return "; ".join(filter(None, [*parts, half if any(parts) else ""]))
    if kind in {"distribution", "range"}:
        return "; ".join(filter(None, [middle(one), *beyond]))
    return ""


def _beyond(one: Mapping[str, Any]) -> tuple[str, str]:
    """The shares of a batch's numbers below and above all of training, where they are seen."""
    below, above = (
        f"{share(part / THOUSAND)} of its values are {way} than any in training"
        if part >= _SEEN
        else ""
        for part, way in zip(one.get("beyond") or (0, 0), ("smaller", "larger"), strict=True)
    )
    return below, above


def _said(kind: str, names: list[str], size: float) -> str:
    name, more = " and ".join(names), "more" if size > 0 else "fewer"
    label = kind.removeprefix("share of ")
    if label != kind:
        return f"{label} makes up {abs(100 * size):.1f} percentage points {more} of {name}"
    way = "higher" if size > 0 else "lower"
    said = {
        "location": f"{name} is {_deviations(size)} standard deviations {way}",
        "spread": f"{name} spreads {math.exp(min(size, 50)):.2f} times as wide",
        "distribution": f"{abs(size):.0%} of the values of {name} lie elsewhere",
        "range": f"the median of {name} lies {abs(size):.3g} widths of its usual range outside it",
        "labels": f"the labels of {name} have other shares",
        "missing": f"{abs(100 * size):.1f} percentage points {more} rows lack {name}",
        "unseen": f"{abs(size):.1%} of the rows hold labels of {name} that the reference lacks",
        "correlation": f"the correlation of {name} changed by {size:+.2f}",
        "joint": f"the columns shifted together, most of all {', '.join(names)}",
        "classifier": f"a classifier can tell these rows from the reference, by {', '.join(names)}",
    }
    return said.get(kind, f"{name}: {kind} changed by {size:+.3g}")


def _deviations(size: float) -> str:
    return f"more than {_CAPPED}" if abs(size) > _CAPPED else f"{abs(size):.2f}"


def middle(one: Mapping[str, Any]) -> str:
    """Where the middle of a number is, or the label that changed most."""
    if one["quarters"]:
        return f"median {number(one['quarters'][1])} \u2192 {number(one['quarters'][4])}"
    if not one["labels"]:
        return "no values to draw"
    changes = [abs(now - before) for before, now in zip(one["before"], one["now"], strict=True)]
    most = changes.index(max(changes))
    before, now = (one[side][most] / THOUSAND for side in ("before", "now"))
    return f"{one['labels'][most]} {share(before)} \u2192 {share(now)}"


def loss(newest: Performance) -> str:
    """How the loss of a batch compares with the loss after training, as a sentence."""
    known = {name: value for name, value in newest.metrics.items() if name != RIVAL_LOSS}
    figures = ", ".join(f"{name} {number(known[name])}" for name in [*known][:_MOST_METRICS])
    return (
        f"the loss is {_larger(newest.change, newest.at_least)}"
        f"{_enough(newest.at_least, worse=newest.worse)} "
        f"(batch {newest.batch}{f', {figures}' if figures else ''})."
    )


def measured(seen: Evidence) -> str:
    """How the loss that a decision was made from compares with the loss after training."""
    what = f"the loss is {_larger(seen.change, seen.at_least)}"
    return f"{what}{_enough(seen.at_least, worse=bool(seen.worse))} (batch {seen.measured})."


def _enough(at_least: float, *, worse: bool) -> str:
    if worse:
        return "; that is more than monitoring.performance_loss allows"
    return "; whether that is too much is not certain" if at_least > 0 else ""


def _larger(change: float, at_least: float) -> str:
    if change <= 0:
        return f"{abs(change):.1%} smaller than after training"
    if at_least <= 0:
        return f"{change:.1%} larger than after training, which may be chance"
    return f"{change:.1%} larger than after training, at least {at_least:+.1%} with 95% confidence"


def moves(record: Mapping[str, Any], chosen: Collection[str], most: int) -> list[str]:
    """What moved in a batch and by how much, as sentences; the most important first.

    Parameters
    ----------
    record : mapping of str to Any
        The comparison, as `stored.to_record` keeps it; one of an older store may lack shapes.
    chosen : collection of str
        Displayed names of the columns and pairs that matter most; empty: all alike.
    most : int
        Most sentences.
    """
    first: dict[str, dict[str, Any]] = {}
    for found in sorted(drifted_of(record), key=lambda one: one["name"] not in chosen):
        first.setdefault(found["name"], found)
    drawn = record.get("shapes", {"columns": [], "data": []})
    shapes = {one["column"]: one for one in rows_of(drawn)}
    return [f"{change(found, record['batches'], shapes)}." for found in [*first.values()][:most]]
