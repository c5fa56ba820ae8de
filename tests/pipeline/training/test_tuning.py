import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pipeline.config import Data, Training
from pipeline.errors import ConfigError, DataError
from pipeline.training import tuning
from pipeline.training.fitting import fit, split
from pipeline.training.metrics import mean_loss
from pipeline.training.spaces import Choice, Range, parameters_at

DATA = Data.model_validate(
    {
        "train": {"kind": "file", "path": "rows.parquet"},
        "key": "id",
        "time": "at",
        "target": "y",
        "label_delay": "0D",
        "features": {"a": {"type": "numeric"}, "b": {"type": "categorical"}},
    }
)
PARAMS = {"n_estimators": 10, "max_depth": 3, "n_jobs": 1}
SPACE = {"one": Range(0, 1), "two": Range(0, 1)}


def training(**changes):
    given = {"holdout": "7D", "params": PARAMS, **changes}
    return Training.model_validate({"estimator": "xgboost.XGBRegressor", **given})


@pytest.fixture(scope="module")
def rows():
    random = np.random.default_rng(0)
    at = pd.date_range("2026-01-01", periods=24 * 60, freq="1h", unit="us")
    a, b = random.normal(size=len(at)), random.choice(["x", "y"], len(at))
    y = np.sin(2 * a) + (b == "x") + 0.3 * random.normal(size=len(at))
    ids = [f"r{i}" for i in range(len(at))]
    return pd.DataFrame({"id": ids, "at": at, "a": a, "b": b, "y": y})


def test_a_range_goes_from_end_to_end_by_differences_or_by_ratios():
    assert [Range(1, 3).at(place) for place in (0, 0.5, 1)] == [1, 2, 3]
    assert [Range(0.01, 100, log=True).at(place) for place in (0, 0.5, 1)] == [0.01, 1, 100]
    whole = [Range(3, 10, whole=True).at(place) for place in (0, 0.49, 1)]
    assert whole == [3, 6, 10]
    assert all(type(value) is int for value in whole)


def test_a_choice_gives_each_value_an_equal_part():
    drawn = [Choice(["a", "b", None]).at(place) for place in np.linspace(0, 1, 301)]

    assert {value: drawn.count(value) for value in drawn} == {"a": 100, "b": 100, None: 101}


def test_the_first_trial_has_the_parameters_of_the_file():
    assert tuning.proposed(SPACE, [], seed=0) == {}


def test_early_points_cover_the_space_more_evenly_than_chance():
    gained = np.random.default_rng(0).random(9).tolist()
    found = [[*tuning.proposed(SPACE, gained[:n], seed=0).values()] for n in range(1, 9)]

    # Half of all sets of independent points have a larger discrepancy than the median of many.
    random = np.random.default_rng(1)
    by_chance = [stats.qmc.discrepancy(random.random((8, 2))) for _ in range(200)]
    assert stats.qmc.discrepancy(np.array(found)) < np.median(by_chance)


def test_a_point_depends_on_the_trials_before_it_alone_and_later_ones_are_near_the_best():
    gained = np.random.default_rng(0).random(20)
    points = [
        np.array([*tuning.proposed(SPACE, gained[:n].tolist(), seed=3).values()])
        for n in range(1, 20)
    ]

    again = tuning.proposed(SPACE, gained[:12].tolist(), seed=3)
    np.testing.assert_array_equal([*again.values()], points[11])
    for n in range(9, 19, 2):
        best = points[int(np.argmax(gained[1 : n + 1]))]
        assert np.abs(points[n] - best).max() <= 0.151


@pytest.mark.parametrize(
    ("losses", "place"),
    [
        ([[4, 4, 4], [3, 3, 5], [3.6, 3.6, 3.6]], 2),  # the first one gains more, but not always
        ([[4, 4, 4], [1, 1, 4]], 0),
        ([[4, 4, 4], [0, 3.9, 3.9], [3, 3, 3]], 2),  # a gain of one stretch may be chance
        ([[100, 1, 1], [90, 0.9, 0.9], [99, 0.8, 0.8]], 1),  # shares count, not large losses
        ([[4], [3], [2]], 2),
        ([[4, 4]], 0),
        ([[0, 0], [0, 0]], 0),
    ],
)
def test_what_is_chosen_gains_on_every_stretch_and_evenly(losses, place):
    assert tuning.chosen([tuning.Trial({}, one, 0.0) for one in losses]) == place


def test_a_trial_that_gains_on_every_stretch_gains_by_more_than_its_standard_error():
    gains = np.random.default_rng(0).exponential(size=(1000, 3)) ** 4
    trials = [tuning.Trial({}, [1.0] * 3, 1.0)]
    trials += [tuning.Trial({}, (1 - row).tolist(), 1.0) for row in gains]

    found = np.array(tuning.bounds(trials)[1:])

    np.testing.assert_allclose(found, gains.mean(axis=1) - stats.sem(gains, axis=1), atol=1e-9)
    assert found.min() >= -1e-9


def test_parts_are_newer_than_what_is_fitted_and_older_than_the_held_out_rows(rows):
    _, heldout = split(rows, DATA, training())

    parts = tuning.stretches(rows, DATA, training())

    assert len(parts) == 4
    for older, block in parts:
        assert older["at"].max() < block["at"].min()
        assert block["at"].max() < heldout["at"].min()
    judged = pd.concat([part.block for part in parts])["id"]
    assert judged.is_unique
    assert min(len(part.older) for part in parts) >= len(judged) - 1
    assert parts[0].block["at"].min() > parts[1].block["at"].max()


def test_a_history_that_is_too_short_is_refused(rows):
    few = rows[rows["at"] < "2026-01-12"].iloc[::6]

    with pytest.raises(
        DataError, match=r"Tuning needs 20 labelled rows in each eighth .* Got 15 rows"
    ):
        tuning.stretches(few, DATA, training())


def test_rounds_that_are_read_off_the_curves_give_the_loss_that_a_plain_fit_has(rows):
    parts = tuning.stretches(rows, DATA, training())

    trial = tuning.attempt({"learning_rate": 0.3}, parts, DATA, training(), "regression")

    assert 1 < trial.params["n_estimators"] < 1000
    given = training(params={**PARAMS, **trial.params})
    found = []
    for older, block in parts:
        model = fit(older, DATA, given, "regression")
        y = block["y"].to_numpy()
        found.append(mean_loss(model, model.encode(block), y, "squared_error"))
    assert trial.losses == pytest.approx(found, rel=1e-4)
    whole = np.average(found, weights=[len(part.block) for part in parts])
    assert trial.loss == pytest.approx(whole, rel=1e-4)
    more = training(params={**given.params, "n_estimators": 10 * trial.params["n_estimators"]})
    assert tuning.attempt({}, parts, DATA, more, "regression").loss > trial.loss


@pytest.mark.parametrize(
    ("estimator", "name"),
    [
        ("sklearn.ensemble.HistGradientBoostingRegressor", "max_leaf_nodes"),
        ("sklearn.ensemble.ExtraTreesRegressor", "min_samples_leaf"),
        ("sklearn.linear_model.Ridge", "alpha"),
    ],
)
def test_estimators_that_are_known_take_what_is_drawn_for_them(rows, estimator, name):
    own = training(estimator=estimator, params={})
    space = tuning.space_of_training(own)
    parts = tuning.stretches(rows[-500:], DATA, own)

    assert name in space
    for place in (0, 1):
        params = parameters_at(space, np.full(len(space), float(place)))
        trial = tuning.attempt(params, parts[:1], DATA, own, "regression")
        assert trial.params == params
        assert np.isfinite(trial.loss)


def test_an_estimator_that_is_not_known_needs_values_in_the_file():
    own = training(estimator="sklearn.neighbors.KNeighborsRegressor", params={})
    with pytest.raises(ConfigError, match=r"training.search must say which parameters of sklearn"):
        tuning.space_of_training(own)

    named = own.model_copy(update={"search": {"n_neighbors": [5, 50]}})
    assert tuning.space_of_training(named) == {"n_neighbors": Choice([5, 50])}
