import numpy as np
import pytest
from scipy import stats

from pipeline.monitoring.refusals import FLOOR, Came, refused_fault

NAMES = ["plan", "age", "amount"]
NONE = {"plan must be one of {free, pro}": 1}


def found(came, *, trained=(), recent=(), reasons=NONE, broken_alpha=0.01):
    return refused_fault(
        came, reasons, NAMES, trained=trained, recent=recent, broken_alpha=broken_alpha
    )


CLEAN = [Came(300, 0)] * 10


def test_many_refused_rows_are_a_fault_that_names_columns_share_and_reason():
    reasons = {
        "plan must be one of {free, pro}": 60,
        "age must be a number": 20,
        "amount must lie in 0 .. 9": 2,
    }

    (fault,) = found(Came(300, 80), trained=CLEAN, reasons=reasons)

    assert (fault.cause, fault.columns) == ("schema", ("plan", "age"))
    assert fault.sentence == (
        "80 of 300 rows were refused: 26.7%, where 0.0% is usual. "
        "Most often: plan must be one of {free, pro} (60)."
    )
    assert fault.share == pytest.approx(80 / 300)


def test_a_share_that_is_usual_of_training_or_of_the_last_batches_is_none():
    often = [Came(300, 75)] * 4

    assert found(Came(300, 80), trained=CLEAN, recent=often) == ()
    assert found(Came(300, 80), trained=often, recent=CLEAN) == ()
    assert found(Came(300, 80), trained=CLEAN, recent=CLEAN)


@pytest.mark.parametrize("usual", [[], CLEAN[:2]])
def test_too_few_stretches_say_nothing(usual):
    assert found(Came(300, 150), trained=usual, recent=usual) == ()


def test_a_growth_below_the_floor_is_none_however_many_rows_there_are():
    usual = [Came(1_000_000, 10_000)] * 10

    assert found(Came(1_000_000, 10_000 + int(FLOOR * 1e6) - 1000), trained=usual) == ()
    assert found(Came(1_000_000, 10_000 + int(FLOOR * 1e6) + 1000), trained=usual)


def test_a_batch_without_rows_is_none():
    assert found(Came(0, 0), trained=CLEAN) == ()


@pytest.mark.parametrize("rows", [20, 300])
@pytest.mark.parametrize("spread", [0.0, 0.02])
def test_sound_batches_are_called_faulty_as_seldom_as_stated(rows, spread):
    """Shares of the stretches differ by a beta distribution of standard deviation `spread`."""
    random, share, trials = np.random.default_rng(0), 0.08, 2_000
    strength = share * (1 - share) / spread**2 - 1 if spread else np.inf
    hits = 0
    for _ in range(trials):
        shares = (
            random.beta(share * strength, (1 - share) * strength, 13)
            if spread
            else np.full(13, share)
        )
        *trained, batch = [Came(rows, int(k)) for k in random.binomial(rows, shares)]
        hits += bool(found(batch, trained=trained, broken_alpha=0.2))

    # A level of 0.02. The dispersion of 12 stretches is itself uncertain.
    limit = 0.02 if not spread else 0.04
    assert hits <= stats.binom.ppf(0.999, trials, limit)


def test_a_tenth_more_refused_rows_is_found():
    random, hits = np.random.default_rng(0), 0
    for _ in range(200):
        trained = [Came(300, int(k)) for k in random.binomial(300, 0.02, 12)]
        hits += bool(found(Came(300, int(random.binomial(300, 0.12))), trained=trained))

    assert hits >= 190
