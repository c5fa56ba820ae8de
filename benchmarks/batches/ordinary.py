"""Ordinary batches that a comparison of pools would call drift: seasons, shocks, a whole flow."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from pipeline.columns import infer_columns
from pipeline.config import Data, Numeric, Training
from pipeline.monitoring.drift import compare
from pipeline.reference import Reference
from pipeline.reference.summaries import Summary
from pipeline.training import fitting, parity, unseen
from pipeline.training.bundle import Bundle
from pipeline.training.predictions import PREDICTION

DAY, FOUR_WEEKS, BLOCKS = 24, 28 * 24, 13
START = pd.Timestamp("2020-01-01")
SHOCKED_ROWS, SHOCKED_BLOCKS = 1_400, 10
FEATURES: dict[str, Any] = {name: {"type": "numeric"} for name in "wxyz"} | {
    "c": {"type": "categorical", "values": ["a", "b", "c"]}
}
ESTIMATORS: dict[str, tuple[str, dict[str, Any]]] = {
    "XGBoost": ("xgboost.XGBClassifier", {"n_estimators": 20}),
    "HistGradientBoosting": ("sklearn.ensemble.HistGradientBoostingClassifier", {"max_iter": 20}),
    "logistic": ("sklearn.linear_model.LogisticRegression", {}),
}


def seasons(seed: int) -> list[bool]:
    """Whether each four weeks of a year alarm, against the year before in blocks of four weeks."""
    random = np.random.default_rng([seed, 6])
    hours = np.arange(2 * BLOCKS * FOUR_WEEKS)
    season = np.sin(2 * np.pi * hours / DAY / 365)
    rows = pd.DataFrame({"x": season + 0.4 * random.normal(size=len(hours))})
    before, after = rows[: BLOCKS * FOUR_WEEKS], rows[BLOCKS * FOUR_WEEKS :]
    reference = Reference.fit(before, infer_columns(before), block=FOUR_WEEKS)
    return list(_alarms(reference, _pieces(after, FOUR_WEEKS)))


def shocks(size: float, batches: int, seed: int) -> list[bool]:
    """Whether batches alarm in which all rows share a shock, as the rows of each block do."""
    random = np.random.default_rng([seed, 7])

    def draw(blocks: int) -> pd.DataFrame:
        own = np.repeat(random.normal(size=(blocks, 6)), SHOCKED_ROWS, axis=0)
        values = random.normal(size=own.shape) + size * own
        return pd.DataFrame(values, columns=[f"x{i}" for i in range(6)])

    before = draw(SHOCKED_BLOCKS)
    reference = Reference.fit(before, infer_columns(before), block=SHOCKED_ROWS)
    return list(_alarms(reference, _pieces(draw(batches), SHOCKED_ROWS)))


def whole_flow(rows: int, estimator: str, batches: int, seed: int) -> list[bool]:
    """Whether batches of stationary rows alarm after training, with the predictions of both."""
    random = np.random.default_rng([seed, 8])
    data = Data.model_validate(
        {
            "train": {"kind": "file", "path": "rows.csv"},
            "key": "id",
            "time": "at",
            "target": "target",
            "features": FEATURES,
        }
    )
    name, params = ESTIMATORS[estimator]
    trained_on, length = max(2_000, 8 * rows), pd.Timedelta(hours=rows)
    training = Training(estimator=name, params=params, holdout=f"{trained_on // 5}h")
    known = _labelled(random, trained_on, START)
    trained = fitting.train(known, data, training, task="classification")
    halves, predictions = unseen.cross_fit(
        trained.model, known, known, data, training, length=length
    )
    reference = Reference.fit(
        known.assign(**{PREDICTION: predictions}),
        {**data.features, PREDICTION: Numeric()},
        time="at",
        block=length,
        prediction=(PREDICTION,),
    )
    golden = parity.make(trained.model, known, seed=0)
    bundle = Bundle(trained.model, golden, reference, known, {}, halves)
    after = (
        _labelled(random, rows, START + pd.Timedelta(hours=trained_on + k * rows))
        for k in range(batches)
    )
    predicted = (
        live[list(FEATURES)].assign(**{PREDICTION: bundle.predict_as_reference(live, live["id"])})
        for live in after
    )
    return list(_alarms(reference, predicted))


def _labelled(random: np.random.Generator, n: int, start: pd.Timestamp) -> pd.DataFrame:
    values = random.normal(size=(n, 4))
    label = random.choice(["a", "b", "c"], n, p=[0.5, 0.3, 0.2])
    score = values[:, 0] + values[:, 1] * values[:, 2] / 2 + (label == "a")
    at = start + pd.to_timedelta(np.arange(n), unit="h")
    return pd.DataFrame(values, columns=list("wxyz")).assign(
        c=label,
        target=(score + random.normal(size=n) > 0.5).astype(float),
        id=[f"{moment:%Y%m%d%H}" for moment in at],
        at=at,
    )


def _pieces(rows: pd.DataFrame, length: int) -> Iterator[pd.DataFrame]:
    for first in range(0, len(rows), length):
        yield rows[first : first + length].reset_index(drop=True)


def _alarms(reference: Reference, batches: Iterator[pd.DataFrame]) -> Iterator[bool]:
    recent: list[Summary] = []
    for rows in batches:
        report = compare(reference=reference, current=rows, recent=recent, diagnosis=False)
        recent.append(report.summary)
        yield report.alarm


CELLS: dict[str, tuple[Any, int]] = {
    "seasons": (seasons, BLOCKS),
    **{
        f"shocks of {size} sd": (partial(shocks, size, 20), 20) for size in (0.1, 0.35, 0.5, 0.7, 1)
    },
    **{
        f"whole flow, {rows} rows, {name}": (partial(whole_flow, rows, name, 20), 20)
        for rows in (168, 1_000, 5_000)
        for name in ESTIMATORS
    },
}
"""Cells by name: what judges the batches of one seed, and how many these are."""
