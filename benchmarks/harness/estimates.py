"""Estimates of performance before labels come, beside what labels show later, on real tables."""

import json
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from benchmarks import peers
from benchmarks.batches.estimated import CLASSIFIED, FRESH, NUMBERS, Stream, at_hand, stream
from benchmarks.batches.histories import left_out
from benchmarks.harness.command import Figures, Goal, Result, at_least, at_most
from benchmarks.harness.processes import last_json, output, side_by_side
from pipeline.columns import Floats
from pipeline.monitoring.estimate import estimate
from pipeline.monitoring.expectations import Cells, edges_of
from pipeline.training.metrics import compute_metrics, losses

SEEDS: Final = 5
KINDS: Final = ("linear", "boosted")
TRAINED_ON: Final = 0.8
"""Share of the training rows, drawn anew for each seed, that a model is fitted on."""
LATE: Final = 2
"""Batches from the newest with labels to the one that is estimated: labels come a batch late."""
SUDDEN: Final = "sine_abrupt"
"""Set whose concept turns round; means over sets leave it out, as it would decide them."""
NAMES: Final = ("roc_auc", "accuracy", "log_loss")
PEER: Final = "nannyml"


def measure(seed: int, *, quick: bool) -> Result:
    """Errors and coverage of estimates: five seeds, two kinds of models, beside NannyML's CBPE."""
    seeds = 1 if quick else SEEDS
    classified = at_hand(CLASSIFIED)[: 2 if quick else None]
    numbers = at_hand(NUMBERS)[: 1 if quick else None]
    fresh = [] if quick else at_hand(FRESH)
    work = partial(_of_set, seeds=range(seed, seed + seeds), peer=not quick)
    batches = pd.concat(side_by_side(work, [*classified, *numbers, *fresh]), ignore_index=True)
    own, other = (batches[batches["set"].isin(names)] for names in (classified, fresh))
    figures: Figures = {
        "seeds": seeds,
        "kinds": KINDS,
        "left_out": left_out(
            name for name in (*CLASSIFIED, *NUMBERS, *FRESH) if "flights" not in name
        ),
        "errors": {name: _errors(own[own["metric"] == name], classified) for name in NAMES},
        "intervals": {name: _covered(own[own["metric"] == name], peer=not quick) for name in NAMES},
        "nothing chosen on": {
            name: {
                **_errors(other[other["metric"] == name], fresh),
                "intervals": _covered(other[other["metric"] == name], peer=not quick),
            }
            for name in NAMES
            if fresh
        },
        "regression": {
            name: _relative(batches[(batches["set"] == name) & (batches["metric"] == "mae")])
            for name in numbers
        },
    }
    return figures, [*_goals(figures, peer=not quick), *_of_numbers(figures["regression"])]


def _of_set(name: str, seeds: Sequence[int], *, peer: bool) -> pd.DataFrame:
    """Each metric of each live batch of a set: realised, and as estimated in several ways."""
    cut = stream(name)
    trials = [(seed, kind) for seed in seeds for kind in KINDS]
    if cut.chances is not None:
        trials = [(0, "shipped")]
    predictions = [predicted(cut, kind, seed) for seed, kind in trials]
    found = [_estimated(cut, predicted) for predicted in predictions]
    if peer and cut.task == "classification":
        for table, theirs in zip(found, _of_peer(cut, predictions), strict=True):
            for metric, values in theirs.items():
                own = table["metric"] == metric
                table.loc[own, [PEER, f"{PEER}_low", f"{PEER}_high"]] = values
    rows = [
        table.assign(seed=seed, kind=kind)
        for table, (seed, kind) in zip(found, trials, strict=True)
    ]
    return pd.concat(rows, ignore_index=True).assign(set=name)


def predicted(cut: Stream, kind: str, seed: int) -> Floats:
    """Predictions of all rows after those that the model was trained on."""
    if cut.chances is not None:
        return cut.chances.to_numpy(dtype=np.float64)
    rows = cut.x[: cut.train].sample(frac=TRAINED_ON, random_state=seed).index
    model = _model(cut, kind, seed).fit(cut.x.loc[rows], cut.y.loc[rows])
    later = cut.x[cut.train :]
    if cut.task == "regression":
        numbers: Floats = model.predict(later)
        return numbers
    chances: Floats = model.predict_proba(later)[:, 1]
    return chances


def _model(cut: Stream, kind: str, seed: int) -> Any:
    labels = [name for name in cut.x if cut.x[name].dtype.kind not in "iuf"]
    others = [name for name in cut.x if name not in labels]
    number = cut.task == "regression"
    if kind == "linear":
        encoder = OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=20)
        scaled = make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler())
        columns = make_column_transformer((encoder, labels), (scaled, others))
        return make_pipeline(columns, Ridge() if number else LogisticRegression(max_iter=2_000))
    places = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    columns = make_column_transformer((places, labels), ("passthrough", others))
    boosted = HistGradientBoostingRegressor if number else HistGradientBoostingClassifier
    return make_pipeline(columns, boosted(max_iter=100, random_state=seed))


def _estimated(cut: Stream, predictions: Floats) -> pd.DataFrame:
    """Realised and estimated metrics of each live batch of a model."""
    y = cut.y[cut.train :].to_numpy()
    edges = edges_of(predictions[: cut.known], cut.task)
    starts = range(0, len(y) - cut.batch + 1, cut.batch)
    parts = [slice(start, start + cut.batch) for start in starts]
    whole = [_with_labels(cut, predictions[part], y[part], edges) for part in parts]
    realised = [compute_metrics(cut.task, y[part], predictions[part]) for part in parts]
    constant = compute_metrics(cut.task, y[: cut.known], predictions[: cut.known])
    rows = []
    before = cut.known // cut.batch
    loss = "mae" if cut.task == "regression" else "log_loss"
    for place in range(before, len(parts)):
        newest = max(place - LATE, before - 1)
        current = Cells.of(predictions[parts[place]], edges)
        rows += [
            {
                "batch": place - before,
                "metric": one.metric,
                "realised": realised[place][one.metric],
                "estimate": one.value,
                "low": one.low,
                "high": one.high,
                "abstains": bool(one.reason),
                "constant": constant[one.metric],
                "last": realised[newest][one.metric],
            }
            for one in estimate(current, whole[: newest + 1], loss=loss, gap=place - newest)
        ]
    return pd.DataFrame(rows)


def _with_labels(cut: Stream, predictions: Floats, y: Floats, edges: Floats) -> Cells:
    if cut.task == "classification":
        return Cells.of(predictions, edges, target=y)
    return Cells.of(predictions, edges, losses={"mae": losses("mae", y, predictions)})


def _of_peer(cut: Stream, predictions: Sequence[Floats]) -> list[dict[str, list[list[float]]]]:
    """What NannyML's CBPE estimates of the live batches of each model, by one process."""
    script = peers.HERE / "nannyml_estimates.py"
    count = (len(cut.y) - cut.train - cut.known) // cut.batch
    end = cut.known + count * cut.batch
    y = cut.y[cut.train :].to_numpy()[:end]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trials = []
        for place, chances in enumerate(predictions):
            frame = pd.DataFrame({"chance": chances[:end], "truth": y.astype(int)})
            frame = frame.assign(predicted=(frame["chance"] >= 0.5).astype(int))
            files = [folder / f"{place} {side}.parquet" for side in ("reference", "live")]
            frame[: cut.known].to_parquet(files[0])
            frame[cut.known :].drop(columns="truth").reset_index(drop=True).to_parquet(files[1])
            trials.append({"reference": str(files[0]), "live": str(files[1]), "batch": cut.batch})
        (folder / "trials.json").write_text(json.dumps(trials), encoding="utf-8")
        found: list[dict[str, list[list[float]]]] = last_json(
            output(peers.environment(PEER), script, folder / "trials.json", **peers.QUIET)
        )
    return found


def _errors(own: pd.DataFrame, names: Sequence[str]) -> Figures:
    """Mean absolute error of each way to estimate, on each set and on the mean of the sets."""
    ways = [way for way in ("estimate", "constant", "last", PEER) if way in own and own[way].any()]
    off = own[ways].sub(own["realised"], axis=0).abs().assign(set=own["set"])
    by_set = off.groupby("set").mean()
    figures: Figures = {str(name): by_set.loc[name].to_dict() for name in names}
    return figures | {
        "mean": by_set.drop(index=SUDDEN, errors="ignore").mean().to_dict(),
        f"mean with {SUDDEN}": by_set.mean().to_dict(),
    }


def _covered(own: pd.DataFrame, *, peer: bool) -> Figures:
    """How often intervals hold the realised metric, and what abstaining separates."""
    known = own[own["realised"].notna() & own["estimate"].notna()]
    inside = known["realised"].between(known["low"], known["high"])
    off = (known["estimate"] - known["realised"]).abs()
    quiet = known["abstains"]
    sets = ~own["set"].eq(SUDDEN)
    figures = {
        "batches": len(own),
        "covered": float(inside[~quiet].mean()),
        "abstains": float(own["abstains"].mean()),
        f"abstains without {SUDDEN}": float(own["abstains"][sets].mean()),
        f"error where it abstains, in errors elsewhere, without {SUDDEN}": float(
            off[quiet & sets].mean() / off[~quiet & sets].mean()
        ),
        "error": float(off[~quiet].mean()),
        "error_where_it_abstains": float(off[quiet].mean()),
        "half_width": float((known["high"] - known["low"])[~quiet].mean() / 2),
    }
    if peer and own[PEER].notna().any():
        held = own["realised"].between(own[f"{PEER}_low"], own[f"{PEER}_high"])
        figures["covered_by_nannyml"] = float(held.mean())
    return figures


def _relative(own: pd.DataFrame) -> Figures:
    """Mean absolute error in shares of the realised loss, and how often intervals hold."""
    ways = ("estimate", "constant", "last")
    share = {way: (own[way] / own["realised"] - 1).abs().mean() for way in ways}
    return share | _covered(own, peer=False)


def _better(errors: Figures, than: str) -> int:
    sets = [one for name, one in errors.items() if not name.startswith("mean")]
    return sum(one["estimate"] < one[than] for one in sets)


def _goals(figures: Figures, *, peer: bool) -> list[Goal]:
    goals: list[Goal] = []
    rivals = {"roc_auc": (PEER, 5), "accuracy": (PEER, 7), "log_loss": ("constant", 6)}
    for name, (rival, sets) in rivals.items():
        errors = figures["errors"][name]
        if rival == PEER and not peer:
            continue
        mean = errors["mean"]
        said = "NannyML's CBPE" if rival == PEER else "nothing changed"
        goals += [
            at_most(f"{name}: mean error, that of {said}", mean["estimate"], mean[rival]),
            at_least(f"{name}: sets with less error than {said}", _better(errors, rival), sets),
        ]
    for name, found in figures["intervals"].items():
        ratio = found["error_where_it_abstains"] / found["error"]
        goals += [
            at_least(f"{name}: share that 90% intervals hold", found["covered"], 0.85),
            at_most(f"{name}: share of batches it abstains on", found["abstains"], 0.3),
            at_least(f"{name}: error where it abstains, in errors elsewhere", ratio, 2),
        ]
    return goals


def _of_numbers(found: Figures) -> list[Goal]:
    """A regression is never much worse than the last batch with labels, and sometimes better."""
    ratios = {name: one["estimate"] / one["last"] for name, one in found.items()}
    goals = [
        at_most(f"{name}: error, in errors of the last batch", ratio, 1.1)
        for name, ratio in ratios.items()
    ]
    explained = "flights, departed"
    if explained in ratios:
        goals.append(
            at_most(f"{explained}: the same, as a column explains errors", ratios[explained], 1)
        )
    return goals
