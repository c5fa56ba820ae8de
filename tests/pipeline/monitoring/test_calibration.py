import json

import numpy as np
import pandas as pd
import pytest

from pipeline.config import Numeric
from pipeline.monitoring.calibration import TRIALS, limits
from pipeline.monitoring.diagnoses.case import NATS
from pipeline.monitoring.drift import compare
from pipeline.monitoring.findings import Cause
from pipeline.reference import Reference

BLOCK = 800


def fit(*factors):
    """A reference of a block for each factor, by which `amount` is multiplied in it."""
    random = np.random.default_rng(0)
    factor = np.repeat(factors, BLOCK)
    amount = random.lognormal(3, 0.5, len(factor))
    frame = pd.DataFrame(
        {"amount": amount * factor, "weight": amount * random.lognormal(0, 0.3, len(factor))}
    )
    time = pd.Series(
        pd.Timestamp("2026-01-05") + pd.to_timedelta(np.arange(len(factor)) // BLOCK, "W")
    )
    return Reference.fit(frame, {"amount": Numeric(), "weight": Numeric()}, time=time, block="7D")


def causes_of(reference, current):
    return compare(reference=reference, current=current, broken_alpha=1.0).causes


def counted(calls, *, until=None):
    """A judge that notes each call and fails at the call `until`."""

    def judge(**given):
        calls.append(given)
        if len(calls) == until:
            raise KeyboardInterrupt
        return causes_of(**given)

    return judge


def batch(factor):
    random = np.random.default_rng(1)
    amount = random.lognormal(3, 0.5, BLOCK)
    weight = amount * random.lognormal(0, 0.3, BLOCK)
    return pd.DataFrame({"amount": amount * factor, "weight": weight})


def named(reference, current):
    return [cause.name for cause in compare(reference=reference, current=current).causes]


def test_a_fault_has_to_exceed_what_a_tables_own_blocks_show_of_it():
    sometimes, never = fit(1, 1, 1, 1, 1, 1, 100, 100, 1, 1), fit(*[1] * 10)

    assert limits(sometimes, causes_of, alpha=0.01)["unit", "amount"] > 0
    assert named(never, batch(100)) == ["unit (amount)"]
    report = compare(reference=sometimes, current=batch(10_000))
    assert report.causes == ()
    assert any(note.startswith("unit (amount) is not believed") for note in report.notes)


def test_nothing_is_limited_where_own_blocks_show_no_fault():
    assert limits(fit(*[1] * 10), causes_of, alpha=0.01) == {}


@pytest.mark.parametrize("blocks", [1, 4])
def test_too_few_blocks_limit_nothing(blocks):
    def judge(**_):
        raise AssertionError

    assert limits(fit(*[1] * blocks), judge, alpha=0.01) == {}


def test_each_tenfold_smaller_share_needs_as_much_more_evidence():
    reference = fit(1, 1, 1, 1, 1, 1, 100, 100, 1, 1)
    found = [limits(reference, causes_of, alpha=alpha) for alpha in (0.01, 0.001, 0.0001)]
    first, second, third = (each["unit", "amount"] for each in found)

    assert second - first == pytest.approx(third - second)
    assert second > first
    assert ("unit", "amount") not in limits(reference, causes_of, alpha=0.9)
    assert limits(reference, causes_of, alpha=1) == {}


def test_what_blocks_show_is_kept_for_other_processes_and_found_on_where_it_was_cut_off(tmp_path):
    sometimes, kept = [1, 1, 1, 1, 1, 1, 100, 100, 1, 1], tmp_path / "features.json"
    alone = limits(fit(*sometimes), causes_of, alpha=0.01)
    cut, rest, again = [], [], []
    with pytest.raises(KeyboardInterrupt):
        limits(fit(*sometimes), counted(cut, until=4), alpha=0.01, kept=kept)
    resumed = limits(fit(*sometimes), counted(rest), alpha=0.01, kept=kept)
    read = limits(fit(*sometimes), counted(again), alpha=0.01, kept=kept)

    assert alone == resumed == read
    assert len(cut) - 1 + len(rest) == TRIALS
    assert again == []
    assert [path.name for path in tmp_path.iterdir()] == ["features.json"]


@pytest.mark.parametrize("content", ["", '{"amount 0": [["unit"', '{"amount 0": 7}', "[]"])
def test_a_file_that_is_damaged_is_written_anew(tmp_path, content):
    kept = tmp_path / "features.json"
    kept.write_text(content)
    calls = []
    found = limits(fit(*[1] * 6), counted(calls), alpha=0.01, kept=kept)

    assert found == {}
    assert len(calls) == 5
    assert set(json.loads(kept.read_text())) == {f"amount {k}" for k in range(6)}


def test_a_folder_that_cannot_be_written_to_only_costs_time(tmp_path):
    absent = tmp_path / "absent" / "features.json"

    assert limits(fit(*[1] * 6), causes_of, alpha=0.01, kept=absent) == {}
    (tmp_path / "a file").write_text("")
    below = tmp_path / "a file" / "features.json"
    assert limits(fit(*[1] * 6), causes_of, alpha=0.01, kept=below) == {}


def test_groups_of_a_wide_table_do_not_depend_on_what_was_asked_before():
    random = np.random.default_rng(0)
    values = random.normal(size=(6 * 60, 101))
    frame = pd.DataFrame(values, columns=[f"x{i:03}" for i in range(101)])
    wide = Reference.fit(frame, {name: Numeric() for name in frame}, block=60)
    asked = []

    def judge(*, current, **_):
        asked.append(list(current))
        return [Cause("unit", (name,), "", {NATS: 1.0}, "", 1.0) for name in current]

    first = limits(wide, judge, alpha=0.01, columns=("x003",))
    calls = len(asked)
    second = limits(wide, judge, alpha=0.01, columns=("x100",))

    assert {name for _, name in first} == {f"x{i:03}" for i in range(50)}
    assert {name for _, name in second} == {"x100"}
    assert all(len(columns) == 100 for columns in asked)
    assert len(asked) == 2 * calls
    assert limits(wide, judge, alpha=0.01, columns=("x003",)) == first
    assert len(asked) == 2 * calls
