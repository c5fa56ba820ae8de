import json
import threading
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter

from flows.monitor import judge, judge_shadows, monitor, next_batch
from flows.register import register, release, rollback
from flows.replay import replay, step
from flows.retrains import outstanding
from flows.steps import opened
from flows.train import train
from pipeline.errors import RegistryError
from pipeline.monitoring.episode import Attempt, decide
from pipeline.registry import champions, records
from pipeline.registry.records import GIVEN

NEW = pd.Timestamp("2026-03-23")
"""By then the rows of the shop after its drift suffice for a version that passes."""


PAUSED = FlowRunFilter(state={"type": {"any_": ["PAUSED"]}})


def verdicts(conf):
    return [one.verdict for one in records.batches(opened(conf)[1])]


def explained(conf):
    """Each recorded decision, and what the record says that it was made from decides."""
    _, registry = opened(conf)
    batches = {one.name: one for one in records.batches(registry)}
    for one in batches.values():
        given = registry.read(one.run_id, GIVEN)
        history = [batches[name].verdict for name in given.pop("history")]
        given["attempts"] = [Attempt(**attempt) for attempt in given["attempts"]]
        yield one.verdict.decision, decide(one.verdict.evidence, history=history, **given)


def test_decisions_are_the_same_at_once_in_pieces_and_twice(write_shop, tmp_path, prefect):
    del prefect
    confs = []
    for name in ("once", "pieces"):
        (tmp_path / name).mkdir()
        confs.append(write_shop(tmp_path / name))
    once, pieces = confs
    replay(once)
    first = verdicts(once)
    for batches in (1, 3, 2, 9):
        replay(pieces, batches=batches)
    replay(once)

    assert len(first) == 7
    assert verdicts(once) == verdicts(pieces) == first
    assert all(recorded == again for recorded, again in explained(once))


def test_a_batch_that_comes_late_undoes_nothing_and_every_decision_stays_explained(shop):
    train(shop)
    settings, registry = opened(shop)
    first = next_batch(settings, registry)
    late = first + pd.Timedelta("7D")
    for k in (0, 2, 3, 4, 5, 6):
        step(shop, settings, registry, first + k * pd.Timedelta("7D"), say=str)
    before = verdicts(shop)

    told = monitor(shop, batch=str(late))

    assert told["action"] in {"none", "page"}
    kept = [one for one in verdicts(shop) if one.evidence.batch != told["batch"]]
    assert kept == before
    judged = next(one for one in records.batches(registry) if one.name == told["batch"])
    assert judged.verdict.evidence.version == 1 != registry.champion().number
    assert all(recorded == again for recorded, again in explained(shop))


def test_labels_that_turn_random_end_in_a_halt_and_not_in_retrains_for_ever(
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
    conf = make_conf(monitoring={"cooldown": 0, "diagnosis": False})

    replay(conf)

    actions = [one.decision.action for one in verdicts(conf)]
    assert "halt" in actions
    assert "retrain" not in actions[actions.index("halt") :]


def test_a_version_that_passes_while_promotion_is_held_waits_for_release(shop):
    train(shop)
    train(shop, until=str(NEW), episode="v1-a")
    assert rollback(shop, reason="A test.") == {"from": 2, "to": 1}

    told = train(shop, until=str(NEW + pd.Timedelta("7D")), episode="v1-b")
    _, registry = opened(shop)
    assert (told["version"], told["promoted"]) == (3, False)
    assert registry.version(3).tags["waits"] == "release"
    assert outstanding(shop, *opened(shop)) is None

    assert release(shop) == {"champion": 3, "waited": [3]}
    assert registry.version(3).tags["waits"] == ""


def with_promotion(conf, **promotion):
    """The same model with other rules of promotion."""
    path = Path(conf)
    values = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(values | {"promotion": promotion}))


def test_a_version_that_needs_approval_is_promoted_in_the_name_of_who_gave_it(shop):
    train(shop)
    with_promotion(shop, approval="manual")
    _, registry = opened(shop)
    said = threading.Thread(target=answer, args=(shop, {"approve": True, "by": "Ada"}))
    said.start()

    told = train(shop, until=str(NEW), episode="v1-a")

    said.join()
    assert (told["version"], told["promoted"]) == (2, True)
    assert champions.history(registry)[-1].by == "Ada"


def test_a_version_that_people_turn_down_is_refused_with_their_words(shop):
    train(shop)
    with_promotion(shop, approval="manual")
    words = {"approve": False, "by": "Ada", "comment": "Not before the fair."}
    said = threading.Thread(target=answer, args=(shop, words))
    said.start()

    told = train(shop, until=str(NEW), episode="v1-a")

    said.join()
    assert not told["promoted"]
    assert told["reason"] == "Not approved by Ada. Not before the fair."
    assert opened(shop)[1].champion().number == 1


def answer(conf, words):
    """What a person does in Prefect's UI, once the flow is paused."""
    with get_client(sync_client=True) as client:
        for _ in range(600):
            runs = client.read_flow_runs(flow_run_filter=PAUSED)
            paused = [run for run in runs if run.parameters.get("conf") == conf]
            if paused:
                client.resume_flow_run(paused[0].id, run_input=words)
                return
            threading.Event().wait(0.2)


def test_an_approved_version_can_be_registered_without_a_pause(shop):
    train(shop)
    until = str(NEW)
    train(shop, until=until, episode="v1-a")
    rollback(shop, reason="A test.")
    champions.release(opened(shop)[1])
    with_promotion(shop, approval="manual")

    told = register(shop, version=2, approved_by="Grace")

    assert told["promoted"]
    assert champions.history(opened(shop)[1])[-1].by == "Grace"


def test_a_challenger_in_shadow_is_judged_on_the_batches_it_scored_as_well(shop):
    train(shop)
    with_promotion(shop, shadow=2)
    settings, registry = opened(shop)
    until = pd.Timestamp("2026-03-16")
    told = train(shop, until=str(until), episode="v1-a")
    assert (told["version"], told["promoted"]) == (2, False)
    for k in range(4):
        judge(settings, registry, until + k * pd.Timedelta("7D"))
        judge_shadows(settings, registry)
        if registry.version(2).settled:
            break

    assert k == 2  # the labels of two batches are there with the third
    gate = registry.read(registry.version(2).run_id, "gate.json")
    assert gate["rows"] == 337 + 2 * 336
    assert registry.champion().number == 2


def test_slices_that_lose_are_named_on_the_page_of_the_version(shop):
    train(shop)
    with_promotion(shop, slices=["plan"], slice_rows=100, max_loss=0.01)

    told = train(shop, until=str(NEW), episode="v1-a")

    _, registry = opened(shop)
    page = registry.client.get_model_version("shop", "2").description
    assert not told["promoted"]
    assert "loss must be at most 0.01" in told["reason"]
    assert "champion where plan = free" in page
    assert "champion where plan = pro" in page


def test_a_version_that_does_not_load_here_as_it_was_trained_is_refused(shop):
    train(shop)
    _, registry = opened(shop)
    with_promotion(shop, shadow=1)
    train(shop, until=str(NEW), episode="v1-a")
    folder = registry.folder_of(2)
    golden = next((folder / "golden").glob("*"))
    golden.write_bytes(golden.read_bytes()[:-20])
    with_promotion(shop)

    told = register(shop, version=2)

    assert not told["promoted"]
    assert registry.version(2).tags["gate"] == "refused"


def test_mlflow_away_promotes_nothing_and_back_again_the_next_run_catches_up(shop, monkeypatch):
    train(shop)
    settings, registry = opened(shop)
    start = next_batch(settings, registry)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(Exception, match="MLflow must answer"):
        monitor(shop)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")

    told = monitor(shop)

    assert told["batch"] == f"{start:%Y-%m-%dT%H:%M}"
    assert [one.place for one in champions.history(opened(shop)[1])] == [1]
    assert mlflow.get_tracking_uri().startswith("sqlite")


def test_the_history_reads_as_json_in_the_registry(shop):
    train(shop)
    change = json.loads(opened(shop)[1].model_tags()["change.00001"])

    assert (change["kind"], change["version"]) == ("promoted", 1)
    assert change["since"] == "2026-02-16T00:00:00"
    with pytest.raises(RegistryError, match="must have a previous champion"):
        rollback(shop)
