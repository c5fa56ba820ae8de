import numpy as np
import pandas as pd
import pytest

from pipeline.config import Numeric
from pipeline.monitoring.drift import compare


@pytest.mark.parametrize(
    ("column", "part"),
    [("temp", "all"), ("count", "some"), ("amount", "region = East"), ("region", "working = 0")],
)
def test_missing_values_are_told_with_their_share(shop, batch, column, part):
    mask = shop.touch(batch, part)
    report = shop.judge(shop.put(batch, column, mask, None))

    share = batch[column].mask(mask).isna().mean()
    shop.assert_told(report, "nulls", column, figure=f"{share:.0%} of rows", mask=mask, part=part)


@pytest.mark.parametrize("part", ["all", "some", "region = East"])
def test_columns_missing_in_the_same_rows_are_a_join_without_partners(shop, batch, part):
    mask = shop.touch(batch, part)
    weather = ("temp", "dewp", "humid")
    for name in weather:
        batch = shop.put(batch, name, mask, np.nan)

    figure = f"together in {mask.mean():.0%} of rows"
    shop.assert_told(shop.judge(batch), "join", *weather, figure=figure, mask=mask, part=part)


def test_columns_missing_in_different_rows_are_no_join(shop, batch):
    random = np.random.default_rng(3)
    for name in ("temp", "amount"):
        batch = shop.put(batch, name, random.random(len(batch)) < 0.3, np.nan)

    found = {(one.cause, one.columns) for one in shop.judge(batch).causes}
    assert found == {("nulls", ("temp",)), ("nulls", ("amount",))}


@pytest.mark.parametrize(
    ("column", "value", "part"),
    [
        ("temp", -999, "all"),
        ("temp", -999, "some"),
        ("dewp", 9999, "region = East"),
        ("region", "unknown", "some"),
    ],
)
def test_codes_for_none_are_told(shop, batch, column, value, part):
    mask = shop.touch(batch, part)
    report = shop.judge(shop.put(batch, column, mask, value))

    shop.assert_told(report, "sentinel", column, figure=repr(f"{value}"), mask=mask, part=part)
    assert f"{mask.mean():.0%} of rows" in report.causes[0].sentence


@pytest.mark.parametrize(
    ("column", "value", "part"),
    [
        ("temp", 57.3, "region = East"),
        ("amount", 24.99, "some"),
        ("hour", 9, "all"),
        ("product", "Desk", "all"),
    ],
)
def test_one_ordinary_value_over_and_over_is_stuck(shop, batch, column, value, part):
    mask = shop.touch(batch, part)
    report = shop.judge(shop.put(batch, column, mask, value))

    shop.assert_told(report, "stuck", column, figure=f"{value}", mask=mask, part=part)


@pytest.mark.parametrize(
    ("column", "level", "part"),
    [
        ("amount", 0.8, "all"),
        ("temp", 0.1, "all"),
        ("amount", 0.75, "some"),
        ("amount", 0.7, "region = East"),
    ],
)
def test_values_cut_off_at_a_bound_are_clipped(shop, batch, column, level, part):
    mask = shop.touch(batch, part)
    bound = shop.trained[column].quantile(level, interpolation="nearest")
    beyond = batch[column] > bound if level > 0.2 else batch[column] < bound
    report = shop.judge(shop.put(batch, column, mask & beyond, bound))

    shop.assert_told(report, "clipped", column, figure=f"{bound:g}")
    (cause,) = report.causes
    side = "above" if level > 0.2 else "below"
    assert f"lie {side} it" in cause.sentence
    assert cause.evidence["bound"] == bound
    # The share is of the rows beyond the bound; those inside it show nothing.
    assert cause.share == pytest.approx(mask[beyond].mean(), rel=1 / 3)
    assert cause.segment in {"", part}


@pytest.mark.parametrize(
    ("column", "decimals", "part"),
    [
        ("amount", 0, "all"),
        ("temp", -1, "all"),
        ("amount", 0, "some"),
        ("amount", 0, "region = East"),
    ],
)
def test_lost_digits_are_told_with_the_grid(shop, batch, column, decimals, part):
    mask = shop.touch(batch, part)
    report = shop.judge(shop.put(batch, column, mask, batch[column].round(decimals)))

    figure = f"are multiples of {10.0**-decimals:g}, where"
    shop.assert_told(report, "rounded", column, figure=figure, mask=mask, part=part)


def test_half_precision_is_told(shop, batch):
    half = batch["amount"].astype("float16").astype("float64")

    shop.assert_told(shop.judge(batch.assign(amount=half)), "rounded", "amount", figure="16-bit")


def test_half_precision_of_a_part_is_told(shop, batch):
    mask = shop.touch(batch, "some")
    half = batch["amount"].astype("float16").astype("float64")

    report = shop.judge(shop.put(batch, "amount", mask, half))
    shop.assert_told(report, "rounded", "amount", figure="16-bit")


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


def test_many_strange_values_are_no_code_for_a_missing_one(shop, batch):
    strange = batch["temp"].round(-1) - 1_000

    assert "sentinel" not in {one.cause for one in shop.judge(batch.assign(temp=strange)).causes}


@pytest.mark.parametrize("level", [0.9, 0.75])
def test_a_part_of_the_rows_cut_off_is_told_from_one_value_over_and_over(shop, batch, level):
    mask = shop.touch(batch, "some")
    bound = float(np.round(shop.trained["amount"].quantile(level), 2))
    cut = mask & (batch["amount"] > bound).to_numpy()
    same = np.random.default_rng(8).random(len(batch)) < cut.mean()

    (clipped,) = shop.judge(shop.put(batch, "amount", cut, bound)).causes
    assert (clipped.cause, clipped.columns) == ("clipped", ("amount",))
    found = {one.cause for one in shop.judge(shop.put(batch, "amount", same, bound)).causes}
    assert found <= {"stuck"}


def test_whole_numbers_in_another_unit_are_not_clipped_at_their_least(shop, batch):
    trained = shop.trained.assign(north=np.clip(shop.trained["north"].round() + 30, 25, 60))
    reference = shop.fit(trained)
    now = np.clip(batch["north"].round() + 30, 25, 60) * 2.204623
    report = compare(reference=reference, current=batch.assign(north=now))

    assert [(one.cause, one.columns) for one in report.causes] == [("unit", ("north",))]
