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

JUDGE = """
import json, sys
from flows.monitor import monitor
print(json.dumps(monitor(*sys.argv[1:])))
"""


@pytest.fixture(params=["sqlite", "postgres"])
def conf(request, shop, tmp_path):
    """The shop with its store in one of the databases, where it has its own name."""
    path = Path(shop)
    values = yaml.safe_load(path.read_text())
    if request.param == "postgres":
        values["tracking"]["uri"] = request.getfixturevalue("postgres")
        values["name"] = f"shop-{tmp_path.parent.name[-6:]}"
        path.write_text(yaml.safe_dump(values))
    return shop


def test_four_monitors_of_one_batch_judge_it_once_and_agree(conf):
    train(conf)
    _, registry = opened(conf)
    batch = registry.champion().until.isoformat()
    environment = os.environ | {
        "PREFECT_API_URL": PREFECT_API_URL.value(),
        "PREFECT_LOGGING_LEVEL": "ERROR",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-c", JUDGE, conf, batch]
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    results = [process.communicate(timeout=300)[0].splitlines()[-1] for process in processes]

    assert [process.returncode for process in processes] == [0] * 4
    assert len(set(results)) == 1
    assert json.loads(results[0])["batch"] == batch[:16]
    (recorded,) = records.read_history(registry).batches
    runs = registry.search(f"tags.batch = '{recorded.name}'")
    assert len(runs) == 1
    for key in runs[0].data.metrics:
        assert len(registry.client.get_metric_history(recorded.run_id, key)) == 1
