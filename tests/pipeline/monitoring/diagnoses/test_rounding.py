import numpy as np
import pandas as pd
import pytest

from pipeline.config import Numeric
from pipeline.monitoring.diagnoses.rounding import _grids
from pipeline.monitoring.drift import compare
from pipeline.reference import Reference
from pipeline.reference.profile import NumericProfile


@pytest.mark.slow
@pytest.mark.parametrize(
    ("column", "decimals", "part"),
    [
        ("amount", 0, "all"),
        ("temp", -1, "all"),
        ("amount", 0, "some"),
        ("amount", 0, "region = East"),
    ],
)
def test_lost_digits_are_recognised_with_their_grid(shop, batch, column, decimals, part):
    mask = shop.touch(batch, part)
    report = shop.judge(shop.put(batch, column, mask, batch[column].round(decimals)))

    figure = f"are multiples of {10.0**-decimals:g}, where"
    shop.assert_named(report, "rounded", column, figure=figure, mask=mask, part=part)


@pytest.mark.slow
def test_rounding_to_tens_is_recognised_in_a_calm_week_with_three_values(shop, batch):
    calm = batch[batch["temp"].between(46, 74)]
    report = shop.judge(calm.assign(temp=calm["temp"].round(-1)))

    assert ("rounded", ("temp",)) in {(cause.cause, cause.columns) for cause in report.causes}


def test_rounding_of_a_part_to_some_of_few_values_is_recognised(shop, batch):
    trained, now = (
        frame.assign(weight=np.exp(0.7 + 0.08 * frame["east"]).round(1))
        for frame in (shop.trained, batch)
    )
    reference = shop.fit(trained, {"weight": Numeric(), "temp": Numeric()})
    mask = shop.touch(now, "some")
    report = compare(
        reference=reference, current=shop.put(now, "weight", mask, now["weight"].round())
    )

    assert [(cause.cause, cause.columns) for cause in report.causes] == [("rounded", ("weight",))]


def test_half_precision_is_recognised(shop, batch):
    half = batch["amount"].astype("float16").astype("float64")

    shop.assert_named(shop.judge(batch.assign(amount=half)), "rounded", "amount", figure="16-bit")


def test_half_precision_in_a_part_of_the_rows_is_recognised(shop, batch):
    mask = shop.touch(batch, "some")
    half = batch["amount"].astype("float16").astype("float64")

    report = shop.judge(shop.put(batch, "amount", mask, half))
    shop.assert_named(report, "rounded", "amount", figure="16-bit")


@pytest.mark.parametrize("step", [0.25, 0.5])
def test_a_tariff_with_steps_of_its_own_is_not_rounded(shop, step):
    # Steps of 0.20 from 3.25, and then of 0.25: many more fares end in .50, and .45 is gone.
    def draw(seed, step):
        miles = np.random.default_rng(seed).exponential(20, 2_000)
        return pd.DataFrame({"fare": np.round(3.25 + step * np.round(miles), 2)})

    rows = pd.concat([draw(seed, 0.2) for seed in range(8)], ignore_index=True)
    reference = shop.fit(rows, {"fare": Numeric()})
    report = compare(reference=reference, current=draw(9, step))

    assert (report.outcome, report.causes) == ("moved", ())


def test_small_sound_batches_are_not_called_rounded():
    """With dozens of grids and only 48 rows, a few extra values land on some grid by chance."""
    random = np.random.default_rng(0)
    columns = {f"c{k}": Numeric() for k in range(8)}

    def rows(n):
        return pd.DataFrame({name: np.round(random.gamma(9, 2, n), 2) for name in columns})

    called = 0
    for _ in range(4):
        reference = Reference.fit(rows(360), columns, block=48)
        reports = [compare(reference=reference, current=rows(48)) for _ in range(15)]
        called += sum(any(c.cause == "rounded" for c in report.causes) for report in reports)

    assert called <= 2  # of 60: the 99.7% quantile at 1%


def test_numbers_written_with_seven_digits_have_fewer_decimals_when_they_grow(shop):
    def table(seed, level):
        values = np.random.default_rng(seed).gamma(4, level / 4, 4_000)
        return pd.DataFrame({"price": [float(f"{x:.7g}") for x in values]})

    reference = shop.fit(table(1, 0.9), {"price": Numeric()})

    assert compare(reference=reference, current=table(2, 1.6)).causes == ()


def test_grids_of_the_largest_numbers_end():
    values = np.random.default_rng(1).uniform(1.2e308, 1.7e308, 900)

    steps = [step for _, step, _ in _grids(NumericProfile.fit(np.append(values, -values)), values)]

    assert 10 < len(steps) < 30
