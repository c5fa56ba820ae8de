"""Variants of each cause: how it shows, and which columns it can be put into."""

from dataclasses import dataclass
from functools import partial
from typing import Literal

from benchmarks.batches.faults import (
    Apply,
    Names,
    absent,
    affine,
    clipped,
    collapsed,
    doubled,
    exploded,
    flags,
    frozen,
    handful,
    nulls,
    permuted,
    rare_case,
    recode,
    renamed,
    rounded,
    sentinel,
    shifted,
    shuffled,
    sign,
    stale,
    stuck,
    swapped,
    text,
)

On = Literal[
    "number", "label", "any", "two numbers", "two labels", "hour", "weekday", "month", "batch"
]


@dataclass(frozen=True)
class Variant:
    """One way in which a cause shows.

    Attributes
    ----------
    cause, name : str
        The cause, and the name of the variant within it.
    apply : callable
        The function of `faults` that does the damage.
    on : str
        Kind of columns that it damages; `several` columns of any kind for a join.
    only : tuple of str
        Names of the columns it makes sense for; empty: all.
    all_rows : bool
        Whether it always touches all rows.
    source : str
        Where the `rows` that `apply` needs come from: ``before`` or ``earlier``.
    also : tuple of str
        Other causes that are right answers as well.
    few : bool
        Whether it touches only a few rows of those it is given.
    """

    cause: str
    name: str
    apply: Apply
    on: On | Literal["several"] = "number"
    only: Names = ()
    all_rows: bool = False
    source: Literal["", "before", "earlier"] = ""
    also: Names = ()
    few: bool = False


REPORTED = "odd values"
"""A handful of impossible values: the batch may go on, but its report has to count them."""
FAHRENHEIT = ("temp", "dewp", "feat_1", "feat_2", "feat_7", "feat_8")
CELSIUS = ("celsius",)
MILES = ("distance", "visib", "trip_miles")
MONEY = ("fare", "price", "LIMIT_BAL", "capital-gain", "nswprice")
_FACTORS = {"x100": 100, "x1000": 1000, "/100": 0.01, "kg to lb": 2.20462, "lb to kg": 0.453592}

VARIANTS: tuple[Variant, ...] = (
    Variant("unit", "F to C", partial(affine, factor=5 / 9, offset=-160 / 9), only=FAHRENHEIT),
    Variant("unit", "C to F", partial(affine, factor=1.8, offset=32), only=CELSIUS),
    Variant("unit", "miles to km", partial(affine, factor=1.609344), only=MILES),
    Variant("unit", "dollars to cents", partial(affine, factor=100, whole=True), only=MONEY),
    *(Variant("unit", name, partial(affine, factor=by)) for name, by in _FACTORS.items()),
    Variant("unit", "inches to mm", partial(affine, factor=25.4)),
    Variant("unit", "x1.8 + 32", partial(affine, factor=1.8, offset=32)),
    Variant("unit", "affine", affine),
    Variant("sign", "minus", sign),
    Variant("stuck", "number", stuck),
    Variant("stuck", "label", stuck, on="label"),
    Variant("frozen", "one run", frozen, on="batch"),
    Variant("frozen", "three runs", partial(frozen, runs=3), on="batch"),
    Variant("nulls", "any", nulls, on="any"),
    *(
        Variant("sentinel", f"{value}", partial(sentinel, value=value))
        for value in (-999, -1, 9999, 0)
    ),
    Variant("sentinel", "1970", partial(sentinel, value=0), only=("opened",)),
    *(
        Variant("sentinel", value or "empty", partial(sentinel, value=value), on="label")
        for value in ("UNKNOWN", "", "N/A")
    ),
    *(Variant("clipped", f"{at}", partial(clipped, at=at)) for at in (0.9, 0.8, 0.1, 0.2)),
    *(Variant("rounded", f"{to}", partial(rounded, to=to)) for to in ("fewer", "half")),
    Variant("rounded", "integers", partial(rounded, to=0)),
    Variant("rounded", "tens", partial(rounded, to=-1)),
    *(
        Variant("recode", how, partial(recode, how=how), on="label")
        for how in ("lower case", "spaces", "truncated", "codes", "long codes", "prefix", "1 and 0")
    ),
    Variant("recode", "rare label", rare_case, on="label", few=True),
    Variant("permuted", "labels", permuted, on="label"),
    Variant("swapped", "numbers", swapped, on="two numbers"),
    Variant("swapped", "labels", swapped, on="two labels"),
    Variant("shuffled", "number", shuffled),
    Variant("shuffled", "label", shuffled, on="label"),
    Variant("shifted", "hours", shifted, on="hour"),
    Variant("shifted", "one hour", partial(shifted, by=1), on="hour"),
    Variant("shifted", "five hours", partial(shifted, by=5), on="hour"),
    Variant("shifted", "weekday", partial(shifted, by=1), on="weekday"),
    Variant(
        "shifted",
        "weekday from one",
        partial(shifted, by=1, around=False),
        on="weekday",
        also=("unit", "recode"),
    ),
    Variant("shifted", "one month", partial(shifted, by=1), on="month"),
    Variant("duplicate", "twice", doubled, on="batch"),
    Variant("duplicate", "training", stale, on="batch", source="before"),
    Variant(
        "duplicate",
        "earlier",
        partial(stale, whole=True),
        on="batch",
        source="earlier",
        all_rows=True,
    ),
    Variant("volume", "first rows", partial(collapsed, head=True), on="batch", all_rows=True),
    Variant("volume", "few rows", partial(collapsed, head=False), on="batch", all_rows=True),
    Variant("volume", "x12", exploded, on="batch", all_rows=True),
    Variant("schema", "absent", absent, on="any", all_rows=True),
    Variant("schema", "renamed", renamed, on="any", all_rows=True),
    Variant("schema", "flags", flags, all_rows=True),
    *(
        Variant("schema", how, partial(text, how=how))
        for how in ("comma and unit", "currency", "list", "words")
    ),
    Variant("join", "several", nulls, on="several"),
    Variant(REPORTED, "ten values", partial(handful, count=10), all_rows=True, few=True),
    Variant(REPORTED, "one value", partial(handful, count=1), all_rows=True, few=True),
)
CAUSES: Names = tuple(dict.fromkeys(one.cause for one in VARIANTS if one.cause != REPORTED))
"""Causes that a batch is broken by."""
