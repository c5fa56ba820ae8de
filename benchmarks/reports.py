"""What pages weigh and cost: a report and a card of 200 columns and 5,000 labels; a monitor run.

CPU time is that of the process that draws or monitors; a monitor run of one week of the flights is
compared with the comparison that it makes.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import yaml

from benchmarks.harness.command import Figures, Result, at_most, options, run_parts
from benchmarks.harness.processes import last_json, output, own_prefect
from pipeline.columns import infer_columns
from pipeline.config import Data, Training
from pipeline.monitoring.drift import compare
from pipeline.monitoring.episode import Decision, Evidence, Verdict
from pipeline.monitoring.stored import to_record
from pipeline.reference import Reference
from pipeline.reporting.batch_report import About, batch_report
from pipeline.reporting.model_card import model_card
from pipeline.training.evaluation import evaluation
from pipeline.training.fitting import train

COLUMNS: Final = 200
LABELS: Final = 5_000
BLOCK: Final = 5_000
"""Rows of a batch; the reference has four times as many."""
PAGE, RECORD = 300_000, 60_000
"""Bytes that a page, and the record beside it, may have."""
SECOND: Final = 1.0
MORE: Final = 1.5
"""What a monitor run may cost, in multiples of its comparison."""
START: Final = pd.Timestamp("2026-01-05")
MONITORED = """
import json, sys, time
from flows import judge
from flows.monitor import monitor
from flows.train import train

spent, compared = [], judge.drift.compare

def timed(**given):
    before = time.process_time()
    try:
        return compared(**given)
    finally:
        spent.append(time.process_time() - before)

judge.drift.compare = timed
train(sys.argv[1])
monitor(sys.argv[1])  # imports, and starts what the first batch starts
spent.clear()
before = time.process_time()
monitor(sys.argv[1])
print(json.dumps({"monitor": time.process_time() - before, "comparison": sum(spent)}))
"""


def main() -> int:
    return run_parts(options("reports", __doc__, quick="nothing is left out"), (wide, flights))


def wide(seed: int, *, quick: bool) -> Result:
    """A report and a card of many columns, one of which has many labels."""
    del quick
    rows = wide_rows(seed)
    features = [name for name in map(str, rows) if name.startswith("x") or name == "label"]
    before, batch = rows[features].iloc[:-BLOCK], rows[features].iloc[-BLOCK:]
    reference = Reference.fit(before, infer_columns(before), block=BLOCK, seed=seed)
    found = compare(reference=reference, current=batch.reset_index(drop=True))
    record = json.loads(json.dumps(to_record(found)))
    report, drawing = timed(lambda: batch_report(record, about()))
    evaluated = card_record(rows, infer_columns(before), seed)
    card, printing = timed(lambda: card_of(evaluated))
    figures: Figures = {
        "report_kb": round(len(report.encode()) / 1e3, 1),
        "report_cpu": round(drawing, 3),
        "record_kb": round(len(json.dumps(record, separators=(",", ":"))) / 1e3, 1),
        "card_kb": round(len(card.encode()) / 1e3, 1),
        "card_cpu": round(printing, 3),
    }
    return figures, [
        at_most("kB of a report", figures["report_kb"], PAGE / 1e3),
        at_most("kB of report.json", figures["record_kb"], RECORD / 1e3),
        at_most("kB of a card", figures["card_kb"], PAGE / 1e3),
        at_most("CPU seconds of a report", figures["report_cpu"], SECOND),
        at_most("CPU seconds of a card", figures["card_cpu"], SECOND),
    ]


def flights(seed: int, *, quick: bool) -> Result:
    """A monitor run of one week of the flights, beside its comparison alone."""
    del quick
    conf = yaml.safe_load(Path("conf/flights.yaml").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as name:
        conf["tracking"] = {"folder": f"{name}/state"}
        conf["training"]["seed"] = seed
        path = Path(name) / "flights.yaml"
        path.write_text(yaml.safe_dump(conf), encoding="utf-8")
        printed = output(sys.executable, "-c", MONITORED, path, **own_prefect(Path(name)))
    spent = last_json(printed)
    times = spent["monitor"] / spent["comparison"]
    figures: Figures = {key: round(value, 2) for key, value in spent.items()}
    goal = "CPU of a monitor run, in multiples of its comparison"
    return figures | {"times": round(times, 2)}, [at_most(goal, round(times, 2), MORE)]


def timed(draw: Any) -> tuple[str, float]:
    """A page, and the CPU seconds of drawing it again once all is loaded."""
    draw()
    before = time.process_time()
    page = draw()
    return page, time.process_time() - before


def wide_rows(seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    size = 5 * BLOCK
    numbers = random.normal(size=(size, COLUMNS - 1))
    numbers[-BLOCK:, :20] += 0.5  # some columns have moved
    rows = pd.DataFrame(numbers, columns=[f"x{place}" for place in range(COLUMNS - 1)])
    rows["label"] = [f"label {one}" for one in random.integers(0, LABELS, size)]
    rows["at"] = pd.date_range(START, periods=size, freq="1min", unit="us")
    rows["won"] = (rows["x0"] + random.normal(size=size) > 0).astype(float)
    return rows


def card_record(rows: pd.DataFrame, features: Any, seed: int) -> dict[str, Any]:
    """What training says of a model of the rows, as it is stored."""
    declared = {name: column.model_dump() for name, column in features.items()}
    data = Data.model_validate(
        {
            "train": {"kind": "file", "path": "rows.parquet"},
            "time": "at",
            "target": "won",
            "features": declared,
        }
    )
    training = Training(params={"n_estimators": 5}, holdout=pd.Timedelta("3D"), seed=seed)
    trained = train(rows, data, training, task="classification")
    found = evaluation(trained, data, task="classification", ranges={})
    return {**json.loads(json.dumps(found)), "golden": LABELS}


def card_of(record: dict[str, Any]) -> str:
    tags = {"since": "2026-01-05", "until": "2026-01-22", "git_commit": "", "lock_sha256": ""}
    return model_card(
        record,
        model="wide",
        conf="conf/wide.yaml",
        number_of=1,
        tags=tags,
        parameters={"estimator": "xgboost.XGBClassifier"},
        tracking="sqlite:///mlflow.db",
        gate=None,
    )


def about() -> About:
    evidence = Evidence(f"{START:%Y-%m-%dT%H:%M}", 1, alarm=True)
    week = pd.Timedelta("7D")
    return About(
        model="wide",
        conf="conf/wide.yaml",
        verdict=Verdict(evidence, Decision("none", "This batch alarms; not persistent yet.")),
        start=START,
        end=START + week,
        quarantined=0,
        loss="log_loss",
        usual_loss=0.5,
        allowed=0.05,
        labels_due=START + 2 * week,
        made="2026-01-12 08:00 UTC",
        past=(),
        performance=None,
        metrics={"log_loss": 0.5},
        where={"Open questions": "holdfast review conf/wide.yaml"},
    )


if __name__ == "__main__":
    raise SystemExit(main())
