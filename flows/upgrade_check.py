"""Judge the newest allowed packages by golden rows and a training, before anything is upgraded."""

import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from flows.scratch import CODE, Scratch, Versions, here, newest, small, tried
from flows.steps import opened
from pipeline.columns import as_time
from pipeline.config import Settings
from pipeline.data import tables, validation
from pipeline.data.labels import join_labels, labelled
from pipeline.errors import DataError, RegistryError
from pipeline.registry.versions import CHAMPION, PREVIOUS, Registry
from pipeline.training import elsewhere
from pipeline.training.compatibility import VERDICTS, largest_difference, verdict_of, worst
from pipeline.training.golden import PACKAGES
from pipeline.training.target import checked_target

ROWS: Final = 5_000
"""Newest rows of the small training."""
Result = dict[str, Any]


def upgrade_check(conf: str, *, bisect: bool = False) -> Result:
    """Compare predictions with the newest allowed packages with those of the packages here.

    Nothing is upgraded, and nothing is recorded.

    Parameters
    ----------
    conf : str
        The model's YAML file.
    bisect : bool
        Whether to find the package that changed predictions.

    Returns
    -------
    dict
        `verdict`, with a `sentence`; `changed`, packages that read, fit or predict, with `before`
        and `now`; `others`, changed packages that do not; `golden` of each alias; `training`, of
        which so many `rows` are compared; and `culprit`, None where none was looked for.

    Raises
    ------
    RegistryError
        If there is no champion.
    DataError
        If there are no rows to train on.
    UnavailableError
        If uv is missing or cannot get the packages.
    """
    settings, registry = opened(conf)
    found = {CHAMPION: registry.champion(), PREVIOUS: registry.alias(PREVIOUS)}
    numbers = {alias: one.number for alias, one in found.items() if one is not None}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        allowed, installed = newest(folder), here()
        before, after = small(folder, installed), small(folder, allowed)
        changed = _in_order(one for one in after if after[one] != before.get(one, after[one]))
        job = _job(settings, registry, numbers, folder / "job")
        compare = _Comparison(job, numbers)
        scratch = Scratch(folder)
        judged = compare(scratch, after)
        culprit = None
        if bisect and judged["verdict"] != compare.here:

            def brings(count: int) -> bool:
                upgraded = {one: after[one] for one in changed[:count]}
                found = compare(scratch, after | before | upgraded)
                return VERDICTS.index(found["verdict"]) >= VERDICTS.index(judged["verdict"])

            culprit = changed[first(brings, len(changed)) - 1]
    return {
        "changed": [_change(one, before, after) for one in changed],
        "others": [
            _change(one, installed, allowed)
            for one in sorted(set(allowed) & set(installed) - set(after))
            if allowed[one] != installed[one]
        ],
        "rows": compare.rows,
        **judged,
        "sentence": _sentence(judged),
        "culprit": culprit and _change(culprit, before, after),
    }


def first(brings: Callable[[int], bool], count: int) -> int:
    """Smallest number for which something holds, by halving; it holds for `count`, not for 0.

    Examples
    --------
    >>> first(lambda number: number >= 3, 10)
    3
    """
    fails, holds = 0, count
    while holds - fails > 1:
        middle = (fails + holds) // 2
        fails, holds = (fails, middle) if brings(middle) else (middle, holds)
    return holds


def _in_order(names: Iterable[str]) -> list[str]:
    """What the others build on first, and packages that read and predict last."""
    places = {name: place for place, name in enumerate(PACKAGES)}
    return sorted(names, key=lambda name: (places.get(name, -1), name))


def _sentence(judged: Result) -> str:
    """What the verdict means, and what to do."""
    if any(one["verdict"] == "different" for one in judged["golden"].values()):
        return "Stored versions predict differently with the newest packages. Keep the locked ones."
    if judged["verdict"] == "different":
        return (
            "Stored versions predict as before, but a training gives another model with the newest "
            "packages. Upgrade, train, and let the gate judge it."
        )
    return "Stored versions and trainings predict as before. `uv lock --upgrade` upgrades."


def _change(name: str, before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str]:
    return {"package": name, "before": before.get(name, ""), "now": after[name]}


def _job(settings: Settings, registry: Registry, numbers: Mapping[str, int], folder: Path) -> Path:
    """A folder with the versions, and with the rows of the training."""
    versions = folder / elsewhere.VERSIONS
    versions.mkdir(parents=True)
    for number in set(numbers.values()):
        (versions / str(number)).symlink_to(registry.folder_of(number).resolve())
    elsewhere.prepare(
        folder,
        data=settings.data,
        training=settings.training,
        task=settings.task,
        rows=_rows(settings, registry.version(numbers[CHAMPION]).until),
    )
    return folder


def _rows(settings: Settings, until: pd.Timestamp) -> pd.DataFrame:
    """The newest valid labelled rows that the champion could be trained on."""
    data, captures = settings.data, settings.captures
    rows = tables.read(data.train, data, end=until, captures=captures)
    if data.labels is not None:
        rows = join_labels(rows, tables.read_labels(data, captures=captures), data, as_of=until)
    found = validation.validate(rows, data, source="data.train")
    checked = validation.with_labels(found, data, settings.task)
    known = labelled(checked.valid, data, as_of=until)
    if known.empty:
        message = f"data.train must hold labelled rows before {until:%Y-%m-%d}. Got none. Mend it."
        raise DataError(message)
    newest_rows = known.iloc[np.argsort(as_time(known[data.time]), kind="stable")].tail(ROWS)
    labels = checked_target(newest_rows, data, settings.task)
    return newest_rows.assign(**{data.target: labels}).reset_index(drop=True)


class _Comparison:
    """Compares other packages with those of this process, which are tried once."""

    def __init__(self, job: Path, numbers: Mapping[str, int]) -> None:
        self._job, self._numbers = job, numbers
        found = tried(Path(sys.executable), CODE.parent, job)
        if found["training"]:
            message = f"A training fails here already ({found['training']}). Mend that first."
            raise RegistryError(message)
        self.here = worst(one["verdict"] for one in found["golden"].values())
        if self.here == "different":
            messages = [one["message"] for one in found["golden"].values() if one["message"]]
            raise RegistryError(messages[0])
        self._before = np.load(job / elsewhere.PREDICTIONS)
        self.rows = len(self._before)

    def __call__(self, scratch: Scratch, versions: Versions) -> Result:
        """Verdict of these packages: of the golden rows of each alias, and of the training."""
        scratch.install(versions)
        try:
            found = scratch.tried(self._job)
        except RegistryError as error:
            failed = {"verdict": "different", "message": str(error)}
            versions_of = {alias: failed | {"version": one} for alias, one in self._numbers.items()}
            return {"verdict": "different", "golden": versions_of, "training": failed}
        golden: dict[str, Result] = {
            alias: found["golden"][str(number)] | {"version": number}
            for alias, number in self._numbers.items()
        }
        training = self._training(found["training"])
        verdict = worst([training["verdict"], *(one["verdict"] for one in golden.values())])
        return {"verdict": verdict, "golden": golden, "training": training}

    def _training(self, failed: str) -> Result:
        if failed:
            return {"verdict": "different", "message": failed}
        now = np.load(self._job / elsewhere.PREDICTIONS)
        apart = largest_difference(now, self._before)
        return {"verdict": verdict_of(now, self._before), "message": "", "apart": apart}
