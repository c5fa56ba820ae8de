import json
import re
from pathlib import Path

import pandas as pd
import pytest

from flows.judge import judge
from flows.monitor import monitor, next_batch
from flows.page import page
from flows.paging import page_changes, pager_of
from flows.register import rollback
from flows.replay import replay
from flows.steps import opened
from flows.train import train
from flows.validate import validate
from pipeline.errors import ConfigError, RegistryError
from pipeline.registry import champions, records
from pipeline.reporting import outbox, written_pages

ROOT = Path(__file__).parents[2]


@pytest.fixture
def addressed(monkeypatch):
    """Names the addresses of receivers to the flows."""

    def named(*receivers):
        urls = json.dumps([receiver.url for receiver in receivers])
        monkeypatch.setenv("HOLDFAST__ALERTS__URLS", urls)

    monkeypatch.setattr(outbox, "_FIRST_DELAY", 0.0)
    return named


def titles(receiver):
    return [page["title"] for page in receiver.taken]


def is_documented(page, conf):
    """Whether docs/pages.md shows a page, with other line breaks, moments and runs."""
    text = f"{page['title']}\n{page['message']}".replace(conf, "conf/shop.yaml")
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "2026-03-09 00:10 UTC", text)
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "4f1c...", text)
    text = re.sub(r"sqlite:\S+", "sqlite:////srv/shop/.holdfast/mlflow.db.", text)
    text = re.sub(r"http://127\.0\.0\.1:\d+", "http://127.0.0.1:4200", text)
    shown = " ".join((ROOT / "docs/pages.md").read_text("utf-8").split())
    assert " ".join(text.split()) in shown, f"docs/pages.md must show this page:\n{text}"
    return True


def test_a_page_that_was_refused_is_sent_by_the_next_run_of_any_flow(shop, receive, addressed):
    receiver = receive("answers 500")
    addressed(receiver)
    with pytest.raises(RegistryError):
        monitor(shop)
    assert receiver.got
    assert receiver.taken == []

    receiver.how = "takes"
    validate(shop)
    validate(shop)

    assert titles(receiver) == ["[failure] shop: monitor failed"]


def test_a_flow_that_fails_pages_at_doublings_and_says_when_it_succeeds(shop, receive, addressed):
    receiver = receive()
    addressed(receiver)
    for _ in range(5):
        with pytest.raises(RegistryError):
            monitor(shop)
    train(shop)

    monitor(shop)
    monitor(shop)

    assert titles(receiver) == [
        *["[failure] shop: monitor failed"] * 3,
        "[info] shop: version 1 is the new champion",
        "[info] shop: resolved, monitor succeeds again",
    ]
    (failed,) = re.findall(r"Since: (.*)\.", receiver.taken[0]["message"])
    assert f"It failed from {failed} on." in receiver.taken[-1]["message"]
    assert is_documented(receiver.taken[0], shop)
    again = receiver.taken[2]["message"].split("\n")
    (line,) = [line for line in again if line.startswith("Again: this happened 4 times since ")]
    assert line.endswith("The next page comes at 8 times.")


def test_no_flow_waits_until_a_slow_receiver_answers(shop, receive, addressed):
    receiver = receive("trickles")
    addressed(receive(), receiver)

    with pytest.raises(RegistryError):
        monitor(shop)

    assert receiver.got
    assert not receiver.answered


def test_a_promotion_and_a_rollback_page_each_once(trained, receive, addressed):
    receiver = receive()
    addressed(receiver)
    train(trained, until="2026-02-23", episode="by hand")
    _, registry = opened(trained)
    champions.reconcile(registry, pd.Timestamp("2026-02-23"))

    if registry.version(2).promoted:
        rollback(trained, reason="it was worse")
    settings, _ = opened(trained)
    page_changes(settings, registry)
    validate(trained)

    made = champions.changes(registry)
    assert len([title for title in titles(receiver) if "champion" in title]) == len(made) - 1
    assert len(made) == 3
    assert titles(receiver)[-1] == "[warning] shop: version 1 is the champion again, rolled back"
    assert f"holdfast release {trained}" in receiver.taken[-1]["message"]


def test_a_page_lost_with_its_process_is_written_by_the_next_run(about_to_ask, receive, addressed):
    receiver = receive()
    addressed(receiver)
    settings, registry = opened(about_to_ask)
    history = records.read_history(registry)
    history = judge(settings, registry, history, next_batch(settings, registry, history))
    assert history.last.verdict.decision.action == "retrain"
    assert receiver.got == []

    replay(about_to_ask, batches=0)

    (asked,) = [page for page in receiver.taken if "retrain requested" in page["title"]]
    assert asked["title"] == "[warning] shop: performance was lost, retrain requested"
    assert " persists and performance was lost in batch " in asked["message"]
    assert is_documented(asked, about_to_ask)
    (larger, least) = re.search(
        r"How bad: the loss is (.*)% larger than after training, at least \+(.*)% with 95%",
        asked["message"],
    ).groups()
    assert float(larger) > float(least) > 100 * settings.monitoring.performance_loss
    (before, now) = re.search(
        r"Why: amount is higher, in this batch: median (.*) \u2192 ([^;]*);", asked["message"]
    ).groups()
    assert [float(before), float(now)] == pytest.approx([50, 75], abs=1.5)  # how rows were made


def test_the_end_of_trouble_is_paged_once(trained, tmp_path, receive, addressed):
    receiver = receive()
    addressed(receiver)
    rows = pd.read_parquet(tmp_path / "rows.parquet")
    broken = (rows["at"] >= "2026-02-16") & (rows["at"] < "2026-02-23")
    rows.loc[broken, "age"] *= 100
    rows.to_parquet(tmp_path / "rows.parquet")

    actions = [monitor(trained)["action"] for _ in range(2)]
    monitor(trained, batch="2026-02-23")

    assert actions == ["page", "none"]
    assert is_documented(receiver.taken[0], trained)
    assert titles(receiver) == [
        "[failure] shop: batch 2026-02-16T00:00 is broken and quarantined",
        "[info] shop: resolved, batch 2026-02-23T00:00 is sound",
    ]


def test_a_page_that_could_not_be_written_is_written_by_the_next_run(
    trained, tmp_path, receive, addressed, caplog
):
    receiver = receive()
    addressed(receiver)
    rows = pd.read_parquet(tmp_path / "rows.parquet")
    rows.loc[rows["at"] >= "2026-02-16", "age"] *= 100
    rows.to_parquet(tmp_path / "rows.parquet")
    file = pager_of(opened(trained)[0]).file
    file.rename(tmp_path / "aside")
    file.mkdir()

    with pytest.raises(RegistryError, match=r"^The outbox of pages, .*, cannot be used "):
        monitor(trained)
    file.rmdir()
    (tmp_path / "aside").rename(file)
    monitor(trained, batch="2026-02-16")

    assert titles(receiver) == ["[failure] shop: batch 2026-02-16T00:00 is broken and quarantined"]
    assert "while running hook" not in caplog.text


def test_pages_that_nobody_took_are_listed_until_somebody_does(shop, receive, addressed):
    receiver = receive("answers 500")
    addressed(receiver)
    with pytest.raises(RegistryError):
        monitor(shop)

    (waiting,) = page(shop)["undelivered"]
    assert waiting["subject"] == "shop: monitor failed"
    assert [(sent["address"], sent["state"]) for sent in waiting["sends"]] == [
        ("1. json://", "waiting")
    ]
    assert waiting["sends"][0]["why"] == "refused (HTTP 500)"
    receiver.how = "takes"
    assert page(shop) == {"undelivered": []}


def test_pages_that_came_in_a_summary_are_read_in_full_by_its_command(shop, receive, addressed):
    addressed(receive())
    for _ in range(2):
        with pytest.raises(RegistryError):
            monitor(shop)
    assert page(shop) == {"undelivered": []}
    (first, second) = page(shop, since=page_ids(shop)[0])["pages"]

    assert page(shop, since=second["id"])["pages"] == [second]
    assert [sent["state"] for sent in first["sends"]] == ["accepted"]
    assert first["body"].startswith("What: the flow monitor of ")
    with pytest.raises(ConfigError, match=r"^since must be the id of a page of shop. Got 'x'."):
        page(shop, since="x")


def page_ids(conf):
    pager = pager_of(opened(conf)[0])
    return [one["id"] for one in written_pages.since(pager.file, pager.model)]


def test_a_test_page_names_each_address_and_whether_it_took_it(shop, receive, addressed):
    addressed(receive(), receive("answers 500"))

    assert page(shop, test=True)["addresses"] == [
        {"address": "1. json://", "took": True, "why": ""},
        {"address": "2. json://", "took": False, "why": "refused (HTTP 500)"},
    ]


def test_a_test_page_needs_an_address(shop):
    with pytest.raises(ConfigError, match=r"^alerts.urls must hold an address to test. Got none."):
        page(shop, test=True)


def test_a_page_of_a_server_links_to_the_run(shop, receive, addressed):
    receiver = receive()
    addressed(receiver)

    with pytest.raises(RegistryError):
        monitor(shop)

    (line,) = [
        line
        for line in receiver.taken[0]["message"].split("\n")
        if line.startswith("Prefect: http")
    ]
    assert "/runs/flow-run/" in line
    assert pager_of(opened(shop)[0]).file.name == "pages.db"
