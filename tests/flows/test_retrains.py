from types import SimpleNamespace

import pandas as pd
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed, Crashed, Pending, Running

from flows import retrains
from flows.attempts import ATTEMPTS
from flows.retrains import outstanding, send
from flows.steps import opened
from flows.train import train
from pipeline.errors import RegistryError, UnavailableError
from pipeline.registry import records


@pytest.fixture
def asked(about_to_ask, judge_batch, deploy_train):
    """Settings, registry and history of a shop with a request that nobody has answered."""
    deploy_train()
    settings, registry = opened(about_to_ask)
    judge_batch(settings, registry)
    return settings, registry, records.read_history(registry)


def runs_of(asked):
    """Runs of the deployment for a shop, oldest first."""
    deployed = FlowRunFilter(deployment_id={"is_null_": False})
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=deployed)
    runs = [run for run in runs if run.parameters["conf"] == asked[0].conf]
    return sorted(runs, key=lambda run: run.created)


def end(run, state):
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run.id, state, force=True)


def test_a_request_is_sent_once_while_its_run_is_alive(asked):
    for _ in range(3):
        send(*asked)

    (run,) = runs_of(asked)
    assert run.parameters == outstanding(*asked[1:])


@pytest.mark.parametrize("state", [Crashed(), Completed()], ids=["crashed", "came to nothing"])
def test_a_request_whose_run_ended_without_an_answer_is_sent_again(asked, state):
    send(*asked)
    end(runs_of(asked)[0], state)
    send(*asked)
    send(*asked)

    first, second = runs_of(asked)
    assert first.state.is_final()
    assert second.state.is_scheduled()
    assert first.parameters == second.parameters


def test_a_run_that_its_worker_lost_is_ended_and_sent_again(asked, monkeypatch):
    send(*asked)
    end(runs_of(asked)[0], Pending())
    send(*asked)
    assert len(runs_of(asked)) == 1  # it may be about to start

    monkeypatch.setattr(retrains, "PICKED_UP", pd.Timedelta(0))
    send(*asked)

    first, second = runs_of(asked)
    assert first.state.is_crashed()
    assert second.state.is_scheduled()


def test_a_running_run_is_ended_only_if_nothing_trains(asked, monkeypatch):
    monkeypatch.setattr(retrains, "PICKED_UP", pd.Timedelta(0))
    send(*asked)
    end(runs_of(asked)[0], Running())
    with asked[1].exclusive("train"):
        send(*asked)
    assert len(runs_of(asked)) == 1

    send(*asked)

    first, _ = runs_of(asked)
    assert first.state.is_crashed()


@pytest.mark.parametrize("step", ["-400D", "-1D", "-1h", "1D"])
def test_a_clock_that_steps_sends_no_second_request(asked, monkeypatch, step):
    send(*asked)
    end(runs_of(asked)[0], Running())

    class Stepped(pd.Timestamp):
        @classmethod
        def now(cls, tz=None):
            return pd.Timestamp.now(tz) + pd.Timedelta(step)

    monkeypatch.setattr(retrains, "pd", SimpleNamespace(Timestamp=Stepped))
    with asked[1].exclusive("train"):
        send(*asked)

    (run,) = runs_of(asked)
    assert run.state.is_running()


def test_a_run_that_may_be_on_another_host_is_left_alone(asked, monkeypatch):
    monkeypatch.setattr(retrains, "PICKED_UP", pd.Timedelta(0))
    send(*asked)
    end(runs_of(asked)[0], Running())
    monkeypatch.setattr(asked[1], "locks_are_global", False)
    send(*asked)

    (run,) = runs_of(asked)
    assert run.state.is_running()


def test_after_three_attempts_people_have_to_look(asked):
    for _ in range(ATTEMPTS):
        send(*asked)
        end(runs_of(asked)[-1], Crashed())

    with pytest.raises(
        RegistryError, match=r"3 runs of train/shop for episode .* ended without a version"
    ):
        send(*asked)
    assert len(runs_of(asked)) == 3


def test_a_server_that_is_away_loses_no_request(asked):
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}),
        pytest.raises(UnavailableError, match="Prefect's API does not answer"),
    ):
        send(*asked)
    assert runs_of(asked) == []

    send(*asked)

    assert len(runs_of(asked)) == 1


def test_an_answered_request_is_not_sent(asked):
    trained = train(**outstanding(*asked[1:]))

    send(*asked)

    assert runs_of(asked) == []
    assert trained["version"] == 2


def test_each_request_emits_a_single_event_for_automations(asked):
    for _ in range(2):
        send(*asked)
    key = runs_of(asked)[0].idempotency_key

    found = []
    deadline = pd.Timestamp.now() + pd.Timedelta("20s")
    while not found and pd.Timestamp.now() < deadline:
        with get_client(sync_client=True) as client:
            wanted = {"event": {"name": ["holdfast.retrain.requested"]}}
            answer = client.request("POST", "/events/filter", json={"filter": wanted}).json()
        found = [event for event in answer["events"] if event["payload"]["request"] == key]
    assert len({event["id"] for event in found}) == 1
    assert found[0]["payload"]["episode"] == outstanding(*asked[1:])["episode"]
    assert found[0]["resource"]["prefect.resource.id"] == "holdfast.model.shop"
