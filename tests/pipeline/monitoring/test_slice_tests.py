import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pipeline.config import Categorical, Numeric
from pipeline.monitoring.drift import compare
from pipeline.monitoring.slice_drift import charted, most_drifted
from pipeline.monitoring.slice_tests import SMALLEST, compare_slices
from pipeline.monitoring.slices import MOST, slices_of
from pipeline.monitoring.usual_slices import COLUMNS, UsualSlices
from pipeline.reference import Reference

SHARES = {"HA": 0.05, "AA": 0.15, "DL": 0.3, "UA": 0.5}
BY_CARRIER = {"carrier": None}


def drawn(rows=2_000, *, seed=0, shares=SHARES, numbers=4, shock=0.0, own=0.0):
    """Rows of one batch, whose carriers differ; all share a shock, and each has one of its own."""
    random = np.random.default_rng(seed)
    names = list(shares)
    of = np.repeat(np.arange(len(names)), np.round(np.array([*shares.values()]) * rows).astype(int))
    size = (len(of), numbers)
    values = random.normal(0, 1, size) + 0.5 * of[:, None] + shock * random.normal(0, 1, numbers)
    values += own * random.normal(0, 1, (len(names), numbers))[of]
    found = pd.DataFrame(values, columns=[f"x{i}" for i in range(numbers)])
    fuel = random.choice(["low", "half", "full"], len(of), p=[0.2, 0.3, 0.5])
    return found.assign(fuel=fuel, carrier=np.array(names)[of])


def described(blocks, cuts=BY_CARRIER, *, fewest=200, importance=None, stored=True, **given):
    """A reference of some blocks of rows with its slices, as these are stored and read back."""
    rows = pd.concat(blocks, ignore_index=True)
    kinds = {True: Numeric(nullable=True), False: Categorical(nullable=True)}
    numeric = {name: pd.api.types.is_numeric_dtype(rows[name]) for name in rows}
    reference = Reference.fit(rows, {name: kinds[one] for name, one in numeric.items()}, **given)
    usual = UsualSlices.fit(
        reference,
        rows,
        slices_of(rows, cuts),
        blocks=np.split(np.arange(len(rows)), np.cumsum([len(one) for one in blocks])[:-1]),
        fewest=fewest,
        importance=importance or {},
    )
    if stored:
        usual = UsualSlices.from_dict(json.loads(json.dumps(usual.to_dict())))
    return SimpleNamespace(reference=reference, usual=usual, cuts=cuts)


def compared(before, now, *, alpha=0.05):
    return compare_slices(
        reference=before.reference,
        usual=before.usual,
        current=now,
        slices=slices_of(now, before.cuts),
        alpha=alpha,
    )


def drifted(found):
    return [one.name for one in found if one.drifted]


def moved(rows, carriers, by=1.0):
    return rows.assign(x1=rows["x1"] + by * rows["carrier"].isin(carriers) * rows["x1"].std())


@pytest.fixture(scope="module")
def before():
    return described([drawn(seed=seed) for seed in range(10)])


def test_a_twentieth_of_the_rows_that_moves_is_named_with_its_column_although_the_whole_does_not(
    before,
):
    now = drawn(seed=20)
    now = moved(now, ["HA"])

    found = compared(before, now)

    whole = compare(reference=before.reference, current=now, diagnosis=False)
    assert "x1" not in whole.drifted
    worst = most_drifted(found)
    assert drifted(found) == ["carrier = HA"]
    assert worst == found[0]
    assert worst.columns == ("x1",)
    assert worst.kind == "location"
    assert worst.rows == (now["carrier"] == "HA").sum() == 100
    assert worst.size == pytest.approx(1, abs=0.3)
    assert (
        worst.sentence == f"carrier = HA, x1 {worst.size:+.2f} sd beyond the other rows, 100 rows"
    )
    assert charted(found) == {"drifted_slices": 1.0, "most_drifted_slice_p": worst.p_value}


@pytest.mark.parametrize("seed", range(3))
def test_rows_that_all_move_alike_name_no_slice(before, seed):
    assert drifted(compared(before, moved(drawn(seed=30 + seed), SHARES, by=1.5))) == []


@pytest.mark.parametrize("carrier", ["UA", "DL"])
def test_a_large_slice_that_moves_does_not_name_the_others(before, carrier):
    assert drifted(compared(before, moved(drawn(seed=21), [carrier]))) == [f"carrier = {carrier}"]


@pytest.mark.parametrize("carrier", ["HA", "UA"])
def test_of_two_slices_the_one_that_moved_is_named(carrier):
    two = {"HA": 0.4, "UA": 0.6}
    before = described([drawn(seed=seed, shares=two) for seed in range(6)])

    found = compared(before, moved(drawn(seed=22, shares=two), [carrier]))

    assert drifted(found) == [f"carrier = {carrier}"]


def test_all_columns_that_moved_in_a_slice_are_named_the_clearest_first(before):
    now = drawn(seed=23)
    ours = now["carrier"] == "AA"
    now = now.assign(x0=now["x0"] + 3 * ours, x2=now["x2"] - 1.5 * ours)

    (worst, *others) = compared(before, now)

    assert worst.columns == ("x0", "x2")
    assert drifted(others) == []


def test_shares_of_labels_and_of_missing_values_are_compared(before):
    now, random = drawn(seed=24), np.random.default_rng(0)
    ours = (now["carrier"] == "AA") & (random.random(len(now)) < 0.5)
    full, faded = (
        now.assign(fuel=now["fuel"].mask(ours, "full")),
        now.assign(x3=now["x3"].mask(ours)),
    )

    more, gaps = most_drifted(compared(before, full)), most_drifted(compared(before, faded))

    assert (more.name, more.kind) == ("carrier = AA", "share of full")
    assert more.now - more.before == pytest.approx(0.25, abs=0.08)
    assert more.change == f"share of full in fuel {100 * more.size:+.0f} points"
    assert (gaps.name, gaps.kind) == ("carrier = AA", "missing")
    assert gaps.size == pytest.approx(0.5, abs=0.1)
    assert gaps.change == f"missing x3 {100 * gaps.size:+.0f} points"


@pytest.mark.parametrize(
    ("own", "blocks", "odd", "by"),
    [(0.5, 6, 0, 6), (0.5, 12, 0, 6), (1.0, 8, 0, 6), (0.3, 12, 1.5, 1.5)],
)
def test_where_blocks_differ_the_p_value_is_that_of_students_t_of_the_blocks(own, blocks, odd, by):
    shares = {"HA": 0.25, "UA": 0.75}
    parts = [
        drawn(400, seed=seed, shares=shares, numbers=1, own=own)[["x0", "carrier"]]
        for seed in range(blocks + 1)
    ]
    parts[2]["x0"] += odd * (parts[2]["carrier"] == "HA")  # a long tail
    now = parts.pop().assign(x0=lambda rows: rows["x0"] + by * (rows["carrier"] == "HA"))
    before = described(parts, fewest=20, stored=False)

    found = {one.name: one for one in compared(before, now)}["carrier = HA"]

    scores = before.reference.columns["x0"]
    parts = [
        part.assign(z=scores.normal_scores[scores.cells(part["x0"].to_numpy())])
        for part in [*parts, now]
    ]
    means = [part.groupby("carrier")["z"].mean() for part in parts]
    *known, last = [mean["HA"] - mean["UA"] for mean in means]
    t = (last - np.mean(known)) / np.std(known, ddof=1) / np.sqrt(1 + 1 / blocks)
    # Of two slices with one column both differences are the same number but for its sign.
    excess = max(stats.kurtosis(known, bias=False), 0)
    freedom = 2 / (2 / (blocks - 1) + excess / blocks)
    # Two tests can reach their floor by chance; those of missing values cannot. That scores are
    # skewed changes little.
    assert (excess > 1) == bool(odd)
    assert found.size == pytest.approx(last - np.mean(known))
    assert found.p_value == pytest.approx(2 * 2 * stats.t.sf(abs(t), freedom), rel=0.1)


def test_a_slice_of_few_rows_stays_silent_and_says_so(before):
    now = moved(drawn(900, seed=25), ["HA"], by=5)

    found = compared(before, now)

    assert (now["carrier"] == "HA").sum() < SMALLEST
    assert found[-1].name == "carrier = HA"
    assert found[-1].why == "fewer than 50 rows of the batch are in it"
    assert not found[-1].drifted
    assert drifted(found) == []


def test_a_slice_that_nearly_all_rows_are_in_stays_silent_and_says_so():
    shares = {"HA": 0.03, "UA": 0.97}
    before = described([drawn(seed=seed, shares=shares) for seed in range(6)])

    found = compared(before, moved(drawn(1_000, seed=25, shares=shares), ["UA"], by=5))

    assert [one.why for one in found] == [
        "fewer than 50 rows of the batch are in it",
        "fewer than 50 rows of the batch are outside of it",
    ]


def test_a_slice_that_few_blocks_of_training_hold_stays_silent_and_says_so():
    without = {"AA": 0.5, "UA": 0.5}
    blocks = [drawn(seed=seed, shares=SHARES if seed < 3 else without) for seed in range(8)]

    found = {one.name: one for one in compared(described(blocks), moved(drawn(seed=9), ["HA"]))}

    assert found["carrier = HA"].why == "fewer than 4 blocks of training hold 10 of its rows"
    assert not found["carrier = AA"].why


def test_a_reference_of_few_blocks_compares_no_slice():
    before = described([drawn(seed=seed) for seed in range(3)])

    found = compared(before, moved(drawn(seed=9), ["HA"]))

    assert {one.why for one in found} == {"fewer than 4 blocks of training hold 10 of its rows"}
    assert charted(found) == {}


def test_a_column_that_the_batch_lacks_leaves_the_others_compared(before):
    now = moved(drawn(seed=20), ["HA"]).drop(columns="x2")

    assert drifted(compared(before, now)) == ["carrier = HA"]


def test_a_batch_without_rows_names_no_slice(before):
    found = compared(before, drawn(seed=1)[:0])

    assert len(found) == len(SHARES)
    assert all(one.why for one in found)


def test_slices_are_compared_in_the_most_important_columns_and_the_prediction_alone():
    blocks = [drawn(numbers=COLUMNS + 5, seed=seed) for seed in range(4)]
    blocks = [one.assign(score=one["x0"]) for one in blocks]
    importance = {f"x{i}": 1.0 + i for i in range(COLUMNS + 5)}

    before = described(blocks, importance=importance, prediction=("score",))

    columns = {f"x{i}" for i in range(5, COLUMNS + 5)} | {"score"}
    assert set(before.usual.table["column"]) == columns


def test_slices_of_the_most_training_rows_are_followed_and_not_in_the_column_they_are_cut_from():
    few, many = {"few": 0.001}, {f"c{i}": 1 / 40 for i in range(40)}
    blocks = [drawn(4_000, shares=few | many, seed=seed) for seed in range(4)]
    cuts = {"carrier": None, "x0": [10.0]}

    before = described(blocks, cuts, fewest=20)

    sliced = before.usual.sliced
    assert sliced["x0"] == ("x0 > 10", "x0 <= 10")
    assert len(sliced["carrier"]) == MOST - 2
    assert "carrier = few" not in sliced["carrier"]
    table = before.usual.table
    assert "x0" not in set(table["column"][table["slice"] == "x0 > 10"])
    assert "x0" in set(table["column"][table["slice"] == "carrier = c1"])
    assert "carrier" not in set(table["column"][table["slice"] == "carrier = c1"])


def test_what_is_stored_compares_as_what_was_fitted():
    blocks, now = [drawn(seed=seed, own=0.2) for seed in range(6)], moved(drawn(seed=9), ["AA"])
    fitted, read = (compared(described(blocks, stored=stored), now) for stored in (False, True))

    assert [one.name for one in fitted] == [one.name for one in read]
    for one, other in zip(fitted, read, strict=True):
        assert one.p_value == pytest.approx(other.p_value, rel=0.01)
        assert one.size == pytest.approx(other.size, rel=1e-3)


@pytest.mark.parametrize(("shock", "own"), [(0.0, 0.0), (0.3, 0.1), (0.3, 0.4)])
@pytest.mark.parametrize(
    "trials", [40, pytest.param(1_000, marks=pytest.mark.statistics)], ids=["few", "many"]
)
def test_batches_that_differ_as_blocks_do_name_a_slice_as_seldom_as_stated(
    shock, own, trials, share_band
):
    alpha = 0.05

    def named(seed):
        seeds = range(20 * seed, 20 * seed + 9)
        *blocks, now = (drawn(600, seed=one, shock=shock, own=own) for one in seeds)
        return bool(drifted(compared(described(blocks, fewest=20, stored=False), now, alpha=alpha)))

    assert np.mean([named(seed) for seed in range(trials)]) <= share_band(trials, 0, alpha)[1]
