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
