"""NannyML's CBPE on streams of batches: reads a JSON file of trials, and prints their estimates.

A trial names the parquet files of its `reference` and `live` rows (`chance`, `predicted`, and, in
the reference, `truth`), and has the number of rows of a `batch`.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from nannyml import CBPE  # type: ignore[import-not-found]

METRICS = ["roc_auc", "accuracy"]


def estimates(trial: dict[str, Any]) -> dict[str, list[list[float]]]:
    """Value and both ends of NannyML's band of each batch, by metric."""
    estimator = CBPE(
        y_pred_proba="chance",
        y_pred="predicted",
        y_true="truth",
        problem_type="classification_binary",
        metrics=METRICS,
        chunk_size=trial["batch"],
    )
    estimator.fit(pd.read_parquet(trial["reference"]))
    shown = estimator.estimate(pd.read_parquet(trial["live"])).filter(period="analysis").to_df()
    ends = ("value", "lower_confidence_boundary", "upper_confidence_boundary")
    return {name: shown[name][list(ends)].to_numpy().tolist() for name in METRICS}


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to stderr
    trials = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    found = [estimates(trial) for trial in trials]
    print(json.dumps(found), file=answers, flush=True)
