import numpy as np
import pandas as pd
import pytest

from pipeline.config import Categorical, Numeric
from pipeline.monitoring.diagnoses.case import Case
from pipeline.monitoring.diagnoses.permutations import permuted
from pipeline.monitoring.drift import compare

NEXT = {"East": "North", "North": "South", "South": "West", "West": "East"}
PRODUCTS = ["Bed", "Chair", "Desk", "Lamp", "Shelf", "Sofa", "Stool", "Table"]
FOLLOWING = NEXT | dict(zip(PRODUCTS, [*PRODUCTS[1:], "Bed"], strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("column", "part"),
    [
        ("region", "all"),
        ("product", "all"),
        ("region", "some"),
    ],
)
def test_labels_that_changed_places_are_recognised(shop, batch, column, part):
    mask = shop.touch(batch, part)
    report = shop.judge(shop.put(batch, column, mask, batch[column].map(FOLLOWING)))

    shop.assert_named(report, "permuted", column, mask=mask, part=part)
    label = batch[column].mode()[0]
    assert f"{label!r} as {FOLLOWING[label]!r}" in report.causes[0].sentence


def test_unchanged_labels_are_not_permuted(shop, batch):
    assert list(permuted(shop.case(batch))) == []


def draw_towns(seed, shares):
    towns = [f"T{k:02d}" for k in range(len(shares))]
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {"town": random.choice(towns, 2_000, p=shares), "x": random.normal(size=2_000)}
    )


@pytest.mark.parametrize(("by", "expected"), [(7, ["permuted"]), (0, [])])
def test_many_labels_that_changed_places_are_recognised_by_their_shares(shop, by, expected):
    # Nothing else tells of them, and the frequent ones are those that were rare.
    shares = 0.7 ** np.arange(20)
    shares /= shares.sum()
    rows = pd.concat([draw_towns(seed, shares) for seed in range(8)], ignore_index=True)
    reference = shop.fit(rows, {"town": Categorical(), "x": Numeric()})
    report = compare(reference=reference, current=draw_towns(9, np.roll(shares, by)))

    assert [cause.cause for cause in report.causes] == expected


@pytest.mark.parametrize(("own", "expected"), [(0, ["permuted"]), (12, [])])
def test_customers_who_come_and_go_are_not_permuted(shop, own, expected):
    # The largest give way to others, some of them new, in the last week; in a column of which
    # each week has new labels, that is what customers do.
    shares = 0.7 ** np.arange(20)
    shares /= shares.sum()

    def draw(week, names):
        random = np.random.default_rng([week, 4])
        towns = random.choice(names, 2_000, p=shares).astype(object)
        few = random.random(2_000) < 0.15 * bool(own)
        towns[few] = [f"W{week}-{k}" for k in random.integers(0, own or 1, few.sum())]
        return pd.DataFrame({"town": towns, "x": random.normal(size=2_000)})

    old, new = [f"T{k}" for k in range(20)], [f"N{k}" for k in range(6)]
    rows = pd.concat([draw(week, old) for week in range(8)], ignore_index=True)
    reference = shop.fit(rows, {"town": Categorical(), "x": Numeric()})
    changed = [*(name for pair in zip(old[14:], new, strict=True) for name in pair), *old[:8]]
    now = draw(9, changed)
    tally = reference.tally(now)
    case = Case(reference, now, tally, reference.summarise(tally), (), ())

    assert [cause.cause for cause in permuted(case)] == expected


def test_labels_of_similar_shares_that_change_rank_are_not_permuted(shop):
    random = np.random.default_rng(1)
    shares = np.linspace(1, 2, 20) / np.linspace(1, 2, 20).sum()
    rows = pd.concat([draw_towns(seed, shares) for seed in range(8)], ignore_index=True)
    reference = shop.fit(rows, {"town": Categorical(), "x": Numeric()})
    report = compare(reference=reference, current=draw_towns(9, random.permutation(shares)))

    assert (report.outcome, report.causes) == ("moved", ())


FEW = np.asarray([0.45, 0.25, 0.15, 0.1, 0.05])


def draw_linked(seed, shares):
    rows = draw_towns(seed, shares)
    return rows.assign(x=rows["x"] + rows["town"].str[1:].astype(int))


@pytest.fixture(scope="module")
def linked(shop):
    rows = pd.concat([draw_linked(seed, FEW) for seed in range(8)], ignore_index=True)
    return shop.fit(rows, {"town": Categorical(), "x": Numeric()})


@pytest.mark.slow
@pytest.mark.parametrize("by", [1, 2, 3])
def test_labels_permuted_in_a_part_of_the_rows_are_recognised_by_their_shares(linked, by):
    # What all lost alike came back under others, and x, which knows something of them, confirms it.
    now = draw_linked(9, FEW)
    towns = sorted(now["town"].unique())
    following = dict(zip(towns, np.roll(towns, -by), strict=True))
    some = np.random.default_rng(2).random(len(now)) < 0.3
    moved = now["town"].where(~some, now["town"].map(following))

    (cause,) = compare(reference=linked, current=now.assign(town=moved)).causes

    assert cause.name == "permuted (town)"
    assert cause.share == pytest.approx(some.mean(), rel=1 / 3)


@pytest.mark.slow
@pytest.mark.parametrize("trials", [10, pytest.param(200, marks=pytest.mark.statistics)])
@pytest.mark.parametrize("spread", [0.3, 0.6])
def test_shares_that_drift_at_random_are_permuted_in_a_twentieth_of_batches_at_most(
    linked, share_band, spread, trials
):
    wrong = 0
    for seed in range(trials):
        shares = FEW * np.random.default_rng(seed).lognormal(0, spread, size=len(FEW))
        now = draw_linked(9 + seed, shares / shares.sum())
        wrong += any(c.cause == "permuted" for c in compare(reference=linked, current=now).causes)

    assert wrong / trials <= share_band(trials, 0.0, 0.05)[1]


def test_shares_that_also_drifted_before_are_not_permuted(linked):
    now = draw_linked(9, FEW)
    towns = sorted(now["town"].unique())
    following = dict(zip(towns, np.roll(towns, -1), strict=True))
    some = np.random.default_rng(2).random(len(now)) < 0.3
    moved = now.assign(town=now["town"].where(~some, now["town"].map(following)))
    on_the_way = now.assign(town=now["town"].where(some, now["town"].map(following)))
    recent = [linked.summarise(on_the_way)]

    report = compare(reference=linked, current=moved, recent=recent)

    assert (report.outcome, report.causes) == ("moved", ())
