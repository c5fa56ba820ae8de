import pytest

from pipeline.monitoring.performance import RIVAL_LOSS, Performance
from pipeline.monitoring.promises import Promise, kept, worth


def served(rows, now, before=None):
    metrics = {"log_loss": now} | ({} if before is None else {RIVAL_LOSS: before})
    return Performance("2026-01-05T00:00", rows, metrics, (now,), 0.0, 0.0, worse=False)


def test_a_realised_gain_is_that_of_all_rows_together():
    performances = {2: [served(100, 0.8, 1.0), served(300, 1.0, 1.0)], 3: [served(10, 0.5)]}

    found = kept({2: 0.1, 3: 0.2, 4: 0.3}, performances, "log_loss")

    assert found == [Promise(2, 0.1, pytest.approx(1 - 380 / 400), 400)]


@pytest.mark.parametrize(
    ("realised", "least", "most"),
    [([], 1, 1), ([0.1], 1, 1), ([0.0], 0.4, 0.6), ([0.0] * 50, 0, 0.05), ([0.05] * 50, 0.5, 0.52)],
)
def test_a_promise_is_worth_what_earlier_promises_were(realised, least, most):
    promises = [Promise(place, 0.1, gain, 100) for place, gain in enumerate(realised)]

    assert least <= worth(promises) <= most


def test_promises_are_never_worth_more_than_they_said_or_less_than_nothing():
    assert worth([Promise(1, 0.1, 0.9, 10)]) == 1
    assert worth([Promise(1, 0.5, -0.9, 10)]) == 0
