import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from flows.check import check
from flows.foreseen import foreseen
from pipeline.errors import ConfigError, DataError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def shop(tmp_path, make_shop_rows):
    """Writes the file of a small shop with some settings changed; its path."""

    def written(rows=None, **changes):
        (make_shop_rows() if rows is None else rows).to_parquet(tmp_path / "rows.parquet")
        conf = {
            "name": "shop",
            "task": "classification",
            "data": {
                "train": {"kind": "file", "path": str(tmp_path / "rows.parquet")},
                "key": "id",
                "time": "at",
                "target": "churned",
                "features": {
                    "amount": {"type": "numeric"},
                    "age": {"type": "numeric", "nullable": True},
                    "plan": {"type": "categorical", "values": ["free", "pro"]},
                },
            },
            "training": {"params": {"n_estimators": 20}, "until": "2026-02-16", "holdout": "7D"},
            "tracking": {"folder": str(tmp_path / "state")},
        }
        for key, value in changes.items():
            place = conf
            *path, last = key.split("__")
            for part in path:
                place = place.setdefault(part, {})
            place[last] = value
        path = tmp_path / "shop.yaml"
        path.write_text(yaml.safe_dump(conf))
        return str(path)

    return written


def refusal(conf):
    with pytest.raises(ConfigError) as caught:
        check(conf)
    return str(caught.value).splitlines()[1:]


@pytest.mark.parametrize("path", sorted((ROOT / "conf").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_file_can_be_used(path):
    checked = check(str(path))

    assert checked["rows"]["refused"] == 0
    assert checked["at_most"]["alarms"] == pytest.approx(0.05 * checked["batches"]["a_year"])
    assert 0 < checked["expected"]["alarms"] < checked["at_most"]["alarms"]
    assert foreseen(checked).startswith(f"{path} can be used.\n")


def test_the_plan_says_what_there_is_and_when(shop):
    checked = check(shop())

    assert checked["rows"]["read"] == 13 * 7 * 48
    assert checked["batches"] == {
        "length": "7D",
        "rows": 336,
        "smallest": 336,
        "found": 13,
        "a_year": 365.25 / 7,
    }
    assert checked["reference"] == {"until": "2026-02-16 00:00", "rows": 6 * 336, "blocks": 6}
    assert checked["first_verdict"] == "2026-03-09 00:00"
    assert checked["lost"] == []


def test_rows_that_will_be_refused_are_counted_with_their_reasons(shop, make_shop_rows):
    rows = make_shop_rows()
    rows.loc[:9, "plan"] = "team"
    rows.loc[5:9, "amount"] = None

    checked = check(shop(rows))

    assert checked["rows"]["refused"] == 10
    reasons = {"plan must be one of {free, pro}": 10, "amount must not be null": 5}
    assert checked["rows"]["reasons"] == reasons
    assert "10 refused: plan must be one of {free, pro}" in foreseen(checked)


def test_two_classes_are_counted_by_their_names(shop, make_shop_rows):
    rows = make_shop_rows()
    ones = int(rows["churned"].sum())
    rows["churned"] += 1

    checked = check(shop(rows, data__classes=["1", "2"]))

    assert checked["rows"]["labels"] == {"1": len(rows) - ones, "2": ones}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"training__estimator": "sklearn.linear_model.Nothing"}, "training.estimator must"),
        (
            {"training__estimator": "xgboost.XGBRegressor"},
            (
                "training.estimator must be a classifier with predict_proba for the task "
                "classification. Got xgboost.XGBRegressor. Name another or change task."
            ),
        ),
        (
            {"training__params": {"max_dept": 3}},
            (
                "training.params must suit xgboost.XGBClassifier. Got max_dept. "
                "Did you mean max_depth?"
            ),
        ),
        (
            {"training__params": {"max_depth": "deep"}},
            "training.params must suit xgboost.XGBClassifier. Got: ",
        ),
        (
            {"training__params": {"early_stopping_rounds": 5}},
            "training.params must not hold early_stopping_rounds:",
        ),
        (
            {"task": "regression"},
            "training.estimator must be a regressor for the task regression.",
        ),
        (
            {"training__params": {"n_estimators": 0}},
            "training.params.n_estimators must be at least 1. Got 0.",
        ),
        (
            {"training__params": {"objective": "rank:pairwise"}},
            "training.estimator must predict a probability from 0 to 1 of each row. Got numbers",
        ),
        (
            {"training__params": {"objective": "binary:logitraw", "n_estimators": 5}},
            "training.estimator must predict a probability from 0 to 1 of each row. Got numbers",
        ),
        (
            {"training__params": {"learning_rate": float("nan")}},
            "training.estimator must predict a probability from 0 to 1 of each row. Got nan",
        ),
        (
            {
                "training__estimator": "sklearn.linear_model.LogisticRegression",
                "training__params": {"class_weight": {0: 0, 1: 0}},
            },
            (
                "training.params must suit sklearn.linear_model.LogisticRegression. "
                "Got: float division by zero."
            ),
        ),
        (
            {
                "training__estimator": "sklearn.neighbors.KNeighborsClassifier",
                "training__params": {"n_neighbors": 5_000},
            },
            "training.params must suit sklearn.neighbors.KNeighborsClassifier. Got: Expected",
        ),
    ],
)
def test_an_estimator_that_cannot_be_trained_is_named_with_its_line(shop, changes, said):
    (problem,) = refusal(shop(**changes))

    line, _, text = problem.strip().partition(": ")
    assert line.startswith("line ")
    assert text.startswith(said)


def test_an_estimator_that_needs_more_rows_than_are_made_up_is_tried_on_those_of_the_source(shop):
    changes = {"training__estimator": "sklearn.neighbors.KNeighborsClassifier"}

    checked = check(shop(training__params={"n_neighbors": 300}, **changes))

    assert checked["training_seconds"] > 0


def test_a_class_that_a_sample_would_miss_is_among_the_rows_that_are_tried(
    shop, make_shop_rows, monkeypatch
):
    monkeypatch.setattr("flows.check._TIMED", (10, 20))
    rows = make_shop_rows()
    rows["churned"] = (rows.index % 100 == 0).astype(float)
    changes = {"training__estimator": "sklearn.linear_model.LogisticRegression"}

    checked = check(shop(rows, training__params={}, **changes))

    assert checked["training_seconds"] > 0


def test_mistakes_of_the_estimator_come_together_with_all_others(shop):
    conf = shop(monitoring__alpha=2, training__params={"max_dept": 3}, data__target=5)

    problems = refusal(conf)

    assert [line.split(": ")[1].split(" ")[0] for line in problems] == [
        "data.target",
        "monitoring.alpha",
        "training.params",
    ]


def test_rows_that_no_model_can_be_trained_on_are_refused(shop):
    with pytest.raises(DataError, match=r"^training\.until must be later than rows of data\.train"):
        check(shop(training__until="2020-01-01"))
    with pytest.raises(DataError, match=r"^training\.window must hold rows .* Got 1ns before"):
        check(shop(training__window="1ns"))
    with pytest.raises(DataError, match=r"^The training window must be longer"):
        check(shop(training__holdout="900D"))
    with pytest.raises(DataError, match=r"^Target 'plan' must hold 0 and 1 only"):
        check(shop(data__target="plan", data__features={"age": {"type": "numeric"}}))


def test_with_too_few_blocks_there_is_no_verdict_on_persistence(shop):
    checked = check(shop(training__until="2026-01-20", training__holdout="2D"))

    assert checked["first_verdict"] is None
    assert checked["expected"]["retrains"] == 0
    assert "There will be no verdict on persistent drift" in foreseen(checked)


def test_a_column_that_wanders_is_called_so_and_others_are_not(shop, make_shop_rows):
    rows = make_shop_rows()
    week = (rows["at"] - rows["at"].min()).dt.days // 7
    rows["age"] += 3 * week

    checked = check(shop(rows, training__until="2026-04-01"))

    moves = {one["column"] for one in checked["columns"] if one["moves"]}
    assert "age" in moves
    assert "plan" not in moves


def test_a_large_table_is_thinned(shop, monkeypatch):
    whole = check(shop())
    monkeypatch.setattr("flows.check.SAMPLE", 1_000)

    thinned = check(shop())

    assert thinned["rows"]["looked_at"] == 1_000
    assert thinned["reference"] == whole["reference"]
    assert thinned["batches"] == whole["batches"]
    least, most = sorted(
        one["batch"]
        for checked in (whole, thinned)
        for one in checked["shifts"]
        if (one["column"], one["kind"]) == ("age", "location")
    )
    assert most < 1.6 * least


def test_a_model_that_is_not_served_yet_is_foreseen_without_the_labels_of_clients(shop):
    captured = check(shop(data__live={"kind": "capture"}, data__labels={"kind": "capture"}))

    assert captured["rows"] == check(shop())["rows"]


@pytest.mark.team
def test_the_command_prints_the_plan_and_exits_with_2_where_a_file_is_wrong(shop, tmp_path):
    def run(*words):
        command = [sys.executable, "-m", "flows.cli", "check", *words]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    good = run(shop())
    assert (good.returncode, good.stderr) == (0, "")
    assert (
        "When nothing is wrong, in a year\n  about 1.1 batches alarm (at most 2.6)\n" in good.stdout
    )

    as_json = run(shop(), "--json")
    (line,) = as_json.stdout.splitlines()
    assert json.loads(line)["reference"]["blocks"] == 6
    assert not (tmp_path / "state" / "mlflow.db").exists()

    bad = run(shop(monitoring__alpha=2))
    assert (bad.returncode, bad.stdout) == (2, "")
    assert "monitoring.alpha: must be at most 0.5. Got 2. Correct it." in bad.stderr


def test_a_table_without_time_and_key_says_what_it_does_without(shop, make_shop_rows):
    rows = make_shop_rows().drop(columns=["id", "at"])
    conf = yaml.safe_load(Path(shop(rows)).read_text())
    del conf["data"]["key"], conf["data"]["time"]
    conf["data"]["arrival"] = {"start": "2026-01-05", "every": "30min"}
    Path(shop(rows)).write_text(yaml.safe_dump(conf))

    checked = check(str(Path(conf["data"]["train"]["path"]).with_name("shop.yaml")))

    assert [one.split(":")[0] for one in checked["lost"]] == [
        "Rows have no time",
        "Rows have no key",
    ]
