"""Fits on the rows of the past as they were known, and their losses on later batches."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.columns import Floats, Matrix
from pipeline.config import Settings
from pipeline.data.labels import labelled
from pipeline.training import fitting
from pipeline.training.metrics import losses
from pipeline.training.target import checked_target

TRAINING, LIVE = "training.parquet", "live.parquet"
"""Valid rows to train on, and to cut batches from."""


class Span(NamedTuple):
    """The live batches of a history.

    Attributes
    ----------
    start : Timestamp
        Start of the first batch, where the window of the first model ends.
    length : Timedelta
        Length of a batch.
    batches : int
        Number of batches.
    """

    start: pd.Timestamp
    length: pd.Timedelta
    batches: int

    def begin(self, batch: int) -> pd.Timestamp:
        """Start of a batch."""
        return self.start + batch * self.length

    def place(self, moment: pd.Timestamp) -> int:
        """Number of the batch that begins at a moment."""
        return int((moment - self.start) // self.length)


class Fit(NamedTuple):
    """A model: what it is fitted on.

    Attributes
    ----------
    before : int
        The batch before which it is fitted, on the labels that are known by then.
    left_out : tuple of int
        Batches whose rows are left out, as they were set aside.
    """

    before: int
    left_out: tuple[int, ...] = ()


def keep(folder: Path, training: pd.DataFrame, live: pd.DataFrame) -> None:
    """Write the rows of a history for the processes that fit."""
    for name, rows in ((TRAINING, training), (LIVE, live)):
        rows.to_parquet(folder / f"{name}.part")
        (folder / f"{name}.part").rename(folder / name)


def key_of(settings: Settings, rows: Iterable[pd.DataFrame], *, judging: str) -> str:
    """Hash of all that fits and decisions depend on: rows, settings, code and packages.

    `judging` is the hash of code and packages, `environment.judging`.
    """
    included = {"task", "data", "training", "monitoring", "promotion"}
    parts = settings.model_dump_json(include=included)
    whole = hashlib.sha256((parts + judging).encode())
    for frame in rows:
        names = [name for name in frame if frame[name].dtype == "object"]
        texts = frame.astype(dict.fromkeys(names, "str"))
        whole.update(pd.util.hash_pandas_object(texts, index=False).to_numpy().tobytes())
    return whole.hexdigest()[:16]


def lost(
    folder: Path, settings: Settings, span: Span, fits: Sequence[Fit], say: Callable[[], None]
) -> None:
    """Fit models and keep their losses on later batches; what is kept already is not fitted again.

    Parameters
    ----------
    folder : Path
        Where `keep` wrote the rows.
    settings : Settings
        The model's.
    span : Span
        The batches.
    fits : sequence of Fit
        What to fit.
    say : callable
        Called after each fit.
    """
    for fit in fits:
        file = _file(folder, fit)
        if not file.exists():
            found = _lost(folder, settings, span, fit)
            part = file.with_suffix(f".{os.getpid()}")
            file.parent.mkdir(exist_ok=True)
            part.write_text(json.dumps(found.tolist()))
            part.rename(file)
        say()


def drop(folder: Path) -> None:
    """Remove the rows that `keep` wrote: they are a copy, and may be about people."""
    for name in (TRAINING, LIVE):
        (folder / name).unlink(missing_ok=True)


def read_losses(folder: Path, fit: Fit) -> Floats:
    """Mean loss of a fit on each batch, nan before it was fitted and where no label is known."""
    kept: Floats = np.array(json.loads(_file(folder, fit).read_text()), dtype=np.float64)
    return kept


def matrix(folder: Path, batches: int) -> Matrix:
    """Losses of the fits before each batch, as the oracle reads them."""
    return np.array([read_losses(folder, Fit(batch)) for batch in range(batches)])


def rows_of_batches(live: pd.DataFrame, settings: Settings, span: Span) -> Floats:
    """Number of rows of each batch with a label, shape (n_batches,)."""
    inside = live[settings.data.time].between(
        span.start, span.begin(span.batches), inclusive="left"
    )
    known = live[inside & live[settings.data.target].notna()]
    return np.bincount(_batches(known, settings, span), minlength=span.batches).astype(np.float64)


def _file(folder: Path, fit: Fit) -> Path:
    without = f" without {','.join(map(str, fit.left_out))}" if fit.left_out else ""
    name = f"{fit.before}{without}"
    if len(name) > 100:  # noqa: PLR2004 -- names of files are at most 255 bytes long
        name = f"{fit.before} {hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return folder / "fits" / f"{name}.json"


@lru_cache(maxsize=2)
def _rows(file: Path) -> pd.DataFrame:
    return pd.read_parquet(file)


def _lost(folder: Path, settings: Settings, span: Span, fit: Fit) -> Floats:
    """Fit a model, and compute its mean loss on each batch from the first that it could serve."""
    data, training = settings.data, settings.training
    until = span.begin(fit.before)
    rows = _rows(folder / TRAINING)
    inside = rows[data.time] < until
    if training.window is not None:
        inside &= rows[data.time] >= until - training.window
    for batch in fit.left_out:
        inside &= ~rows[data.time].between(
            span.begin(batch), span.begin(batch + 1), inclusive="left"
        )
    known = labelled(rows[inside], data, as_of=until)
    known = known.assign(**{data.target: checked_target(known, data, settings.task)})
    model = fitting.fit(known, data, training, settings.task)
    live = _rows(folder / LIVE)
    later = live[data.time].between(until, span.begin(span.batches), inclusive="left")
    ahead = live[later & live[data.target].notna()].reset_index(drop=True)
    found = np.full(span.batches, np.nan)
    batches = _batches(ahead, settings, span)
    for batch in np.unique(batches):
        own = ahead[batches == batch]
        target = own[data.target].to_numpy(dtype=np.float64)
        found[batch] = losses(settings.loss, target, model.predict(own)).mean()
    return found


def _batches(rows: pd.DataFrame, settings: Settings, span: Span) -> NDArray[np.intp]:
    """Number of the batch of each row."""
    numbers = (rows[settings.data.time] - span.start) // span.length
    return np.asarray(numbers, dtype=np.intp)
