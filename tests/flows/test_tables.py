"""What comes in through the flows: labels of other classes, moments, and odd names."""

import sqlite3
from contextlib import closing

import numpy as np
import pandas as pd
import pytest
import yaml
from prefect.exceptions import ParameterTypeError

from flows.digest import digest
from flows.monitor import monitor, next_batch
from flows.score import score
from flows.steps import opened
from flows.train import train
from flows.validate import validate
from pipeline.errors import ConfigError, DataError
from pipeline.registry import records

pytestmark = pytest.mark.integration

FIRST, SECOND = pd.Timestamp("2026-02-16"), pd.Timestamp("2026-02-23")


def test_live_labels_that_are_no_class_count_as_unlabelled(
    trained, tmp_path, make_shop_rows, caplog
):
    rows = make_shop_rows().astype({"churned": object})
    first = rows.index[(rows["at"] >= FIRST) & (rows["at"] < SECOND)]
    rows.loc[first, "churned"] = rows.loc[first, "churned"].map({0: "0", 1: "True"})
    rows.loc[first[:20], "churned"] = "unknown"
    rows.astype({"churned": "str"}).to_csv(tmp_path / "rows.csv", index=False)
    conf = yaml.safe_load((tmp_path / "shop.yaml").read_text())
    conf["data"]["live"] = {"kind": "file", "path": str(tmp_path / "rows.csv")}
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump(conf))

    result = monitor(trained)
    monitor(trained)

    assert result["rows"] == len(first)
    _, registry = opened(trained)
    performance = records.read_history(registry).batches[0].performance
    assert performance.rows == len(first) - 20
    assert (
        "20 of 336 rows of batch 2026-02-16T0000 have a target that is not a label ('unknown')"
        in (caplog.text)
    )


@pytest.mark.parametrize("command", [validate, train])
def test_training_rows_of_other_classes_are_refused_in_one_sentence(
    shop, tmp_path, make_shop_rows, command
):
    rows = make_shop_rows()
    rows["churned"] = rows["churned"].map({0: "no", 1: "yes"})
    rows.to_parquet(tmp_path / "rows.parquet")

    with pytest.raises(
        DataError, match=r"^Target 'churned' must hold 0 and 1 only\. Got '(yes|no)', .* Write 0"
    ):
        command(shop)


NAMES = {"amount": "prediction", "age": "key", "plan": "loss", "id": "baseline", "at": "rival"}


@pytest.mark.parametrize(
    "target", ["champion", pytest.param("challenger", marks=pytest.mark.night)]
)
def test_columns_may_have_any_name_that_is_not_reserved(shop, tmp_path, make_shop_rows, target):
    names = NAMES | {"churned": target}
    rows = make_shop_rows().rename(columns=names)
    rows.to_parquet(tmp_path / "rows.parquet")
    conf = yaml.safe_load((tmp_path / "shop.yaml").read_text())
    data = conf["data"]
    data |= {role: names[data[role]] for role in ("key", "time", "target")}
    data["features"] = {names[name]: column for name, column in data["features"].items()}
    conf["promotion"] = {"slices": ["loss"]}
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump(conf))

    first, batch = train(shop), monitor(shop)
    second = train(shop)

    assert first["promoted"]
    assert batch["action"] == "none"
    assert "gain over the champion" in second["reason"]
    _, registry = opened(shop)
    heldout = registry.bundle(1).heldout.set_index("baseline")
    assert heldout[target].equals(rows.set_index("baseline")[target].loc[heldout.index])
    assert heldout["holdfast-prediction"].between(0, 1, inclusive="neither").all()
    assert records.read_history(registry).batches[0].drifted == ()


def test_columns_of_any_name_are_trained_on_and_judged(shop, tmp_path, make_shop_rows):
    odd = ["L" * 300, "L" * 299 + "M", "a//b", "/x", "../up", "ünï cödé", "a.b.c", "a?b", "$x_$"]
    rows = make_shop_rows()
    rows[odd] = np.random.default_rng(0).normal(size=(len(rows), len(odd)))
    rows.to_parquet(tmp_path / "rows.parquet")
    conf = yaml.safe_load((tmp_path / "shop.yaml").read_text())
    conf["data"]["features"] |= {name: {"type": "numeric"} for name in odd}
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump(conf))

    assert train(shop)["promoted"]
    assert monitor(shop)["action"] == "none"
    _, registry = opened(shop)
    found = registry.read(registry.version(1).run_id, "training.json")
    assert {one["column"] for one in found["importance"]} == {"amount", "age", "plan", *odd}


def test_a_key_may_come_again_where_it_need_not_be_unique(shop, tmp_path, make_shop_rows):
    rows = make_shop_rows()
    rows["id"] = [f"r{i // 2}" for i in range(len(rows))]
    rows.to_parquet(tmp_path / "rows.parquet")
    conf = yaml.safe_load((tmp_path / "shop.yaml").read_text())
    conf["data"]["key_unique"] = False
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump(conf))

    first, batch, second = train(shop), monitor(shop), train(shop)

    assert first["promoted"]
    assert (batch["rows"], batch["action"]) == (336, "none")
    assert "gain over the champion" in second["reason"]
    _, registry = opened(shop)
    decision = registry.read(registry.version(2).run_id, "gate.json")
    assert decision["rows"] == (registry.bundle(2).heldout["at"] >= registry.version(1).until).sum()


@pytest.mark.parametrize("spelled", ["2026-02-16T01:00+01:00", "2026-02-16", FIRST])
def test_a_moment_means_the_same_in_every_flow(trained, spelled):
    assert validate(trained, start=spelled, end="2026-02-23T00:00Z")["rows"] == 336
    assert monitor(trained, batch=spelled)["batch"] == "2026-02-16T00:00"


@pytest.mark.parametrize("word", ["tomorrow", "now", "01/02/2026", "20260.5", ""])
@pytest.mark.parametrize(
    "call",
    [
        lambda word: train("shop.yaml", until=word),
        lambda word: monitor("shop.yaml", batch=word),
        lambda word: validate("shop.yaml", start=word),
        lambda word: digest("shop.yaml", until=word),
    ],
)
@pytest.mark.usefixtures("prefect")
def test_a_moment_that_is_ambiguous_or_a_word_is_refused(call, word):
    with pytest.raises(ParameterTypeError, match=f"must be a date or time such as.*Got '{word}'"):
        call(word)


@pytest.mark.parametrize("end", ["2026-02-16", "2026-02-09"])
def test_a_window_that_ends_before_it_begins_is_refused(trained, tmp_path, end):
    said = "start of a window must be before its end. Got 2026-02-16 00:00:00 and 2026-02-"

    with pytest.raises(ConfigError, match=said):
        validate(trained, start="2026-02-16", end=end)
    with pytest.raises(ConfigError, match=said):
        score(trained, str(tmp_path / "out.csv"), start="2026-02-16", end=end)


def test_a_batch_that_would_hold_rows_of_two_others_is_refused(trained):
    monitor(trained)

    with pytest.raises(DataError, match="Name 2026-02-16T00:00 or 2026-02-23T00:00"):
        monitor(trained, batch="2026-02-18")
    assert monitor(trained)["batch"] == "2026-02-23T00:00"


@pytest.mark.parametrize("start", ["2026-02-09", "2026-02-15", "2025-01-06", "2026-02-15T23:59"])
def test_a_batch_of_rows_that_were_trained_on_is_refused(trained, start):
    settings, registry = opened(trained)
    said = "rows that its version was trained on.* Name 2026-02-16T00:00 or a later one"

    with pytest.raises(DataError, match=said):
        monitor(trained, batch=start)
    assert monitor(trained, batch="2026-02-23")["batch"] == "2026-02-23T00:00"
    train(trained, until="2026-03-02")
    with pytest.raises(DataError, match=said):
        monitor(trained, batch=start)

    assert monitor(trained, batch="2026-02-16")["batch"] == "2026-02-16T00:00"
    assert [batch.version for batch in records.read_history(registry).batches] == [1, 1]
    following = next_batch(settings, registry, records.read_history(registry))
    assert following == pd.Timestamp("2026-03-02")


def test_a_first_champion_judges_no_batch_before_its_own_training_ends(shop, make_conf):
    idle = {"estimator": "sklearn.dummy.DummyClassifier", "until": "2026-02-16", "holdout": "7D"}
    assert not train(make_conf(training=idle))["promoted"]
    conf = make_conf()
    assert conf == shop
    assert train(conf, until="2026-03-02")["promoted"]

    with pytest.raises(DataError, match="Name 2026-03-02T00:00 or a later one"):
        monitor(conf, batch="2026-02-16")


def test_a_table_without_time_and_key_is_trained_on_and_monitored(
    make_conf, tmp_path, make_shop_rows
):
    rows = make_shop_rows()[:2016].drop(columns=["id", "at"])  # of before its drift
    rows.sort_values("churned").to_csv(tmp_path / "rows.csv", index=False)
    conf = make_conf()
    settings = yaml.safe_load((tmp_path / "shop.yaml").read_text())
    del settings["data"]["key"], settings["data"]["time"]
    settings["data"] |= {
        "train": {"kind": "file", "path": str(tmp_path / "rows.csv")},
        "arrival": {"start": "2026-01-05", "every": "30min", "shuffled": 2016},
        "label_delay": "0D",
    }
    settings["training"]["until"] = "2026-02-09"
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump(settings))

    trained = train(conf)
    batch = monitor(conf)
    unfinished = monitor(conf)

    assert trained["promoted"]
    assert (batch["batch"], batch["rows"], batch["action"]) == ("2026-02-09T00:00", 336, "none")
    assert batch["drifted"] == []
    assert unfinished["reason"] == (
        "The batch is not over before it holds 336 rows; nothing was judged."
    )


def test_batches_of_less_than_a_minute_are_judged_one_after_another(
    make_conf, tmp_path, make_shop_rows
):
    make_shop_rows()[:2688].drop(columns="at").to_parquet(tmp_path / "rows.parquet")
    conf = make_conf()
    settings = yaml.safe_load((tmp_path / "shop.yaml").read_text())
    del settings["data"]["time"]
    settings["data"] |= {"label_delay": "0D", "arrival": {"start": FIRST.date(), "every": "100ms"}}
    settings["training"] |= {"until": "2026-02-16T00:03:21.600", "holdout": "33600ms"}
    settings["monitoring"] = {"batch": "33600ms"}
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump(settings))
    train(conf)

    found = [monitor(conf) for _ in range(2)]
    again = monitor(conf, batch="2026-02-16T00:03:21.6")
    with pytest.raises(DataError, match=r"Got 2026-02-16T00:03:55\. Name 2026-02-16T00:03:21\.600"):
        monitor(conf, batch="2026-02-16T00:03:55")

    assert [one["rows"] for one in found] == [336, 336]
    assert again == found[0]
    assert [one["batch"] for one in found] == [
        "2026-02-16T00:03:21.600000",
        "2026-02-16T00:03:55.200000",
    ]
    _, registry = opened(conf)
    starts = [batch.start for batch in records.read_history(registry).batches]
    assert starts == [pd.Timestamp(one["batch"]) for one in found]


def test_a_batch_of_which_many_rows_are_refused_is_a_question_to_people(
    trained, tmp_path, make_shop_rows
):
    rows = make_shop_rows()
    first = rows.index[(rows["at"] >= FIRST) & (rows["at"] < SECOND)]
    rows.loc[first[::4], "plan"] = "gold"
    rows.to_parquet(tmp_path / "rows.parquet")

    result = monitor(trained)

    assert (result["rows"], result["action"]) == (252, "page")
    assert result["reason"].startswith("Broken: schema (plan).")
    _, registry = opened(trained)
    (cause,) = records.causes(registry, records.read_history(registry).batches[0])
    assert cause.sentence == (
        "84 of 336 rows were refused: 25.0%, where 0.0% is usual. "
        "Most often: plan must be one of {free, pro} (84)."
    )


def test_a_table_that_has_ended_is_no_fault_and_is_paged_about_once(
    trained, tmp_path, make_shop_rows
):
    rows = make_shop_rows()
    rows[rows["at"] < SECOND].to_parquet(tmp_path / "rows.parquet")
    monitor(trained)

    ended = [monitor(trained) for _ in range(2)]
    rows[rows["at"] < SECOND + pd.Timedelta("7D")].to_parquet(tmp_path / "rows.parquet")
    again = monitor(trained)

    reason = "No row of 2026-02-23T00:00 or later has come; nothing was judged."
    assert [result["reason"] for result in ended] == [reason, reason]
    with closing(sqlite3.connect(tmp_path / "state" / "pages.db")) as pages:
        found = pages.execute("SELECT subject FROM pages WHERE episode LIKE 'silence%'").fetchall()
    assert found == [("shop: no batch arrives",)]
    assert (again["batch"], again["rows"]) == ("2026-02-23T00:00", 336)
