"""How a column is derived from others: written `hour(date_time)`, read into its parts."""

import re
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from typing import Annotated, Any, Final

from pydantic import PlainSerializer, PlainValidator

MOMENTS: Final = ("hour", "weekday", "day", "month", "year")
NUMBERS: Final = {"log": 1, "ratio": 2, "bins": 1}
"""Functions of numbers, and how many columns each takes."""
_FORM = re.compile(r"\s*(\w+)\s*\((.*)\)\s*", re.DOTALL)


@dataclass(frozen=True)
class Derived:
    """One column as a function of others.

    Attributes
    ----------
    function : str
        ``hour``, ``weekday`` (0 is Monday), ``day`` (of the month), ``month`` and ``year`` of a
        time in UTC; ``log``, the natural logarithm; ``ratio`` of two columns; ``bins`` of a
        column, between growing bounds.
    columns : tuple of str
        Columns that it is a function of.
    bounds : tuple of float
        Of `bins`.
    """

    function: str
    columns: tuple[str, ...]
    bounds: tuple[float, ...] = ()

    @classmethod
    def parse(cls, text: Any) -> "Derived":
        """Read what a file says.

        Raises
        ------
        ValueError
            If it is no such function.
        """
        if isinstance(text, cls):
            return text
        form = _FORM.fullmatch(text) if isinstance(text, str) else None
        names = [name.strip() for name in form[2].split(",")] if form else []
        function = form[1] if form else ""
        takes = NUMBERS.get(function, 1)
        known = function in NUMBERS or function in MOMENTS
        bounds = _bounds(names[1:]) if function == "bins" else ()
        columns = tuple(names[:1] if function == "bins" else names)
        if not known or len(columns) != takes or not all(columns):
            rule = (
                f"must be one of {', '.join(MOMENTS)} of a time, log(a), ratio(a, b), or "
                f"bins(a, 10, 20), where a and b are columns. Got {text!r}"
            )
            raise ValueError(rule)
        return cls(function, columns, bounds)

    def __str__(self) -> str:
        """As a file says it."""
        return f"{self.function}({', '.join([*self.columns, *self.spelled_bounds])})"

    @property
    def spelled_bounds(self) -> list[str]:
        """Each bound with all of its digits, 10 for 10.0."""
        return [repr(bound).removesuffix(".0") for bound in self.bounds]


def _bounds(texts: list[str]) -> tuple[float, ...]:
    try:
        bounds = tuple(map(float, texts))
    except ValueError:
        bounds = ()
    grow = all(low < high for low, high in pairwise(bounds)) and all(map(isfinite, bounds))
    if not bounds or not grow:
        rule = f"bins must name a column and growing numbers. Got {', '.join(texts) or 'none'}"
        raise ValueError(rule)
    return bounds


Derivation = Annotated[
    Derived,
    PlainValidator(Derived.parse, json_schema_input_type=str),
    PlainSerializer(str, return_type=str, when_used="json"),
]
