"""Every shipped model trains, becomes champion and judges a batch."""

from pathlib import Path

import pytest
import yaml

from flows.monitor import monitor
from flows.train import train

pytestmark = pytest.mark.integration

SLICE = """
from examples import flights


def rows(start, end):
    return flights.from_newark(start, end).iloc[::6].reset_index(drop=True)
"""


@pytest.fixture
def shipped(tmp_path, prefect, monkeypatch, empty_store):
    """Writes a copy of a shipped file with a state folder of its own; its path."""
    del prefect
    (tmp_path / "slice_of_newark.py").write_text(SLICE)
    monkeypatch.syspath_prepend(tmp_path)
    empty_store(tmp_path / "state")

    def written(name, **data):
        conf = yaml.safe_load(Path(f"conf/{name}.yaml").read_text(encoding="utf-8"))
        conf["data"] |= data
        conf["tracking"] = {"folder": str(tmp_path / "state")}
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(conf))
        return str(path)

    return written


def test_delays_are_predicted_better_than_by_their_mean(shipped):
    source = {"kind": "function", "function": "slice_of_newark:rows"}
    conf = shipped("delays", train=source)

    trained, judged = train(conf), monitor(conf)

    assert trained["promoted"], trained["reason"]
    assert judged["batch"] == "2013-02-26T00:00"
    assert judged["rows"] > 300


def test_a_table_without_time_and_key_trains_and_is_monitored(shipped):
    conf = shipped("cancer")

    trained, judged = train(conf), monitor(conf)

    assert trained["promoted"], trained["reason"]
    assert (judged["batch"], judged["rows"], judged["action"]) == ("2026-01-16T00:00", 48, "none")
