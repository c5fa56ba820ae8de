import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL

BATCHES = 5
"""Batches before the one that brings about a promotion."""


@pytest.fixture(scope="module")
def crashes(tmp_path_factory, prefect, write_shop):
    """What followed a kill at each point; each of two processes tries half of the points."""
    del prefect
    environment = os.environ | {
        "PREFECT_API_URL": PREFECT_API_URL.value(),
        "PREFECT_LOGGING_LEVEL": "ERROR",
        "PREFECT_LOGGING_TO_API_ENABLED": "false",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "OMP_NUM_THREADS": "1",
    }
    script = str(Path(__file__).with_name("crashes.py"))
    halves = []
    for half in ("0/2", "1/2"):
        conf = write_shop(tmp_path_factory.mktemp("crashes"))
        command = [sys.executable, script, conf, str(BATCHES), half]
        halves.append(
            subprocess.Popen(
                command,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    outputs = [half.communicate() for half in halves]
    assert [half.returncode for half in halves] == [0, 0], outputs
    return [json.loads(out.splitlines()[-1]) for out, _ in outputs]


def test_a_kill_at_any_point_ends_as_if_there_had_been_none(crashes):
    results = crashes[0]["results"] | crashes[1]["results"]

    assert len(results) == crashes[0]["points"] == crashes[1]["points"]
    wrong = {point: result for point, result in results.items() if result != [-9, ""]}
    assert wrong == {}


def test_the_points_cover_monitor_train_register_and_promote(crashes):
    points = " ".join(crashes[0]["results"] | crashes[1]["results"])

    for what in (
        *("> create_experiment", "_register > create_registered_model"),
        *("record > log_dict", "page_about > page", "record_training > create_run"),
        *("_register > create_model_version", "record_gate > update_model_version"),
        *("_move > tag_model", "_finish > point", "_finish > tag", "record_performance"),
    ):
        assert what in points


def test_the_batch_that_is_cut_off_brings_about_a_single_new_champion(crashes):
    versions = crashes[0]["versions"]

    assert [version[0] for version in versions] == [1, 2, 3]
    assert [version[2] for version in versions] == [["previous"], [], ["challenger", "champion"]]
