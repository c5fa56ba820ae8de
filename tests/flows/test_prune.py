import json
import os

import numpy as np
import pandas as pd
import pytest

from flows.monitor import monitor
from flows.paging import pager_of
from flows.prune import prune
from flows.steps import opened, quarantine_folder
from pipeline.data.captures import Layout, read_captures
from pipeline.monitoring.episode import Decision, Evidence, Verdict
from pipeline.monitoring.findings import Cause, DriftReport
from pipeline.reference.summaries import ROWS, Summary
from pipeline.registry import recent, records
from pipeline.registry.history import batch_name
from pipeline.registry.records import GIVEN, PREDICTIONS, REPORT, SUMMARY
from pipeline.registry.versions import Registry
from pipeline.reporting import outbox, written_pages
from pipeline.reporting.pages import Event
from pipeline.serving.capturing import Captures

pytestmark = [pytest.mark.integration, pytest.mark.team]

WEEK = pd.Timedelta("7D")
OPENING = pd.Timestamp("2024-06-03")
UNIT = Cause("unit", ("amount",), "Seen.", {}, "Mend it.", 0.5)
OLD = 1_000_000_000.0
"""A moment years ago, in seconds since 1970."""


def record(registry, place, *causes):
    start = OPENING + place * WEEK
    report = DriftReport(0, 0.05, (), (), (), Summary({ROWS: 0.0}), 1, 400.0, 0.01, (), causes)
    evidence = Evidence(batch_name(start), 1, broken=tuple(cause.name for cause in causes))
    return records.record(
        registry,
        verdict=Verdict(evidence, Decision("page" if causes else "none", "As found.")),
        report=report,
        quarantined=0,
        predictions=pd.DataFrame({"key": ["a"], "time": [start], "prediction": [0.5]}),
        window=(start, start + WEEK),
        step=place,
        given={},
        draw=lambda *_: "",
    )


@pytest.fixture
def aged(trained, monkeypatch):
    """Conf of a shop with old batches, refused rows, pages and captures; and three batches.

    The first batch is broken and waits for an answer, the second is not needed by any decision, and
    the last is one of those that decisions read.
    """
    monkeypatch.setattr(recent, "MOST_RECENT", 3)  # recording 52 batches takes a while
    settings, registry = opened(trained)
    batches = [record(registry, 0, UNIT), record(registry, 1)]
    batches += [record(registry, place) for place in range(20, 24)]
    folder = quarantine_folder(settings)
    folder.mkdir(parents=True, exist_ok=True)
    for batch in (batches[0], batches[1]):
        path = folder / f"batch {batch.name}.parquet".replace(":", "")
        pd.DataFrame({"id": ["a"]}).to_parquet(path)
        os.utime(path, (OLD, OLD))
    write_pages(pager_of(settings).file)
    fill_captures(settings)
    return trained, batches[0], batches[1], batches[-1]


def write_pages(file):
    for about, episode in (("a", ""), ("b", "open"), ("c", "over")):
        outbox.write(file, "shop", Event("gate", about, "Subject", "Body", episode), {}, now=OLD)
    over = Event("resolved", "d", "Subject", "Body", "over")
    outbox.write(file, "shop", over, {}, now=OLD)
    outbox.write(file, "shop", Event("gate", "new", "Subject", "Body"), {"x": "info"}, now=OLD)


def fill_captures(settings):
    now = int(pd.Timestamp.now("UTC").timestamp() * 1e6)
    with Captures(settings.captures, keep=pd.Timedelta("36500D")) as captures:
        for at in (int(OLD * 1e6), now):
            captures.answer(
                at=at,
                request_id=f"{at:032d}",
                layout=Layout("classification", json.dumps({"amount": None})),
                version="1",
                latency=1,
                features=np.array([[1.0]]),
                unseen=(),
                keys=["a"],
                predictions=np.array([0.5]),
            )


def files_of(registry, batch):
    return {one.path for one in registry.client.list_artifacts(batch.run_id)}


def pages_of(settings):
    return [page["id"] for page in written_pages.undelivered(pager_of(settings).file, "shop")]


def cut_off(*_):
    raise KeyboardInterrupt


def test_what_is_old_and_not_needed_is_deleted_and_nothing_else(aged, monkeypatch):
    conf, broken, unneeded, last = aged
    settings, registry = opened(conf)
    before = records.read_history(registry)

    found = prune(conf)

    assert files_of(registry, unneeded) >= {REPORT, PREDICTIONS}
    assert len(read_captures(settings.captures)) == 2
    assert all(size > 0 for size in found["freed"].values())

    with monkeypatch.context() as patched:
        patched.setattr(Registry, "tag_run", cut_off)
        with pytest.raises(KeyboardInterrupt):
            prune(conf, apply=True)
    assert prune(conf, apply=True)["applied"]

    assert files_of(registry, unneeded) == {SUMMARY, GIVEN}
    assert all(files_of(registry, batch) >= {REPORT, PREDICTIONS} for batch in (broken, last))
    assert records.read_history(registry) == before
    assert records.causes(registry, broken) == (UNIT,)
    (left,) = quarantine_folder(settings).glob("*.parquet")
    assert broken.name.replace(":", "") in left.name
    assert pages_of(settings) == ["shop/champion/00001", "shop/gate/b", "shop/gate/new"]
    assert len(read_captures(settings.captures)) == 1

    assert sum(prune(conf, apply=True)["freed"].values()) == 0
    assert registry.bundle(1)
    assert monitor(conf, batch=pd.Timestamp("2026-02-16"))["rows"] > 0
