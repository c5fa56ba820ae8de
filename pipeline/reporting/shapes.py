"""A column of a report as a picture: the batch filled, the reference as a line over it."""

from collections.abc import Mapping
from typing import Any

from pipeline.monitoring.stored import THOUSAND
from pipeline.reporting.drawing import Drawn, bars, steps
from pipeline.reporting.wording import named, number, share

_WIDE = 200
"""Width of a drawn number, as nearly as its bins allow."""
_GAP = 12
"""Width of the gap in a broken axis."""


def shape(one: Mapping[str, Any]) -> Drawn | None:
    """Draw a stored shape; None where there is nothing to draw."""
    if not one["before"]:
        return None
    return _of_labels(one) if one["labels"] else _of_numbers(one)


def _of_labels(one: Mapping[str, Any]) -> Drawn:
    before, now = one["before"], one["now"]
    size = {"top": max(*before, *now, 1), "bin_width": 20}
    return Drawn(
        width=20 * len(before),
        before=bars(before, gap=2, **size),
        now=bars(now, gap=5, **size),
        words=_label_words(one),
        labels=tuple(one["labels"]),
    )


def _of_numbers(one: Mapping[str, Any]) -> Drawn:
    """One part, or the parts of a broken axis beside one another."""
    before, now = one["before"], one["now"]
    parts = list(zip(one["ends"][::2], one["ends"][1::2], strict=True))
    bins = len(before) // len(parts)
    size = {"top": max(*before, *now, 1), "bin_width": max(1, round(_WIDE / len(before)))}
    wide = bins * size["bin_width"]
    places = [(place * bins, place * (wide + _GAP)) for place in range(len(parts))]

    def path(side: list[int], *, closed: bool) -> str:
        own = ((side[first : first + bins], start) for first, start in places)
        return "".join(steps(some, closed=closed, start=start, **size) for some, start in own)

    texts = tuple(
        number(low) if low == high else f"{number(low)} to {number(high)}" for low, high in parts
    )
    return Drawn(
        width=places[-1][1] + wide,
        before=path(before, closed=False),
        now=path(now, closed=True),
        words=_number_words(one, texts),
        ends=tuple(number(end) for end in parts[0]) if len(parts) == 1 else (),
        parts=texts if len(parts) > 1 else (),
        breaks=tuple(start - _GAP // 2 for _, start in places[1:]),
    )


def _number_words(one: Mapping[str, Any], parts: tuple[str, ...]) -> str:
    sides = (one["quarters"][:3], one["quarters"][3:])
    low, high = (
        f"{where} median {number(middle)}, middle half {number(least)} to {number(most)}"
        for where, (least, middle, most) in zip(("reference", "batch"), sides, strict=True)
    )
    broken = f"; the axis is broken: {', '.join(parts)}" if len(parts) > 1 else ""
    return f"{named(one['column'])}: {low}; {high}{broken}"


def _label_words(one: Mapping[str, Any]) -> str:
    said = [
        f"{label} {share(before / THOUSAND)}, now {share(now / THOUSAND)}"
        for label, before, now in zip(one["labels"], one["before"], one["now"], strict=True)
    ]
    return f"{named(one['column'])}: {'; '.join(said)}"
