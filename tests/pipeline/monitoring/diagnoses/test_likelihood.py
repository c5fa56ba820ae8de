import numpy as np
import pytest

from pipeline.monitoring.diagnoses.likelihood import sampling_distance


def test_shares_of_two_samples_differ_by_as_much_as_simulated():
    random = np.random.default_rng(0)
    shares = random.dirichlet(np.ones(50))
    one, other = (
        random.multinomial(500, shares, 2_000) / 500,
        random.multinomial(900, shares, 2_000) / 900,
    )
    simulated = np.abs(one - other).sum(axis=1).mean() / 2

    assert sampling_distance(shares, 500, 900) == pytest.approx(simulated, rel=0.02)
