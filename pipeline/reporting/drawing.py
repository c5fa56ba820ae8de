"""Figures of pages as paths of inline SVG: some hundred bytes each, drawn without a script."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

HEIGHT = 40
"""Height of a drawn column; its width is a whole number for each bin."""


@dataclass(frozen=True)
class Drawn:
    """A column of two sides, drawn over one another.

    Attributes
    ----------
    width : int
        Of its view box.
    before, now : str
        Paths.
    words : str
        What a reader hears who does not see it; it holds the numbers.
    ends : tuple of str
        Texts below both ends of the axis.
    labels : tuple of str
        Texts below the bars, where these are labels.
    parts : tuple of str
        Texts below the parts of a broken axis, equally wide; empty where it is not broken.
    breaks : tuple of int
        Where the axis is broken.
    """

    width: int
    before: str
    now: str
    words: str
    ends: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    breaks: tuple[int, ...] = ()


@dataclass(frozen=True)
class Chart:
    """Lines over two axes.

    Attributes
    ----------
    title, words : str
        What it shows, and what a reader hears who does not see it.
    width, height : int
        Of its view box.
    paths : tuple of pairs of str
        Look and path of each line.
    low, across, high : str
        Texts below the axis: at its ends and in the middle.
    """

    title: str
    words: str
    width: int
    height: int
    paths: tuple[tuple[str, str], ...]
    low: str = ""
    across: str = ""
    high: str = ""


class Box(NamedTuple):
    """The ranges of two axes, and the size that they are drawn in."""

    left: float
    right: float
    bottom: float
    top: float
    width: int = 400
    height: int = 120

    def place(self, x: float, y: float) -> str:
        """A point of a path, in tenths of a unit, kept inside of the box."""
        across = (x - self.left) / ((self.right - self.left) or 1.0)
        up = (y - self.bottom) / ((self.top - self.bottom) or 1.0)
        inside = (min(max(share, 0.0), 1.0) for share in (across, 1 - up))
        along, down = inside
        return f"{along * self.width:.1f} {down * self.height:.1f}"


def line(box: Box, xs: Sequence[float], ys: Sequence[float]) -> str:
    """A path through points."""
    points = [box.place(x, y) for x, y in zip(xs, ys, strict=True)]
    return f"M{'L'.join(points)}" if points else ""


def dots(box: Box, xs: Sequence[float], ys: Sequence[float]) -> str:
    """A path of one round dot for each point, where the line's ends are round."""
    return "".join(f"M{box.place(x, y)}h0" for x, y in zip(xs, ys, strict=True))


def steps(
    shares: Sequence[float], *, top: float, bin_width: int, closed: bool, start: int = 0
) -> str:
    """A path along the tops of bins, from the left to the right.

    Parameters
    ----------
    shares : sequence of float
        Share of each bin.
    top : float
        Share that is drawn at full height.
    bin_width : int
        Width of a bin.
    closed : bool
        Whether the path returns along the axis, to be filled.
    start : int
        Where the first bin begins.
    """
    tops = [HEIGHT - round(HEIGHT * share / (top or 1)) for share in shares]
    along = "".join(f"V{y}H{start + (i + 1) * bin_width}" for i, y in enumerate(tops))
    return f"M{start} {HEIGHT}{along}" + (f"V{HEIGHT}Z" if closed else f"V{HEIGHT}")


def bars(shares: Sequence[float], *, top: float, bin_width: int, gap: int) -> str:
    """A path of one bar for each label, with a gap on both sides."""
    return "".join(
        f"M{i * bin_width + gap} {HEIGHT}v{-round(HEIGHT * share / (top or 1))}"
        f"h{bin_width - 2 * gap}V{HEIGHT}Z"
        for i, share in enumerate(shares)
    )
