"""Without a change, live predictions alarm no more often than alpha says: training and all."""

import numpy as np
import pandas as pd
import pytest

from pipeline.config import Data, Training
from pipeline.monitoring.drift import compare
from pipeline.reference import Reference
from pipeline.training import parity
from pipeline.training.bundle import Bundle
from pipeline.training.calibrating import calibrated
from pipeline.training.fitting import train
from pipeline.training.predictions import columns_of, in_columns
from pipeline.training.unseen import cross_fit

ESTIMATORS = {
    "xgboost.XGBClassifier": {"n_estimators": 20},
    "sklearn.ensemble.HistGradientBoostingClassifier": {"max_iter": 20},
    "sklearn.linear_model.LogisticRegression": {},
}
NAMES = list("wxyz")
BATCHES = 8


CLASSES = ("first", "second", "third", "fourth", "rare")
STEPS = (-1.0, -0.2, 0.5, 2.8)


def declared(classes):
    roles = {"classes": classes} if classes else {}
    return Data.model_validate(
        {
            "train": {"kind": "file", "path": "rows.csv"},
            "key": "id",
            "time": "at",
            "target": "target",
            "features": {name: {"type": "numeric"} for name in NAMES},
            **roles,
        }
    )


def stationary(random, n, start=0, classes=()):
    x = random.normal(size=(n, 4))
    score = x[:, 0] + 0.5 * x[:, 1] * x[:, 2] + random.normal(size=n)
    target = np.digitize(score, STEPS) if classes else score > 0.5
    at = pd.Timestamp("2026-01-01") + pd.to_timedelta(np.arange(start, start + n), unit="h")
    rows = pd.DataFrame(x, columns=NAMES)
    return rows.assign(target=target * 1.0, id=range(start, start + n), at=at)


def alarms_of(random, classes, estimator, rows, length, **training):
    """Whether each of some batches alarms, and whether its predictions do."""
    data = declared(classes)
    block = pd.Timedelta(hours=length)
    training = Training(
        estimator=estimator,
        params=ESTIMATORS[estimator],
        holdout=pd.Timedelta(hours=rows // 5),
        **training,
    )
    known = stationary(random, rows, classes=classes)
    trained = train(known, data, training, task="classification")
    model = calibrated(trained, known, data, training, length=block).model
    halves, predictions = cross_fit(model, known, known, data, training, length=block)
    reference = Reference.fit(
        known.assign(**in_columns(predictions, classes)),
        {**data.features, **columns_of(classes)},
        time="at",
        block=block,
        prediction=tuple(columns_of(classes)),
    )
    bundle = Bundle(model, parity.make(model, known), reference, known, {}, halves)
    recent, alarms = [], []
    for start in range(rows, rows + BATCHES * length, length):
        live = stationary(random, length, start, classes)
        now = bundle.predict_as_reference(live, live["id"])
        report = compare(
            reference=reference,
            current=live[NAMES].assign(**in_columns(now, classes)),
            recent=recent,
            diagnosis=False,
        )
        recent.append(report.summary)
        shown = set(columns_of(classes)) & set(report.drifted)
        alarms.append((report.alarm, bool(shown)))
    return alarms


@pytest.mark.slow
@pytest.mark.parametrize("trials", [12, pytest.param(100, marks=pytest.mark.statistics)])
@pytest.mark.parametrize(
    "size",
    [(2_000, 168), pytest.param((4_000, 1_000), marks=pytest.mark.statistics)],
    ids="{0[0]}-{0[1]}".format,
)
@pytest.mark.parametrize(
    ("estimator", "classes"),
    [
        (next(iter(ESTIMATORS)), ()),
        *(pytest.param(name, (), marks=pytest.mark.statistics) for name in [*ESTIMATORS][1:]),
        *(pytest.param(name, CLASSES, marks=pytest.mark.statistics) for name in ESTIMATORS),
    ],
)
def test_live_predictions_alarm_no_more_often_than_alpha_says(
    share_band, estimator, classes, size, trials
):
    # The served model's own predictions alarm in a sixth of the batches of 168 rows.
    found = [
        alarm
        for seed in range(trials)
        for alarm in alarms_of(np.random.default_rng(seed), classes, estimator, *size)
    ]

    assert np.mean(found, axis=0) == pytest.approx(0, abs=share_band(len(found), 0, 0.05)[1])


@pytest.mark.slow
@pytest.mark.parametrize("trials", [8, pytest.param(100, marks=pytest.mark.statistics)])
@pytest.mark.parametrize(
    ("kind", "classes"),
    [
        ("isotonic", ()),
        *(pytest.param("sigmoid", some, marks=pytest.mark.statistics) for some in ((), CLASSES)),
    ],
)
def test_calibrated_predictions_alarm_no_more_often_either(share_band, kind, classes, trials):
    found = [
        alarm
        for seed in range(trials)
        for alarm in alarms_of(
            np.random.default_rng(seed),
            classes,
            next(iter(ESTIMATORS)),
            2_000,
            168,
            calibration=kind,
        )
    ]

    assert np.mean(found, axis=0) == pytest.approx(0, abs=share_band(len(found), 0, 0.05)[1])
