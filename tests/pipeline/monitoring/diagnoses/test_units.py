import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pipeline.config import Numeric
from pipeline.monitoring.diagnoses.signs import sign
from pipeline.monitoring.diagnoses.units import unit
from pipeline.monitoring.drift import compare

pytestmark = pytest.mark.slow

LINES = {
    "celsius": ("temp", 1 / 1.8, -32 / 1.8),
    "cents": ("amount", 100.0, 0.0),
    "dozens": ("count", 12.0, 0.0),
}


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("celsius", "all"),
        ("cents", "all"),
        ("dozens", "all"),
        ("celsius", "some"),
        ("celsius", "region = East"),
    ],
)
def test_another_unit_is_recognised_with_its_factor(shop, batch, line, part):
    column, factor, offset = LINES[line]
    mask = shop.touch(batch, part)
    report = shop.judge(shop.put(batch, column, mask, factor * batch[column] + offset))

    shop.assert_named(
        report, "unit", column, figure=f"multiplied by {factor:.4g}", mask=mask, part=part
    )
    evidence = report.causes[0].evidence
    assert evidence["factor"] == pytest.approx(factor, rel=1e-3)
    assert evidence["offset"] == pytest.approx(offset, abs=0.01)
    assert evidence["R2 of 99 quantiles"] > 0.97


def test_an_affine_change_that_is_not_a_unit_is_recognised(shop, batch):
    (cause,) = unit(shop.case(batch.assign(temp=7.3 * batch["temp"] + 400)))

    assert "an affine change" in cause.sentence
    assert cause.evidence["factor"] == pytest.approx(7.3, rel=0.15)


@pytest.mark.parametrize("part", ["some", "region = East"])
def test_an_unknown_scale_is_recognised_in_a_part_of_the_rows(shop, batch, part):
    mask = shop.touch(batch, part)
    report = shop.judge(shop.put(batch, "temp", mask, 1.37 * batch["temp"] - 61))

    shop.assert_named(report, "unit", "temp", figure="another scale?", mask=mask, part=part)
    assert report.causes[0].evidence["factor"] == pytest.approx(1.37, rel=0.15)


@pytest.mark.parametrize(
    ("column", "part"),
    [
        ("temp", "all"),
        ("north", "all"),
        ("temp", "some"),
    ],
)
def test_a_turned_sign_is_recognised(shop, batch, column, part):
    mask = shop.touch(batch, part)
    report = shop.judge(shop.put(batch, column, mask, -batch[column]))

    shop.assert_named(report, "sign", column, figure="multiplied by -1 in", mask=mask, part=part)
    assert f"{report.causes[0].share:.0%} of rows" in report.causes[0].sentence


@pytest.mark.parametrize("diagnosis", [unit, sign])
def test_unchanged_rows_have_their_unit_and_sign(shop, batch, diagnosis):
    assert list(diagnosis(shop.case(batch))) == []


def test_a_clock_has_no_unit(shop, batch):
    assert list(unit(shop.case(batch.assign(hour=60 * batch["hour"])))) == []


def test_the_share_of_rows_in_another_unit_is_that_of_the_rows_changed(shop, batch):
    for share in (0.1, 0.5):
        mask = np.random.default_rng(5).random(len(batch)) < share
        (cause,) = unit(shop.case(shop.put(batch, "amount", mask, 100 * batch["amount"])))

        assert cause.share == pytest.approx(mask.mean(), abs=0.02)


@pytest.mark.parametrize("factor", [2.204623, 2.54, 3.6])
def test_another_unit_in_a_part_of_an_unrelated_column_is_recognised(shop, factor):
    random = np.random.default_rng(0)
    rows = pd.DataFrame({"weight": random.normal(60, 8, 16_000), "x": random.normal(size=16_000)})
    reference = shop.fit(rows, {"weight": Numeric(), "x": Numeric()})
    now = pd.DataFrame({"weight": random.normal(60, 8, 2_000), "x": random.normal(size=2_000)})
    some = random.random(len(now)) < 0.3
    moved = now["weight"].where(~some, factor * now["weight"])

    (cause,) = compare(reference=reference, current=now.assign(weight=moved)).causes

    assert cause.name == "unit (weight)"
    assert cause.evidence["factor"] == pytest.approx(factor, rel=1e-3)
    assert cause.share == pytest.approx(some.mean(), rel=1 / 3)


@pytest.mark.parametrize(
    ("now", "factor"),
    [
        (1.8 * stats.norm(60, 2).rvs(2_000, random_state=1) + 32, 1.8),
        (2.204623 * stats.norm(60, 2).rvs(2_000, random_state=1), 2.204623),
        (stats.norm(140, 2).rvs(2_000, random_state=1), None),  # as wide as it was
        (1.8 * stats.norm(60, 14).rvs(2_000, random_state=1), None),  # not far from where it was
    ],
    ids=["fahrenheit", "pounds", "moved", "grown"],
)
def test_a_small_factor_that_displaces_an_unrelated_column_far_is_a_unit(shop, now, factor):
    random = np.random.default_rng(0)
    sd = 2 if factor or now.std() < 3 else 14
    rows = pd.DataFrame({"weight": random.normal(60, sd, 16_000), "x": random.normal(size=16_000)})
    reference = shop.fit(rows, {"weight": Numeric(), "x": Numeric()})
    frame = pd.DataFrame({"weight": now, "x": random.normal(size=2_000)})

    report = compare(reference=reference, current=frame)
    found = [(one.name, one.evidence["factor"]) for one in report.causes]
    expected = [("unit (weight)", pytest.approx(factor, rel=1e-3))] if factor else []
    assert found == expected
    assert report.alarm


@pytest.mark.parametrize("larger", [90, 120, 180])
def test_a_second_kind_of_larger_values_is_not_a_unit(shop, larger):
    random = np.random.default_rng(0)
    rows = pd.DataFrame({"weight": random.normal(60, 8, 16_000), "x": random.normal(size=16_000)})
    reference = shop.fit(rows, {"weight": Numeric(), "x": Numeric()})
    weight = np.where(
        random.random(2_000) < 0.3, random.normal(larger, 4, 2_000), random.normal(60, 8, 2_000)
    )
    now = pd.DataFrame({"weight": weight, "x": random.normal(size=2_000)})

    assert [cause.cause for cause in compare(reference=reference, current=now).causes] == []
