"""Check a model's file and a sample of its rows, and foresee what training and monitoring will do.

It runs without Prefect and MLflow, and keeps nothing.
"""

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from pydantic import TypeAdapter, ValidationError

from pipeline.columns import as_time, require
from pipeline.config import (
    OWN_KEY,
    OWN_TIME,
    CaptureSource,
    Categorical,
    Columns,
    Data,
    Numeric,
    Settings,
    Training,
    placed,
    read_document,
    refused,
    spelled,
)
from pipeline.data import tables, validation
from pipeline.data.labels import join_labels, labelled
from pipeline.errors import ConfigError, DataError
from pipeline.monitoring.performance import FALSE_A_YEAR
from pipeline.monitoring.plan import POWER, USED, Plan, plan
from pipeline.reference import Reference
from pipeline.training import fitting
from pipeline.training.target import checked_target

SAMPLE: Final = 100_000
"""Most rows that are looked at."""
YEAR: Final = pd.Timedelta("365.25D")
_TRIED: Final = 64
"""Made-up rows on which an estimator is tried, before any row is read."""
_TIMED: Final = (2_000, 8_000)
"""Rows of the two fits by which the time of a training is estimated."""
_OF_EACH: Final = 20
"""Rows of each class that are among these at least."""


def check(conf: str) -> dict[str, Any]:
    """Check a model's file and rows, and foresee what will happen.

    Parameters
    ----------
    conf : str
        The model's YAML file.

    Returns
    -------
    dict
        `rows`, `batches`, `reference`, `columns`, `expected` and `at_most` (a year, when nothing is
        wrong), `shifts`, `first_verdict`, `training_seconds` and `lost`.

    Raises
    ------
    ConfigError
        With all mistakes of the file.
    DataError
        If no model can be trained on the rows.
    """
    settings = usable(conf)
    looked = _Looked(settings, _rows(settings))
    found = plan(
        looked.reference,
        looked.batch,
        alpha=settings.monitoring.alpha,
        persistence=settings.monitoring.persistence,
    )
    enough = bool(found.variations)
    return {
        "conf": settings.conf,
        "name": settings.name,
        "task": settings.task,
        "rows": looked.counted,
        "batches": looked.batches,
        "reference": {
            "until": _iso(looked.until),
            "rows": round(len(looked.window) * looked.factor),
            "blocks": len(looked.reference.blocks),
        },
        "columns": [asdict(one) for one in found.variations],
        "expected": _a_year(settings, found, USED),
        "at_most": _a_year(settings, found, dict.fromkeys(USED, 1.0)),
        "power": POWER,
        "shifts": [asdict(one) for one in found.shifts],
        "first_verdict": _iso(
            looked.until + settings.monitoring.persistence * settings.monitoring.batch
        )
        if enough
        else None,
        "training_seconds": _seconds(settings, looked),
        "lost": list(_lost(settings.data)),
    }


def usable(conf: str) -> Settings:
    """The settings of a file whose estimator works as well.

    Raises
    ------
    ConfigError
        With all mistakes of the file.
    """
    try:
        settings, problems = Settings.load(conf), list[str]()
    except ConfigError as error:
        if not error.problems:
            raise
        settings, problems = None, list(error.problems)
    problems += _of_estimator(conf, settings)
    if settings is None or problems:
        raise refused(conf, problems)
    return settings


def _of_estimator(conf: str, settings: Settings | None) -> Iterator[str]:
    """What is wrong with the estimator, also where other parts of the file are wrong."""
    task: str
    if settings is not None:
        data, training, task = settings.data, settings.training, settings.task
    else:
        values = read_document(Path(conf)).values
        try:
            training = Training.model_validate(values.get("training") or {})
        except ValidationError:
            return
        data, task = _stand_in(values), str(values.get("task"))
    try:
        # Made-up rows may be too few for some estimators to predict.
        fitting.fit_only(_made_up(data, task), data, training, task)
    except ConfigError as error:
        if settings is None and task not in {"classification", "regression"}:
            return
        yield _placed(conf, training, str(error))


def _placed(conf: str, training: Training, text: str) -> str:
    """What is wrong with an estimator, with the line of the parameter or the estimator."""
    said = re.findall(r"\w+", text)
    params = [name for name in training.params if name in said]
    setting = ["training", *(["params", *params[:1]] if "params" in text else ["estimator"])]
    return placed(read_document(Path(conf)), setting, text)


def _stand_in(values: dict[str, Any]) -> Data:
    """The columns of a file with other mistakes, or a column in their place."""
    try:
        features = TypeAdapter(Columns).validate_python(values["data"]["features"])
    except (ValidationError, KeyError, TypeError):
        features = {"number": Numeric()}
    nowhere = CaptureSource(kind="capture")
    return Data.model_construct(train=nowhere, features=features, target="target", derive={})


def _made_up(data: Data, task: str) -> pd.DataFrame:
    """Rows that hold anything that the columns allow, and a target that suits the task."""
    random = np.random.default_rng(0)
    rows: dict[str, Any] = {}
    for name, column in data.features.items():
        if isinstance(column, Categorical):
            labels = random.choice(column.values or ("a", "b"), _TRIED)
            rows[name] = pd.Series(labels).astype("str")
        else:
            low = -1.0 if column.min is None else column.min
            rows[name] = random.uniform(low, max(low + 1, column.max or low), _TRIED)
    places = random.permutation(_TRIED) % data.class_count
    target = places if task == "classification" else random.random(_TRIED)
    return pd.DataFrame(rows | {data.target: target.astype(float)})


def _rows(settings: Settings) -> pd.DataFrame:
    """All rows of the training source, with all labels that have come."""
    data = settings.data
    rows = tables.read(data.train, data, captures=settings.captures)
    if rows.empty:
        message = "The source data.train must hold rows. Got none. Correct it, or fill it."
        raise DataError(message)
    if not tables.has_labels(data, settings.captures):
        return rows
    return join_labels(rows, tables.read_labels(data, captures=settings.captures), data)


@dataclass(frozen=True)
class _Looked:
    """What the rows of a model show; computed once, and stored nowhere."""

    settings: Settings
    rows: pd.DataFrame

    @cached_property
    def inside(self) -> pd.Series:
        """Which rows are of the first training window."""
        moments, training = self._moments, self.settings.training
        until = moments.max() if training.until is None else training.until
        inside = moments <= until if training.until is None else moments < until
        return inside if training.window is None else inside & (moments >= until - training.window)

    @cached_property
    def looked_at(self) -> pd.DataFrame:
        """Rows that are looked at: of the window first, and at random."""
        if len(self.rows) <= SAMPLE:
            return self.rows
        turn = np.random.default_rng(0).random(len(self.rows)) + ~self.inside
        return self.rows.iloc[np.sort(np.argsort(turn)[:SAMPLE])]

    @cached_property
    def factor(self) -> float:
        """Rows of the window for each of them that is looked at."""
        return float(max(self.inside.sum() / max(min(SAMPLE, self.inside.sum()), 1), 1.0))

    @cached_property
    def validated(self) -> validation.Validated:
        data = self.settings.data
        found = validation.validate(self.looked_at, data, source="data.train")
        checked = validation.with_labels(found, data, self.settings.task)
        checked_target(validation.as_they_came(checked, data.target), data, self.settings.task)
        return checked

    @cached_property
    def until(self) -> pd.Timestamp:
        """End of the first training window."""
        newest: pd.Timestamp = self.validated.valid[self.settings.data.time].max()
        return self.settings.training.until or newest + pd.Timedelta("1us")

    @cached_property
    def window(self) -> pd.DataFrame:
        """Valid rows of the first training window."""
        moments = self.validated.valid[self.settings.data.time]
        length = self.settings.training.window
        inside = moments < self.until
        inside &= True if length is None else moments >= self.until - length
        if not inside.any():
            first = moments.min()
            if length is not None and first < self.until:
                message = (
                    f"training.window must hold rows of data.train. Got {spelled(length)} before "
                    f"{_iso(self.until)}, which hold none. Set a longer one, or leave it out."
                )
                raise DataError(message)
            message = (
                f"training.until must be later than rows of data.train. Got {_iso(self.until)}, "
                f"and the first row is of {_iso(first)}. Correct it, or leave it out."
            )
            raise DataError(message)
        return self.validated.valid[inside].reset_index(drop=True)

    @cached_property
    def labelled(self) -> pd.DataFrame:
        """Rows of the window whose labels are known at its end."""
        found = labelled(self.window, self.settings.data, as_of=self.until)
        if found.empty:
            message = (
                "The training window has no labelled rows. Check data.label_delay and data.labels."
            )
            raise DataError(message)
        return found

    @cached_property
    def reference(self) -> Reference:
        data, length = self.settings.data, self.settings.monitoring.batch
        return Reference.fit(self.window, data.features, time=data.time, block=length)

    @cached_property
    def batch(self) -> pd.DataFrame:
        """Rows of a batch of median size, whether they were looked at or not."""
        numbers = self._numbers
        sizes = numbers.value_counts()
        usual = (sizes - sizes.median()).abs().idxmin()
        rows = self.rows[numbers == usual]
        return validation.validate(rows, self.settings.data, source="a batch").valid

    @cached_property
    def _moments(self) -> pd.Series:
        require(self.rows, [self.settings.data.time])
        return as_time(self.rows[self.settings.data.time])

    @cached_property
    def _numbers(self) -> pd.Series:
        start = self._moments.min().normalize()
        numbers: pd.Series = (self._moments - start) // self.settings.monitoring.batch
        return numbers

    @cached_property
    def counted(self) -> dict[str, Any]:
        """How many rows there are, and what their labels and times are."""
        found, data = self.validated, self.settings.data
        target, moments = found.valid[data.target], found.valid[data.time]
        names = dict(enumerate(data.classes or ()))
        shares = zip(*np.unique(target.dropna(), return_counts=True), strict=True)
        labels = {names.get(int(value), f"{value:g}"): int(n) for value, n in shares}
        numbers = {"mean": float(target.mean()), "min": float(target.min())}
        numbers |= {"median": float(target.median()), "max": float(target.max())}
        return {
            "read": len(self.rows),
            "looked_at": len(found.valid) + len(found.quarantined),
            "refused": len(found.quarantined),
            "reasons": found.reasons,
            "unlabelled": int(target.isna().sum()),
            "labels": labels if self.settings.task == "classification" else numbers,
            "first": _iso(moments.min()),
            "last": _iso(moments.max()),
        }

    @cached_property
    def batches(self) -> dict[str, Any]:
        """How long, how large and how many batches are."""
        length, sizes = self.settings.monitoring.batch, self._numbers.value_counts()
        return {
            "length": spelled(length),
            "rows": int(sizes.median()),
            "smallest": int(sizes.min()),
            "found": len(sizes),
            "a_year": YEAR / length,
        }


def _a_year(settings: Settings, found: Plan, used: Mapping[str, float]) -> dict[str, float]:
    """How often a year something is found though nothing is wrong."""
    year, apart = YEAR / settings.monitoring.batch, settings.monitoring.cooldown + 1
    return {
        "alarms": used["alarm"] * found.alarm * year,
        "retrains": min(used["persisted"] * found.persisted, 1 / apart) * year,
        "broken": used["broken"] * settings.monitoring.broken_alpha * year,
        "performance": FALSE_A_YEAR,
    }


def _seconds(settings: Settings, looked: _Looked) -> float:
    """Time of the fits of a training: one to be judged, one to serve, and two halves.

    Raises
    ------
    ConfigError
        If the estimator or its parameters do not suit the rows.
    """
    data, training, task = settings.data, settings.training, settings.task
    older, heldout = fitting.split(looked.labelled, data, training)
    sizes, took = [min(n, len(older)) for n in _TIMED], []
    try:
        for n in sizes:
            rows = _some(older, n, settings)
            started = time.perf_counter()
            fitting.fit(rows, data, training, task)
            took.append(time.perf_counter() - started)
        few, ahead = _some(older, sizes[0], settings), heldout.head(_TIMED[0])
        fitting.fit_judged(few, ahead, data, training, task=task, loss=training.metric(task))
    except ConfigError as error:
        said = _placed(settings.conf, training, str(error))
        raise refused(settings.conf, [said]) from error
    each = max(took[1] - took[0], 0.0) / (sizes[1] - sizes[0]) if sizes[1] > sizes[0] else 0.0
    total = looked.factor * (len(older) + 2 * len(looked.labelled))
    return float(4 * took[1] + each * max(total - 4 * sizes[1], 0))


def _some(rows: pd.DataFrame, n: int, settings: Settings) -> pd.DataFrame:
    """Rows at random, and a few of each class, or a sample of rare ones would hold one class."""
    drawn = rows.sample(n, random_state=0)
    if settings.task == "classification":
        few = rows.groupby(settings.data.target).head(_OF_EACH)
        drawn = pd.concat([drawn, few.loc[few.index.difference(drawn.index)]])
    return drawn.sort_index()


def _lost(data: Data) -> Iterator[str]:
    """What a table without a time or a key does without."""
    if data.time == OWN_TIME:
        yield (
            "Rows have no time: they count as having come evenly, in their order. Seasons, late "
            "rows and gaps cannot be seen, and a batch is a number of rows."
        )
    if data.key == OWN_KEY:
        yield (
            "Rows have no key: labels have to come in the rows themselves, and a row that comes "
            "twice counts twice."
        )


def _iso(moment: pd.Timestamp) -> str:
    return f"{moment:%Y-%m-%d %H:%M}"
