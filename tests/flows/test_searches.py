import pandas as pd
import pytest

from flows import steps
from flows.monitor import monitor
from pipeline.monitoring.episode import Decision, Evidence, Verdict
from pipeline.monitoring.findings import DriftReport
from pipeline.reference.summaries import ROWS, Summary
from pipeline.registry import records
from pipeline.registry.history import batch_name
from pipeline.registry.versions import Registry

pytestmark = pytest.mark.integration

MOST = 8
"""Searches of a monitor run: for calm, recent and four kinds of older batches, for the batch's run,
and for its time line."""


class Counting(Registry):
    searches = 0

    def search(self, condition, most=None):
        Counting.searches += 1
        return super().search(condition, most)


@pytest.fixture
def count_searches(trained, monkeypatch):
    """Monitors the next batch of the shop; returns how often MLflow was searched for runs."""
    monkeypatch.setattr(steps, "Registry", Counting)

    def counted():
        before = Counting.searches
        monitor(trained)
        return Counting.searches - before

    return counted


NOTHING = pd.DataFrame({"key": [], "time": [], "prediction": []})


def record_weeks(registry, count):
    """Record batches of the weeks before the shop opened, judged by another version."""
    report = DriftReport(0, 0.05, (), (), (), Summary({ROWS: 0.0}), 1, 400.0, 0.01, (), ())
    for k in range(1, count + 1):
        start = pd.Timestamp("2026-01-05") - k * pd.Timedelta("7D")
        records.record(
            registry,
            verdict=Verdict(Evidence(batch_name(start), 99), Decision("none", "Quiet.")),
            report=report,
            quarantined=0,
            predictions=NOTHING,
            window=(start, start + pd.Timedelta("7D")),
            step=-k,
            given={},
            draw=lambda *_: "",
        )


@pytest.mark.team
def test_a_monitor_run_searches_a_few_times_however_many_batches_are_recorded(
    trained, count_searches
):
    assert count_searches() <= MOST
    _, registry = steps.opened(trained)

    record_weeks(registry, 60)

    assert count_searches() <= MOST
    assert len(records.read_history(registry).batches) == 62
