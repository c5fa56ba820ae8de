import json
import time
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments import run_deployment
from prefect.states import Completed, Crashed, Scheduled

from flows.judge import judge
from flows.monitor import monitor, next_batch
from flows.steps import opened
from flows.train import train
from flows.watch import watch
from pipeline.registry import records


@pytest.fixture
def pages(receive, monkeypatch):
    """Pages that came, newest last; the flows know the address."""
    receiver = receive()
    monkeypatch.setenv("HOLDFAST__ALERTS__URLS", json.dumps([receiver.url]))
    return receiver.taken


@pytest.fixture
def deployed(prefect):
    """Deploys train and monitor of the shop, with the monitor's schedule on or off."""
    del prefect

    def deploy(*, active):
        schedule = {"schedule": CronSchedule(cron="0 6 * * 1"), "active": active}
        train.to_deployment(name="shop").apply()
        monitor.to_deployment(name="shop", schedules=[schedule]).apply()

    yield deploy
    with get_client(sync_client=True) as client:
        for name in ("train/shop", "monitor/shop"):
            client.delete_deployment(client.read_deployment_by_name(name).id)


def titles(pages):
    return [page["title"] for page in pages]


def ended(name, state, **parameters):
    run = run_deployment(name=name, parameters=parameters, timeout=0, as_subflow=False)
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run.id, state, force=True)


def runs_of(conf):
    with get_client(sync_client=True) as client:
        return [run for run in client.read_flow_runs() if run.parameters.get("conf") == conf]


def test_a_run_that_died_with_its_worker_pages_once(trained, pages, deployed):
    deployed(active=True)
    ended("monitor/shop", Crashed(message="It ended with its worker."), conf=trained)

    watch([trained], once=True)
    watch([trained], once=True)

    dead = [page for page in pages if page["title"] == "[failure] shop: monitor crashed"]
    (page,) = dead
    assert "Why: It ended with its worker." in page["message"].split("\n")
    assert f"holdfast monitor {trained}" in page["message"].split("\n")


def test_a_run_that_died_before_one_that_succeeded_pages_nobody(trained, pages, deployed):
    deployed(active=True)
    ended("monitor/shop", Crashed(message="It ended with its worker."), conf=trained)
    ended("monitor/shop", Completed(), conf=trained)

    watch([trained], once=True)

    assert "[failure] shop: monitor crashed" not in titles(pages)


def test_a_retrain_that_died_with_its_worker_is_sent_again_at_once(about_to_ask, pages, deployed):
    deployed(active=True)
    settings, registry = opened(about_to_ask)
    history = records.read_history(registry)
    judge(settings, registry, history, next_batch(settings, registry, history))
    watch([about_to_ask], once=True)
    (first,) = [run for run in runs_of(about_to_ask) if run.parameters.get("episode")]
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(first.id, Crashed(message="Its worker died."), force=True)

    watch([about_to_ask], once=True)
    watch([about_to_ask], once=True)

    asked = [run for run in runs_of(about_to_ask) if run.parameters.get("episode")]
    (again,) = [run for run in asked if run.id != first.id]
    assert again.parameters == first.parameters
    assert again.state.is_scheduled()
    (page,) = [page for page in pages if page["title"] == "[warning] shop: train crashed"]
    assert "Done: this was attempt 1 of 3; the retrain is sent again" in page["message"]


def test_a_retrain_that_died_three_times_pages_once_and_is_given_up(about_to_ask, pages, deployed):
    deployed(active=True)
    settings, registry = opened(about_to_ask)
    history = records.read_history(registry)
    judge(settings, registry, history, next_batch(settings, registry, history))
    for _ in range(5):
        watch([about_to_ask], once=True)
        with get_client(sync_client=True) as client:
            for run in runs_of(about_to_ask):
                if run.deployment_id and run.state.is_scheduled():
                    client.set_flow_run_state(run.id, Crashed(message="Killed."), force=True)

    asked = [run for run in runs_of(about_to_ask) if run.parameters.get("episode")]
    assert len(asked) == 3
    messages = [page["message"] for page in pages]
    assert sum("no run of it is under way" in message for message in messages) == 1


def test_a_schedule_that_is_off_pages_once_each_time_and_so_does_its_end(trained, pages, deployed):
    for active in (False, False, True, True, False, True):
        deployed(active=active)
        watch([trained], once=True)

    off = "[failure] shop: the monitor is not scheduled"
    on = "[info] shop: resolved, the monitor is looked after again"
    assert [title for title in titles(pages) if title in {off, on}] == [off, on, off, on]
    (page, _) = [page for page in pages if page["title"] == off]
    assert "Why: the schedule of the deployment monitor/shop is off." in page["message"].split("\n")


def test_a_run_that_no_worker_starts_pages_once_and_so_does_its_end(trained, pages, deployed):
    deployed(active=True)
    monitor(trained)
    due = Scheduled(scheduled_time=datetime.now(UTC) - timedelta(hours=2))
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("monitor/shop")
        run = client.create_flow_run_from_deployment(
            deployment.id, parameters={"conf": trained}, state=due
        )
        for _ in range(2):
            watch([trained], once=True)
        client.set_flow_run_state(run.id, Completed(), force=True)
        for _ in range(2):
            watch([trained], once=True)

    late, over = "no worker runs the monitor", "resolved, a worker runs the monitor again"
    assert titles(pages).count(f"[failure] shop: {late}") == 1
    assert titles(pages).count(f"[info] shop: {over}") == 1


def looked_at(conf, *, monitored):
    """Watch a model twice whose monitor ran to its end some days ago."""
    ran = pd.Timestamp.now("UTC") - pd.Timedelta(monitored, "D")
    opened(conf)[1].tag_model("monitored", f"{ran}")
    for _ in range(2):
        watch([conf], once=True)


def test_a_monitor_that_no_worker_runs_is_missed_after_two_batches(trained, pages, deployed):
    deployed(active=True)
    monitor(trained)
    assert 0 <= time.time() - opened(trained)[1].monitored < 600

    looked_at(trained, monitored=15)
    monitor(trained)
    looked_at(trained, monitored=0)

    silent, over = "[failure] shop: the monitor does not run", "resolved, the monitor runs again"
    assert titles(pages).count(silent) == 1
    assert titles(pages).count(f"[info] shop: {over}") == 1


def test_batches_and_labels_that_stop_are_missed_one_after_the_other(
    trained, pages, deployed, tmp_path
):
    deployed(active=True)
    monitor(trained)
    looked_at(trained, monitored=0)
    rows = pd.read_parquet(tmp_path / "rows.parquet")
    week = rows[(rows["at"] >= "2026-02-09") & (rows["at"] < "2026-02-16")]
    now = pd.Timestamp.now("UTC").tz_localize(None)
    weeks = (now - week["at"].min()).days // 7
    older, newer = (
        week.assign(id=f"{n} " + week["id"], at=week["at"] + pd.Timedelta(7 * n, "D"))
        for n in (weeks - 2, weeks - 1)
    )
    for came in ([older.assign(churned=np.nan)], [older, newer]):
        pd.concat([rows, *came]).to_parquet(tmp_path / "rows.parquet")
        monitor(trained, batch=f"{came[-1]['at'].min():%Y-%m-%d}")
        looked_at(trained, monitored=0)

    news = [title for title in titles(pages) if "arrive" in title or "label" in title]
    assert news == [
        "[failure] shop: no batch arrives",
        "[info] shop: resolved, batches arrive again",
        "[failure] shop: no labels come",
        "[info] shop: resolved, labels arrive again",
    ]


def test_a_page_about_a_batch_that_its_run_did_not_write_is_written_from_outside(
    about_to_ask, pages
):
    settings, registry = opened(about_to_ask)
    history = records.read_history(registry)
    judge(settings, registry, history, next_batch(settings, registry, history))

    watch([about_to_ask], once=True)

    assert "[warning] shop: performance was lost, retrain requested" in titles(pages)
