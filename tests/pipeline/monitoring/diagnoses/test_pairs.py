import numpy as np
import pytest


@pytest.mark.parametrize(
    ("one", "other", "part"),
    [
        ("east", "north", "all"),
        ("region", "product", "all"),
        ("region", "product", "working = 0"),
    ],
)
def test_columns_with_each_others_values_are_told(shop, batch, one, other, part):
    mask = shop.touch(batch, part)
    after = shop.put(shop.put(batch, one, mask, batch[other]), other, mask, batch[one])

    shop.assert_told(shop.judge(after), "swapped", one, other, mask=mask, part=part)


@pytest.mark.parametrize(
    ("column", "part"),
    [
        ("temp", "all"),
        ("region", "all"),
    ],
)
def test_values_in_other_rows_are_told(shop, batch, column, part):
    # In a part of the rows they look like a relation that loosened.
    mask = shop.touch(batch, part)
    values = batch[column].copy()
    values[mask] = np.random.default_rng(4).permutation(values[mask])
    report = shop.judge(shop.put(batch, column, mask, values))

    shop.assert_told(report, "shuffled", column, mask=mask, part=part)


def test_columns_that_go_together_less_are_neither_swapped_nor_shuffled(shop):
    report = shop.judge(shop.draw(5, link=0.3))

    assert report.causes == ()
