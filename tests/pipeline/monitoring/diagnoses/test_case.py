import numpy as np
import pandas as pd
import pytest
from scipy import integrate, stats

from pipeline.config import Numeric
from pipeline.monitoring.diagnoses.blocks import usual
from pipeline.monitoring.diagnoses.case import Case
from pipeline.monitoring.diagnoses.likelihood import (
    at_most,
    log_mass,
    mixture,
    of_blocks,
    touched_rows,
)
from pipeline.monitoring.diagnoses.relations import Expected, ExpectedLabels
from pipeline.monitoring.findings import Cause
from pipeline.reference import Reference
from pipeline.reference.profile import NumericProfile
from pipeline.reference.summaries import Trait


def middles(profile):
    """Middle of each 512th of the range."""
    edges = np.linspace(profile.points[0], profile.points[-1], 513)
    return (edges[:-1] + edges[1:]) / 2


@pytest.mark.parametrize(
    "distribution",
    [stats.uniform(3, 7), stats.norm(50, 9), stats.beta(2, 5)],
    ids=["uniform", "normal", "beta"],
)
def test_the_mass_over_the_whole_range_is_one(distribution):
    profile = NumericProfile.fit(distribution.rvs(20_000, random_state=1))
    logs, atom = log_mass(profile, middles(profile))

    assert np.exp(logs).sum() == pytest.approx(1, abs=0.02)
    assert not atom.any()


def test_the_mass_is_the_density_times_a_512th_of_the_range():
    profile = NumericProfile.fit(stats.norm.rvs(size=20_000, random_state=1))
    step = (profile.points[-1] - profile.points[0]) / 512
    values = np.linspace(-2, 2, 41)

    logs, _ = log_mass(profile, values)
    assert logs == pytest.approx(stats.norm.logpdf(values) + np.log(step), abs=0.35)


def test_a_value_with_a_share_of_its_own_has_that_mass():
    values = stats.uniform.rvs(size=20_000, random_state=1)
    profile = NumericProfile.fit(np.where(np.arange(20_000) % 4 == 0, 0.0, values))

    logs, atom = log_mass(profile, np.asarray([0.0, 0.5]))
    assert np.exp(logs) == pytest.approx([0.25, 0.75 / 512], rel=0.3)
    assert atom.tolist() == [True, False]


def test_the_mass_of_labels_written_as_numbers_is_their_share():
    shares = np.asarray([0.5, 0.3, 0.2])
    profile = NumericProfile.fit(np.repeat([1.0, 2.0, 5.0], (10_000 * shares).astype(int)))

    logs, atom = log_mass(profile, np.asarray([1.0, 2.0, 5.0]))
    assert np.exp(logs) == pytest.approx(shares)
    assert atom.all()


def test_the_mass_falls_outside_the_range_and_a_missing_value_counts_zero():
    profile = NumericProfile.fit(np.linspace(0, 1, 1_000))
    logs, _ = log_mass(profile, np.asarray([0.5, 1.1, 2.0, 100.0, np.nan]))

    assert (np.diff(logs[:4]) < 0).all()
    assert logs[4] == 0


def test_a_constant_column_is_a_single_atom():
    logs, atom = log_mass(NumericProfile.fit(np.full(50, 3.0)), np.asarray([3.0, 4.0]))

    assert (logs[0], atom.tolist()) == (0, [True, False])
    assert logs[1] < -10


def error_of_share(share, apart, n):
    """Standard error of the share of a mixture of two known normals, by Fisher's information."""
    one, other = stats.norm(), stats.norm(apart)

    def information(x):
        a, b = one.pdf(x), other.pdf(x)
        return (b - a) ** 2 / ((1 - share) * a + share * b)

    return 1 / np.sqrt(n * integrate.quad(information, -8, apart + 8)[0])


@pytest.mark.parametrize("share", [0.05, 0.3, 0.8])
@pytest.mark.parametrize("apart", [2.0, 4.0])
def test_the_share_of_a_mixture_of_two_known_normals_is_found(share, apart):
    random = np.random.default_rng(6)
    found = []
    for _ in range(20):
        x = random.normal(size=2_000) + apart * (random.random(2_000) < share)
        gain = stats.norm.logpdf(x, apart) - stats.norm.logpdf(x)
        found.append(mixture(gain)[0])

    error = error_of_share(share, apart, 2_000)
    assert found == pytest.approx([share] * 20, abs=3.5 * error)  # of 20 trials, once in 100
    assert np.mean(found) == pytest.approx(share, abs=3 * error / np.sqrt(20))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 1.0])
@pytest.mark.parametrize("apart", [0.1, 4.0, 40.0])
def test_no_mixture_gains_more_than_its_bound(share, apart):
    random = np.random.default_rng(8)
    x = random.normal(size=500) + apart * (random.random(500) < share)
    gain = stats.norm.logpdf(x, apart) - stats.norm.logpdf(x)

    assert mixture(gain)[1] <= at_most(gain)
    assert at_most(np.full(500, 2.0)) == pytest.approx(mixture(np.full(500, 2.0))[1], rel=0.01)


def test_the_nats_of_a_mixture_are_its_log_likelihood_ratio():
    random = np.random.default_rng(7)
    x = random.normal(size=3_000) + 4 * (random.random(3_000) < 0.3)
    share, total = mixture(stats.norm.logpdf(x, 4) - stats.norm.logpdf(x))

    mixed = np.log((1 - share) * stats.norm.pdf(x) + share * stats.norm.pdf(x, 4))
    assert total == pytest.approx((mixed - stats.norm.logpdf(x)).sum(), rel=0.001)


@pytest.mark.parametrize(("gain", "share"), [(-20.0, 0), (20.0, 1)])
def test_a_hypothesis_true_of_no_row_or_of_all_rows_has_share_zero_or_one(gain, share):
    found, total = mixture(np.full(500, gain))

    assert found == pytest.approx(share, abs=0.001)
    assert total == pytest.approx(500 * gain * share, abs=1)


def test_a_row_is_touched_when_that_is_likelier_than_not():
    gain = np.log(np.asarray([1.0, 2.9, 3.1, 50.0]))

    assert touched_rows(gain, 0.25).tolist() == [False, False, True, True]


def test_blocks_of_fewer_than_thirty_rows_are_left_out():
    blocks = np.repeat([0, 1, 2], [100, 29, 30])
    gain = np.repeat([2.0, 5.0, -3.0], [100, 29, 30])

    assert of_blocks(blocks, gain) == pytest.approx([2, 0], abs=0.05)


@pytest.mark.parametrize("rho", [0.3, 0.8])
def test_the_log_ratio_of_normal_columns_is_that_of_their_densities(rho):
    x, noise = np.random.default_rng(8).normal(size=(2, 50_000))
    y = rho * x + np.sqrt(1 - rho**2) * noise
    nothing = np.zeros(0)
    expected = Expected(nothing, rho * x, nothing, nothing, np.zeros(0, dtype=int), 1 - rho**2)

    ratio, inside = expected.log_ratio(y), np.abs(y) < 1.5
    theirs = stats.norm.logpdf(y, rho * x, np.sqrt(1 - rho**2)) - stats.norm.logpdf(y)
    assert ratio[inside] == pytest.approx(np.clip(theirs, -8, 8)[inside])
    # Outermost scores prove nothing, so that it is no more than the mutual information.
    information = -np.log(1 - rho**2) / 2
    assert 0.8 * information < ratio.mean() < information + 3 * ratio.std() / np.sqrt(50_000)


def test_a_relation_that_moved_as_a_whole_is_centred_anew():
    x, noise = np.random.default_rng(9).normal(size=(2, 5_000))
    nothing = np.zeros(0)
    expected = Expected(nothing, 0.8 * x, nothing, nothing, np.zeros(0, dtype=int), 0.36)
    scores = 0.8 * x + 0.6 * noise + 1.5

    loose = expected.loosened(scores, np.ones(5_000, dtype=bool))
    assert np.mean(scores - loose.now) == pytest.approx(0, abs=0.05)
    assert loose.variance == pytest.approx(0.36, rel=0.1)


def test_perfectly_predicted_labels_have_their_entropy_as_information():
    classes = np.repeat([0, 1, 2], [500, 300, 200])
    shares = np.asarray([0.5, 0.3, 0.2])
    sure = np.log(np.eye(3)[classes] + 1e-12)
    nothing = np.zeros((0, 3))
    labels = ExpectedLabels(
        ["a", "b", "c"], np.log(shares), sure, classes, np.zeros(1_000, int), nothing
    )

    assert labels.information == pytest.approx(stats.entropy(shares), abs=1e-6)


def test_the_prediction_of_a_number_is_learnt_from_the_reference(shop, batch):
    case = shop.case(batch)
    shown, hidden = case.expected("temp"), case.expected("hour")

    assert shown.variance < 0.15  # by the formula of Magnus it follows from two others
    assert hidden.variance > 0.8
    assert np.corrcoef(shown.now, case.normal_scores("temp", case.numbers("temp")))[0, 1] > 0.9


def test_columns_that_are_left_out_do_not_predict(shop, batch):
    case = shop.case(batch)

    assert case.expected("temp").variance < case.expected("temp", ["dewp"]).variance
    assert case.expected("temp", ["dewp", "north"]).variance > 0.85


def test_the_prediction_of_labels_is_learnt_from_the_reference(shop, batch):
    case = shop.case(batch)

    assert case.expected_labels("region").information > 0.5
    assert case.expected_labels("region", ["product"]).information < 0.5


def test_a_blamed_column_is_not_used(shop, batch):
    case = shop.case(batch).without(Cause("unit", ("temp",), "", {}, ""))

    assert "temp" not in case.features
    assert case.expected("dewp").variance > shop.case(batch).expected("dewp").variance


def test_columns_are_split_by_what_they_hold(shop, batch):
    case = shop.case(batch.drop(columns=["count"]).assign(other=1))

    assert case.categorical == ["product", "region"]
    assert "count" not in case.numeric
    assert "other" not in case.features


def test_a_column_is_suspect_when_it_contradicts_the_others(shop, batch):
    turned = shop.case(batch.assign(north=-batch["north"]))

    assert turned.suspect("north")
    assert not any(shop.case(batch).suspect(name) for name in batch)


def test_an_index_names_its_block_and_a_measurement_does_not(shop):
    frame = shop.trained[["temp"]].assign(index=np.arange(len(shop.trained)))
    reference = Reference.fit(frame, {"temp": Numeric(), "index": Numeric()}, block=2_000)
    tally = reference.tally(frame[:100])
    case = Case(reference, frame[:100], tally, reference.summarise(tally), (), ())

    assert case.names_the_block("index")
    assert not case.names_the_block("temp")


def test_the_usual_value_is_over_blocks_and_the_largest_over_recent_batches_too(shop, batch):
    missing = Trait("missing", ("count",))
    recent = [{missing: 0.4}]
    case = shop.case(batch, recent)

    mean, sd = usual(case.reference, missing)
    assert mean == pytest.approx(0.02, abs=0.004)
    assert sd == pytest.approx(np.sqrt(0.02 * 0.98 / 2_000), rel=0.6)
    assert case.most(missing) == 0.4
    assert usual(case.reference, Trait("missing", ("no such column",))) == (0, 0)


def test_rows_of_a_block_are_counted_at_each_point_of_the_grid():
    # Three days of four rows; the last, of one row, is no block.
    values = [1, 1, 1, 2, 1, 2, 2, np.nan, 3, 3, 2, 2, 5]
    frame = pd.DataFrame({"x": values, "at": pd.Timestamp("2026-01-05")})
    frame["at"] += pd.to_timedelta(np.repeat([0, 1, 2, 3], [4, 4, 4, 1]), unit="D")
    reference = Reference.fit(frame, {"x": Numeric()}, time="at", block="1D")
    tally = reference.tally(frame)
    case = Case(reference, frame, tally, reference.summarise(tally), (), ())

    points = case.profile("x").points
    counted = pd.DataFrame(case.block_cells("x")[:, 1::2], columns=points)

    assert counted[[1, 2, 3]].to_numpy().tolist() == [[3, 1, 0], [1, 2, 0], [0, 2, 2]]
    assert case.block_cells("x").sum() == 11


def test_a_reference_without_blocks_has_no_usual_values(shop, batch):
    reference = Reference.fit(shop.trained[["temp"]], {"temp": Numeric()})
    tally = reference.tally(batch)
    case = Case(reference, batch, tally, reference.summarise(tally), (), ())

    assert usual(case.reference, Trait("location", ("temp",))) == (0, 0)
    assert case.most(Trait("missing", ("temp",))) == 0
    assert not case.names_the_block("temp")


def test_numbers_that_are_not_finite_count_as_missing(shop, batch):
    case = shop.case(pd.concat([batch[:30].assign(temp=np.inf), batch[30:]]))

    assert case.missing("temp").sum() == 30


def test_a_summer_hotter_than_any_row_neither_predicts_nor_lets_predict(shop, batch):
    case = shop.case(batch.assign(temp=batch["temp"] + 300))

    assert case.foreign("temp")
    assert "temp" not in case.predicting("dewp")
    assert not case.supported("dewp").any()
