import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import httpx
import pandas as pd
import pytest
from prefect.client.orchestration import get_client

from flows.digest import digest
from flows.register import release, rollback
from flows.steps import opened
from flows.train import train
from pipeline.data.captures import read_captures
from pipeline.errors import RegistryError, UnavailableError
from pipeline.serving.capturing import Captures
from pipeline.serving.follower import Follower, ServingState, exported
from pipeline.serving.server import main

pytestmark = pytest.mark.integration

NEW = "2026-03-23"
"""By then the rows of the shop after its drift suffice for a version that passes."""


def following(conf, champion, **serving):
    settings = opened(conf)[0]
    polled = settings.serving.model_copy(update={"poll": pd.Timedelta("100ms")} | serving)
    return Follower(settings.model_copy(update={"serving": polled}), champion)


def until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def cache(conf):
    settings = opened(conf)[0]
    return settings.tracking.folder / "cache" / settings.name


def test_the_champion_is_followed_there_and_back(shop):
    train(shop)
    champion = ServingState()
    with following(shop, champion):
        first = champion.served
        train(shop, until=NEW)
        until(lambda: champion.served is not first)
        assert champion.served.version == "2"
        rollback(shop)
        until(lambda: champion.served.version == "1")

    assert (champion.swaps, champion.refusals, champion.problem) == (2, 0, "")
    release(shop)


def test_a_version_that_did_not_pass_the_gate_is_not_taken_over(shop):
    train(shop)
    champion = ServingState()
    with following(shop, champion):
        train(shop, until=NEW)
        until(lambda: champion.served.version == "2")
        _, registry = opened(shop)
        registry.tag(1, {"gate": "refused"})
        registry.point("champion", 1)  # by hand, as anyone can in the UI
        until(lambda: champion.problem)

        assert "must have passed the gate. Version 1 has not." in champion.problem
        assert champion.served.version == "2"
        assert champion.refusals == 1
        registry.point("champion", 2)
        until(lambda: not champion.problem)


def test_a_version_whose_files_were_changed_is_not_taken_over(shop):
    train(shop)
    shutil.rmtree(cache(shop))
    for path in (cache(shop).parents[1] / "artifacts").rglob("golden.parquet"):
        path.write_bytes(path.read_bytes() + b" ")

    with pytest.raises(RegistryError, match="must be those that were registered"):
        following(shop, ServingState()).__enter__()


def test_a_registry_that_goes_away_changes_nothing_and_is_told(shop, monkeypatch):
    train(shop)
    champion = ServingState()
    with following(shop, champion) as follower:
        assert champion.reachable

        def away():
            message = "The registry must answer."
            raise UnavailableError(message)

        monkeypatch.setattr(follower._registry, "champion", away)
        until(lambda: champion.problem)
        assert champion.reachable is False
        assert champion.served.version == "1"
        assert champion.refusals == 0
        monkeypatch.undo()
        until(lambda: not champion.problem)
        assert champion.reachable


def test_a_start_without_the_registry_serves_what_was_served_last(shop, monkeypatch):
    train(shop)
    with following(shop, ServingState()):
        pass
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")

    champion = ServingState()
    with following(shop, champion):
        assert champion.served.version == "1"
        assert champion.reachable is False
        assert champion.problem
    (cache(shop) / "served.json").unlink()
    with pytest.raises(UnavailableError):
        following(shop, ServingState()).__enter__()


def test_the_ranges_of_training_travel_with_a_version(shop, make_shop_rows):
    train(shop)
    champion = ServingState()
    with following(shop, champion):
        rows = make_shop_rows()
    seen = rows[rows["at"] < pd.Timestamp("2026-02-16")]["amount"]
    row = dict(champion.served.example)

    inside = champion.served.predict([{**row, "amount": seen.max()}]).outside
    beyond = champion.served.predict([{**row, "amount": seen.max() + 1}]).outside

    assert (inside, beyond) == ({}, {"amount": 1})


def test_an_export_is_served_and_holds_no_rows_to_learn_from(shop, tmp_path):
    train(shop)

    assert main([shop, "--export", str(tmp_path / "model")]) == 0

    champion = ServingState()
    exported(tmp_path / "model", champion)
    assert champion.served.version == "1"
    files = {path.name for path in (tmp_path / "model").iterdir()}
    assert files == {"model", "golden", "manifest.json"}


@contextmanager
def served(conf):
    """The server of a conf in a process of its own, and its address."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
    own = {"HOLDFAST__SERVING__PORT": str(port), "HOLDFAST__SERVING__POLL": "200ms"}
    command = [sys.executable, "-m", "pipeline.serving", conf]
    root = Path(__file__).parents[2]
    server = subprocess.Popen(command, env=os.environ | own, cwd=root, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"

    def ready():
        assert server.poll() is None
        try:
            return httpx.get(f"{address}/ready").status_code == 200
        except httpx.HTTPError:
            return False

    try:
        end = time.monotonic() + 60
        while not ready():
            assert time.monotonic() < end
            time.sleep(0.1)
        yield server, address
    finally:
        server.kill()
        server.wait()


def asking(address, stop, told, row):
    """Ask again and again on one connection; versions and failures by request."""
    with httpx.Client(base_url=address, timeout=30) as client:
        while not stop.is_set():
            key = f"{threading.get_ident()}-{len(told)}-{time.monotonic_ns()}"
            try:
                answer = client.post("/predict", json={"rows": [row], "keys": [key]})
            except httpx.HTTPError as error:
                if not stop.is_set():
                    told.append((key, repr(error)))
                return
            told.append((key, answer.json()["version"] if answer.is_success else answer.text))


@contextmanager
def load(address, connections):
    row = httpx.get(f"{address}/contract").json()["example"]
    stop, told = threading.Event(), []
    threads = [
        threading.Thread(target=asking, args=(address, stop, told, row)) for _ in range(connections)
    ]
    for thread in threads:
        thread.start()
    yield stop, told
    stop.set()
    for thread in threads:
        thread.join()


def test_champions_change_under_load_without_a_failed_request_or_a_lost_row(shop):
    train(shop)
    train(shop, until=NEW)
    settings, registry = opened(shop)
    with served(shop) as (server, address):
        with load(address, connections=4) as (_, told):
            for number in (1, 2) * 5:
                registry.point("champion", number)
                until(
                    lambda number=number: (
                        httpx.get(f"{address}/version").json()["version"] == str(number)
                    )
                )
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=20) == 0

    kept = read_captures(settings.captures)
    assert set(Counter(version for _, version in told)) == {"1", "2"}
    assert dict(zip(kept["key"], kept["version"], strict=True)) == dict(told)


def test_a_killed_server_loses_a_quarter_of_a_second_at_most(shop):
    train(shop)
    settings, _ = opened(shop)
    with served(shop) as (server, address), load(address, connections=2) as (stop, told):
        time.sleep(2)
        stop.set()
        answered = list(told)
        killed = time.time()
        server.kill()

    kept = read_captures(settings.captures)
    assert len(kept) > 10
    assert killed - kept["captured_at"].max().timestamp() < 0.25
    # What is kept is the first of what was answered, without a gap.
    by_thread = {}
    for key, _ in answered:
        by_thread.setdefault(key.partition("-")[0], []).append(key)
    for keys in by_thread.values():
        there = [key in set(kept["key"]) for key in keys]
        assert there == sorted(there, reverse=True)
    with served(shop) as (_, address):
        assert httpx.get(f"{address}/ready").status_code == 200


def test_refused_requests_of_a_week_are_one_page_in_mlflow_and_prefect(shop):
    train(shop)
    settings, registry = opened(shop)
    day = pd.Timestamp("2026-03-02")
    problem = {"code": "label", "column": "plan", "rule": "must be one of {free, pro}"}
    with Captures(settings.captures) as captures:
        for i, got in enumerate(["'team'"] * 3 + ["'gold'"]):
            captures.refusal(
                at=(day - pd.Timedelta(days=1 if i else 9)).value // 1_000,
                request_id=str(i),
                version="1",
                route="/predict",
                caller="me",
                problems=json.dumps([problem | {"got": got}]),
                body=b"{}",
            )

    assert digest(shop, until="2026-03-02 15:00") == digest(shop, until="2026-03-02")
    told = digest(shop, until="2026-03-02")

    assert told == {"until": "2026-03-02", "refused": 3, "before": 1}
    [run] = registry.search("tags.kind = 'digest'")
    page = run.data.tags["mlflow.note.content"]
    assert "| plan | 3 | +2 |" in page
    with get_client(sync_client=True) as client:
        wanted = {"artifacts": {"key": {"any_": ["shop-digest"]}}}
        shown = client.request("POST", "/artifacts/filter", json=wanted).json()
    assert page in {one["data"] for one in shown}
