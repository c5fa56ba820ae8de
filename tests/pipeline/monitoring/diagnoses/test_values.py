import numpy as np
import pytest


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
