import numpy as np
import pandas as pd
import pytest

from pipeline.config import Categorical, Numeric
from pipeline.monitoring.diagnoses.labels import permuted, recode
from pipeline.monitoring.drift import compare

CODES = {name: f"{place + 1}" for place, name in enumerate(["East", "North", "South", "West"])}
NEXT = {"East": "North", "North": "South", "South": "West", "West": "East"}
PRODUCTS = ["Bed", "Chair", "Desk", "Lamp", "Shelf", "Sofa", "Stool", "Table"]
FOLLOWING = NEXT | dict(zip(PRODUCTS, [*PRODUCTS[1:], "Bed"], strict=True))


@pytest.mark.parametrize(
    ("column", "write", "part"),
    [
        ("region", str.lower, "all"),
        ("product", lambda label: label[:3], "all"),
        ("region", CODES.get, "all"),
        ("region", "EU-{}".format, "some"),
        ("region", str.lower, "working = 0"),
        ("product", lambda label: f"P{101 + PRODUCTS.index(label)}", "some"),
    ],
    ids=["lower", "short", "codes", "prefix", "segment", "some codes"],
)
def test_labels_written_otherwise_are_told(shop, batch, column, write, part):
    mask = shop.touch(batch, part)
    after = shop.put(batch, column, mask, batch[column].map(write))
    report, mask = shop.judge(after), after[column] != batch[column]  # "Bed" is short already

    figure = f"{mask.mean():.0%} of the labels"
    shop.assert_told(report, "recode", column, figure=figure, mask=mask, part=part)
    new = float(batch[column][mask].nunique())
    assert report.causes[0].evidence["new labels"] == new


@pytest.mark.parametrize("spelling", ["NORTH", " North", "North_"])
def test_another_spelling_is_shown_beside_the_old_one(shop, batch, spelling):
    write = {"NORTH": str.upper, " North": " {}".format, "North_": "{}_".format}[spelling]
    (cause,) = recode(shop.case(batch.assign(region=batch["region"].map(write))))

    assert f"'North' as {spelling!r}" in cause.sentence


@pytest.mark.parametrize(
    ("column", "part"),
    [
        ("region", "all"),
        ("product", "all"),
        ("region", "some"),
    ],
)
def test_labels_that_changed_places_are_told(shop, batch, column, part):
    mask = shop.touch(batch, part)
    report = shop.judge(shop.put(batch, column, mask, batch[column].map(FOLLOWING)))

    shop.assert_told(report, "permuted", column, mask=mask, part=part)
    label = batch[column].mode()[0]
    assert f"{label!r} as {FOLLOWING[label]!r}" in report.causes[0].sentence


@pytest.mark.parametrize("diagnosis", [recode, permuted])
def test_labels_as_ever_are_no_fault(shop, batch, diagnosis):
    assert list(diagnosis(shop.case(batch))) == []


def test_one_new_label_is_no_other_spelling(shop, batch):
    some = (batch["region"] == "East") & (batch["hour"] % 4 == 0)

    assert list(recode(shop.case(shop.put(batch, "region", some, "Abroad")))) == []


def draw_towns(seed, shares):
    towns = [f"T{k:02d}" for k in range(len(shares))]
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {"town": random.choice(towns, 2_000, p=shares), "x": random.normal(size=2_000)}
    )


@pytest.mark.parametrize(("by", "told"), [(7, ["permuted"]), (0, [])])
def test_many_labels_that_changed_places_are_told_by_their_shares(shop, by, told):
    # Nothing else tells of them, and the frequent ones are those that were rare.
    shares = 0.7 ** np.arange(20)
    shares /= shares.sum()
    rows = pd.concat([draw_towns(seed, shares) for seed in range(8)], ignore_index=True)
    reference = shop.fit(rows, {"town": Categorical(), "x": Numeric()})
    report = compare(reference=reference, current=draw_towns(9, np.roll(shares, by)))

    assert [one.cause for one in report.causes] == told


def test_labels_of_about_one_share_that_pass_one_another_have_not_changed_places(shop):
    random = np.random.default_rng(1)
    shares = np.linspace(1, 2, 20) / np.linspace(1, 2, 20).sum()
    rows = pd.concat([draw_towns(seed, shares) for seed in range(8)], ignore_index=True)
    reference = shop.fit(rows, {"town": Categorical(), "x": Numeric()})
    report = compare(reference=reference, current=draw_towns(9, random.permutation(shares)))

    assert (report.outcome, report.causes) == ("moved", ())
