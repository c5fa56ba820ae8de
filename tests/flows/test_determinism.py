import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL

from flows.steps import opened
from pipeline.registry import records

pytestmark = [pytest.mark.integration, pytest.mark.team]

REPLAY = "import sys; from flows.replay import replay; replay(sys.argv[1])"
SAME = ("model", "golden", "reference.json", "heldout.parquet", "sample.parquet")
"""Parts of a bundle that are the same to the bit; the manifest names the commit and packages."""


def digests(conf):
    """SHA-256 of each file of each version that holds what was learnt."""
    _, registry = opened(conf)
    found = {}
    for version in registry.versions():
        folder = registry.folder_of(version.number)
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder)
            if path.is_file() and name.parts[0] in SAME:
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                found[f"version {version.number}: {name}"] = digest
    return found


def judged(conf):
    """What was found in each batch, the decision, and what it was made from."""
    _, registry = opened(conf)
    return [
        [
            asdict(batch.verdict),
            asdict(batch.performance),
            registry.read(batch.run_id, records.REPORT),
            registry.read(batch.run_id, records.GIVEN),
        ]
        for batch in records.read_history(registry).batches
    ]


def test_another_process_and_folder_give_the_same_model_reference_and_decisions_to_the_bit(
    replayed, write_shop, tmp_path
):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    conf = write_shop(folder)
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    environment = {
        "PREFECT_API_URL": PREFECT_API_URL.value(),
        "PREFECT_LOGGING_LEVEL": "ERROR",
        "PYTHONHASHSEED": seed,
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    command = [sys.executable, "-c", REPLAY, conf]
    subprocess.run(command, env=os.environ | environment, check=True, timeout=600)

    assert digests(conf) == digests(replayed)
    parts = {name.split("/")[0] for name in digests(conf)}
    files = Counter(name.split(":")[0] for name in digests(conf))
    assert len({*files.values()}) == 1
    versions = [version.number for version in opened(conf)[1].versions()]
    assert parts == {f"version {number}: {part}" for number in versions for part in SAME}
    assert json.dumps(judged(conf), default=str) == json.dumps(judged(replayed), default=str)
    assert len(judged(conf)) == 7
