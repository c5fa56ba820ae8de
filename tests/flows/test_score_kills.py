import json
import os
import random
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pandas as pd
import pytest
import yaml
from prefect.settings import PREFECT_API_URL

pytestmark = pytest.mark.team

ROWS = 336
REFUSED = 3


@pytest.fixture(params=["parquet", "csv", "sqlite", "postgres"])
def kills(request, trained, tmp_path):
    """What killed runs of `score` left, and the runs after them."""
    rows = pd.read_parquet(tmp_path / "rows.parquet")
    rows = rows[(rows["at"] >= "2026-02-16") & (rows["at"] < "2026-02-23")]
    bad = rows["id"].isin(rows["id"].iloc[[5, 99, 300]])
    rows.assign(plan=rows["plan"].mask(bad, "gold")).to_csv(tmp_path / "live.csv", index=False)
    environment = os.environ | {
        "PREFECT_API_URL": PREFECT_API_URL.value(),
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_TO_API_ENABLED": "false",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "OMP_NUM_THREADS": "1",
    }
    every = 60
    script, first = Path(__file__).with_name("score_kills.py"), random.randrange(1, every)  # noqa: S311
    folder = tmp_path / "scores"
    output = {
        "sqlite": f"sqlite:///{folder / 'scores.db'}",
        "postgres": request.param == "postgres" and request.getfixturevalue("postgres"),
    }.get(request.param, folder / f"scores.{request.param}")
    if "://" in str(output):
        conf = yaml.safe_load(Path(trained).read_text())
        conf["data"]["scores"] = {"kind": "sql", "url": output, "table": "scores"}
        Path(trained).write_text(yaml.safe_dump(conf))
    command = [sys.executable, script, trained, output, tmp_path / "live.csv", first, every]
    done = subprocess.run(
        [*map(str, command)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    read = {"parquet": pd.read_parquet, "csv": pd.read_csv}.get(request.param, of_table)
    return found | {"table": read(BytesIO(bytes.fromhex(found["whole"]["content"][0])))}


def of_table(content):
    """Rows of a table beside the one of another window, which stays."""
    rows = pd.DataFrame(json.load(content), columns=["id", "at", "prediction", "version"])
    assert (rows["id"] == "other").sum() == 1
    return rows[rows["id"] != "other"]


def test_scores_that_are_killed_and_run_again_miss_no_row_and_hold_none_twice(kills):
    keys = kills["table"]["id"]
    assert len(kills["tried"]) > 3
    assert (len(keys), keys.nunique()) == (ROWS - REFUSED, ROWS - REFUSED)

    for line, one in kills["tried"].items():
        assert one["code"] == -9
        # The file of before, or all of the new one; never a part of it.
        assert one["killed"][0] in {kills["old"], kills["whole"]["content"][0]}, line
        assert one["again"] == kills["whole"], line
