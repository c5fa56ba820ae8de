"""Whether golden rows notice an environment that predicts otherwise, and only such a one."""

import json
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks import peers
from benchmarks.batches.creep import FAULTS, NUMBERS, table
from benchmarks.harness.command import Figures, Result, at_least, at_most, options, run_parts
from benchmarks.harness.processes import last_json, output
from pipeline.columns import known_categories
from pipeline.config import Categorical, Columns, Numeric
from pipeline.training import parity
from pipeline.training.estimators import build_estimator
from pipeline.training.model import Model
from pipeline.training.parity import ABSOLUTE, RELATIVE
from pipeline.training.seals import seal

COLUMNS: Final[Columns] = {
    **{name: Numeric(nullable=name in {"age", "visits"}) for name in NUMBERS},
    "plan": Categorical(values=("Free", "Pro", "Team")),
    "city": Categorical(nullable=True),
    "code": Categorical(),
}
MODELS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "xgboost": ("xgboost.XGBClassifier", {"n_estimators": 100, "max_depth": 5}),
    "trees": ("sklearn.ensemble.HistGradientBoostingClassifier", {"max_iter": 100}),
    "linear": ("sklearn.linear_model.LogisticRegression", {}),
}
ENVIRONMENTS: Final = {
    "locked": (),
    "pandas 2.3": ("pandas==2.3.*",),
    "pandas 3.0": ("pandas==3.0.*",),
    "XGBoost 3.1": ("xgboost==3.1.*",),
    "scikit-learn 1.8": ("scikit-learn==1.8.*",),
    "NumPy 2.2": ("numpy==2.2.*",),
    "NumPy 2.3": ("numpy==2.3.*",),
    "all older": ("pandas==2.3.*", "xgboost==3.1.*", "scikit-learn==1.8.*", "numpy==2.2.*"),
}
"""What differs from the lock file, in environments of the group that serves."""
QUICK: Final = ("locked", "pandas 2.3")
ROWS: Final = 2_000


def main() -> int:
    quick = "a model of XGBoost alone, and two environments"
    return run_parts(options("parity", __doc__, quick=quick), (environments, faults))


def environments(seed: int, *, quick: bool) -> Result:
    """Golden rows scored with other versions of packages, beside rows that are not golden."""
    figures: Figures = {}
    with tempfile.TemporaryDirectory() as place:
        export(Path(place), seed, MODELS if not quick else ("xgboost",))
        expected = _scored(Path(sys.executable), Path(place), seed)["models"]
        for name in QUICK if quick else ENVIRONMENTS:
            python = peers.varied(name, ENVIRONMENTS[name])
            found = _scored(python, Path(place), seed)
            figures[name] = {"packages": found["packages"]} | {
                model: _compared(one, expected[model]["predictions"])
                for model, one in found["models"].items()
            }
    each = [one for name in figures for one in figures[name].values() if "agrees" in one]
    alarms = sum(one["agrees"] and one["alarm"] for one in each)
    missed = sum(not one["agrees"] and not one["alarm"] for one in each)
    figures |= {"false_alarms": alarms, "missed": missed}
    return figures, [
        at_most("false alarms in environments that predict alike", alarms, 0),
        at_most("environments that predict otherwise and are not noticed", missed, 0),
    ]


def faults(seed: int, *, quick: bool) -> Result:
    """Each fault in a process of its own, and what parity says of it."""
    figures: Figures = {}
    with tempfile.TemporaryDirectory() as place:
        export(Path(place), seed, MODELS if not quick else ("xgboost",))
        python = Path(sys.executable)
        expected = _scored(python, Path(place), seed)["models"]
        for name, fault in FAULTS.items():
            found = _scored(python, Path(place), seed, name)["models"]
            for model, one in found.items():
                compared = _compared(one, expected[model]["predictions"])
                right = one["stage"].startswith(fault.stage)
                named = set(one["columns"]) == set(fault.columns)
                figures[f"{name}, {model}"] = compared | {"right": right and named}
    changing = [one for one in figures.values() if not one["agrees"]]
    silent = [one for one in figures.values() if one["agrees"]]
    caught = sum(one["alarm"] for one in changing)
    right = sum(one["alarm"] and one["right"] for one in changing)
    figures |= {
        "changing": len(changing),
        "caught": caught,
        "right": right,
        "harmless": len(silent),
        "harmless_refused": sum(one["alarm"] for one in silent),
    }
    return figures, [
        at_least(
            "share of faults that change a prediction and are caught", caught / len(changing), 1
        ),
        at_least("share of these with the right stage and columns", right / len(changing), 1),
    ]


def export(folder: Path, seed: int, names: Iterable[str] = MODELS) -> None:
    """Write models of one table to folders, as `holdfast export` does."""
    rows = table(3_000, seed)
    categories = known_categories(rows, COLUMNS)
    for name in names:
        path, params = MODELS[name]
        estimator = build_estimator(path, params, COLUMNS, seed=seed)
        model = Model("classification", COLUMNS, categories, estimator)
        model.fit(model.encode(rows), rows["target"].to_numpy(dtype=np.float64))
        target = folder / name
        model.save(target / "model")
        parity.make(model, rows, seed=seed).export(target / "golden")
        (target / "manifest.json").write_text(json.dumps({"name": name, "version": "1"}))
        seal(target)


def _scored(python: Path, folder: Path, seed: int, *fault: str) -> Any:
    """What the golden rows and others become under a Python; other rows are not golden."""
    what = ("-m", "benchmarks.harness.scored", str(folder), str(ROWS), str(seed + 1), *fault)
    return last_json(output(python, *what, PYTHONPATH=str(peers.ROOT), OMP_NUM_THREADS="1"))


def _compared(one: dict[str, Any], expected: list[list[float]]) -> dict[str, Any]:
    """The verdict of the golden rows beside what became of the other rows."""
    predictions = one.pop("predictions")
    apart = (
        np.inf if predictions is None else float(np.abs(np.subtract(predictions, expected)).max())
    )
    agrees = predictions is not None and bool(
        np.allclose(predictions, expected, rtol=RELATIVE, atol=ABSOLUTE)
    )
    alarm = one["verdict"] == "different" or bool(one["refused"])
    return one | {"largest_difference": apart, "agrees": agrees, "alarm": alarm}


if __name__ == "__main__":
    raise SystemExit(main())
