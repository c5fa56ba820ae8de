"""Fills the templates of notes and pages.

A value may be anybody's words: a caller's, a label's, a library's. Whatever a template prints
therefore stays on one line, and in Markdown it cannot end a table cell, link or hide anything.
"""

import logging
import shlex
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pipeline.errors import UnavailableError, first_line
from pipeline.reporting.wording import named, number, share

logger = logging.getLogger(__name__)

_WHOLE, _LONG = 1e3, 1e12
"""Numbers between these are written without decimals."""
_SHORT = 80
"""Characters that are kept of a caller's words."""
_ESCAPES = str.maketrans({"\\": r"\\", "|": r"\|", "<": "&lt;", "[": r"\[", "`": r"\`", "*": r"\*"})


def markdown(template: str, **values: Any) -> str:
    """Fill a template of a Markdown note."""
    return _MARKDOWN.get_template(template).render(values).strip()


def page(template: str, **values: Any) -> str:
    """Fill a template of an HTML page; every value is escaped."""
    return _HTML.get_template(template).render(values).strip()


def drawn(draw: Callable[[], str], what: str) -> str:
    """Draw a page for people; what cannot be drawn holds no decision up, and says why.

    Parameters
    ----------
    draw : callable
        Draws the page.
    what : str
        What it shows, in the words of a message.

    Raises
    ------
    UnavailableError
        If a server does not answer, as a retry may succeed.
    """
    try:
        return draw()
    except UnavailableError:
        raise
    except Exception as error:
        logger.exception("The page of %s could not be drawn.", what)
        return page("undrawn.html.j2", what=what, error=first_line(error))


def plain(template: str, **values: Any) -> str:
    """Fill a template of a plain-text page."""
    return _PLAIN.get_template(template).render(values).strip()


def one_line(value: Any) -> str:
    """Text on one line, without characters that hide or reorder others."""
    text = "".join(char if char.isprintable() else " " for char in str(value))
    return " ".join(text.split())


def moment_of(seconds: float) -> str:
    """A moment, given in seconds since 1970, as people read it."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def _escaped(value: Any) -> str:
    return one_line(value).translate(_ESCAPES)


def _thousands(number: float) -> str:
    return f"{number:,}"


def _pretty(value: float | str) -> float | str:
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if _WHOLE <= abs(value) < _LONG else f"{value:.4g}"


def _signed(gain: float) -> str:
    return f"{gain:+.2%}"


def _short(text: str) -> str:
    return text[:_SHORT]


def _environment(finalize: Any, *, autoescape: bool = False) -> Environment:
    environment = Environment(
        loader=PackageLoader("pipeline.reporting"),
        autoescape=autoescape,  # noqa: S701 -- without it `finalize` escapes, for Markdown or text
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "thousands": _thousands,
        "pretty": _pretty,
        "moment": moment_of,
        "short": _short,
        "quoted": shlex.quote,
        "percent": share,
        "digits": number,
        "signed": _signed,
        "named": named,
    }
    return environment


def _printed(value: Any) -> Any:
    """What a page prints: text on one line; what a macro made stays as it is."""
    return one_line(value) if isinstance(value, str) and not isinstance(value, Markup) else value


_MARKDOWN, _PLAIN = _environment(_escaped), _environment(one_line)
_HTML = _environment(_printed, autoescape=True)
