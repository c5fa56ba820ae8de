"""Predict many rows at once, by the champion, into a file or a table of a database."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import pandas as pd
from prefect import flow

from flows.notes import OF_A_MODEL
from flows.output import Output
from flows.settle import live_source
from flows.steps import (
    opened,
    patient,
    quarantine_folder,
    require_window,
    show_refused,
    warn_of_strays,
)
from pipeline.config import Data, FileSource, Moment, Settings, Source, SqlTable
from pipeline.data import tables
from pipeline.data.parts import Checked
from pipeline.data.results import ResultTable
from pipeline.errors import ConfigError, DataError
from pipeline.registry.versions import Registry
from pipeline.training import parity
from pipeline.training.bundle import Bundle
from pipeline.training.contributions import check_explainable, contributions
from pipeline.training.costs import costs_of, decide
from pipeline.training.intervals import Margins, Sets, promise_of
from pipeline.training.predictions import labels_of

PREDICTION: Final = "prediction"
VERSION: Final = "version"
CHANCE: Final = "probability of "
"""Columns that are written beside key and time; the last one for each of three or more classes,
before its label, where `PREDICTION` is the likeliest class."""
DECISION: Final = "decision"
"""Column of 0 or 1, where the version has costs."""
LOWER, UPPER = "lower", "upper"
"""Columns of the ends of intervals, where the version has them."""
HELD: Final = "set holds "
"""Column of 0 or 1 for each class, before its label, where the version has sets."""
ADDED: Final = "contribution of "
BASE: Final = "base of contributions"
"""Columns of contributions, the first one before the name of each feature."""


@flow(name="score", **OF_A_MODEL)
def score(
    conf: str,
    file: str = "",
    rows: str = "",
    start: Moment | None = None,
    end: Moment | None = None,
    *,
    explain: bool = False,
) -> dict[str, Any]:
    """Predict the rows of a window, or of a file, and write them with their keys.

    Rows are read, predicted and written in parts, so that memory does not grow with them; the file
    appears as a whole or not at all, so that a run that was killed can be repeated. Without a file
    they go into the table of `data.scores`, in place of its rows of the window and of their keys.
    With `explain`, what each feature contributed to a prediction is written as well.
    """
    settings, registry = opened(conf)
    require_window(start, end)
    target = _checked(file, settings.data)
    source = live_source(settings) if not rows else _file(rows, settings.data)
    return patient(_score)(
        settings, registry, source, target, start=start, end=end, explain=explain
    )


def _checked(file: str, data: Data) -> Path | SqlTable:
    """The path or the table to write to."""
    chances = [f"{CHANCE}{label}" for label in data.several]
    held = [f"{HELD}{label}" for label in data.several or (0, 1)]
    added = [f"{ADDED}{name}" for name in data.features]
    own = [PREDICTION, VERSION, DECISION, LOWER, UPPER, BASE, *chances, *held, *added]
    path, taken = Path(file), {data.key, data.time} & set(own)
    if not file and data.scores is None:
        message = "Name a .parquet or .csv file to write, or a table in data.scores. Got neither."
        raise ConfigError(message)
    if file and (path.suffix not in {".parquet", ".csv"} or not path.parent.is_dir()):
        message = f"The output must be a .parquet or .csv file in a folder that exists. Got {file}."
        raise ConfigError(message)
    if taken:
        message = (
            f"Predictions are written beside key and time, which must have other names than "
            f"their columns. Got {', '.join(sorted(taken))}. Name them otherwise."
        )
        raise ConfigError(message)
    return path if file or data.scores is None else data.scores


def refused_folder(settings: Settings) -> Path:
    """Where refused rows wait until all are known."""
    return settings.tracking.folder / "score" / settings.name


def _file(path: str, data: Data) -> Source:
    """A file of rows, read as the live source is where that is a file."""
    for source in (data.live, data.train):
        if isinstance(source, FileSource):
            return source.model_copy(update={"path": path, "format": None})
    return FileSource(kind="file", path=path)


def _columns(bundle: Bundle, rows: pd.DataFrame, *, explain: bool) -> dict[str, Any]:
    """A number for each row or, of three or more classes, the likeliest and the chance of each.

    Beside it decisions, and the ends of intervals or the classes of sets, as the version has them,
    and contributions where asked.
    """
    model, promise, costs = bundle.model, promise_of(bundle.manifest), costs_of(bundle.manifest)
    matrix = model.encode(rows)
    predicted = model.predict_encoded(matrix)
    found: dict[str, Any] = {PREDICTION: predicted}
    if model.classes:
        found[PREDICTION] = labels_of(predicted, model.classes).to_numpy()
        found |= {f"{CHANCE}{label}": predicted[:, i] for i, label in enumerate(model.classes)}
    if costs is not None:
        found[DECISION] = decide(costs, predicted)
    if isinstance(promise, Margins):
        found[LOWER], found[UPPER] = promise.around(predicted).T
    if isinstance(promise, Sets):
        held = promise.holding(predicted).astype(np.int64)
        found |= {f"{HELD}{label}": held[:, i] for i, label in enumerate(model.classes or (0, 1))}
    if explain:
        added = contributions(model, matrix)
        found |= {f"{ADDED}{name}": added[:, i] for i, name in enumerate(model.columns)}
        found[BASE] = added[:, -1]
    return found


def _score(
    settings: Settings,
    registry: Registry,
    source: Source,
    target: Path | SqlTable,
    *,
    start: pd.Timestamp | None,
    end: pd.Timestamp | None,
    explain: bool,
) -> dict[str, Any]:
    """Predict the valid rows of a window, and write them; a retry begins with the first part."""
    with registry.exclusive("score"):  # two runs would write one unfinished file
        return _predicted(settings, registry, source, target, start=start, end=end, explain=explain)


def _predicted(
    settings: Settings,
    registry: Registry,
    source: Source,
    target: Path | SqlTable,
    *,
    start: pd.Timestamp | None,
    end: pd.Timestamp | None,
    explain: bool,
) -> dict[str, Any]:
    version = registry.champion()
    bundle = registry.bundle(version.number)
    if explain:
        check_explainable(bundle.model)
    if bundle.holdout is not None:
        parity.replay(bundle.model, bundle.holdout, "held-out", types=False)
    output: Output | ResultTable
    if isinstance(target, SqlTable):
        place = stem = target.table
        output = ResultTable(target, settings.data, start=start, end=end)
    else:
        place, stem, output = str(target), target.stem, Output(target)
    name = f"score {stem}"
    roles = [settings.data.key, settings.data.time]
    folder = refused_folder(settings)
    shutil.rmtree(folder, ignore_errors=True)  # a run that was killed leaves refused rows
    folder.mkdir(parents=True)
    with TemporaryDirectory(dir=folder) as temporary, output:
        checked = Checked(settings.data, settings.task, name, Path(temporary))
        captures = settings.captures
        for part in tables.read_parts(
            source, settings.data, start=start, end=end, captures=captures
        ):
            valid = checked.add(part) if len(part) else part
            if len(valid):
                columns = _columns(bundle, valid, explain=explain)
                output.write(valid[roles].assign(**columns, **{VERSION: version.number}))
        if not checked.rows:
            message = "There are no rows to score. Check the source, --rows, --start and --end."
            raise DataError(message)
        checked.quarantine(quarantine_folder(settings))
        checked.require_valid()
    show_refused(settings, name, checked.reasons, checked.quarantined, checked.rows)
    warn_of_strays(name, checked.strays, checked.stray_count, checked.valid)
    return {
        "output": place,
        "version": version.number,
        "rows": checked.rows,
        "predicted": checked.valid,
        "quarantined": checked.quarantined,
        "reasons": checked.reasons,
    }
