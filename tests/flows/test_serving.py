import json
import shutil
import signal
import threading
import time
from contextlib import ExitStack, contextmanager

import httpx
import pandas as pd
import psutil
import pytest
from prefect.client.orchestration import get_client

from flows.digest import digest
from flows.register import release, rollback
from flows.steps import opened
from flows.train import train
from pipeline.data.captures import read_captures
from pipeline.errors import ConfigError, RegistryError, UnavailableError
from pipeline.serving.capturing import Captures
from pipeline.serving.follower import Follower, ServingState, load_exported
from pipeline.serving.server import export

pytestmark = pytest.mark.integration

NEW = "2026-03-23"
"""End of a window with enough rows after the drift for a version that passes the gate."""


def following(conf, state):
    settings, _ = opened(conf)
    poll = pd.Timedelta("100ms")
    return Follower(settings.name, state, tracking=settings.tracking, poll=poll)


def until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def cache(conf):
    settings = opened(conf)[0]
    return settings.tracking.folder / "cache" / settings.name


def test_a_new_champion_is_served_and_a_rollback_as_well(trained):
    state = ServingState()
    with following(trained, state):
        first = state.served
        train(trained, until=NEW)
        until(lambda: state.served is not first)
        assert state.served.version == "2"
        rollback(trained)
        until(lambda: state.served.version == "1")

    assert (state.swaps, state.refusals, state.problem) == (2, 0, "")
    release(trained)


def test_a_version_that_did_not_pass_the_gate_is_not_served(trained):
    state = ServingState()
    with following(trained, state):
        train(trained, until=NEW)
        until(lambda: state.served.version == "2")
        _, registry = opened(trained)
        registry.tag(1, {"gate": "refused"})
        registry.point("champion", 1)  # by hand, as anyone can in the UI
        until(lambda: state.problem)

        assert "version 1, has not passed the gate" in state.problem
        assert state.served.version == "2"
        assert state.refusals == 1
        registry.point("champion", 2)
        until(lambda: not state.problem)


def test_a_version_whose_files_were_changed_is_not_served(trained):
    shutil.rmtree(cache(trained))
    for path in (cache(trained).parents[1] / "artifacts").rglob("golden.parquet"):
        path.write_bytes(path.read_bytes() + b" ")

    with pytest.raises(RegistryError, match="were changed after they were registered"):
        following(trained, ServingState()).__enter__()


def test_a_server_keeps_serving_while_the_registry_is_down(trained, monkeypatch):
    state = ServingState()
    with following(trained, state) as follower:
        assert state.reachable

        def away():
            message = "The registry does not answer."
            raise UnavailableError(message)

        monkeypatch.setattr(follower._registry, "champion", away)
        until(lambda: state.problem)
        assert state.reachable is False
        assert state.served.version == "1"
        assert state.refusals == 0
        monkeypatch.undo()
        until(lambda: not state.problem)
        assert state.reachable


def test_a_start_without_the_registry_serves_the_last_served_version(trained, monkeypatch):
    with following(trained, ServingState()):
        pass
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")

    state = ServingState()
    with following(trained, state):
        assert state.served.version == "1"
        assert state.reachable is False
        assert state.problem
    (cache(trained) / "served.json").unlink()
    with pytest.raises(UnavailableError):
        following(trained, ServingState()).__enter__()


def test_a_version_knows_the_ranges_of_its_training_rows(trained, make_shop_rows):
    state = ServingState()
    with following(trained, state):
        rows = make_shop_rows()
    seen = rows[rows["at"] < pd.Timestamp("2026-02-16")]["amount"]
    row = dict(state.served.example)

    inside = state.served.predict([{**row, "amount": seen.max()}]).outside
    beyond = state.served.predict([{**row, "amount": seen.max() + 1}]).outside

    assert (inside, beyond) == ({}, {"amount": 1})


def test_an_exported_model_is_served_and_holds_no_training_rows(trained, tmp_path):
    written = export(trained, str(tmp_path / "model"))

    state = ServingState()
    load_exported(tmp_path / "model", state)
    assert state.served.version == "1"
    assert written == {"version": 1, "folder": str(tmp_path / "model")}
    files = {path.name for path in (tmp_path / "model").iterdir()}
    assert files == {"model", "golden", "manifest.json", "sha256.json"}


def send_requests(address, stop, answers, rows):
    """Send requests on one connection until `stop` is set; keep each answer with its key."""
    with httpx.Client(base_url=address, timeout=30) as client:
        while not stop.is_set():
            key = f"{threading.get_ident()}-{len(answers)}-{time.monotonic_ns()}"
            keys = [f"{key}-{i}" for i in range(len(rows))]
            try:
                answer = client.post("/predict", json={"rows": rows, "keys": keys})
            except httpx.HTTPError as error:
                if not stop.is_set():
                    answers.append((key, repr(error)))
                return
            answers.append((key, answer.json() if answer.is_success else answer.text))


@contextmanager
def load(address, connections, rows=1):
    row = httpx.get(f"{address}/contract").json()["example"]
    stop, answers = threading.Event(), []
    sent = [{**row, "amount": 20 + 60 * i / rows} for i in range(rows)]
    threads = [
        threading.Thread(target=send_requests, args=(address, stop, answers, sent))
        for _ in range(connections)
    ]
    for thread in threads:
        thread.start()
    yield stop, answers
    stop.set()
    for thread in threads:
        thread.join()


@contextmanager
def probes_of_all(server, address, workers):
    """Connections to a server, so many that each of its workers has one or more."""

    def of_all():
        ports = {one.get_extra_info("client_addr")[1] for one in streams}
        family = [psutil.Process(server.pid), *psutil.Process(server.pid).children()]
        reached = [
            one
            for one in family
            if {c.raddr.port for c in one.net_connections() if c.raddr} & ports
        ]
        return len(reached) == workers

    streams = []
    with ExitStack() as opened_probes:
        probes = []
        while not of_all():
            probe = opened_probes.enter_context(httpx.Client(base_url=address, timeout=30))
            with probe.stream("GET", "/version") as answer:
                streams.append(answer.extensions["network_stream"])
                answer.read()
            probes.append(probe)
        yield probes


@pytest.mark.team
@pytest.mark.parametrize("workers", [1, 2])
def test_champions_change_under_load_without_a_failed_request_or_a_lost_row(
    trained, serve, workers
):
    train(trained, until=NEW)
    settings, registry = opened(trained)
    with serve(trained, workers) as (server, address):
        with probes_of_all(server, address, workers) as probes, load(address, 4, 5) as (_, answers):
            for number in (1, 2) * 4:
                registry.point("champion", number)
                until(
                    lambda number=number: (
                        {one.get("/version").json()["version"] for one in probes} == {str(number)}
                    )
                )
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=20) == 0

    assert [answer for _, answer in answers if isinstance(answer, str)] == []
    by_version = {}
    for _, answer in answers:
        by_version.setdefault(answer["version"], set()).add(str(answer["predictions"]))
    # One answer has predictions of the version that it names, and of no other.
    assert set(by_version) == {"1", "2"}
    assert [len(found) for found in by_version.values()] == [1, 1]
    assert len(set.union(*by_version.values())) == 2
    kept = read_captures(settings.captures)
    sent = [(f"{key}-{i}", one["version"]) for key, one in answers for i in range(5)]
    assert sorted(zip(kept["holdfast-key"], kept["holdfast-version"], strict=True)) == sorted(sent)


@pytest.mark.team
def test_a_killed_server_loses_what_it_answered_last_at_most(trained, serve):
    settings, _ = opened(trained)
    with serve(trained) as (server, address), load(address, connections=2) as (stop, answers):
        until(lambda: len(answers) > 10)
        early = dict(answers)
        time.sleep(2)  # rows are written after a quarter of a second; this machine may be busy
        stop.set()
        answered = list(answers)
        server.kill()

    kept = read_captures(settings.captures)
    stored = {key.rpartition("-")[0] for key in kept["holdfast-key"]}
    assert set(early) <= stored
    # Of each connection, the first requests are stored, without a gap.
    by_thread = {}
    for key, _ in answered:
        by_thread.setdefault(key.partition("-")[0], []).append(key)
    for keys in by_thread.values():
        there = [key in stored for key in keys]
        assert there == sorted(there, reverse=True)
    with serve(trained) as (_, address):
        assert httpx.get(f"{address}/ready").status_code == 200


def test_a_folder_of_something_else_is_not_exported_into(trained, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "model").write_text("precious")

    with pytest.raises(ConfigError, match=r"mine must be empty, or hold an earlier export\."):
        export(trained, str(tmp_path / "mine"))

    assert (tmp_path / "mine" / "model").read_text() == "precious"


def test_the_digest_of_a_week_is_one_page_in_mlflow_and_prefect(trained):
    settings, registry = opened(trained)
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

    assert digest(trained, until="2026-03-02 15:00") == digest(trained, until="2026-03-02")
    found = digest(trained, until="2026-03-02")

    assert found == {
        "until": "2026-03-02",
        "refused": 3,
        "before": 1,
        "reasons": {"plan: must be one of {free, pro}": 3},
    }
    [run] = registry.search("tags.kind = 'digest'")
    page = run.data.tags["mlflow.note.content"]
    assert "| plan | 3 | +2 |" in page
    with get_client(sync_client=True) as client:
        wanted = {"artifacts": {"key": {"any_": ["shop-digest"]}}}
        shown = client.request("POST", "/artifacts/filter", json=wanted).json()
    assert page in {artifact["data"] for artifact in shown}
