import numpy as np
import pandas as pd
import pytest

from benchmarks.batches import natural, trials
from benchmarks.batches.faults import (
    differing,
    handful,
    put,
    rare_case,
    recode,
    shifted,
)
from benchmarks.batches.faulty_flights import FLIGHTS
from benchmarks.batches.histories import Case, Verdict
from benchmarks.batches.trials import Trial, score
from benchmarks.batches.variants import CAUSES, VARIANTS, Variant
from pipeline.monitoring.findings import Cause

ROWS = 400
COLUMNS = {
    "number": ("price",),
    "label": ("channel",),
    "any": ("celsius",),
    "two numbers": ("price", "humidity"),
    "two labels": ("country", "channel"),
    "hour": ("hour",),
    "weekday": ("weekday",),
    "batch": (),
    "several": ("price", "celsius", "country"),
}
GROWN = {"twice", "x12", "first rows", "few rows", "earlier"}


def clean():
    return natural.orders(np.random.default_rng(1), ROWS)


def columns_of(variant: Variant):
    here = [name for name in variant.only if name in clean()]
    return tuple(here[:1]) or COLUMNS[variant.on]


def damaged(variant, frame, columns, mask, seed=0):
    other = natural.orders(np.random.default_rng(2), ROWS + 5)
    given = {"rows": other} if variant.source else {}
    return variant.apply(frame, columns, mask, np.random.default_rng(seed), **given)


def named(variant):
    return f"{variant.cause}-{variant.name}"


# Only real data sets have the columns of the others; tests of their own are for a few rows.
SHOWN = [
    one
    for one in VARIANTS
    if (not one.only or set(one.only) & set(clean()))
    and not one.few
    and one.on != "month"
    and one.name != "1 and 0"
]


def test_every_cause_has_a_variant():
    assert len(CAUSES) == 17
    assert set(CAUSES) == set(FLIGHTS)


@pytest.mark.parametrize("variant", SHOWN, ids=named)
def test_touched_rows_differ_and_others_stay(variant):
    frame, columns = clean(), columns_of(variant)
    mask = np.ones(ROWS, dtype=bool) if variant.all_rows else np.arange(ROWS) % 3 == 0

    after = damaged(variant, frame, columns, mask)

    least = {"clipped": 0.05, "rounded": 0.0, "unit": 0.5}.get(variant.cause, 0.3)
    changed = differing(frame, after, columns, mask).mean()
    assert changed >= least
    if variant.name not in GROWN:
        assert len(after) == ROWS
        others = [name for name in after if name not in (columns or after.columns)]
        others = [name for name in others if name in frame]
        pd.testing.assert_frame_equal(after[others], frame[others])
        assert not differing(frame, after, columns, ~mask).any()


@pytest.mark.parametrize("variant", SHOWN, ids=named)
def test_a_seed_gives_the_same_fault_again(variant):
    frame, columns = clean(), columns_of(variant)
    mask = np.ones(ROWS, dtype=bool) if variant.all_rows else np.arange(ROWS) % 3 == 0

    one, other = (damaged(variant, frame, columns, mask, seed=3) for _ in range(2))

    pd.testing.assert_frame_equal(one, other)
    pd.testing.assert_frame_equal(frame, clean())


def variant(cause, name):
    return next(one for one in VARIANTS if (one.cause, one.name) == (cause, name))


def test_fahrenheit_is_read_as_celsius():
    frame = pd.DataFrame({"temp": [32.0, 212.0, 50.0]})

    after = damaged(variant("unit", "F to C"), frame, ("temp",), np.asarray([True, True, False]))

    assert after["temp"].tolist() == pytest.approx([0.0, 100.0, 50.0])


def test_yes_and_no_become_1_and_0_and_more_labels_stay():
    frame = pd.DataFrame({"member": ["no", "yes", "no"], "size": ["s", "m", "l"]})
    every, random = np.ones(3, dtype=bool), np.random.default_rng(0)
    member = recode(frame, ("member",), every, random, how="1 and 0")["member"]

    assert set(member) == {"0", "1"}
    assert member[0] == member[2] != member[1]
    assert recode(frame, ("size",), every, random, how="1 and 0").equals(frame)


def test_only_a_rare_label_changes_its_letter_case():
    frame = pd.DataFrame({"port": ["JFK"] * 97 + ["Lga"] * 3})
    after = rare_case(frame, ("port",), np.ones(100, dtype=bool), np.random.default_rng(0))

    assert after["port"].tolist() == ["JFK"] * 97 + ["lGA"] * 3


def test_a_handful_of_values_are_a_thousand_times_too_large():
    frame = pd.DataFrame({"rain": np.arange(1.0, 101)})
    every = np.ones(100, dtype=bool)
    after = handful(frame, ("rain",), every, np.random.default_rng(0), count=10)["rain"]
    changed = after != frame["rain"]

    assert changed.sum() == 10
    assert (after[changed] == 1000 * frame["rain"][changed]).all()


def test_months_wrap_round_the_year():
    frame = pd.DataFrame({"mnth": [1, 11, 12]})
    after = shifted(frame, ("mnth",), np.ones(3, dtype=bool), np.random.default_rng(0), by=1)

    assert after["mnth"].tolist() == [2, 12, 1]


def test_hours_wrap_round_midnight():
    frame = pd.DataFrame({"hour": [23, 0, 12]})

    after = damaged(variant("shifted", "one hour"), frame, ("hour",), np.ones(3, dtype=bool))

    assert after["hour"].tolist() == [0, 1, 13]
    assert after["hour"].dtype == "int64"


def test_duplicated_rows_are_added_to_the_batch():
    frame = clean()

    after = damaged(variant("duplicate", "twice"), frame, (), np.arange(ROWS) < 100)

    assert len(after) == ROWS + 100
    assert after.duplicated().sum() >= 100


@pytest.mark.parametrize(("name", "low", "high"), [("few rows", 0.02, 0.08), ("x12", 12, 12)])
def test_volume_faults_change_the_number_of_rows(name, low, high):
    after = damaged(variant("volume", name), clean(), (), np.ones(ROWS, dtype=bool))

    assert low * ROWS <= len(after) <= high * ROWS
    assert after.duplicated().mean() < 0.05


def test_a_renamed_column_keeps_its_values():
    after = damaged(variant("schema", "renamed"), clean(), ("price",), np.ones(ROWS, dtype=bool))

    (new,) = set(after) - set(clean())
    assert "price" not in after
    assert after[new].tolist() == clean()["price"].tolist()


def test_rows_freeze_in_runs():
    mask = np.arange(ROWS) < 90

    after = damaged(variant("frozen", "three runs"), clean(), (), mask)

    assert len(after[mask].drop_duplicates()) == 3


def test_a_shuffle_keeps_the_values():
    after = damaged(variant("shuffled", "number"), clean(), ("price",), np.ones(ROWS, dtype=bool))

    assert sorted(after["price"]) == sorted(clean()["price"])


def case(frame):
    before = natural.orders(np.random.default_rng(5), 3_000)
    return Case("orders/0", before, frame, [], None, ROWS)


def seen(one, columns, frame=None):
    frame, mask = clean() if frame is None else frame, np.ones(ROWS, dtype=bool)
    after = damaged(one, frame, columns, mask)
    return trials.visible(one, case(frame), columns, mask, after)


def test_faults_that_change_nothing_are_left_out():
    assert not seen(variant("rounded", "integers"), ("humidity",))
    assert not seen(variant("recode", "lower case"), ("low",), clean().assign(low="a"))
    twins = clean().assign(weight=clean()["price"])
    assert not seen(variant("swapped", "numbers"), ("price", "weight"), twins)
    assert not seen(variant("sentinel", "0"), ("hour",))


def test_a_shuffle_of_an_uncorrelated_column_is_left_out():
    assert not seen(variant("shuffled", "number"), ("opened",))
    assert seen(variant("shuffled", "number"), ("price",))


def test_trials_are_rebuilt_from_their_names(monkeypatch):
    monkeypatch.setattr(trials.histories, "sets", lambda: ["orders"])

    one, other = (trials.trial("unit:0.3:3:0") for _ in range(2))

    pd.testing.assert_frame_equal(one.frame, other.frame)
    assert one.mask.tolist() == other.mask.tolist()
    assert str(one) == str(other)


def trial_of(cause, columns, by=""):
    mask = np.arange(ROWS) < 120
    frame = put(clean(), "price", mask, 1.0)
    kind = next(one for one in VARIANTS if one.cause == cause)
    how = f"{by}=Web" if by else "random"
    name = f"{cause}:0.3:0:0"
    return Trial(name, case(clean()), kind, columns, how, by, mask, frame, False, 0)


def verdict_of(*causes, outcome="broken"):
    made = [
        Cause(name, columns, "What.", {}, "Do.", share, segment)
        for name, columns, share, segment in causes
    ]
    return Verdict(outcome, tuple(made))


@pytest.mark.parametrize(
    ("cause", "columns", "verdict", "broken", "right"),
    [
        ("unit", ("price",), verdict_of(("unit", ("price",), 0.3, "")), True, True),
        ("unit", ("price",), verdict_of(("sign", ("price",), 0.3, "")), True, False),
        ("unit", ("price",), verdict_of(("unit", ("age",), 0.3, "")), False, False),
        ("unit", ("price",), verdict_of(outcome="moved"), False, False),
        ("unit", ("price",), verdict_of(("volume", (), 1.0, "")), False, False),
        (
            "swapped",
            ("price", "age"),
            verdict_of(("swapped", ("age", "load"), 1.0, "")),
            True,
            True,
        ),
        ("duplicate", (), verdict_of(("duplicate", (), 0.3, "")), True, True),
        ("duplicate", (), verdict_of(("stuck", ("age",), 0.3, "")), False, False),
        ("frozen", (), verdict_of(("frozen", ("age", "price"), 0.3, "")), True, True),
        ("volume", (), verdict_of(("volume", (), 1.0, ""), outcome="mixed"), True, True),
    ],
)
def test_a_fault_counts_as_found_in_the_right_column_and_as_right_by_its_name(
    cause, columns, verdict, broken, right
):
    scored = score(verdict, trial_of(cause, columns))

    assert (scored["broken"], scored["right"]) == (broken, right)


def test_spurious_causes_segments_and_shares_are_scored():
    verdict = verdict_of(("unit", ("price",), 0.31, "channel = Web"), ("stuck", ("age",), 1.0, ""))

    scored = score(verdict, trial_of("unit", ("price",), by="channel"))

    assert scored["spurious"] == ["stuck (age)"]
    assert scored["segment"]
    assert scored["share"]
