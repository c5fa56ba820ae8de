import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from pipeline.config import Settings
from pipeline.errors import ConfigError, RegistryError
from pipeline.registry import champions
from pipeline.registry.versions import CHAMPION, DATA, PREVIOUS, Registry
from pipeline.training.bundle import MANIFEST, sha256_of

pytestmark = pytest.mark.integration

SINCE = pd.Timestamp("2026-02-02")
PROMOTE = """
import os, sys, time
import pandas as pd
from pipeline.registry import champions
from pipeline.config import Settings
from pipeline.errors import RegistryError
from pipeline.registry.versions import Registry

settings = Settings.load(sys.argv[1])
start = time.time() + 3
for number in range(3, 6):
    if os.fork() == 0:
        break
else:
    number = 2
registry = Registry(settings.name, settings.tracking, sys.argv[1])
registry.client
time.sleep(max(start - time.time(), 0))
try:
    champions.promote(registry, number, expected=1, since=pd.Timestamp("2026-02-02"))
    said = "promoted"
except RegistryError as error:
    said = str(error)
os.write(1, f"{number} {said}".encode() + bytes([10]))
"""
"""Four processes that import everything once and promote versions 2 to 5."""


@pytest.fixture(params=["sqlite", "postgres"])
def conf(request, tmp_path, data, empty_store):
    """A model's file, with its store in one of the databases."""
    empty_store(tmp_path / "state")
    name = f"shop-{tmp_path.name.replace('_', '-').lower()[-20:].strip('-')}"
    tracking = {"folder": str(tmp_path / "state")}
    if request.param == "postgres":
        tracking["uri"] = request.getfixturevalue("postgres")
    path = tmp_path / "shop.yaml"
    content = {
        "name": name,
        "task": "classification",
        "data": data.model_dump(mode="json"),
        "tracking": tracking,
    }
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def registry(conf):
    settings = Settings.load(conf)
    return Registry(settings.name, settings.tracking, settings.conf)


def add(registry, count=1, gate="passed"):
    """Register versions as training does, of a file in place of a model; the last number."""
    client, place = registry.client, Path(registry.conf).parent / "registered"
    (place / DATA).mkdir(parents=True, exist_ok=True)
    (place / DATA / MANIFEST).write_text("{}")
    sha256 = sha256_of(place / DATA)
    if not client.search_registered_models(f"name = '{registry.name}'"):
        client.create_registered_model(registry.name)
    for _ in range(count):
        tags = {"gate": gate, "reason": "Better.", "until": "2026-02-02 00:00", "episode": "v1-x"}
        tags |= {"rows": "100", "sha256": sha256}
        made = client.create_model_version(registry.name, place.as_uri(), tags=tags)
    return int(made.version)


def line_of(registry):
    changes = champions.changes(registry)
    return [(change.place, change.kind, change.before, change.version) for change in changes]


def test_who_was_champion_when_and_why_is_kept(registry):
    add(registry, 2)
    champions.promote(registry, 1, expected=None, since=SINCE)
    champions.promote(registry, 2, expected=1, since=SINCE + pd.Timedelta("7D"), by="Ada")

    assert line_of(registry) == [(1, "promoted", None, 1), (2, "promoted", 1, 2)]
    last = champions.changes(registry)[-1]
    assert (last.reason, last.episode, last.by) == ("Better.", "v1-x", "Ada")
    then = [champions.champion_at(registry, SINCE + pd.Timedelta(f"{d}D")) for d in (0, 6, 7)]
    assert then == [1, 1, 2]
    assert registry.alias(PREVIOUS).number == 1


def test_a_repeated_promotion_changes_nothing(registry):
    add(registry)
    for _ in range(2):
        champions.promote(registry, 1, expected=None, since=SINCE)

    assert len(champions.changes(registry)) == 1


@pytest.mark.parametrize("blank", ["", " \n"])
def test_a_rollback_without_a_reason_is_refused(registry, blank):
    add(registry, 2)
    for number, before in ((1, None), (2, 1)):
        champions.promote(registry, number, expected=before, since=SINCE)

    with pytest.raises(ConfigError, match="Got a blank one"):
        champions.rollback(registry, blank, since=SINCE)

    assert registry.champion().number == 2


def test_a_rollback_holds_promotion_until_it_is_released(registry):
    add(registry, 3)
    for number, before in ((1, None), (2, 1)):
        champions.promote(registry, number, expected=before, since=SINCE)
    assert champions.rollback(registry, "Wrong fares.", since=SINCE) == (2, 1)

    with pytest.raises(
        RegistryError,
        match=r"held since a rollback: Wrong fares. Run `holdfast release .*shop.yaml`",
    ):
        champions.promote(registry, 3, expected=1, since=SINCE)
    champions.release(registry)
    champions.promote(registry, 3, expected=1, since=SINCE)

    kinds = [change.kind for change in champions.changes(registry)]
    assert kinds == ["promoted", "promoted", "rolled back", "promoted"]
    assert champions.rollback(registry, "Again.", since=SINCE) == (3, 1)
    with pytest.raises(RegistryError, match="has no previous champion"):
        champions.rollback(registry, "And again.", since=SINCE)


def test_an_alias_moved_by_hand_is_written_down_and_can_be_rolled_back(registry):
    add(registry, 2)
    champions.promote(registry, 1, expected=None, since=SINCE)
    registry.client.set_registered_model_alias(registry.name, CHAMPION, "2")

    champions.reconcile(registry, SINCE)
    champions.reconcile(registry, SINCE)

    assert line_of(registry) == [(1, "promoted", None, 1), (2, "moved by hand", 1, 2)]
    assert champions.rollback(registry, "Not that one.", since=SINCE) == (2, 1)


def test_an_alias_moved_back_by_hand_is_not_taken_for_a_change_that_was_cut_off(registry):
    add(registry, 2)
    for number, before in ((1, None), (2, 1)):
        champions.promote(registry, number, expected=before, since=SINCE)
    registry.client.set_registered_model_alias(registry.name, CHAMPION, "1")

    champions.reconcile(registry, SINCE)

    assert registry.champion().number == 1
    assert line_of(registry)[-1] == (3, "moved by hand", 2, 1)


def test_of_four_promoters_at_once_a_single_process_wins_and_the_others_say_why(registry, conf):
    add(registry, 5)
    champions.promote(registry, 1, expected=None, since=SINCE)
    done = subprocess.run(
        [sys.executable, "-c", PROMOTE, str(conf)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=120,
    )
    results = dict(line.split(" ", 1) for line in done.stdout.splitlines())

    assert sorted(results) == ["2", "3", "4", "5"]
    (winner,) = [int(number) for number, result in results.items() if result == "promoted"]
    lost = [result for result in results.values() if result != "promoted"]
    fact = f"was compared with version 1, but the champion is now version {winner}."
    assert all(fact in result for result in lost)
    assert registry.champion().number == winner
    assert line_of(registry) == [(1, "promoted", None, 1), (2, "promoted", 1, winner)]
