from pathlib import Path

import pytest
from jinja2 import UndefinedError
from jinja2.meta import find_undeclared_variables

from pipeline import reporting
from pipeline.errors import UnavailableError
from pipeline.reporting.rendering import _MARKDOWN, drawn, markdown, plain

FOLDER = Path(reporting.__file__).parent / "templates"
NASTY = "a|b\\|c\n# <script>[x](http://e) `*\u202e"


def cell(value):
    lines = [(value, 1, 1)]
    table = {"what": "caller", "lines": lines, "rest": 0}
    note = markdown(
        "refusals_note.md.j2", refused=1, before=0, tables=[table], labels=[], conf="x.yaml"
    )
    return note.split("\n")[-1]


def test_a_value_cannot_leave_its_table_cell_or_its_line():
    assert cell(NASTY) == r"| a\|b\\\|c # &lt;script>\[x](http://e) \`\* | 1 | +1 |"


def test_a_plain_page_keeps_the_characters_of_a_value_on_one_line():
    page = plain("unusable_batch.txt.j2", conf="x.yaml", batch="b", error=NASTY)

    assert page.split("\n")[3] == "Why: a|b\\|c # <script>[x](http://e) `*"


def test_a_page_that_cannot_be_drawn_says_why_and_stops_nothing(caplog):
    def draw():
        return {}["no <b>scale</b> of https://me:secret@host"]

    shown = drawn(draw, "batch 2026-02-16")

    assert "batch 2026-02-16 could not be drawn: " in shown
    assert "no &lt;b&gt;scale&lt;/b&gt;" in shown
    assert "secret" not in shown
    assert "KeyError" in caplog.text


def test_a_page_waits_for_a_server_that_does_not_answer():
    message = "MLflow does not answer."

    def draw():
        raise UnavailableError(message)

    with pytest.raises(UnavailableError, match=message):
        drawn(draw, "batch 2026-02-16")


def test_a_value_that_a_template_lacks_is_an_error():
    with pytest.raises(UndefinedError):
        plain("unusable_batch.txt.j2", conf="x.yaml")


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.iterdir()))
def test_every_template_parses_and_none_marks_a_value_as_safe(name):
    source = (FOLDER / name).read_text(encoding="utf-8")

    assert find_undeclared_variables(_MARKDOWN.parse(source)) or name == "figures.html.j2"
    assert "| safe" not in source
