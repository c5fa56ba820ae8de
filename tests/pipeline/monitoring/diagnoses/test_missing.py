import numpy as np
import pytest


@pytest.mark.slow
@pytest.mark.parametrize(
    ("column", "part"),
    [("temp", "all"), ("count", "some"), ("amount", "region = East"), ("region", "working = 0")],
)
def test_missing_values_are_recognised_with_their_share(shop, batch, column, part):
    mask = shop.touch(batch, part)
    report = shop.judge(shop.put(batch, column, mask, None))

    share = batch[column].mask(mask).isna().mean()
    shop.assert_named(report, "nulls", column, figure=f"{share:.0%} of rows", mask=mask, part=part)


@pytest.mark.parametrize("part", ["all", "some", "region = East"])
def test_columns_missing_in_equal_rows_are_a_failed_join(shop, batch, part):
    mask = shop.touch(batch, part)
    weather = ("temp", "dewp", "humid")
    for name in weather:
        batch = shop.put(batch, name, mask, np.nan)

    figure = f"together in {mask.mean():.0%} of rows"
    shop.assert_named(shop.judge(batch), "join", *weather, figure=figure, mask=mask, part=part)


@pytest.mark.slow
def test_columns_missing_in_different_rows_are_not_a_failed_join(shop, batch):
    random = np.random.default_rng(3)
    for name in ("temp", "amount"):
        batch = shop.put(batch, name, random.random(len(batch)) < 0.3, np.nan)

    found = {(cause.cause, cause.columns) for cause in shop.judge(batch).causes}
    assert found == {("nulls", ("temp",)), ("nulls", ("amount",))}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("column", "value", "part"),
    [
        ("temp", -999, "all"),
        ("temp", -999, "some"),
        ("dewp", 9999, "region = East"),
        ("region", "unknown", "some"),
    ],
)
def test_codes_for_missing_values_are_recognised(shop, batch, column, value, part):
    mask = shop.touch(batch, part)
    report = shop.judge(shop.put(batch, column, mask, value))

    shop.assert_named(report, "sentinel", column, figure=repr(f"{value}"), mask=mask, part=part)
    assert f"{mask.mean():.0%} of rows" in report.causes[0].sentence


@pytest.mark.slow
def test_many_strange_values_are_not_codes_for_missing_values(shop, batch):
    strange = batch["temp"].round(-1) - 1_000

    assert "sentinel" not in {
        cause.cause for cause in shop.judge(batch.assign(temp=strange)).causes
    }
