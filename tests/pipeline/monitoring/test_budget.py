import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pipeline.monitoring.budget import BUDGET, DECAY, Group, _shares, apply_budget, bounds
from pipeline.monitoring.findings import Finding

ALPHA = 0.05
families = st.dictionaries(st.sampled_from(sorted(BUDGET)), st.just(0.0) | st.floats(1e-9, 50))


def at_most(alpha, trials):
    """Largest share of alarms that a chance of alpha shows in 99.9% of simulations."""
    return stats.binom.ppf(0.999, trials, alpha) / trials


def judged(p_value, *, statistic=1.0, floor=0.0, reach=1.0, level="rows"):
    return Finding(("x",), level, "location", statistic, p_value, floor, reach)


def alarms(groups, decay=(), alpha=ALPHA):
    found, _ = apply_budget(groups, decay, alpha)
    return any(finding.drifted for finding in found)


@given(families, st.floats(1e-6, 1))
def test_no_family_gets_more_than_it_can_use_and_all_together_no_more_than_alpha(reach, alpha):
    shares = _shares(reach, alpha)

    assert sum(shares.values()) <= alpha * (1 + 1e-9)
    assert all(0 <= shares[family] <= reach[family] * (1 + 1e-9) for family in reach)
    whole = min(alpha, sum(reach.values()))
    assert sum(shares.values()) == pytest.approx(whole)


@given(families, st.floats(1e-6, 1))
def test_families_that_can_use_more_share_the_rest_by_weight(reach, alpha):
    shares = _shares(reach, alpha)
    held_back = [family for family in reach if shares[family] < reach[family] * (1 - 1e-6)]

    per_weight = [shares[family] / BUDGET[family] for family in held_back]
    assert per_weight == pytest.approx(per_weight[:1] * len(per_weight))
    for family in reach if per_weight else ():
        assert shares[family] / BUDGET[family] <= per_weight[0] * (1 + 1e-6)


def test_what_a_family_cannot_use_goes_to_the_others():
    alone = _shares({"location": 5.0}, ALPHA)
    beside = _shares({"location": 5.0, "spread of batches": 1e-6}, ALPHA)

    assert alone == {"location": ALPHA}
    assert beside == pytest.approx({"location": ALPHA - 1e-6, "spread of batches": 1e-6})


def test_a_family_is_held_to_its_part_of_what_is_left():
    shares = _shares(
        {"missing of batches": 0.1, "share of batches": 0.48, "pairs of batches": 5}, 1
    )

    assert list(shares.values()) == pytest.approx([0.1, 0.45, 0.45])


@given(
    st.floats(0, 1),
    st.floats(-10, 10),
    st.floats(0, 10),
    st.floats(1e-9, 1),
    st.sampled_from(["rows", "decay"]),
)
def test_a_finding_below_its_floor_is_never_drifted(p_value, statistic, floor, reach, level):
    test = judged(p_value, statistic=statistic, floor=floor, reach=reach, level=level)
    groups, decay = ([], [test]) if level == "decay" else ([Group("location", [test])], [])
    (found,), _ = apply_budget(groups, decay, ALPHA)

    assert not found.drifted or (abs(statistic) >= floor and p_value <= found.adjusted <= ALPHA)


@given(st.lists(st.floats(1e-300, 1), min_size=1, max_size=20))
def test_without_floors_a_family_of_its_own_is_corrected_by_bonferroni(p_values):
    found, _ = apply_budget([Group("location", [judged(p) for p in p_values])], (), ALPHA)

    expected = np.minimum(np.array(p_values) * len(p_values), 1)
    np.testing.assert_allclose([test.adjusted for test in found], expected, rtol=1e-9)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(1e-6, 1)), min_size=1, max_size=10),
    st.floats(0.001, 0.2),
)
def test_the_level_of_a_family_bounds_how_often_any_of_its_tests_drifts(tests, alpha):
    found, _ = apply_budget([Group("joint", [judged(p, reach=r) for p, r in tests])], (), alpha)
    share = min(alpha, sum(reach for _, reach in tests))

    called = [p for (p, _), test in zip(tests, found, strict=True) if test.drifted]
    level = max(called, default=0.0)
    assert sum(min(reach, level) for _, reach in tests) <= share * (1 + 1e-9)


def test_a_test_whose_floor_is_rarely_reached_counts_with_its_reach_alone():
    tests = [judged(0.04, reach=reach) for reach in (0.01, 0.01, 0.02, 1.0)]
    found, _ = apply_budget([Group("joint", tests)], (), ALPHA)

    assert [test.adjusted for test in found] == pytest.approx([0.01 + 0.01 + 0.02 + 0.04] * 4)


def test_groups_of_one_family_share_one_part_of_the_budget():
    groups = [Group("pairs", [judged(0.01)]), Group("pairs", [judged(0.4)])]
    found, _ = apply_budget(groups, (), ALPHA)

    assert [test.adjusted for test in found] == pytest.approx([0.02, 0.8])


def test_undefined_tests_use_no_budget_and_stay_undecided():
    alone, _ = apply_budget([Group("pairs", [judged(0.01)])], (), ALPHA)
    groups = [Group("pairs", [judged(0.01), judged(np.nan)]), Group("joint", [judged(np.nan)])]
    found, _ = apply_budget(groups, (), ALPHA)

    assert [test for test in found if np.isfinite(test.p_value)] == alone
    assert all(np.isnan(test.adjusted) for test in found if np.isnan(test.p_value))
    assert sum(test.drifted for test in found) == 1


def test_the_budget_spent_at_the_level_of_batches_is_returned():
    groups = [
        Group("location", [judged(0.5)]),
        Group("location of batches", [judged(0.5, level="batches")]),
    ]
    _, spent = apply_budget(groups, (), ALPHA)

    weights = BUDGET["location"] + BUDGET["location of batches"]
    assert spent == pytest.approx(ALPHA * BUDGET["location of batches"] / weights)


def test_decay_drifts_at_the_run_length_independently_of_other_tests():
    just, short = DECAY * ALPHA, DECAY * ALPHA * 1.01

    for groups in ([], [Group("location", [judged(0.5)])]):
        assert alarms(groups, [judged(just, level="decay")])
        assert not alarms(groups, [judged(short, level="decay")])


def test_decay_takes_its_part_from_the_rest():
    edge = ALPHA * (1 - DECAY)
    decay = [judged(1.0, level="decay")]

    assert alarms([Group("joint", [judged(edge * 0.999)])], decay)
    assert not alarms([Group("joint", [judged(edge * 1.001)])], decay)


def test_chance_alone_alarms_no_more_often_than_alpha():
    random, trials = np.random.default_rng(1), 2000
    sizes = {"location": 20, "pairs": 50, "joint": 1, "missing": 20, "location of batches": 10}
    found = [
        alarms(Group(name, [judged(p) for p in random.random(n)]) for name, n in sizes.items())
        for _ in range(trials)
    ]

    assert 0.5 * ALPHA <= np.mean(found) <= at_most(ALPHA, trials)


def test_floors_make_the_levels_milder_but_never_the_alarms_more_frequent():
    random, trials = np.random.default_rng(2), 2000
    floors = {"location": np.linspace(0, 4, 20), "pairs": np.full(50, 3.5), "joint": np.ones(1)}
    groups = [[] for _ in range(trials)]
    for family, edges in floors.items():
        drawn, reach = random.normal(size=(trials, len(edges))), 2 * stats.norm.sf(edges)
        for mine, z, p_values in zip(groups, drawn, 2 * stats.norm.sf(np.abs(drawn)), strict=True):
            tests = [
                judged(p, statistic=size, floor=edge, reach=chance)
                for p, size, edge, chance in zip(p_values, z, edges, reach, strict=True)
            ]
            mine.append(Group(family, tests))

    found = np.mean([alarms(group) for group in groups])
    assert 0.5 * ALPHA <= found <= at_most(ALPHA, trials)


@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=9), st.floats(0.001, 0.5))
def test_a_test_is_found_up_to_the_level_of_its_family(reach, alpha):
    others = [judged(1.0, reach=value) for value in reach[1:]]
    level = bounds([Group("location", [judged(1.0, reach=reach[0]), *others])], alpha, decay=False)

    def found(p_value):
        tests = [judged(p_value, reach=reach[0]), *others]
        return apply_budget([Group("location", tests)], [], alpha)[0][0].drifted

    assert found(level.levels["location"] * 0.999)
    assert not found(min(level.levels["location"] * 1.001 + 1e-12, 1)) or sum(reach) <= alpha


def test_bounds_are_what_the_budget_spends():
    rows = Group("location", [judged(0.5, reach=0.01)])
    batches = Group("location of batches", [judged(0.5, reach=0.2, level="batches")])

    known = bounds([rows, batches], ALPHA, decay=True)

    assert known.alarm == pytest.approx(ALPHA)
    _, spent = apply_budget([rows, batches], [judged(0.5, level="decay")], ALPHA)
    assert known.persisted == pytest.approx(spent + DECAY * ALPHA)
    assert bounds([rows], ALPHA, decay=False).alarm == pytest.approx(0.01)
