import json
import sqlite3
from contextlib import closing

import numpy as np
import pandas as pd
import pytest

from flows.cli import main
from flows.monitor import monitor
from flows.train import train
from pipeline.config import Settings

N = 3000


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_orders(folder, *, timed=True):
    random = np.random.default_rng(3)
    amount = random.gamma(2, 20, N).round(2)
    returned = random.random(N) < 1 / (1 + np.exp(2 - amount / 30))
    rows = pd.DataFrame(
        {
            "order_id": [f"o-{i}" for i in range(N)],
            "ordered_at": pd.Timestamp("2025-06-01") + pd.to_timedelta(2 * np.arange(N), unit="h"),
            "amount": amount,
            "plan": random.choice(["free", "pro"], N),
            "refund": np.where(returned, amount, 0),
            "returned": np.where(returned, "yes", "no"),
        }
    )
    kept = rows if timed else rows.drop(columns=["order_id", "ordered_at"])
    kept.to_csv(folder / "My Orders.csv", index=False, sep=";", decimal=",")


def init(*options, source="My Orders.csv", target="returned"):
    return main(["init", source, "--target", target, *options])


@pytest.mark.integration
@pytest.mark.parametrize("timed", [True, False])
def test_a_drafted_model_is_trained_and_monitored_without_an_edit(
    folder, prefect, capsys, empty_store, timed
):
    del prefect
    write_orders(folder, timed=timed)
    empty_store(folder / ".holdfast")

    assert init("--json") == 0

    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["conf"] == "conf/my-orders.yaml"
    assert (result["time"], result["key"]) == (("ordered_at", "order_id") if timed else (None,) * 2)
    assert result["options"] == {"sep": ";", "decimal": ","}
    assert list(result["left_out"]) == ["refund"]
    version = train(result["conf"])
    assert version["promoted"], version["reason"]
    judged = monitor(result["conf"])
    assert judged["rows"] > 50
    assert judged["action"] == "none", judged["reason"]


@pytest.mark.parametrize("source", [".", "./", "**", "file://."])
def test_a_folder_that_the_configuration_would_lie_in_is_refused(folder, capsys, source):
    write_orders(folder)

    assert init(source=source) == 2

    assert "SOURCE must hold rows alone" in capsys.readouterr().err
    assert not [*folder.glob("conf/*")]
    assert init(source="./*.csv") == 0


def test_what_was_written_is_said_in_few_lines(folder, capsys):
    write_orders(folder)

    assert init() == 0

    said = capsys.readouterr().out
    assert "Wrote conf/my-orders.yaml: classification of returned, from 3,000 rows" in said
    assert "Read with sep ';', decimal ','." in said
    assert "  refund: predicts the target nearly alone" in said
    assert "  holdfast train conf/my-orders.yaml\n" in said
    assert len(said.splitlines()) < 12


def test_a_file_is_never_overwritten(folder, capsys):
    write_orders(folder)
    assert init("--name", "orders") == 0
    before = (folder / "conf/orders.yaml").read_bytes()

    assert init("--name", "orders") == 2

    assert "conf/orders.yaml exists already. Choose another name with --name" in (
        capsys.readouterr().err
    )
    assert (folder / "conf/orders.yaml").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (["--name", "../Evil"], "--name must be made of"),
        (["--time", "amount"], "--time must name a column of dates"),
        (["--key", "plam"], "--key must name a column of the source"),
        (["--query", "SELECT 1"], "must be an SQLAlchemy URL"),
    ],
)
def test_what_cannot_be_drafted_is_refused_and_leaves_no_file(folder, capsys, options, rule):
    write_orders(folder)

    assert init(*options) == 2

    assert rule in capsys.readouterr().err
    assert not list(folder.glob("conf/*"))
    assert [path.name for path in folder.iterdir()] == ["My Orders.csv"]


def test_a_query_is_drafted_with_the_bounds_of_a_window(folder):
    write_orders(folder)
    rows = pd.read_csv("My Orders.csv", sep=";", decimal=",")
    with closing(sqlite3.connect("shop.db")) as connection:
        rows.to_sql("orders", connection, index=False)

    assert init("--query", "SELECT * FROM orders", source="sqlite:///shop.db") == 0

    data = Settings.load("conf/orders.yaml").data
    assert (data.time, data.key, data.classes) == ("ordered_at", "order_id", ("no", "yes"))
    assert "ordered_at >= :start AND ordered_at < :end" in data.train.query
