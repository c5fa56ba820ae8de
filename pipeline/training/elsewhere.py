"""Tries versions, and a training, in the environment of a process: `python -m ... FOLDER`.

`holdfast upgrade-check` starts it with other versions of packages. It imports neither MLflow nor
Prefect, so that a small environment is enough.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from pipeline.config import CaptureSource, Data, Training
from pipeline.errors import PipelineError
from pipeline.training import fitting
from pipeline.training.compatibility import compatibility_of
from pipeline.training.golden import installed

JOB, ROWS, PREDICTIONS, VERSIONS = "job.json", "rows.parquet", "predictions.npy", "versions"
PREDICTED: Final = 0.2
"""Share of the rows, the newest, that the training is not fitted on and predicts."""


def prepare(folder: Path, *, data: Data, training: Training, task: str, rows: pd.DataFrame) -> None:
    """Write what a small training needs into a folder.

    Parameters
    ----------
    folder : Path
        An existing folder; folders of versions are looked for in its folder `VERSIONS`.
    data : Data
        Declared columns; the sources are not written.
    training : Training
        Estimator and parameters.
    task : str
        ``classification`` or ``regression``.
    rows : DataFrame
        Valid labelled rows, oldest first.
    """
    nowhere = {"train": CaptureSource(kind="capture"), "live": None, "labels": None}
    job = {
        "data": data.model_copy(update=nowhere).model_dump(mode="json"),
        "training": training.model_dump(mode="json"),
        "task": task,
    }
    (folder / JOB).write_text(json.dumps(job))
    rows.to_parquet(folder / ROWS)


def tried(folder: Path) -> dict[str, Any]:
    """Replay golden rows of all versions of a folder, and fit a model and let it predict.

    Returns
    -------
    dict
        ``golden``, a `Compatibility` for each version; ``training``, why it failed, or empty; and
        ``packages``, the versions. Predictions of the training are written as `PREDICTIONS`.
    """
    versions = sorted((folder / VERSIONS).iterdir())
    golden = {version.name: asdict(compatibility_of(version)) for version in versions}
    return {"golden": golden, "training": _trained(folder), "packages": installed()}


def _trained(folder: Path) -> str:
    try:
        job: Mapping[str, Any] = json.loads((folder / JOB).read_text())
        data, training = Data.model_validate(job["data"]), Training.model_validate(job["training"])
        rows = pd.read_parquet(folder / ROWS)
        older = round(len(rows) * (1 - PREDICTED))
        model = fitting.fit(rows.iloc[:older], data, training, job["task"])
        np.save(folder / PREDICTIONS, model.predict(rows.iloc[older:]))
    except (PipelineError, ImportError, AttributeError, TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"  # newer packages refuse what older ones took
    return ""


if __name__ == "__main__":
    print(json.dumps(tried(Path(sys.argv[1]))))  # noqa: T201 -- read by who started it
