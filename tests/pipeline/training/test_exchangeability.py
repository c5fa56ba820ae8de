"""Without a change, live predictions alarm no more often than alpha says: training and all."""

import numpy as np
import pandas as pd
import pytest

from pipeline.config import Data, Numeric, Training
from pipeline.monitoring.drift import compare
from pipeline.reference import Reference
from pipeline.training import parity
from pipeline.training.bundle import Bundle
from pipeline.training.fitting import cross_fit, train
from pipeline.training.predictions import PREDICTION

ESTIMATORS = {
    "xgboost.XGBClassifier": {"n_estimators": 20},
    "sklearn.ensemble.HistGradientBoostingClassifier": {"max_iter": 20},
    "sklearn.linear_model.LogisticRegression": {},
}
NAMES = list("wxyz")
BATCHES = 8


@pytest.fixture(scope="module")
def data():
    return Data.model_validate(
        {
            "train": {"kind": "file", "path": "rows.csv"},
            "key": "id",
            "time": "at",
            "target": "target",
            "features": {name: {"type": "numeric"} for name in NAMES},
        }
    )


def stationary(random, n, start=0):
    x = random.normal(size=(n, 4))
    target = x[:, 0] + 0.5 * x[:, 1] * x[:, 2] + random.normal(size=n) > 0.5
    at = pd.Timestamp("2026-01-01") + pd.to_timedelta(np.arange(start, start + n), unit="h")
    rows = pd.DataFrame(x, columns=NAMES)
    return rows.assign(target=target * 1.0, id=range(start, start + n), at=at)


def alarms_of(random, data, estimator, rows, length):
    """Whether each of some batches alarms, and whether its predictions do."""
    block = pd.Timedelta(hours=length)
    training = Training(
        estimator=estimator, params=ESTIMATORS[estimator], holdout=pd.Timedelta(hours=rows // 5)
    )
    known = stationary(random, rows)
    model = train(known, data, training, task="classification").model
    halves, predictions = cross_fit(model, known, known, data, training, length=block)
    reference = Reference.fit(
        known.assign(**{PREDICTION: predictions}),
        {**data.features, PREDICTION: Numeric()},
        time="at",
        block=block,
        prediction=(PREDICTION,),
    )
    bundle = Bundle(model, parity.make(model, known), reference, known, {}, halves)
    recent, alarms = [], []
    for start in range(rows, rows + BATCHES * length, length):
        live = stationary(random, length, start)
        now = bundle.predict_as_reference(live, live["id"])
        report = compare(
            reference=reference,
            current=live[NAMES].assign(**{PREDICTION: now}),
            recent=recent,
            diagnosis=False,
        )
        recent.append(report.summary)
        alarms.append((report.alarm, PREDICTION in report.drifted))
    return alarms


@pytest.mark.slow
@pytest.mark.parametrize("trials", [12, pytest.param(100, marks=pytest.mark.statistics)])
@pytest.mark.parametrize(
    "size",
    [(2_000, 168), pytest.param((4_000, 1_000), marks=pytest.mark.statistics)],
    ids="{0[0]}-{0[1]}".format,
)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_live_predictions_alarm_no_more_often_than_alpha_says(
    share_band, data, estimator, size, trials
):
    # The served model's own predictions alarm in a sixth of the batches of 168 rows.
    found = [
        alarm
        for seed in range(trials)
        for alarm in alarms_of(np.random.default_rng(seed), data, estimator, *size)
    ]

    assert np.mean(found, axis=0) == pytest.approx(0, abs=share_band(len(found), 0, 0.05)[1])
