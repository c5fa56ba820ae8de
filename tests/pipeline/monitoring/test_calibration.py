import numpy as np
import pandas as pd
import pytest

from pipeline.config import Numeric
from pipeline.monitoring.calibration import limits
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


def batch(factor):
    random = np.random.default_rng(1)
    amount = random.lognormal(3, 0.5, BLOCK)
    weight = amount * random.lognormal(0, 0.3, BLOCK)
    return pd.DataFrame({"amount": amount * factor, "weight": weight})


def named(reference, current):
    return [cause.name for cause in compare(reference=reference, current=current).causes]


def test_a_fault_has_to_exceed_what_a_tables_own_blocks_show_of_it():
    sometimes, never = fit(1, 1, 1, 1, 1, 1, 100, 100, 1, 1), fit(*[1] * 10)

    assert limits(sometimes, causes_of, alpha=0.01)["unit", "amount"] > 0
    assert named(never, batch(100)) == ["unit (amount)"]
    report = compare(reference=sometimes, current=batch(10_000))
    assert report.causes == ()
    assert any(note.startswith("unit (amount) is not believed") for note in report.notes)


def test_nothing_is_limited_where_own_blocks_show_no_fault():
    assert limits(fit(*[1] * 10), causes_of, alpha=0.01) == {}


@pytest.mark.parametrize("blocks", [1, 4])
def test_too_few_blocks_limit_nothing(blocks):
    def judge(**_):
        raise AssertionError

    assert limits(fit(*[1] * blocks), judge, alpha=0.01) == {}


def test_each_tenfold_smaller_share_needs_as_much_more_evidence():
    reference = fit(1, 1, 1, 1, 1, 1, 100, 100, 1, 1)
    found = [limits(reference, causes_of, alpha=alpha) for alpha in (0.01, 0.001, 0.0001)]
    first, second, third = (each["unit", "amount"] for each in found)

    assert second - first == pytest.approx(third - second)
    assert second > first
    assert ("unit", "amount") not in limits(reference, causes_of, alpha=0.9)
