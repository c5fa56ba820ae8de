import shutil
import time

import pandas as pd
import pytest

from flows.register import release, rollback
from flows.steps import opened
from flows.train import train
from pipeline.errors import RegistryError, UnavailableError
from pipeline.serving.champion import Champion, Follower

NEW = "2026-03-23"
"""By then the rows of the shop after its drift suffice for a version that passes."""


def following(conf, champion, **serving):
    settings = opened(conf)[0]
    polled = settings.serving.model_copy(update={"poll": "100ms"} | serving)
    return Follower(settings.model_copy(update={"serving": polled}), champion, None)


def until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def cache(conf):
    settings = opened(conf)[0]
    return settings.tracking.folder / "cache" / settings.name


def test_the_champion_is_followed_there_and_back(shop):
    train(shop)
    champion = Champion()
    with following(shop, champion):
        first = champion.served
        train(shop, until=NEW)
        until(lambda: champion.served is not first)
        assert champion.served.version == "2"
        rollback(shop)
        until(lambda: champion.served.version == "1")

    assert (champion.swaps, champion.refusals, champion.problem) == (2, 0, "")
    release(shop)


def test_a_version_that_did_not_pass_the_gate_is_not_taken_over(shop):
    train(shop)
    champion = Champion()
    with following(shop, champion):
        train(shop, until=NEW)
        until(lambda: champion.served.version == "2")
        _, registry = opened(shop)
        registry.tag(1, {"gate": "refused"})
        registry.point("champion", 1)  # by hand, as anyone can in the UI
        until(lambda: champion.problem)

        assert "must have passed the gate. Version 1 has not." in champion.problem
        assert champion.served.version == "2"
        assert champion.refusals == 1
        registry.point("champion", 2)
        until(lambda: not champion.problem)


def test_a_version_whose_files_were_changed_is_not_taken_over(shop):
    train(shop)
    shutil.rmtree(cache(shop))
    for path in (cache(shop).parents[1] / "artifacts").rglob("golden.parquet"):
        path.write_bytes(path.read_bytes() + b" ")

    with pytest.raises(RegistryError, match="must be those that were registered"):
        following(shop, Champion()).__enter__()


def test_a_registry_that_goes_away_changes_nothing_and_is_told(shop, monkeypatch):
    train(shop)
    champion = Champion()
    with following(shop, champion) as follower:
        assert champion.reachable

        def away():
            message = "The registry must answer."
            raise UnavailableError(message)

        monkeypatch.setattr(follower._registry, "champion", away)
        until(lambda: champion.problem)
        assert champion.reachable is False
        assert champion.served.version == "1"
        assert champion.refusals == 0
        monkeypatch.undo()
        until(lambda: not champion.problem)
        assert champion.reachable


def test_a_start_without_the_registry_serves_what_was_served_last(shop, monkeypatch):
    train(shop)
    with following(shop, Champion()):
        pass
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")

    champion = Champion()
    with following(shop, champion):
        assert champion.served.version == "1"
        assert champion.reachable is False
        assert champion.problem
    (cache(shop) / "served.json").unlink()
    with pytest.raises(UnavailableError):
        following(shop, Champion()).__enter__()


def test_the_ranges_of_training_travel_with_a_version(shop, make_shop_rows):
    train(shop)
    champion = Champion()
    with following(shop, champion):
        rows = make_shop_rows()
    seen = rows[rows["at"] < pd.Timestamp("2026-02-16")]["amount"]
    row = dict(champion.served.example)

    _, inside = champion.served.predict([{**row, "amount": seen.max()}])
    _, beyond = champion.served.predict([{**row, "amount": seen.max() + 1}])

    place = list(champion.served.model.columns).index("amount")
    assert (inside[place], beyond[place]) == (0, 1)
