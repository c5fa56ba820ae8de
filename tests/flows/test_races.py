import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from prefect.settings import PREFECT_API_URL

from flows.steps import opened
from flows.train import train
from pipeline.registry import records

pytestmark = pytest.mark.team

JUDGE = """
import json, os, sys
from flows.monitor import monitor

for _ in range(3):
    if os.fork() == 0:
        break
os.write(1, json.dumps(monitor(*sys.argv[1:])).encode() + bytes([10]))
"""
"""Four processes that import everything once."""


@pytest.fixture(params=["postgres", pytest.param("sqlite", marks=pytest.mark.night)])
def conf(request, tmp_path):
    """A trained shop with its store in one of the databases, where it has its own name."""
    if request.param == "sqlite":
        return request.getfixturevalue("trained")
    shop = request.getfixturevalue("shop")
    values = yaml.safe_load(Path(shop).read_text())
    values["tracking"]["uri"] = request.getfixturevalue("postgres")
    values["name"] = f"shop-{tmp_path.parent.name[-6:]}"
    Path(shop).write_text(yaml.safe_dump(values))
    train(shop)
    return shop


def test_four_monitors_of_one_batch_judge_it_once_and_agree(conf):
    _, registry = opened(conf)
    batch = registry.champion().until.isoformat()
    environment = os.environ | {
        "PREFECT_API_URL": PREFECT_API_URL.value(),
        "PREFECT_LOGGING_LEVEL": "ERROR",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-c", JUDGE, conf, batch]
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=300
    )
    results = [line for line in done.stdout.splitlines() if line.startswith("{")]

    assert len(results) == 4
    assert len(set(results)) == 1
    assert json.loads(results[0])["batch"] == batch[:16]
    (recorded,) = records.read_history(registry).batches
    runs = registry.search(f"tags.batch = '{recorded.name}'")
    assert len(runs) == 1
    for key in runs[0].data.metrics:
        assert len(registry.client.get_metric_history(recorded.run_id, key)) == 1
