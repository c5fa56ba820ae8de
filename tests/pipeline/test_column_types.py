"""The recipe for a column type, followed on a copy of the project."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from docs.documented import FENCE, ROOT

LABEL = '''class Code(Categorical):
    """A column of codes."""

    type: Literal["code"] = "code"  # type: ignore[assignment]
'''
UNION = "Annotated[Numeric | Categorical, Field("
SCRIPT = """
import json
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
from anyio import run

from pipeline.config import Data, Serving, Training
from pipeline.data.validation import validate
from pipeline.monitoring.drift import compare
from pipeline.reference import Reference
from pipeline.reporting.model_card import model_card
from pipeline.serving.app import create_app
from pipeline.serving.follower import ServingState, load_exported
from pipeline.training import parity
from pipeline.training.evaluation import evaluation
from pipeline.training.fitting import train
from pipeline.training.seals import seal

COLUMNS = {"filled": {"type": "share"}, "place": {"type": "code"}, "size": {"type": "numeric"}}

random = np.random.default_rng(0)
rows = pd.DataFrame(
    {
        "at": pd.Timestamp("2026-01-01") + pd.to_timedelta(np.arange(1200), unit="h"),
        "id": np.arange(1200).astype(str),
        "filled": random.random(1200),
        "place": random.choice(["a", "b"], 1200),
        "size": random.normal(size=1200),
    }
)
rows["late"] = (rows["filled"] + random.random(1200) > 1).astype(int)
source = {"kind": "file", "path": "rows.parquet"}
data = Data(train=source, key="id", time="at", target="late", features=COLUMNS)
valid = validate(rows.assign(filled=rows["filled"].where(rows.index > 0, 1.5)), data).valid
trained = train(valid, data, Training(holdout="10D"), task="classification")
seen = {"filled": [0.0, 1.0], "size": [-3.0, 3.0]}
record = json.loads(json.dumps(evaluation(trained, data, task="classification", ranges=seen)))
card = model_card(
    record | {"golden": 3},
    **{"model": "shop", "conf": "conf/shop.yaml", "number_of": 1, "tracking": "file", "gate": None},
    tags={"since": "", "until": "", "git_commit": "", "lock_sha256": "", "packages": "{}"},
    parameters={"estimator": "xgboost.XGBClassifier"},
)

trained.model.save(Path("model"))
parity.make(trained.model, valid).save(Path("golden"))
Path("manifest.json").write_text(json.dumps({"name": "shop", "version": "1"}))
seal(Path())
state = ServingState()
load_exported(Path(), state)


async def asked():
    transport = httpx.ASGITransport(create_app(state=state, captures=None, options=Serving()))
    tensors = [
        {"name": "filled", "shape": [1], "datatype": "FP64", "data": [0.9]},
        {"name": "place", "shape": [1], "datatype": "BYTES", "data": ["a"]},
        {"name": "size", "shape": [1], "datatype": "FP64", "data": [0.1]},
    ]
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        described = await client.get("/v2/models/shop")
        inferred = await client.post("/v2/models/shop/infer", json={"inputs": tensors})
        beyond = [tensors[0] | {"data": [1.5]}, *tensors[1:]]
        refused = await client.post("/v2/models/shop/infer", json={"inputs": beyond})
    return [[one.status_code, one.json()] for one in (described, inferred, refused)]


described, inferred, refused = run(asked)
reference = Reference.fit(valid, data.features, time=valid["at"], block="5D")
found = compare(reference=reference, current=valid[valid["filled"] > 0.8])
print(
    json.dumps(
        {
            "valid": len(valid),
            "card": card,
            "described": described,
            "inferred": inferred,
            "refused": refused,
            "drifted": [one.name for one in found.columns if one.drifted],
        }
    )
)
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What a copy of the project that has both types says of them."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "pipeline", folder / "pipeline")
    blocks = [block for _, block in FENCE.findall((ROOT / "docs/architecture.md").read_text())]
    (recipe,) = (block for block in blocks if block.startswith("class Share(Numeric):"))
    file = folder / "pipeline/config/data.py"
    text = file.read_text()
    place = "Label = Annotated[str"
    assert text.count(UNION) == text.count(place) == 1
    text = text.replace(place, f"{recipe}\n\n{LABEL}\n\n{place}")
    file.write_text(text.replace(UNION, UNION.replace("[", "[Share | Code | ")))
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def test_rows_outside_of_the_bounds_of_a_type_are_refused(said):
    assert said["valid"] == 1199


def test_a_type_is_judged_by_the_drift_tests_of_its_kind(said):
    assert said["drifted"] == ["filled"]


def test_the_card_says_what_a_column_of_a_type_allows_and_had(said):
    words = " ".join(re.sub("<[^>]+>", " ", said["card"]).split())

    assert "filled share 0 to 1 0 to 1" in words
    assert "place code any label a, b" in words


def test_open_inference_takes_the_datatypes_of_the_kind_of_a_type(said):
    status, described = said["described"]

    assert status == 200
    assert [one["datatype"] for one in described["inputs"]] == ["FP64", "BYTES", "FP64"]
    status, inferred = said["inferred"]
    assert status == 200
    assert 0 < inferred["outputs"][0]["data"][0] < 1


def test_open_inference_refuses_what_a_type_does_not_allow(said):
    status, refused = said["refused"]

    assert status == 400
    assert refused["problems"][0]["column"] == "filled"
