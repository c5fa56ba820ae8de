import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

from pipeline.monitoring.estimate import estimate
from pipeline.monitoring.expectations import Cells, edges_of

TENTHS = np.linspace(0.02, 0.98, 49)


def calibrated(random, n, *, steeper=1.0, lower=0.0):
    """Uniform predictions, and labels whose chances are steeper or lower in log-odds."""
    p = random.uniform(0.001, 0.999, n)
    return p, (random.random(n) < expit(steeper * logit(p) - lower)).astype(float)


def labelled(random, batches, n=2_000, **changed):
    drawn = [calibrated(random, n, **changed) for _ in range(batches)]
    return [Cells.of(p, TENTHS, target=y) for p, y in drawn]


def by_name(found):
    return {one.metric: one for one in found}


def estimated(current, known, **given):
    return by_name(estimate(current, known, loss="log_loss", **given))


def test_of_calibrated_uniform_chances_all_metrics_are_known():
    # Positives have the density 2p and negatives 2(1 - p), so that they are in order in 5/6.
    random = np.random.default_rng(0)
    p, _ = calibrated(random, 200_000)

    found = estimated(Cells.of(p, TENTHS), labelled(random, 4, 200_000))

    assert found["roc_auc"].value == pytest.approx(5 / 6, abs=0.002)
    assert found["accuracy"].value == pytest.approx(3 / 4, abs=0.002)
    assert found["log_loss"].value == pytest.approx(1 / 2, abs=0.003)
    assert not found["log_loss"].reason


def test_where_rows_lie_elsewhere_the_estimate_goes_with_them():
    random = np.random.default_rng(1)
    known = labelled(random, 6, 20_000)
    p = random.uniform(0.8, 0.999, 20_000)
    y = random.random(len(p)) < p

    found = estimated(Cells.of(p, TENTHS), known)

    # Two of three forecasts know where the rows lie. The third is what the newest batch showed,
    # whose misses have twice the variance, so that it has about a fifth of the weight.
    for name, value, usual in (
        ("accuracy", accuracy_score(y, p >= 0.5), 3 / 4),
        ("log_loss", log_loss(y, p), 1 / 2),
        ("roc_auc", roc_auc_score(y, p), 5 / 6),
    ):
        assert 0.02 < (found[name].value - value) / (usual - value) < 0.5


def test_estimates_follow_labels_whose_chances_changed_for_good():
    random = np.random.default_rng(2)
    known = labelled(random, 4) + labelled(random, 6, steeper=0.4, lower=0.7)
    p, y = calibrated(random, 50_000, steeper=0.4, lower=0.7)

    found = estimated(Cells.of(p, TENTHS), known)

    assert found["roc_auc"].value == pytest.approx(roc_auc_score(y, p), abs=0.03)
    assert found["log_loss"].value == pytest.approx(log_loss(y, p), abs=0.03)
    assert found["accuracy"].value == pytest.approx(accuracy_score(y, p >= 0.5), abs=0.03)


def test_calibration_is_that_of_a_logistic_regression_on_both_logarithms():
    # Kull et al. (2017): beta calibration is that regression.
    random = np.random.default_rng(3)
    drawn = [calibrated(random, 20_000, steeper=0.6, lower=0.5) for _ in range(3)]
    fine = np.linspace(0.001, 0.999, 2_000)
    known = [Cells.of(p, fine, target=y) for p, y in drawn]
    p, y = (np.concatenate(side) for side in zip(*drawn, strict=True))
    fitted = LogisticRegression(C=1e6, tol=1e-8).fit(terms(p), y)
    now = random.uniform(0.001, 0.999, 5_000)
    chances = fitted.predict_proba(terms(now))[:, 1]
    newest = log_loss(drawn[-1][1], drawn[-1][0])

    found = estimated(Cells.of(now, fine), known)

    by_chances = -np.mean(chances * np.log(now) + (1 - chances) * np.log1p(-now))
    assert found["log_loss"].value == pytest.approx((by_chances + newest) / 2, abs=5e-4)


def terms(p):
    return np.column_stack([np.log(p), -np.log1p(-p)])


def test_intervals_hold_nine_of_ten_realised_values_of_batches_that_do_not_change():
    random = np.random.default_rng(4)
    held, wide = [], []
    for _ in range(60):
        known = labelled(random, 8, 500)
        p, y = calibrated(random, 500)
        found = estimated(Cells.of(p, TENTHS), known, gap=2)
        if found["log_loss"].reason:
            continue
        for name, value in (
            ("roc_auc", roc_auc_score(y, p)),
            ("accuracy", accuracy_score(y, p >= 0.5)),
            ("log_loss", log_loss(y, p)),
        ):
            held.append(found[name].low <= value <= found[name].high)
        wide.append(found["accuracy"].high - found["accuracy"].low)

    # Labels alone have a standard deviation of sqrt(1/6 / 500) in the accuracy; 1/6 is E p(1-p).
    assert np.mean(held) >= 0.85
    assert np.median(wide) <= 6 * 2 * np.sqrt(1 / 6 / 500)


def test_a_sudden_change_of_the_newest_labels_leaves_nothing_to_say():
    random = np.random.default_rng(5)
    known = [*labelled(random, 6), *labelled(random, 1, steeper=-1.0)]
    p, _ = calibrated(random, 2_000)

    found = estimated(Cells.of(p, TENTHS), known)

    reasons = {one.reason for one in found.values()}
    assert len(reasons) == 1
    assert "log_loss" in reasons.pop()


@pytest.mark.parametrize("batches", [1, 2])
def test_too_few_batches_with_labels_are_said_so(batches):
    random = np.random.default_rng(6)
    p, _ = calibrated(random, 100)

    found = estimated(Cells.of(p, TENTHS), labelled(random, batches))

    assert all(f"Only {batches} of the 3 batches" in one.reason for one in found.values())
    assert all(np.isnan(one.value) for one in found.values())


def test_no_labels_at_all_are_no_estimate():
    assert estimate(Cells.of(TENTHS, TENTHS), [], loss="log_loss") == []


def test_batches_of_one_class_have_a_loss_and_no_auc():
    p = np.tile(TENTHS, 20)
    known = [Cells.of(p, TENTHS, target=np.zeros_like(p)) for _ in range(5)]

    found = estimated(Cells.of(p, TENTHS), known)

    assert np.isnan(found["roc_auc"].value)
    assert "one class" in found["roc_auc"].reason
    assert np.isfinite(found["log_loss"].value)


def numbers(random, n, low=0.0, high=10.0):
    """Predictions, and errors whose size is a tenth of the prediction."""
    predictions = random.uniform(low, high, n)
    return predictions, np.abs(random.normal(0, predictions / 10))


def test_errors_of_numbers_go_with_the_predictions_that_explain_their_size():
    random = np.random.default_rng(7)
    edges = edges_of(random.uniform(0, 10, 5_000), "regression")
    drawn = [numbers(random, 5_000) for _ in range(6)]
    known = [Cells.of(p, edges, losses={"mae": lost}) for p, lost in drawn]
    p, lost = numbers(random, 20_000, low=8.0)

    found = by_name(estimate(Cells.of(p, edges), known, loss="mae"))["mae"]

    # The mean size of a normal error is its standard deviation times sqrt(2 / pi).
    usual, own = (middle / 10 * np.sqrt(2 / np.pi) for middle in (5, 9))
    assert lost.mean() == pytest.approx(own, rel=0.03)
    assert 0.02 < (found.value - own) / (usual - own) < 0.5
    assert found.low < own


def test_edges_hold_equal_shares_and_part_the_predicted_classes():
    random = np.random.default_rng(8)
    p = random.beta(2, 5, 10_000)

    edges = edges_of(p, "classification")

    assert 0.5 in edges
    assert len(edges) == 50
    assert max(Cells.of(p, edges).rows) <= 201
    assert len(edges_of(np.full(10, 3.0), "regression")) == 1


sides = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 1)), min_size=0, max_size=30)


@settings(max_examples=60, deadline=None)
@given(st.lists(sides, min_size=0, max_size=6), sides, st.integers(1, 9))
def test_no_batches_raise_and_values_lie_between_their_ends(batches, last, gap):
    known = [
        Cells.of(
            np.array([p for p, _ in rows], dtype=float),
            TENTHS,
            target=np.array([y for _, y in rows], dtype=float),
        )
        for rows in batches
    ]
    current = Cells.of(np.array([p for p, _ in last], dtype=float), TENTHS)

    for one in estimate(current, known, loss="log_loss", gap=gap):
        assert one.reason or one.low <= one.value <= one.high


@given(st.permutations(range(12)))
@settings(max_examples=20, deadline=None)
def test_the_order_of_rows_does_not_matter(order):
    p, y = np.linspace(0.01, 0.99, 12), np.tile([0.0, 1.0, 1.0], 4)

    one, other = Cells.of(p, TENTHS, target=y), Cells.of(p[order], TENTHS, target=y[order])

    assert one == other
