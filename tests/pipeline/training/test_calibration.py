import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest

from pipeline.config import Data, Training
from pipeline.errors import RegistryError
from pipeline.training.calibrating import calibrated, fit_calibration
from pipeline.training.calibration import Calibration, log_odds
from pipeline.training.fitting import split, train
from pipeline.training.metrics import losses
from pipeline.training.model import Model
from pipeline.training.predictions import PREDICTION
from pipeline.training.unseen import cross_fit, forward

WEEK = pd.Timedelta("7D")
KINDS = ("sigmoid", "isotonic")
TOO_SURE = {"n_estimators": 40, "max_depth": 6, "learning_rate": 0.5, "n_jobs": 1}
"""Parameters that fit the noise of a small table."""


def two_classes(n, seed=0, *, slope=2.5, shift=1.0):
    """True chances, labels drawn from them, and chances whose log-odds are off."""
    random = np.random.default_rng(seed)
    odds = random.normal(size=n)
    chance = 1 / (1 + np.exp(-odds))
    target = (random.random(n) < chance).astype(float)
    wrong = 1 / (1 + np.exp(-(slope * odds + shift)))
    return chance, target, wrong


def five_classes(n, seed=0, *, sharper=2.5):
    random = np.random.default_rng(seed)
    scores = random.normal(size=(n, 5))
    target = (scores + random.gumbel(size=(n, 5))).argmax(axis=1).astype(float)
    return softmax(scores), target, softmax(sharper * scores)


@pytest.fixture
def data():
    return Data.model_validate(
        {
            "train": {"kind": "file", "path": "rows.csv"},
            "key": "id",
            "time": "at",
            "target": "target",
            "features": {"x": {"type": "numeric"}, "noise": {"type": "numeric"}},
        }
    )


@pytest.fixture
def rows():
    random = np.random.default_rng(0)
    x, noise = random.normal(size=(2, 1_500))
    target = (x + random.logistic(size=1_500) > 0).astype(float)
    return pd.DataFrame(
        {"id": range(1_500), "at": times_of(1_500), "target": target, "x": x, "noise": noise}
    )


def softmax(scores):
    powers = np.exp(scores)
    return powers / powers.sum(axis=1, keepdims=True)


def times_of(n):
    return pd.Series(pd.date_range("2026-01-01", periods=n, freq="h"))


@pytest.mark.parametrize("kind", KINDS)
def test_chances_of_two_classes_are_moved_to_the_true_ones(kind):
    chance, target, wrong = two_classes(20_000)

    moved = fit_calibration(kind, target, wrong).apply(wrong)

    assert np.abs(wrong - chance).mean() > 0.15
    assert np.abs(moved - chance).mean() < 0.02


def test_a_sigmoid_undoes_the_slope_and_the_shift_of_log_odds():
    _, target, wrong = two_classes(200_000)

    ((slope,), (intercept,)) = fit_calibration("sigmoid", target, wrong).curves[0]

    assert slope == pytest.approx(1 / 2.5, rel=0.05)
    assert intercept == pytest.approx(-1 / 2.5, rel=0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_chances_of_five_classes_are_moved_towards_the_true_ones(kind):
    chance, target, wrong = five_classes(20_000)

    moved = fit_calibration(kind, target, wrong).apply(wrong, range(5))

    assert moved.sum(axis=1) == pytest.approx(1)
    assert np.abs(moved - chance).mean() < np.abs(wrong - chance).mean() / 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_class_that_no_row_has_keeps_its_chance_and_one_that_is_unseen_has_none(kind):
    _, target, wrong = five_classes(2_000)
    kept = target < 3
    chances = np.pad(wrong[kept][:, :4], ((0, 0), (0, 1)))
    chances /= chances.sum(axis=1, keepdims=True)

    calibration = fit_calibration(kind, target[kept], chances)
    moved = calibration.apply(chances, [0, 1, 2, 3])

    assert calibration.curves[3] == ([], [])
    assert moved[:, 3].min() > 0
    assert not moved[:, 4].any()
    assert moved.sum(axis=1) == pytest.approx(1)


@pytest.mark.parametrize("kind", KINDS)
def test_order_and_bounds_of_chances_are_kept(kind):
    _, target, wrong = two_classes(500)
    calibration = fit_calibration(kind, target, wrong)

    moved = calibration.apply(np.array([0.0, 1e-12, 0.1, 0.5, 0.9, 1.0]))

    assert (np.diff(moved) >= 0).all()
    assert 0 < moved[0] < moved[-1] < 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [200, 50_000])
def test_the_last_bits_of_a_chance_move_it_no_further_than_golden_rows_allow(kind, rows):
    _, target, wrong = two_classes(rows)
    calibration = fit_calibration(kind, target, wrong)
    near = np.linspace(1e-6, 1, 100_000, dtype=np.float32)
    next_to = np.nextafter(near, np.float32(0))

    moved, other = (calibration.apply(one.astype(np.float64)) for one in (near, next_to))

    assert np.isclose(moved, other, rtol=1e-5, atol=1e-6).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_class_and_a_single_chance_are_left_as_they_are(kind):
    chances = np.array([0.2, 0.4, 0.6])

    assert fit_calibration(kind, np.ones(3), chances).apply(chances) == pytest.approx(chances)
    assert fit_calibration(kind, np.array([0, 1, 1]), np.full(3, 0.4)).apply(
        chances
    ) == pytest.approx(chances)


@pytest.mark.parametrize("kind", KINDS)
def test_a_calibration_is_the_same_after_json(kind):
    _, target, wrong = two_classes(500)
    calibration = fit_calibration(kind, target, wrong)

    again = Calibration(**json.loads(json.dumps(asdict(calibration))))

    np.testing.assert_array_equal(again.apply(wrong), calibration.apply(wrong))


def made(rows, data, **training):
    given = Training(holdout="14D", **training)
    trained = train(rows, data, given, task="classification")
    return trained, calibrated(trained, rows, data, given, length=WEEK), given


def test_a_model_is_calibrated_by_fits_that_had_not_seen_the_rows(rows, data):
    before, trained, training = made(rows, data, params=TOO_SURE, calibration="sigmoid")

    _, crossed = cross_fit(before.model, rows, rows, data, training, length=WEEK)
    expected = fit_calibration("sigmoid", rows["target"].to_numpy(), crossed)
    assert trained.model.calibration == expected
    np.testing.assert_array_equal(
        trained.model.predict(rows), expected.apply(before.model.predict(rows))
    )


def test_held_out_rows_are_judged_by_a_calibration_that_has_not_seen_them(rows, data):
    before, trained, training = made(rows, data, params=TOO_SURE, calibration="sigmoid")

    older, _ = split(rows, data, training)
    _, crossed = cross_fit(before.judged, older, older, data, training, length=WEEK)
    own = fit_calibration("sigmoid", older["target"].to_numpy(), crossed)
    target, raw = before.heldout["target"].to_numpy(), before.heldout[PREDICTION].to_numpy()
    moved = own.apply(raw)
    np.testing.assert_array_equal(trained.heldout[PREDICTION], moved)
    was, now = (losses("log_loss", target, one).mean() for one in (raw, moved))
    assert trained.metrics["log_loss"] == pytest.approx(now)
    assert trained.metrics["calibration_gain"] == pytest.approx(1 - now / was)
    assert trained.metrics["calibration_gain"] > 0.1


def test_a_calibration_that_does_not_help_on_held_out_rows_is_left_out(rows, data):
    newest = rows["at"] >= rows["at"].max() - pd.Timedelta("14D")
    rows["target"] = rows["target"].where(~newest, (rows["x"] > 0) * 1.0)  # surer than before
    before, trained, _ = made(rows, data, params=TOO_SURE, calibration="sigmoid")

    assert trained.metrics["calibration_gain"] <= 0
    assert trained.metrics["log_loss"] == before.metrics["log_loss"]
    assert trained.model is before.model


def test_fits_that_predict_unseen_rows_are_calibrated_as_their_model_is(rows, data):
    _, trained, training = made(rows, data, params=TOO_SURE, calibration="sigmoid")
    model = trained.model

    halves, _ = cross_fit(model, rows, rows, data, training, length=WEEK)
    since = rows["at"].min() + pd.Timedelta("14D")
    given = {"task": "classification", "since": since}
    raw = forward(rows, data, training, **given)
    moved = forward(rows, data, training, **given, calibration=model.calibration)

    assert [half.calibration for half in halves] == [model.calibration] * 2
    assert len(raw) > 300
    np.testing.assert_array_equal(
        moved[PREDICTION], model.calibration.apply(raw[PREDICTION].to_numpy())
    )


def test_a_damaged_calibration_is_refused_when_the_model_is_loaded(rows, data, tmp_path):
    made(rows, data, params=TOO_SURE, calibration="sigmoid")[1].model.save(tmp_path)
    card = json.loads((tmp_path / "model.json").read_text())
    card["calibration"]["curves"] = [[["a"], [1.0]]]
    (tmp_path / "model.json").write_text(json.dumps(card))

    with pytest.raises(RegistryError, match="damaged"):
        Model.load(tmp_path)


def test_log_odds_of_certain_chances_are_finite():
    assert np.isfinite(log_odds(np.array([0.0, 1.0]))).all()
