import numpy as np
import pandas as pd
import pytest

from pipeline.config import Numeric
from pipeline.monitoring.drift import compare

pytestmark = pytest.mark.slow

UNITS = {
    "pounds": (lambda x: 2.204623 * x, 2.2046),
    "pounds, two decimals": (lambda x: (2.204623 * x).round(2), 2.2046),
    "kilogrammes, a short factor": (lambda x: 0.4536 * x, 0.4536),
    "hours": (lambda x: x / 60, 1 / 60),
    "fahrenheit": (lambda x: 1.8 * x + 32, 1.8),
    "celsius": (lambda x: (x - 32) / 1.8, 1 / 1.8),  # 3.6 times as much is whole as well
}
OTHERS = {
    "one decimal": lambda x, random: x + random.integers(0, 10, len(x)) / 10,
    "no digits at all": lambda x, random: x + random.normal(0, 1, len(x)),
    "halves": lambda x, _: x + 0.5,
    "another factor": lambda x, _: 0.92 * x,
    "thousands": lambda x, _: x / 1_000 + x.mean(),
}


@pytest.fixture(scope="module")
def whole(shop):
    """Whole numbers beside a column that tells nothing of them, and how they were described."""
    random = np.random.default_rng(0)

    def draw(n):
        return pd.DataFrame(
            {"age": random.integers(18, 90, n).astype(float), "x": random.normal(size=n)}
        )

    return shop.fit(draw(8_000), {"age": Numeric(), "x": Numeric()}), draw(1_500)


@pytest.mark.parametrize("part", [1.0, 0.3])
@pytest.mark.parametrize("unit", UNITS)
def test_digits_tell_the_unit_of_whole_numbers(whole, unit, part):
    reference, now = whole
    change, factor = UNITS[unit]
    some = np.random.default_rng(1).random(len(now)) < part
    current = now.assign(age=now["age"].where(~some, change(now["age"])))

    (cause,) = compare(reference=reference, current=current).causes

    assert cause.name == "unit (age)"
    assert cause.evidence["factor"] == pytest.approx(factor, rel=1e-3)
    assert cause.share == pytest.approx(some.mean(), abs=0.05)


@pytest.mark.parametrize("part", [1.0, 0.3])
@pytest.mark.parametrize("other", OTHERS)
def test_new_digits_that_no_unit_explains_are_no_unit(whole, other, part):
    reference, now = whole
    random = np.random.default_rng(1)
    some = random.random(len(now)) < part
    current = now.assign(age=now["age"].where(~some, OTHERS[other](now["age"], random)))

    found = [cause.cause for cause in compare(reference=reference, current=current).causes]

    assert "unit" not in found
