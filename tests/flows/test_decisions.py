import json
import threading
from inspect import signature
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter

from flows.monitor import judge_shadows, monitor, next_batch
from flows.register import register, release, rollback
from flows.replay import replay, step
from flows.retrains import outstanding
from flows.steps import opened
from flows.train import train
from pipeline.errors import RegistryError
from pipeline.monitoring.episode import Attempt, decide
from pipeline.registry import champions, records
from pipeline.registry.records import GIVEN
from pipeline.training.seals import seal

NEW = pd.Timestamp("2026-03-23")
"""By then the rows of the shop after its drift suffice for a version that passes."""


PAUSED = FlowRunFilter(state={"type": {"any_": ["PAUSED"]}})


def verdicts(conf):
    return records.read_history(opened(conf)[1]).verdicts


def explained(conf):
    """Each recorded decision, and the decision that follows from what was recorded with it."""
    _, registry = opened(conf)
    history = records.read_history(registry)
    for batch in history.batches:
        given = registry.read(batch.run_id, GIVEN)
        before = [history.batch(name).verdict for name in given.pop("history")]
        given["attempts"] = [Attempt(**attempt) for attempt in given["attempts"]]
        verdict = batch.verdict
        yield verdict.decision, decide(verdict.evidence, history=before, **given)


def test_all_that_decides_is_recorded_with_a_decision(trained):
    monitor(trained)

    _, registry = opened(trained)
    given = registry.read(records.read_history(registry).last.run_id, GIVEN)
    assert {*given} == {*signature(decide).parameters} - {"evidence"}


@pytest.mark.team
def test_decisions_do_not_depend_on_interruptions_of_a_replay(copy_shop, tmp_path):
    once = copy_shop("replayed", tmp_path / "once")
    pieces = copy_shop("trained", tmp_path / "pieces")
    first = verdicts(once)
    for batches in (1, 3, 2, 9):
        replay(pieces, batches=batches)
    replay(once)

    assert len(first) == 7
    assert verdicts(once) == verdicts(pieces) == first
    assert all(recorded == again for recorded, again in explained(once))


@pytest.mark.team
def test_a_batch_that_comes_late_undoes_nothing_and_every_decision_stays_explained(trained):
    settings, registry = opened(trained)
    first = next_batch(settings, registry, records.read_history(registry))
    late = first + pd.Timedelta("7D")
    for k in (0, 2, 3, 4, 5, 6):
        step(settings, registry, first + k * pd.Timedelta("7D"), say=str)
    before = verdicts(trained)

    result = monitor(trained, batch=str(late))

    assert result["action"] in {"none", "page"}
    others = [verdict for verdict in verdicts(trained) if verdict.evidence.batch != result["batch"]]
    assert others == before
    judged = records.read_history(registry).batch(result["batch"])
    assert judged.version == 1 != registry.champion().number
    assert all(recorded == again for recorded, again in explained(trained))


@pytest.mark.team
def test_labels_that_turn_random_end_in_a_halt_and_not_in_endless_retrains(
    make_conf, make_shop_rows, tmp_path
):
    rows = make_shop_rows()
    random = np.random.default_rng(3)
    late = (rows["at"] >= "2026-02-23").to_numpy()
    rows.loc[late, "churned"] = random.integers(0, 2, late.sum()).astype(float)
    # A column that jumps each week keeps asking.
    week = ((rows["at"] - rows["at"].min()).dt.days // 7).to_numpy()
    rows["amount"] += np.where(late, 15.0 * (week - 7), 0)
    rows["amount"] = rows["amount"].clip(-99, 199)
    rows.to_parquet(tmp_path / "rows.parquet")
    refusing = {"min_gain": 0.9}
    conf = make_conf(monitoring={"cooldown": 0, "diagnosis": False}, promotion=refusing)

    replay(conf)

    actions = [verdict.decision.action for verdict in verdicts(conf)]
    assert "halt" in actions
    assert "retrain" not in actions[actions.index("halt") :]


def test_a_version_that_passes_while_promotion_is_held_waits_for_release(trained):
    train(trained, until=str(NEW), episode="v1-a")
    assert rollback(trained, reason="A test.") == {"from": 2, "to": 1}

    result = train(trained, until=str(NEW + pd.Timedelta("7D")), episode="v1-b")
    _, registry = opened(trained)
    assert (result["version"], result["promoted"]) == (3, False)
    assert registry.version(3).waits_for == "release"
    assert outstanding(registry, records.read_history(registry)) is None

    assert release(trained) == {"champion": 3, "waited": [3]}
    assert registry.version(3).waits_for == ""


def with_promotion(conf, **promotion):
    """Change the rules of promotion of a model."""
    path = Path(conf)
    values = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(values | {"promotion": promotion}))


def test_a_version_that_needs_approval_is_promoted_in_the_name_of_who_approved_it(trained):
    with_promotion(trained, approval="manual")
    _, registry = opened(trained)
    approving = threading.Thread(target=approve, args=(trained, {"approve": True, "by": "Ada"}))
    approving.start()

    result = train(trained, until=str(NEW), episode="v1-a")

    approving.join()
    assert (result["version"], result["promoted"]) == (2, True)
    assert champions.changes(registry)[-1].by == "Ada"


def test_a_version_that_people_turn_down_is_refused_with_their_words(trained):
    with_promotion(trained, approval="manual")
    words = {"approve": False, "by": "Ada", "comment": "Not before the fair."}
    refusing = threading.Thread(target=approve, args=(trained, words))
    refusing.start()

    result = train(trained, until=str(NEW), episode="v1-a")

    refusing.join()
    assert not result["promoted"]
    assert result["reason"] == "Not approved by Ada. Not before the fair."
    assert opened(trained)[1].champion().number == 1


def test_a_champion_is_rolled_back_while_another_version_waits_for_approval(trained):
    train(trained, until=str(NEW), episode="v1-a")
    with_promotion(trained, approval="manual")
    gone_back = []

    def meanwhile():
        gone_back.append(rollback(trained, reason="It is worse."))

    words = {"approve": False, "by": "Ada"}
    refusing = threading.Thread(target=approve, args=(trained, words, meanwhile))
    refusing.start()

    result = train(trained, until=str(NEW + pd.Timedelta("7D")), episode="v1-b")

    refusing.join()
    assert gone_back == [{"from": 2, "to": 1}]
    assert result["reason"] == "Not approved by Ada."


def approve(conf, words, meanwhile=lambda: None):
    """Answer like a person in Prefect's UI, once the flow is paused."""
    with get_client(sync_client=True) as client:
        for _ in range(600):
            runs = client.read_flow_runs(flow_run_filter=PAUSED)
            paused = [run for run in runs if run.parameters.get("conf") == conf]
            if paused:
                meanwhile()
                client.resume_flow_run(paused[0].id, run_input=words)
                return
            threading.Event().wait(0.2)


def test_an_approved_version_can_be_registered_without_a_pause(trained):
    until = str(NEW)
    train(trained, until=until, episode="v1-a")
    rollback(trained, reason="A test.")
    champions.release(opened(trained)[1])
    with_promotion(trained, approval="manual")

    registered = register(trained, version=2, approved_by="Grace")

    assert registered["promoted"]
    assert champions.changes(opened(trained)[1])[-1].by == "Grace"


@pytest.mark.team
def test_a_challenger_in_shadow_is_judged_on_the_batches_it_scored_as_well(trained, judge_batch):
    with_promotion(trained, shadow=2)
    settings, registry = opened(trained)
    until = pd.Timestamp("2026-03-16")
    result = train(trained, until=str(until), episode="v1-a")
    assert (result["version"], result["promoted"]) == (2, False)
    assert result["reason"] == "In shadow for 2 batches."
    for k in range(4):
        judge_batch(settings, registry, until + k * pd.Timedelta("7D"))
        judge_shadows(settings, registry, records.read_history(registry))
        if registry.version(2).closed:
            break

    assert k == 2  # the labels of two batches are there with the third
    gate = registry.read(registry.version(2).run_id, "gate.json")
    # Two stretches before its held-out rows, and two live batches.
    assert gate["rows"] == 337 + 2 * 336 + 2 * 336
    assert registry.champion().number == 2


def test_slices_that_lose_are_named_on_the_page_of_the_version(trained):
    with_promotion(trained, slices=["plan"], slice_rows=100, max_loss=0.01)

    result = train(trained, until=str(NEW), episode="v1-a")

    _, registry = opened(trained)
    page = registry.client.get_model_version("shop", "2").description
    assert not result["promoted"]
    assert "loss must be at most 0.01" in result["reason"]
    assert "champion where plan = free" in page
    assert "champion where plan = pro" in page


def test_a_version_that_does_not_load_here_as_it_was_trained_is_refused(trained):
    _, registry = opened(trained)
    with_promotion(trained, shadow=1)
    train(trained, until=str(NEW), episode="v1-a")
    folder = registry.folder_of(2)
    golden = next((folder / "golden").glob("*"))
    golden.write_bytes(golden.read_bytes()[:-20])
    seal(folder)
    with_promotion(trained)

    registered = register(trained, version=2)

    assert not registered["promoted"]
    assert registry.version(2).closed


@pytest.mark.team
def test_a_monitor_run_without_mlflow_fails_and_the_next_run_catches_up(trained, monkeypatch):
    start = opened(trained)[1].champion().until
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(Exception, match="MLflow does not answer"):
        monitor(trained)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")

    result = monitor(trained)

    assert result["batch"] == f"{start:%Y-%m-%dT%H:%M}"
    assert [change.place for change in champions.changes(opened(trained)[1])] == [1]
    assert mlflow.get_tracking_uri().startswith("sqlite")


def test_the_history_reads_as_json_in_the_registry(trained):
    change = json.loads(opened(trained)[1].model_tags()["mlflow.holdfast.change.00001"])

    assert (change["kind"], change["version"]) == ("promoted", 1)
    assert change["since"] == "2026-02-16T00:00:00"
    with pytest.raises(RegistryError, match="has no previous champion"):
        rollback(trained)
