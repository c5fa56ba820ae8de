import numpy as np
import pytest

from pipeline.monitoring.drift import compare


@pytest.mark.slow
@pytest.mark.parametrize(
    ("column", "value", "part"),
    [
        ("temp", 57.3, "region = East"),
        ("amount", 24.99, "some"),
        ("hour", 9, "all"),
        ("product", "Desk", "all"),
        ("product", "Desk", "some"),
        ("east", 1.5, "some"),
    ],
)
def test_an_ordinary_value_over_and_over_is_stuck(shop, batch, column, value, part):
    mask = shop.touch(batch, part)
    report = shop.judge(shop.put(batch, column, mask, value))

    shop.assert_named(report, "stuck", column, figure=f"{value}", mask=mask, part=part)


@pytest.mark.slow
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

    shop.assert_named(report, "clipped", column, figure=f"{bound:g}")
    (cause,) = report.causes
    side = "above" if level > 0.2 else "below"
    assert f"lie {side} it" in cause.sentence
    assert cause.evidence["bound"] == bound
    # The share is of the rows beyond the bound; those inside it show nothing.
    assert cause.share == pytest.approx(mask[beyond].mean(), rel=1 / 3)
    assert cause.segment in {"", part}


@pytest.mark.slow
@pytest.mark.parametrize("level", [0.9, 0.75])
def test_clipping_in_a_part_of_the_rows_differs_from_a_stuck_value(shop, batch, level):
    mask = shop.touch(batch, "some")
    bound = float(np.round(shop.trained["amount"].quantile(level), 2))
    cut = mask & (batch["amount"] > bound).to_numpy()
    touched = np.random.default_rng(8).random(len(batch)) < cut.mean()

    (clipped,) = shop.judge(shop.put(batch, "amount", cut, bound)).causes
    assert (clipped.cause, clipped.columns) == ("clipped", ("amount",))
    found = {cause.cause for cause in shop.judge(shop.put(batch, "amount", touched, bound)).causes}
    assert found <= {"stuck"}


@pytest.mark.slow
def test_whole_numbers_in_another_unit_are_not_clipped_at_their_minimum(shop, batch):
    trained = shop.trained.assign(north=np.clip(shop.trained["north"].round() + 30, 25, 60))
    reference = shop.fit(trained)
    now = np.clip(batch["north"].round() + 30, 25, 60) * 2.204623
    report = compare(reference=reference, current=batch.assign(north=now))

    assert [(cause.cause, cause.columns) for cause in report.causes] == [("unit", ("north",))]


@pytest.mark.slow
@pytest.mark.parametrize(("level", "part"), [(0.7, "some"), (0.75, "region = East")])
def test_whole_numbers_cut_off_in_a_part_of_the_rows_are_clipped(shop, batch, level, part):
    reference = shop.fit(shop.trained.assign(north=shop.trained["north"].round()))
    whole = batch.assign(north=batch["north"].round())
    bound = whole["north"].quantile(level)
    mask = shop.touch(whole, part) & (whole["north"] > bound).to_numpy()
    report = compare(reference=reference, current=shop.put(whole, "north", mask, bound))

    assert [(cause.cause, cause.columns) for cause in report.causes] == [("clipped", ("north",))]
    assert report.causes[0].evidence["bound"] == bound


def test_a_label_that_gained_from_a_few_others_only_is_not_stuck(shop, batch):
    gained = (batch["product"] == "Sofa").to_numpy()
    report = shop.judge(shop.put(batch, "product", gained, "Desk"))

    assert "stuck" not in {cause.cause for cause in report.causes}
