from html.parser import HTMLParser

import pytest

from pipeline.config import Alerts
from pipeline.reporting import delivery
from pipeline.reporting.delivery import Pager


@pytest.fixture
def pager(tmp_path, monkeypatch):
    """Makes the pager of a model with some addresses; a late answer is asked for again at once."""
    monkeypatch.setattr("pipeline.reporting.outbox._FIRST_DELAY", 0.0)
    delivery._warn_once.cache_clear()

    def made(*urls, **alerts):
        file = tmp_path / "state" / "pages.db"
        return Pager(file, "shop", "conf/shop.yaml", Alerts(urls=urls, **alerts))

    return made


VOID = {"meta", "br", "img", "hr"}


class Page(HTMLParser):
    """Elements, texts and texts by element of a page; it fails where tags do not match."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", " ".join(data.split())))

    @property
    def words(self):
        """All visible text on one line."""
        return " ".join(text for tag, text in self.texts if tag != "style")

    def of(self, tag):
        """Texts directly inside of an element."""
        return [text for own, text in self.texts if own == tag]

    def labels(self):
        """What is read aloud in the place of each picture."""
        pictures = [attrs for tag, attrs in self.elements if tag == "svg"]
        return [one["aria-label"] for one in pictures if "aria-hidden" not in one]

    def heading(self):
        """The first line."""
        start = [tag for tag, _ in self.texts].index("h1")
        inside = [text for tag, text in self.texts[start - 1 : start + 2] if tag in {"h1", "span"}]
        return " ".join(inside)


def read(text):
    """A page is complete: it has no script, asks for nothing, and forbids both first of all."""
    page = Page(text)
    tags = [tag for tag, _ in page.elements]
    head = page.elements[tags.index("head") + 1]
    assert head[1]["http-equiv"] == "Content-Security-Policy"
    assert head[1]["content"].startswith("default-src 'none'; style-src 'unsafe-inline'")
    assert not {"script", "link", "iframe", "object", "img"} & set(tags)
    assert "url(" not in text
    assert not [a for _, attrs in page.elements for a in attrs if a.startswith("on")]
    for tag, attrs in page.elements:
        assert "src" not in attrs
        assert tag == "a" or "href" not in attrs
        if tag == "th":
            assert attrs.get("scope") in {"row", "col"}
        if tag == "svg":
            assert "aria-hidden" in attrs or (attrs["role"] == "img" and attrs["aria-label"])
    assert tags.count("table") == tags.count("caption")
    return page


@pytest.fixture(scope="session")
def read_page():
    """Reads a page of HTML that must be complete in itself."""
    return read
