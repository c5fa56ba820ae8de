import re

import numpy as np
import pandas as pd
import pytest

from pipeline.config import Promotion
from pipeline.training.gate import is_poor, judge_challenger, prediction_problems

DAY = pd.Timedelta("1D")


def compared(*, challenger, champion=None, baseline=1.0, n=1400, days=14, seed=0):
    """Losses with these means; rows share noise of their own and of their day."""
    random = np.random.default_rng(seed)
    times = pd.Series(pd.date_range("2026-01-01", periods=n, freq=days * DAY / n))
    noise = random.gamma(4, 0.25, n) * random.gamma(50, 0.02, days)[np.arange(n) * days // n]
    means = {"challenger": challenger, "baseline": baseline, "champion": champion}
    losses = {
        name: mean * noise * random.gamma(100, 0.01, n)
        for name, mean in means.items()
        if mean is not None
    }
    return pd.DataFrame(losses), times


def gate(losses, times, *, seed=0, min_gain=0.0, worth=1.0, **policy):
    policy = Promotion(min_gain=min_gain, **policy)
    return judge_challenger(losses, times=times, part=DAY, policy=policy, seed=seed, worth=worth)


def test_a_clear_winner_is_promoted():
    decision = gate(*compared(challenger=0.7, champion=0.8))

    assert decision.promoted
    assert [gain.over for gain in decision.gains] == ["baseline", "champion"]
    assert decision.gains[1].mean == pytest.approx(1 - 0.7 / 0.8, abs=0.02)


def test_a_clear_loser_is_refused_with_its_gain():
    decision = gate(*compared(challenger=0.9, champion=0.8))

    assert not decision.promoted
    assert "must surely gain more than 0.0% on the champion. Its loss is 1" in decision.reason
    assert re.search(
        r"larger than the champion's; with 80% .* 1[\d.]+% larger to 1", decision.reason
    )


def test_a_challenger_identical_to_the_champion_is_refused_unless_a_loss_is_accepted():
    losses, times = compared(challenger=0.8)
    same = losses.assign(champion=losses["challenger"])

    decision = gate(same, times)
    assert not decision.promoted
    assert (decision.gains[1].low, decision.gains[1].high) == (0, 0)
    assert gate(same, times, min_gain=-0.02).promoted


def test_a_smaller_loss_that_is_accepted_is_said_as_one():
    losses, times = compared(challenger=0.8)

    decision = gate(losses.assign(champion=losses["challenger"] / 1.005), times, min_gain=-0.02)

    assert decision.promoted
    assert decision.reason.startswith("It loses 0.50% against the champion, at most 0.50%")
    assert "promotion.min_gain allows 2.0%" in decision.reason


def test_a_larger_loss_than_accepted_is_refused():
    losses, times = compared(challenger=0.84, champion=0.8)

    assert gate(losses, times, min_gain=-0.1).promoted
    assert not gate(losses, times, min_gain=-0.02).promoted


def test_a_gain_below_the_configured_minimum_is_refused():
    losses, times = compared(challenger=0.76, champion=0.8)

    assert gate(losses, times).promoted
    assert not gate(losses, times, min_gain=0.1).promoted


def test_the_first_version_only_has_to_beat_the_baseline():
    assert gate(*compared(challenger=0.9)).promoted
    assert "first version" in gate(*compared(challenger=1.1)).reason


def test_of_two_versions_worse_than_the_baseline_the_better_serves_and_people_are_warned():
    decision = gate(*compared(challenger=1.2, champion=2.0))

    assert decision.promoted
    assert "% larger than that of one prediction for all rows; with 80%" in decision.warning
    assert is_poor(decision.reason)
    assert decision.warning.endswith("so the better of the two serves.")
    assert decision.warning in decision.reason


def test_a_challenger_worse_than_the_baseline_is_refused_where_the_champion_is_better():
    decision = gate(*compared(challenger=1.2, champion=1.19), min_gain=-0.05)

    assert not decision.promoted
    assert "must not be worse than one prediction for all rows" in decision.reason
    assert not is_poor(decision.reason)


def test_a_first_version_no_better_than_the_baseline_serves_if_the_settings_say_so():
    decision = gate(*compared(challenger=1.1), first="serve")

    assert decision.promoted
    assert decision.warning.endswith("It serves anyway (promotion.first: serve).")
    assert not gate(*compared(challenger=0.5), first="serve").warning


def test_a_challenger_with_too_few_rows_is_refused_in_one_sentence():
    losses, times = compared(challenger=0.5, champion=0.8)
    decision = gate(losses[:30], times[:30], min_rows=31)

    assert (decision.promoted, decision.rows, decision.gains) == (False, 30, ())
    assert decision.reason.startswith("A challenger must be judged on at least 31 labelled rows")
    assert decision.reason.endswith("Got 30. Wait for more labels.")


def test_a_challenger_with_rows_of_a_single_day_is_refused():
    losses, times = compared(challenger=0.5, champion=0.8, days=1)
    decision = gate(losses, times)

    assert not decision.promoted
    assert "at least 2 stretches of 1 days" in decision.reason


def test_a_challenger_without_rows_is_refused():
    losses, times = compared(challenger=0.5)

    assert not gate(losses[:0], times[:0]).promoted


def test_a_decision_depends_on_the_seed_only_a_little():
    losses, times = compared(challenger=0.78, champion=0.8)

    assert gate(losses, times) == gate(losses, times)
    assert gate(losses, times, seed=1).gains[1].low == pytest.approx(
        gate(losses, times).gains[1].low, abs=0.003
    )


def test_a_decision_does_not_depend_on_the_order_of_rows():
    losses, times = compared(challenger=0.78, champion=0.8)
    mixed = losses.sample(frac=1, random_state=1)

    one, other = gate(losses, times), gate(mixed, times[mixed.index])
    assert other.gains[1].low == pytest.approx(one.gains[1].low)


def test_a_champion_without_loss_cannot_be_beaten():
    losses, times = compared(challenger=0.5)
    decision = gate(losses.assign(champion=0.0), times)

    assert not decision.promoted
    assert decision.gains[1].mean == -1


@pytest.mark.parametrize(
    ("predicted", "chances", "problem"),
    [
        ([0.1, np.nan, np.inf], True, "must be finite numbers. Got 2 of 3"),
        ([0.1, 1.5], True, "must lie from 0 to 1. Got 0.1 to 1.5"),
        ([0.3, 0.3], True, "All 2 predictions are the same"),
        ([0.1, 1.5], False, ""),
        ([], True, ""),
    ],
)
def test_predictions_that_cannot_be_right_are_named(predicted, chances, problem):
    found = prediction_problems(np.array(predicted), chances=chances)

    assert problem in " ".join(found)
    assert bool(found) == bool(problem)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("confidence", "trials"),
    [
        (0.8, 400),
        *(pytest.param(one, 4000, marks=pytest.mark.statistics) for one in (0.8, 0.95)),
    ],
)
def test_the_lower_end_of_a_gain_has_the_stated_confidence(share_band, confidence, trials):
    """Resampling 14 days is a little narrow: 3 points are granted.

    400 trials see 67% or 89% instead of 80%, and 85% or 99% instead of 95%, in nine of ten runs.
    """
    true = 1 - 0.76 / 0.8
    below = 0
    for seed in range(trials):
        losses, times = compared(challenger=0.76, champion=0.8, n=280, seed=seed)
        below += gate(losses, times, confidence=confidence).gains[1].low <= true

    low, high = share_band(trials, confidence - 0.03, confidence)
    assert low <= below / trials <= high


def test_a_gain_counts_as_far_as_earlier_gains_were_realised():
    losses, times = compared(challenger=0.7, champion=0.8)
    policy = {"min_gain": 0.05}
    believed, doubted = gate(losses, times, **policy), gate(losses, times, worth=0.2, **policy)

    assert (believed.promoted, doubted.promoted) == (True, False)
    assert doubted.expected == pytest.approx(0.2 * believed.expected)
    assert "Earlier gains were worth 50%" in gate(losses, times, worth=0.5).reason
