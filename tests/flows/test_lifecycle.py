import html
import json
import re
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter

from flows.monitor import monitor
from flows.register import register, release, rollback
from flows.replay import replay
from flows.settle import settle
from flows.steps import opened
from flows.train import train
from flows.validate import validate
from pipeline.columns import encode, known_categories
from pipeline.config import Settings
from pipeline.data.captures import Layout
from pipeline.errors import ConfigError, DataError, RegistryError
from pipeline.registry import champions, records
from pipeline.serving.capturing import Captures

TRAINING = {"params": {"n_estimators": 20, "max_depth": 3, "n_jobs": 1}, "holdout": "7D"}
pytestmark = pytest.mark.integration


def story_of(conf):
    return json.loads(Path(conf).with_name("story.json").read_text())


def points(registry, version, metric):
    runs = registry.search(f"tags.kind = 'timeline' and tags.version = '{version}'")
    return registry.client.get_metric_history(runs[0].info.run_id, metric)


def test_replay_trains_finds_the_drift_retrains_and_promotes(replayed):
    story = story_of(replayed)

    actions = [row["action"] for row in story]
    assert len(story) == 7
    assert actions[:2] == ["none", "none"]
    assert "retrain" in actions
    assert story[-1]["version"] > 1
    last = story[-1]
    assert last["maintained"]["log_loss"] < last["alone"]["log_loss"]


def test_replaying_again_adds_nothing_and_returns_an_equal_story(replayed):
    _, registry = opened(replayed)
    runs, versions = len(registry.search("")), len(registry.versions())
    measured = points(registry, 1, "psi/amount")

    assert replay(replayed) == story_of(replayed)
    assert len(registry.search("")) == runs
    assert len(registry.versions()) == versions
    assert points(registry, 1, "psi/amount") == measured


def test_a_timeline_has_one_point_a_batch_at_the_end_of_its_window(replayed):
    story = story_of(replayed)
    _, registry = opened(replayed)

    drawn = points(registry, 1, "psi/amount")

    ends = [pd.Timestamp(row["batch"]) + pd.Timedelta("7D") for row in story if row["version"] == 1]
    assert [point.timestamp for point in drawn] == [int(end.timestamp() * 1000) for end in ends]
    assert [point.step for point in drawn] == list(range(len(ends)))


def test_a_batch_judged_again_after_its_verdict_was_lost_ends_as_before(trained, judge_batch):
    settings, registry = opened(trained)
    start = registry.champion().until
    first = judge_batch(settings, registry, start)
    registry.client.delete_tag(first.run_id, "verdict")

    again = judge_batch(settings, registry, start)

    assert again == first
    assert records.read_history(registry).batches == (first,)
    assert len(points(registry, 1, "psi/amount")) == 1


def test_an_episode_that_has_its_version_trains_no_other(trained):
    first = train(trained, until="2026-03-16", episode="v1-x")
    second = train(trained, until="2026-03-16", episode="v1-x")

    assert first == second
    assert len(opened(trained)[1].versions()) == 2


def test_rollback_goes_back_one_champion_at_a_time_until_there_is_none(replayed):
    _, registry = opened(replayed)
    champion, previous = registry.champion().number, registry.alias("previous").number

    assert rollback(replayed, reason="a test") == {"from": champion, "to": previous}
    assert registry.champion().number == previous
    while registry.alias("previous") is not None:
        rollback(replayed, reason="further")
    with pytest.raises(RegistryError, match="has no previous champion"):
        rollback(replayed, reason="too far")
    assert registry.champion().number == 1
    kinds = [change.kind for change in champions.changes(registry)]
    assert kinds == ["promoted"] * (len(kinds) // 2 + 1) + ["rolled back"] * (len(kinds) // 2)


def test_the_lines_on_the_card_load_the_champion_without_holdfast(
    trained, make_shop_rows, monkeypatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # the lines set it, for all later tests as well
    _, registry = opened(trained)
    rows = make_shop_rows().head(50)[["amount", "age", "plan"]]
    expected = registry.bundle(1).model.predict(rows)

    card = mlflow.artifacts.load_text(f"runs:/{registry.champion().run_id}/card.html")
    (code,) = re.findall(r"<pre>(import mlflow.*?)</pre>", html.unescape(card), re.DOTALL)

    found = {}
    exec(code, found)  # noqa: S102 -- what people will do with it

    assert found["model"].predict(rows).tolist() == expected.tolist()


def test_rollback_refuses_when_there_is_nothing_to_go_back_to(trained):
    with pytest.raises(RegistryError, match="has no previous champion"):
        rollback(trained)


def test_an_earlier_champion_that_the_gate_refuses_can_still_be_gone_back_to(replayed):
    _, registry = opened(replayed)
    now = registry.champion().number

    before = champions.replaced_by(registry, now)

    assert register(replayed, before)["promoted"] is False
    assert registry.champion().number == now
    assert rollback(replayed)["to"] == before
    assert registry.champion().number == before


def test_nothing_is_released_before_there_is_a_model(shop):
    with pytest.raises(RegistryError, match="has no champion yet"):
        release(shop)


def test_the_champion_is_not_judged_against_itself(trained):
    with pytest.raises(RegistryError, match="Version 1 is the champion already"):
        register(trained, version=1)


def test_a_version_that_does_not_exist_is_named(trained):
    with pytest.raises(RegistryError, match="Version 9 of model 'shop' does not exist"):
        register(trained, version=9)


def test_a_stale_promotion_is_refused(trained):
    _, registry = opened(trained)
    other = train(trained, until="2026-02-23", episode="v1-x")["version"]
    registry.tag(other, {"gate": "passed"})
    registry.tag(1, {"gate": "passed"})
    champion = registry.champion().number
    loser = 1 if champion == other else other

    with pytest.raises(
        RegistryError, match=f"compared with version 99, but .* now version {champion}"
    ):
        champions.promote(registry, loser, expected=99, since=pd.Timestamp("2026-03-01"))
    assert registry.champion().number == champion


def test_a_version_that_has_not_passed_is_not_promoted(trained):
    _, registry = opened(trained)
    registry.tag(1, {"gate": "refused"})

    with pytest.raises(RegistryError, match="has not passed the gate"):
        champions.promote(registry, 1, expected=1, since=pd.Timestamp("2026-03-01"))
    with pytest.raises(RegistryError, match="has not passed the gate"):
        registry.champion()


def test_a_batch_without_a_champion_is_refused_with_a_sentence(shop):
    with pytest.raises(RegistryError, match="has no champion yet"):
        monitor(shop)


def test_an_empty_batch_is_refused_with_a_sentence(trained, make_conf):
    del trained
    with pytest.raises(DataError, match="has no rows"):
        monitor(make_conf(monitoring={"diagnosis": False}), batch="2029-12-31")


@pytest.mark.team
def test_with_a_server_a_retrain_is_requested_once(about_to_ask, deploy_train):
    deploy_train()
    asked = monitor(about_to_ask)
    again = monitor(about_to_ask, batch=asked["batch"])

    with get_client(sync_client=True) as client:
        deployed = FlowRunFilter(deployment_id={"is_null_": False})
        runs = client.read_flow_runs(flow_run_filter=deployed)
    [run] = [run for run in runs if run.parameters["conf"] == about_to_ask]
    assert asked["action"] == "retrain"
    assert again == asked
    assert run.parameters["episode"]


def test_refused_rows_are_kept_with_their_reason_and_shown(shop, tmp_path, make_shop_rows):
    rows = make_shop_rows()
    rows.loc[:9, "amount"] = 1e6
    rows.to_parquet(tmp_path / "rows.parquet")

    result = validate(shop)

    assert result["quarantined"] == 10
    kept = pd.concat(pd.read_parquet(path) for path in (tmp_path / "state").rglob("*.parquet"))
    assert kept["quarantine_reason"].unique().tolist() == ["amount must lie in -100 .. 200"]
    with get_client(sync_client=True) as client:
        wanted = {"artifacts": {"key": {"any_": ["shop-refused"]}}}
        assert client.request("POST", "/artifacts/filter", json=wanted).json()


def test_a_failed_flow_pages(shop, receiver, monkeypatch):
    pages, address = receiver
    monkeypatch.setenv("HOLDFAST__ALERTS__URLS", f'["{address}"]')

    with pytest.raises(RegistryError):
        monitor(shop)

    assert len(pages) == 1
    assert "has no champion yet" in pages[0]["message"]


def test_persisted_drift_pages(about_to_ask, receiver, monkeypatch):
    pages, address = receiver
    monkeypatch.setenv("HOLDFAST__ALERTS__URLS", f'["{address}"]')

    replay(about_to_ask, batches=1)

    assert any("amount" in page["message"] and "retrain" in page["title"] for page in pages)


def test_a_half_written_store_is_reported_in_a_single_sentence(shop, tmp_path):
    (tmp_path / "state" / "mlflow.db").write_bytes(b"SQLite format 3\x00" + b"\x01" * 500)

    with pytest.raises(RegistryError, match="MLflow's store is damaged") as caught:
        train(shop)

    assert "\n" not in str(caught.value)


def test_without_its_source_nothing_is_trained(make_conf):
    conf = make_conf()

    with pytest.raises(DataError, match="No file matches the file source"):
        train(conf)

    assert opened(conf)[1].versions() == []


def test_a_typo_in_the_config_fails_the_flow_with_the_dotted_key(make_conf):
    conf = make_conf(monitoring={"alfa": 0.1})

    with pytest.raises(ConfigError, match=r"monitoring\.alfa"):
        monitor(conf)


def test_a_batch_of_captures_that_is_not_over_waits(make_conf, make_shop_rows, tmp_path):
    rows = make_shop_rows()
    now = pd.Timestamp.now("UTC").tz_localize(None).floor("1h")
    trained = rows[rows["at"] < "2026-02-16"]
    later = now - pd.Timestamp("2026-02-16")
    trained.assign(at=trained["at"] + later).to_parquet(tmp_path / "rows.parquet")
    conf = make_conf(training=TRAINING | {"until": str(now)})
    train(conf)
    settings, registry = opened(conf)
    data = settings.model_dump(mode="json")["data"] | {"live": {"kind": "capture"}}
    conf = make_conf(data=data, training=TRAINING | {"until": str(now)})
    Captures(settings.captures).close()

    result = monitor(conf)

    assert (result["batch"], result["action"]) == (f"{now:%Y-%m-%dT%H:%M}", "none")
    assert result["reason"].startswith("The batch is not over before")
    assert records.read_history(registry).batches == ()
    with pytest.raises(DataError, match="is not over"):
        monitor(conf, batch=result["batch"])


def capture(settings, batch):
    """Capture predictions of rows, and the labels that were sent for them."""
    features = batch[list(settings.data.features)]
    with Captures(settings.captures) as captures:
        columns = settings.data.features
        known = known_categories(features, columns)
        layout = Layout("classification", json.dumps({name: known.get(name) for name in columns}))
        for key, at, row in zip(
            batch["id"], batch["at"], encode(features, columns, known), strict=True
        ):
            captures.answer(
                at=at.value // 1_000,
                request_id=key,
                layout=layout,
                version="1",
                latency=0,
                features=row[None],
                unseen=[],
                keys=[key],
                predictions=np.array([0.5]),
            )
        captures.label(list(batch[["id", "churned"]].itertuples(index=False)), at=0)


def test_captured_predictions_are_the_live_batch(trained, make_conf, make_shop_rows):
    settings, _ = opened(trained)
    rows = make_shop_rows()
    batch = rows[(rows["at"] >= "2026-02-16") & (rows["at"] < "2026-02-23")]
    capture(settings, batch)
    both = {"live": {"kind": "capture"}, "labels": {"kind": "capture"}}
    data = settings.model_dump(mode="json")["data"] | both

    conf = make_conf(data=data)
    result = monitor(conf)

    assert result["rows"] == len(batch)
    assert result["drifted"] == []
    settings, registry = opened(conf)
    history = records.read_history(registry)
    history = settle(settings, registry, history, pd.Timestamp("2026-03-02"))
    assert history.last.performance.rows == len(batch)


def of_captures(make_conf, settings):
    both = {"live": {"kind": "capture"}, "labels": {"kind": "capture"}}
    return make_conf(data=settings.model_dump(mode="json")["data"] | both)


def test_a_model_that_answered_no_request_yet_has_no_batch(trained, make_conf):
    conf = of_captures(make_conf, opened(trained)[0])
    reason = (
        "No request was answered yet; nothing was judged. Serve the model: "
        f"`holdfast serve {conf}`."
    )

    before = monitor(conf)
    settings, registry = opened(conf)
    Captures(settings.captures).close()
    started = monitor(conf)

    assert (before["reason"], started["reason"]) == (reason, reason)
    assert records.read_history(registry).batches == ()


@pytest.mark.parametrize(("first", "judged"), [("02-20", "02-23"), ("02-25", "02-23")])
def test_batches_of_captures_begin_with_the_first_request(
    trained, make_conf, make_shop_rows, first, judged
):
    settings, _ = opened(trained)
    rows = make_shop_rows()
    capture(settings, rows[rows["at"] >= f"2026-{first}"])

    result = monitor(of_captures(make_conf, settings))

    assert result["batch"] == f"2026-{judged}T00:00"
    assert result["rows"] > 0


def test_captured_rows_with_labels_are_trained_on_after_the_rows_of_a_file(
    make_conf, make_shop_rows, tmp_path
):
    rows = make_shop_rows()
    rows[rows["at"] < "2026-02-16"].to_parquet(tmp_path / "rows.parquet")
    both = {"live": {"kind": "capture"}, "labels": {"kind": "capture"}}
    data = Settings.load(make_conf()).model_dump(mode="json")["data"] | both
    conf = make_conf(data=data)
    first = train(conf)
    settings, registry = opened(conf)
    live = rows[(rows["at"] >= "2026-02-16") & (rows["at"] < "2026-03-16")]
    capture(settings, live)

    train(conf, until="2026-03-16")

    assert first["promoted"]
    old, new = registry.version(1), registry.version(2)
    labelled = (live["at"] + pd.Timedelta("1D") <= "2026-03-16").sum()
    late = 47  # rows of the file's last day, whose labels version 1 did not know
    assert new.rows == old.rows + late + labelled
