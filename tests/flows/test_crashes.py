import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL

pytestmark = pytest.mark.team

BATCHES = {"shop": 5, "claims": 2}
"""Batches of each table before the one that brings about a promotion."""
VERSIONS = {"shop": 3, "claims": 2}
"""Versions of each table at the end of that batch."""
KILLED = "created > create_model_version"
"""A point between a trained model and its registration, where a process is killed as well."""


@pytest.fixture(
    scope="module",
    params=[
        *(("shop", 16), ("claims", 32)),
        *(pytest.param((name, 1), marks=pytest.mark.night) for name in BATCHES),
    ],
    ids=lambda param: f"{param[0]}, one point in {param[1]}",
)
def crashes(request, tmp_path_factory, prefect, write_shop, write_claims):
    """How a replay ended that was cut off, by point; empty where it ended as usual.

    Claims have five classes. Some points are tried, other ones in each session; at night all are.
    """
    del prefect
    table, every = request.param
    environment = os.environ | {
        "PREFECT_API_URL": PREFECT_API_URL.value(),
        "PREFECT_LOGGING_LEVEL": "ERROR",
        "PREFECT_LOGGING_TO_API_ENABLED": "false",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "OMP_NUM_THREADS": "1",
    }
    script = str(Path(__file__).with_name("crashes.py"))
    write = {"shop": write_shop, "claims": write_claims}[table]
    conf = write(tmp_path_factory.mktemp("crashes"))
    sampled = random.randrange(every)  # noqa: S311 -- no secret
    command = [sys.executable, script, conf, str(BATCHES[table]), KILLED]
    command += map(str, (sampled, every))
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    return found | {"every": every, "made": VERSIONS[table]}


def test_a_replay_cut_off_at_any_point_ends_as_if_it_had_not_been(crashes):
    assert len(crashes["results"]) > len(crashes["points"]) // (crashes["every"] + 1)
    wrong = {point: how for point, how in crashes["results"].items() if how}

    assert wrong == {}


def test_a_replay_that_is_killed_ends_as_one_that_was_cut_off(crashes):
    assert crashes["killed"] == [-9, ""]


def test_the_points_cover_monitor_train_register_and_promote(crashes):
    points = " ".join(crashes["points"])

    assert len(crashes["points"]) > 40
    for what in (
        *("> create_experiment", "created > create_registered_model"),
        *("record > log_dict", "page_owed > post", "record_training > create_run"),
        *("created > create_model_version", "record_gate > update_model_version"),
        *("_move > tag_model", "_finish > point", "_finish > tag", "record_performance"),
    ):
        assert what in points


def test_the_pages_of_the_batch_that_is_cut_off_are_in_the_outbox(crashes):
    kinds = [page.split("/")[1] for page in crashes["pages"]]

    assert kinds.count("champion") == crashes["made"]
    assert {"performance", "drift"} & set(kinds)


def test_the_batch_that_is_cut_off_brings_about_one_new_champion(crashes):
    versions, made = crashes["versions"], crashes["made"]

    assert [one[0] for one in versions] == [1, 2, 3][:made]
    assert [one[2] for one in versions] == [[], ["previous"], ["challenger", "champion"]][-made:]
