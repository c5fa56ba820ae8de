import pytest

from pipeline.monitoring.diagnoses.spellings import recode

pytestmark = pytest.mark.slow

CODES = {name: f"{place + 1}" for place, name in enumerate(["East", "North", "South", "West"])}
PRODUCTS = ["Bed", "Chair", "Desk", "Lamp", "Shelf", "Sofa", "Stool", "Table"]


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
def test_labels_in_another_spelling_are_recognised(shop, batch, column, write, part):
    mask = shop.touch(batch, part)
    after = shop.put(batch, column, mask, batch[column].map(write))
    report, mask = shop.judge(after), after[column] != batch[column]  # "Bed" is short already

    figure = f"{mask.mean():.0%} of the labels"
    shop.assert_named(report, "recode", column, figure=figure, mask=mask, part=part)
    new = float(batch[column][mask].nunique())
    assert report.causes[0].evidence["new labels"] == new


@pytest.mark.parametrize("spelling", ["NORTH", " North", "North_"])
def test_another_spelling_is_shown_beside_the_old_spelling(shop, batch, spelling):
    write = {"NORTH": str.upper, " North": " {}".format, "North_": "{}_".format}[spelling]
    (cause,) = recode(shop.case(batch.assign(region=batch["region"].map(write))))

    assert f"'North' as {spelling!r}" in cause.sentence


def test_unchanged_labels_are_not_a_recode(shop, batch):
    assert list(recode(shop.case(batch))) == []


def test_a_single_new_label_is_not_a_recode(shop, batch):
    some = (batch["region"] == "East") & (batch["hour"] % 4 == 0)

    assert list(recode(shop.case(shop.put(batch, "region", some, "Abroad")))) == []
