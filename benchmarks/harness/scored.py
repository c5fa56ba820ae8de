"""Score golden rows and other rows in this process: `FOLDER ROWS SEED [FAULT]`; ends with JSON.

Runs in environments that serve, so that it imports little.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.batches.creep import FAULTS, as_source, table
from pipeline.errors import PipelineError
from pipeline.serving.served_version import ServedVersion
from pipeline.training.compatibility import compatibility_of
from pipeline.training.golden import installed
from pipeline.training.model import Model


def scored(folder: Path, rows: int, seed: int) -> dict[str, Any]:
    """What becomes of golden rows, whether the version is served, and predictions of other rows."""
    return {
        **asdict(compatibility_of(folder)),
        "refused": _refused(folder),
        "predictions": _predictions(folder, rows, seed),
    }


def _refused(folder: Path) -> str:
    try:
        ServedVersion.load(folder)
    except PipelineError as error:
        return str(error)
    return ""


def _predictions(folder: Path, rows: int, seed: int) -> Any:
    """Predictions of rows in each of the types of a source; None if there are none."""
    try:
        model = Model.load(folder / "model")
        return [model.predict(frame).tolist() for frame in as_source(table(rows, seed))]
    except Exception as error:  # noqa: BLE001 -- an estimator raises what it likes
        print(repr(error), file=sys.stderr)
        return None


if __name__ == "__main__":
    place, count, drawn, *faults = sys.argv[1:]
    for name in faults:
        FAULTS[name].put()
    found = {one.name: scored(one, int(count), int(drawn)) for one in sorted(Path(place).iterdir())}
    print(json.dumps({"packages": installed(), "models": found}))
