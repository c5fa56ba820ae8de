import numpy as np
import pandas as pd
import pytest

from pipeline.config import Numeric
from pipeline.monitoring.calibration import unreliable
from pipeline.monitoring.drift import compare
from pipeline.reference import Reference

BLOCK = 800


def fit(*factors):
    """A reference of a block for each factor, by which `amount` is multiplied in it."""
    random = np.random.default_rng(0)
    factor = np.repeat(factors, BLOCK)
    amount = random.lognormal(3, 0.5, len(factor))
    frame = pd.DataFrame(
        {"amount": amount * factor, "weight": amount * random.lognormal(0, 0.3, len(factor))}
    )
    time = pd.Series(
        pd.Timestamp("2026-01-05") + pd.to_timedelta(np.arange(len(factor)) // BLOCK, "W")
    )
    return Reference.fit(frame, {"amount": Numeric(), "weight": Numeric()}, time=time, block="7D")


def causes_of(reference, current):
    return compare(reference=reference, current=current, broken_alpha=1.0).causes


def test_a_fault_that_a_tables_own_blocks_show_is_not_believed_of_that_column():
    reference = fit(1, 1, 1, 1, 1, 1, 100, 100, 1, 1)
    random = np.random.default_rng(1)
    amount = random.lognormal(3, 0.5, BLOCK)
    batch = pd.DataFrame(
        {"amount": amount * 1e4, "weight": amount * random.lognormal(0, 0.3, BLOCK)}
    )

    assert ("unit", "amount") in unreliable(reference, causes_of, alpha=0.01)
    told = compare(reference=reference, current=batch).causes
    assert "unit (amount)" not in [cause.name for cause in told]


def test_nothing_is_unreliable_where_own_blocks_show_no_fault():
    assert unreliable(fit(*[1] * 10), causes_of, alpha=0.01) == frozenset()


@pytest.mark.parametrize("blocks", [1, 4])
def test_too_few_blocks_make_nothing_unreliable(blocks):
    def judge(**_):
        raise AssertionError

    assert unreliable(fit(*[1] * blocks), judge, alpha=0.01) == frozenset()


def test_a_rate_of_one_in_eight_blocks_is_too_large_and_an_allowed_rate_is_not():
    reference = fit(1, 1, 1, 1, 1, 1, 100, 100, 1, 1)

    assert unreliable(reference, causes_of, alpha=0.2) == frozenset()
