from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pipeline.config import Categorical, Numeric
from pipeline.monitoring.slices import (
    LONGEST,
    MOST,
    SliceLoss,
    cuts_of,
    figures_of,
    from_text,
    judge_slices,
    slice_baselines,
    slices_of,
    to_text,
    worst_slice,
)

WEEK = pd.Timedelta("7D")
START = pd.Timestamp("2026-01-05")
PLANS = ("free", "pro", "team")
COLUMNS = {"plan": Categorical(), "age": Numeric()}


def drawn(weeks, *, seed, since=START, levels=None, spread=0.3):
    """Losses of each plan, one an hour, and the slices of the rows."""
    random = np.random.default_rng(seed)
    at = pd.date_range(since, periods=weeks * 168, freq="h").repeat(len(PLANS))
    plan = np.tile(PLANS, weeks * 168)
    level = pd.Series(plan).map({"free": 1.0, "pro": 2.0, "team": 0.5} | (levels or {}))
    losses = pd.Series(random.normal(level, spread), index=at)
    return losses, slices_of(pd.DataFrame({"plan": plan}), {"plan": None})


def judged(now, before, *, allowed=0.05, alpha=0.05, fewest=20, **given):
    baselines = slice_baselines(*before, WEEK, heavy=False, fewest=fewest)
    return judge_slices(
        *now, baselines, length=WEEK, allowed=allowed, alpha=alpha, fewest=fewest, **given
    )


def test_labels_and_quartiles_of_numbers_are_slices():
    rows = pd.DataFrame(
        {"plan": ["a", "b", "a", None, "a"], "age": [10.0, 20.0, 30.0, 40.0, np.nan]}
    )

    cuts = cuts_of(rows, COLUMNS)
    named = slices_of(rows, cuts)

    # The quartiles of SciPy that are values themselves (inverse of the distribution).
    quartiles = stats.mstats.mquantiles([10, 20, 30, 40], [0.25, 0.5, 0.75], alphap=0, betap=1)
    assert cuts == {"plan": None, "age": quartiles.tolist()}
    assert named["plan"].tolist() == [
        "plan = a",
        "plan = b",
        "plan = a",
        "plan is null",
        "plan = a",
    ]
    assert named["age"].tolist() == [
        "age <= 10",
        "10 < age <= 20",
        "20 < age <= 30",
        "age > 30",
        "age is null",
    ]


@pytest.mark.parametrize("values", [[3.0] * 4, [np.nan] * 4])
def test_numbers_that_do_not_differ_are_sliced_all_the_same(values):
    rows = pd.DataFrame({"age": values})

    named = slices_of(rows, cuts_of(rows, {"age": Numeric()}))

    assert len({*named["age"]}) == 1


def test_a_private_column_is_not_sliced():
    rows = pd.DataFrame({"plan": ["a"], "age": [1.0]})

    assert cuts_of(rows, {"plan": Categorical(private=True), "age": Numeric(private=True)}) == {}


def test_only_slices_with_enough_rows_have_a_baseline_and_the_largest_come_first():
    sizes = [*range(20, 20 + MOST + 5)]
    names = [f"plan = p{size}" for size in sizes for _ in range(size)]
    at = pd.date_range(START, periods=len(names), freq="min")
    slices = pd.DataFrame({"plan": names})

    found = slice_baselines(pd.Series(1.0, index=at), slices, WEEK, heavy=False, fewest=25)

    largest = sorted((size for size in sizes if size >= 25), reverse=True)[:MOST]
    assert list(found) == [f"plan = p{size}" for size in largest]


def of_days(part):
    losses, slices = part
    return {
        name: losses[(slices["plan"] == name).to_numpy()].resample("1D").mean().to_numpy()
        for name in slices["plan"].unique()
    }


def rejected(p, alpha):
    """Hypotheses that the closed test of Bonferroni's tests rejects, from all subsets."""
    subsets = [set(subset) for size in range(1, len(p) + 1) for subset in combinations(p, size)]
    passed = [one for one in subsets if min(p[name] for name in one) <= alpha / len(one)]
    return {name for name in p if all(one in passed for one in subsets if name in one)}


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    rise=st.lists(st.floats(0.9, 1.3), min_size=3, max_size=3),
    alpha=st.sampled_from([0.01, 0.05, 0.2]),
)
def test_worse_slices_are_those_of_welchs_tests_under_a_closed_test(seed, rise, alpha):
    before = drawn(3, seed=seed)  # too few weeks to count as one observation each
    levels = {"free": rise[0], "pro": 2 * rise[1], "team": 0.5 * rise[2]}
    now = drawn(1, seed=seed + 1, since=START + 20 * WEEK, levels=levels)

    found = judged(now, before, alpha=alpha)

    known, new = of_days(before), of_days(now)
    p = {
        name: stats.ttest_ind(
            days, 1.05 * known[name], equal_var=False, alternative="greater"
        ).pvalue
        for name, days in new.items()
    }
    assert {one.name for one in found if one.worse} == rejected(p, alpha)
    for one in found:
        ends = stats.ttest_ind(new[one.name], known[one.name], equal_var=False)
        mean = known[one.name].mean()
        assert one.change == pytest.approx(new[one.name].mean() / mean - 1, rel=1e-4)
        assert one.at_least == pytest.approx(ends.confidence_interval(0.9).low / mean, rel=1e-4)
        assert one.rows == 168


def test_batches_are_judged_together_as_if_they_were_one():
    before = drawn(3, seed=5)
    weeks = [
        drawn(1, seed=7 + week, since=START + (20 + week) * WEEK, levels={"pro": 2.2})
        for week in range(3)
    ]
    earlier = []
    for week in weeks:
        earlier.append(judged(week, before, earlier=earlier, fewest=500))

    last = {one.name: one for one in earlier[-1]}["plan = pro"]

    assert not any(one.judged for one in earlier[1])  # 336 rows of 500
    known = of_days(before)["plan = pro"]
    days = np.concatenate([of_days(week)["plan = pro"] for week in weeks])
    test = stats.ttest_ind(days, 1.05 * known, equal_var=False, alternative="greater")
    assert last.rows == 3 * 168
    assert last.change == pytest.approx(days.mean() / known.mean() - 1, rel=1e-4)
    assert last.worse == (3 * test.pvalue <= 0.05)
    assert last.worse


def test_a_slice_that_is_as_good_as_before_ends_its_trouble():
    before = drawn(3, seed=5)
    bad = judged(drawn(1, seed=1, levels={"pro": 6.0}), before)
    good = judged(drawn(1, seed=2), before, earlier=[bad])

    assert worst_slice(bad).name == "plan = pro"
    assert worst_slice(good) is None


def test_the_order_of_rows_and_columns_does_not_matter():
    losses, slices = drawn(1, seed=3, levels={"team": 0.8})
    slices = slices.assign(age=np.tile(["age <= 3", "age > 3"], len(slices) // 2))
    before = drawn(3, seed=4)
    before = (
        before[0],
        before[1].assign(age=np.tile(["age <= 3", "age > 3"], len(before[0]) // 2)),
    )
    order = np.random.default_rng(0).permutation(len(losses))
    shuffled = (losses.iloc[order], slices.iloc[order, ::-1])

    assert judged(shuffled, before) == judged((losses, slices), before)


def test_a_slice_without_a_baseline_or_without_rows_is_not_judged():
    before = drawn(3, seed=4)
    losses, slices = drawn(1, seed=3)
    slices = slices.replace({"plan = pro": "plan = new"})

    assert {one.name for one in judged((losses, slices), before)} == {"plan = free", "plan = team"}
    assert judged((losses[:0], slices[:0]), before) == ()


def test_a_slice_without_loss_in_training_is_not_judged():
    before = drawn(3, seed=4, levels={"pro": 0.0}, spread=0.0)

    found = judged(drawn(1, seed=3), before)

    assert "plan = pro" not in {one.name for one in found}


def test_the_worst_slice_is_said_with_its_change():
    one = SliceLoss("carrier = HA", 1_612, 0.4, 0.48, 0.21, True, (0.6,), (1_612,))

    assert one.sentence == "carrier = HA, loss +48% (at least +21%), 1,612 rows"


def test_slices_are_read_as_they_were_written_and_fit_into_a_tag():
    number = 0.123456789e-7
    long = "é" * LONGEST
    most = [
        SliceLoss(
            long, 1_000_000, *[float(f"{number:.6g}")] * 3, False, (number,) * 8, (99_999,) * 8
        )
        for _ in range(MOST)
    ]
    some = (*most[:2], SliceLoss("a", 3, 0.1, float("-inf"), float("-inf"), False, (0.2,), (3,)))

    assert from_text(to_text(some)) == some
    shown = judged(drawn(1, seed=3), drawn(3, seed=4))
    assert from_text(to_text(shown)) == shown
    rounded = [
        one.__class__(**{**vars(one), "parts": (float(f"{number:.6g}"),) * 8}) for one in most
    ]
    assert len(to_text(rounded)) < 8_000


def test_what_is_charted_is_of_the_worst_slice():
    found = judged(drawn(1, seed=3, levels={"pro": 4.0}), drawn(3, seed=4))

    assert figures_of(found) == {
        "worse_slices": 1.0,
        "worst_slice_change": found[0].change,
        "worst_slice_change_at_least": found[0].at_least,
    }
    assert figures_of(()) == {}


@pytest.mark.statistics
@pytest.mark.parametrize("rise", [1.0, 1.05])
def test_false_slices_are_as_rare_as_stated(rise):
    levels = {"free": rise, "pro": 2 * rise, "team": 0.5 * rise}
    trials = 2_000
    false = sum(
        any(
            one.worse
            for one in judged(
                drawn(1, seed=2 * k + 1, levels=levels, spread=0.2),
                drawn(3, seed=2 * k, spread=0.2),
            )
        )
        for k in range(trials)
    )

    assert false <= stats.binom.ppf(0.999, trials, 0.05)
