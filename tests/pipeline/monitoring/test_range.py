import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pipeline.config import Numeric
from pipeline.monitoring.drift import compare
from pipeline.monitoring.rows import Judged, _range_test
from pipeline.reference import Reference
from pipeline.reference.serialised import reference_from_dict, reference_to_dict

BLOCK, BLOCKS = 400, 8
COLUMNS = {"x": Numeric(), "other": Numeric()}
DRAWS = {
    "symmetric": lambda random, n: random.normal(size=n),
    "heavy-tailed": lambda random, n: np.exp(1.5 * random.normal(size=n)),
}
"""Values of a batch, to which the level of the batch is added."""


def rows(random, draw, level, n=BLOCK):
    return pd.DataFrame({"x": level + draw(random, n), "other": random.normal(size=n)})


def history(draw, noise, seed=0, blocks=BLOCKS):
    """A reference whose blocks differ in their level, by `noise` standard deviations."""
    random = np.random.default_rng(seed)
    levels = noise * random.normal(size=blocks)
    frame = pd.concat([rows(random, draw, level) for level in levels], ignore_index=True)
    return Reference.fit(frame, COLUMNS, block=BLOCK)


def consecutive(rows):
    return list(np.arange(BLOCKS * rows).reshape(BLOCKS, rows))


def judge(reference, frame, **options):
    return compare(reference=reference, current=frame, **options)


def range_test(report, name="x"):
    return next(one for one in report.findings if (one.kind, one.columns) == ("range", (name,)))


@pytest.mark.parametrize("noise", [0.0, 1.0, 30.0])
@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_values_far_beyond_training_drift_however_much_blocks_differ(draw, noise):
    reference, random = history(draw, noise), np.random.default_rng(1)
    low, high = reference.columns["x"].points[[0, -1]]
    for away in (20 * (high - low), 1e6 * (high - low)):
        report = judge(reference, rows(random, draw, high + away), diagnosis=False)

        assert report.outcome == "moved"
        assert range_test(report).drifted
        (note,) = (note for note in report.notes if "every value of training" in note)
        assert note.startswith("400 of 400 values of 'x' lie above every value of training.")


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_the_surprise_grows_with_the_distance_and_begins_inside_the_range(draw):
    reference = history(draw, 1.0)
    wide = np.ptp(reference.columns["x"].points)
    away = wide * np.asarray([0, 0.5, 1, 10, 100, 1e4, 1e8])
    found = [
        range_test(judge(reference, rows(np.random.default_rng(1), draw, x), diagnosis=False))
        for x in (*away, *-away[1:])
    ]
    above, below = found[: len(away)], found[len(away) :]

    assert (above[0].statistic, above[0].p_value) == (0, 1)
    assert (np.diff([one.statistic for one in above]) > 0).all()
    assert (np.diff([one.p_value for one in above]) < 0).all()
    assert (np.diff([one.statistic for one in below]) < 0).all()
    assert (np.diff([one.p_value for one in below]) < 0).all()


def test_the_distance_is_that_of_the_median_in_widths_of_the_range_of_the_blocks_medians():
    values = np.repeat(np.arange(10.0), 100)  # one level per block
    frame = pd.DataFrame({"x": values, "other": np.arange(1000.0)})
    reference = Reference.fit(frame, COLUMNS, block=100)
    now = pd.DataFrame({"x": np.full(100, 36.0), "other": np.arange(450.0, 550)})

    found = range_test(judge(reference, now, diagnosis=False))
    assert found.statistic == 3
    widest = np.sqrt(10 / 9) * 4.5  # the largest standard deviation of 10 levels from 0 to 9
    assert found.p_value > 2 * stats.t.sf((36 - 4.5) / widest / np.sqrt(1.1), 9)


@pytest.mark.parametrize("far", [1, 100, 190])
@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_far_values_in_fewer_than_half_of_the_rows_are_not_out_of_range(draw, far):
    now = rows(np.random.default_rng(1), draw, 0.0)
    now.loc[: far - 1, "x"] = 1e12

    assert range_test(judge(history(draw, 0.5), now, diagnosis=False)).statistic == 0


@pytest.mark.parametrize("within", [0.0, 1.0], ids=["held", "wide"])
def test_levels_of_batches_that_differ_as_those_of_blocks_do_keep_its_level(within, share_band):
    random, trials, p_values = np.random.default_rng(0), 60, []
    for _ in range(trials):
        levels = random.normal(size=BLOCKS + 1)
        x = (levels[:, None] + within * random.normal(size=(BLOCKS + 1, 40))).ravel()
        frame = pd.DataFrame({"x": x})
        reference = Reference.describe(
            frame[:-40], {"x": Numeric()}, blocks=lambda _: consecutive(40), sampled=True
        )
        tally = reference.tally(frame[-40:])
        judged = Judged(reference, tally, reference.summarise(tally), {})
        (found,) = _range_test(judged, "x", reference.columns["x"])
        p_values.append(found.p_value)

    for level in (0.2, 0.05):
        assert np.mean(np.asarray(p_values) <= level) <= share_band(trials, 0, level)[1]


def test_the_next_values_of_a_counter_and_of_a_rate_that_steps_are_not_out_of_range():
    n = np.arange(4500.0)
    frame = pd.DataFrame({"x": n, "other": 4.86 - 0.1 * (n // 500)})
    reference = Reference.fit(frame[:4000], COLUMNS, block=500)
    report = judge(reference, frame[4000:])

    assert report.outcome in {"quiet", "moved"}
    assert not range_test(report, "x").drifted
    assert not range_test(report, "other").drifted
    assert min(range_test(report, name).p_value for name in frame) > 0.2


def test_a_reference_that_was_stored_or_merged_measures_the_distance_as_before():
    one, other = history(DRAWS["symmetric"], 1.0), history(DRAWS["symmetric"], 1.0, seed=3)
    stored = reference_from_dict(json.loads(json.dumps(reference_to_dict(one))))
    merged, now = one.merge(other), rows(np.random.default_rng(1), DRAWS["symmetric"], 500.0)
    first, again, both = (range_test(judge(x, now, diagnosis=False)) for x in (one, stored, merged))

    assert again == first
    assert both.drifted
    assert both.p_value < first.p_value  # 16 blocks


@pytest.mark.parametrize(("blocks", "n"), [(3, BLOCK), (BLOCKS, 7), (BLOCKS, 0)])
def test_too_few_blocks_or_values_have_no_usual_range(blocks, n):
    draw = DRAWS["symmetric"]
    now = rows(np.random.default_rng(1), draw, 1e6, n)
    report = judge(history(draw, 1.0, blocks=blocks), now, diagnosis=False)

    assert not [one for one in report.findings if one.kind == "range"]


@pytest.mark.parametrize(
    ("values", "tested"),
    [([1.0] * 400, False), ([-1e308, -9e307] * 200, False), ([0.0] * 395 + [5.0] * 5, True)],
    ids=["constant", "nearly infinite", "nearly constant"],
)
def test_a_distance_that_is_no_number_is_not_judged(values, tested):
    frame = pd.DataFrame({"x": values * BLOCKS, "other": np.arange(400.0 * BLOCKS)})
    reference = Reference.fit(frame, COLUMNS, block=BLOCK)
    report = judge(reference, frame[:400].assign(x=1.7e308), diagnosis=False)

    found = [one for one in report.findings if (one.kind, one.columns) == ("range", ("x",))]
    assert [one.drifted for one in found] == [True] * tested
