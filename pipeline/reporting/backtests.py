"""A comparison of policies as people read it in MLflow: a note, and a picture."""

from collections.abc import Mapping
from html import escape
from typing import Any, Final

import numpy as np

from pipeline.backtest.fits import Span
from pipeline.backtest.policies import NEVER
from pipeline.columns import Floats
from pipeline.reporting.rendering import markdown

_WIDTH, _HEIGHT = 860, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 190, 40, 40
_COLOURS: Final = (
    *("#777777", "#9ecae1", "#6baed6", "#2171b5", "#08306b"),
    *("#d62728", "#ff7f0e", "#2ca02c", "#9467bd"),
)
_LINE: Final = 16
"""Height of a line of the legend."""


def backtest_note(result: Mapping[str, Any]) -> str:
    """Say in Markdown what was compared, what each policy was worth, and what to do."""
    return markdown("backtest_note.md.j2", **result)


def picture(losses: Mapping[str, Floats], rows: Floats, span: Span) -> str:
    """Draw the mean loss since the first batch, relative to no retrain, a line for each policy.

    Parameters
    ----------
    losses : mapping of str to array of float, shape (n_batches,)
        Mean loss of each batch by policy.
    rows : array of float, shape (n_batches,)
        Rows of each batch with a label.
    span : Span
        The batches.

    Returns
    -------
    str
        An SVG image that needs nothing else.
    """
    known = np.flatnonzero(rows > 0)
    sums = {name: (one[known] * rows[known]).cumsum() for name, one in losses.items()}
    lines = {name: 100 * (one / sums[NEVER] - 1) for name, one in sums.items()}
    low = min(float(one.min()) for one in lines.values())
    high = max(float(one.max()) for one in lines.values())
    high = high if high > low else low + 1
    across = _LEFT + known / max(span.batches - 1, 1) * (_WIDTH - _LEFT - _RIGHT)
    shapes = [_text(_LEFT, 22, "Mean loss since the first batch, compared with no retrain")]
    for value in sorted({low, 0.0, high}):
        y = _down(value, low, high)
        shapes.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
        )
        shapes.append(_text(_LEFT - 6, y + 4, f"{value:+.1f}%", anchor="end"))
    for place, (name, values) in enumerate(lines.items()):
        colour = _COLOURS[place % len(_COLOURS)]
        points = zip(across, _down(values, low, high), strict=True)
        shapes.append(_line(points, colour))
        y = _TOP + _LINE * (place + 1)
        shapes.append(_line([(_WIDTH - _RIGHT + 12, y - 4), (_WIDTH - _RIGHT + 32, y - 4)], colour))
        shapes.append(_text(_WIDTH - _RIGHT + 38, y, f"{name} {values[-1]:+.1f}%"))
    ends = ((0, "start"), (span.batches, "end"))
    for batch, anchor in ends:
        x = _LEFT if batch == 0 else _WIDTH - _RIGHT
        shapes.append(_text(x, _HEIGHT - 12, f"{span.begin(batch):%Y-%m-%d}", anchor=anchor))
    inner = "\n".join(shapes)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'width="{_WIDTH}" height="{_HEIGHT}" font-family="sans-serif" font-size="12">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n{inner}\n</svg>\n'
    )


def _down(value: Any, low: float, high: float) -> Any:
    return _TOP + (high - value) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)


def _line(points: Any, colour: str) -> str:
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="1.5"/>'


def _text(x: float, y: float, words: str, *, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
