import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from flows.forget import forget
from flows.monitor import monitor
from flows.steps import opened
from pipeline.data.captures import KEY, Layout, read_captures, read_labels, read_refusals
from pipeline.errors import ConfigError
from pipeline.registry.versions import Registry
from pipeline.serving.capturing import Captures
from pipeline.serving.follower import Follower, ServingState

pytestmark = [pytest.mark.integration, pytest.mark.team]

LISTED = {"reference.json", "targets.json", "manifest.json", "report.json"}
"""Files that describe all rows together, of which `forget` says so."""
OTHER, SECRET = "other-1", 61.23456789012345


@pytest.fixture
def person(trained):
    """Key of a person whose rows are in every place where a row can be kept."""
    settings, registry = opened(trained)
    path = Path(settings.data.train.path)
    rows = pd.read_parquet(path)
    bundle = registry.bundle(1)
    golden = rows["amount"].isin(bundle.golden.rows["amount"])
    chosen = rows[golden & rows["id"].isin(bundle.heldout["id"])].iloc[0]
    live = rows.index[rows["at"] >= bundle.manifest["until"]][:3]
    rows.loc[live[:2], "id"] = chosen["id"]
    rows.loc[live[0], "amount"] = SECRET
    rows.loc[live[1], "amount"] = 999.0  # refused
    rows.to_parquet(path)
    for place in ("backtest/shop/rows/compared.parquet", "score/shop/refused/0.parquet"):
        cut_off = registry.folder / place
        cut_off.parent.mkdir(parents=True)
        rows.to_parquet(cut_off)
    monitor(trained)
    fill_captures(settings, chosen["id"])
    return chosen


def fill_captures(settings, key):
    layout = Layout("classification", json.dumps(dict.fromkeys(["amount", "age"])))
    values = np.array([[SECRET, 1.0], [2.0, 3.0]])
    with Captures(settings.captures) as captures:
        for number, keys in enumerate([[key, OTHER], [key], None]):
            captures.answer(
                at=number,
                request_id=f"{number:032d}",
                layout=layout,
                version="1",
                latency=1,
                features=values[: len(keys)] if keys else values[[1, 1]],
                unseen=(),
                keys=keys,
                predictions=np.array([0.25, 0.75])[: len(keys or "ab")],
            )
        for name in (key, OTHER):
            body = json.dumps({"rows": [{"amount": SECRET if name == key else 1}], "keys": [name]})
            captures.refusal(
                at=1,
                request_id=name,
                version="1",
                route="/predict",
                caller="a",
                problems="[]",
                body=body.encode(),
            )
    with Captures(settings.captures) as captures:
        captures.label([(key, 1.0), (OTHER, 0.0)], at=2)


def holding(folder, key, values):
    """Files below a folder that hold a key, or one of some values, in text or binary."""
    name = re.compile(rb"(?<![A-Za-z0-9])" + key.encode() + rb"(?![0-9])")
    spelled = [np.float64(value).tobytes() for value in values]
    spelled += [np.float64(value).tobytes()[::-1] for value in values]  # of SQLite
    spelled += [repr(float(value)).encode() for value in values]
    found = set()
    for path in (one for one in folder.rglob("*") if one.is_file()):
        content = path.read_bytes()
        if path.suffix == ".parquet":
            content = pd.read_parquet(path).to_csv().encode()
        if name.search(content) or any(value in content for value in spelled):
            found.add(path)
    return found


def test_no_byte_of_a_forgotten_person_is_left_but_what_is_listed(trained, person):
    settings, registry = opened(trained)
    state, values = settings.tracking.folder, [person["amount"], SECRET]
    names = {path.name for path in holding(state, person["id"], values)}
    assert {"heldout.parquet", "golden.parquet", "predictions.parquet", "shop.db"} <= names
    assert {"compared.parquet", "0.parquet"} <= names

    first = forget(trained, person["id"], "asked by mail")

    left = {path.name for path in holding(state, person["id"], values)}
    assert left <= LISTED
    assert {*first["removed"]} >= {
        *("captured rows", "labels", "refused requests", "quarantined rows", "held-out rows"),
        *("golden rows", "newest held-out rows", "stored predictions"),
    }
    assert all(name in str(first["left"]) for name in ("reference.json", "data.train", "fitted"))
    assert person["id"] not in json.dumps([first, registry.model_tags()])
    assert is_served_and_monitored(trained)

    again = forget(trained, person["id"], "asked by mail")

    assert again["removed"] == {} or {*again["removed"]} == {"quarantined rows"}
    assert [again[name] for name in ("request", "asked")] == [first["request"], first["asked"]]


def is_served_and_monitored(conf):
    settings, registry = opened(conf)
    state = ServingState()
    poll = pd.Timedelta("1D")
    with Follower(settings.name, state, tracking=settings.tracking, poll=poll):
        served = state.served.version
    registry.check_files(1)
    forgotten = json.loads(registry.version(1).tags["forgotten"])
    assert [one["after"] for one in forgotten] == [registry.version(1).tags["sha256"]]
    return served == "1" and monitor(conf)["action"] in {"none", "page", "retrain"}


def test_others_keep_their_rows(trained, person):
    settings, registry = opened(trained)
    before = registry.bundle(1)

    forget(trained, person["id"], "asked by mail")

    kept = opened(trained)[1].bundle(1)
    assert len(before.heldout) - len(kept.heldout) == 1
    assert len(kept.golden.rows) == len(before.golden.rows)
    captured = read_captures(settings.captures)
    assert captured[KEY].tolist() == [OTHER, f"{2:032d}-0", f"{2:032d}-1"]
    assert captured["amount"].tolist() == [2.0, 2.0, 2.0]
    assert read_labels(settings.captures)["key"].tolist() == [OTHER]
    assert read_refusals(settings.captures)["request_id"].tolist() == [OTHER]


@pytest.mark.parametrize("at", ["tag", "log_frame"])
def test_a_request_that_was_cut_off_is_finished_by_the_next_run(trained, person, monkeypatch, at):
    settings, _ = opened(trained)

    def cut_off(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Registry, at, cut_off)
        with pytest.raises(KeyboardInterrupt):
            forget(trained, person["id"], "asked by mail")
    forget(trained, person["id"], "asked by mail")

    values = [person["amount"], SECRET]
    left = {path.name for path in holding(settings.tracking.folder, person["id"], values)}
    assert left <= LISTED
    assert is_served_and_monitored(trained)


def test_a_server_loads_a_rewritten_version_and_refuses_none(trained, person):
    settings, _ = opened(trained)
    state = ServingState()
    with Follower(
        settings.name, state, tracking=settings.tracking, poll=pd.Timedelta("1D")
    ) as follower:
        first = state.served
        forget(trained, person["id"], "asked by mail")
        follower._ask()

    assert state.served is not first
    assert (state.served.version, state.problem, state.refusals) == ("1", "", 0)


def test_a_request_needs_a_reason(trained):
    with pytest.raises(ConfigError, match=r"must have a key and a reason .* Got a reason of 2"):
        forget(trained, "r1", " no ")
    with pytest.raises(ConfigError, match="Got a blank key"):
        forget(trained, " ", "They asked for it.")
