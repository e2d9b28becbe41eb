"""What is known of a mean: against closed forms, and against drawing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from closedloop.bayesian_bootstrap import Mean

PRIOR = (-1.0, 1.0)
found = st.lists(st.floats(-1, 1, allow_subnormal=False), max_size=30).map(np.array)


@given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 50))
def test_of_right_and_wrong_it_is_the_beta_distribution(won, lost, both):
    values = np.repeat([1.0, -1.0, 0.0], [won, lost, both])
    expected = stats.beta.cdf(0.5, 1 + won, 1 + lost)
    assert Mean.of(values, prior=PRIOR).chance_below(0) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("gain", "n"), [(0.05, 20), (0.05, 400), (0.001, 10_000), (0.9, 3), (0.3, 0)])
def test_of_one_gain_again_and_again_it_is_known_exactly(gain, n):
    """Two exponential variables, the one above the other by `gain` times a Gamma variable."""
    below = Mean.of(np.full(n, gain), prior=PRIOR).chance_below(0)
    assert below == pytest.approx((1 + gain) ** -n / 2, rel=1e-5)


@pytest.mark.parametrize("groups", [np.arange(30), np.arange(30) // 4, np.arange(30) % 7])
def test_it_is_what_drawing_comes_to(groups):
    chance = np.random.default_rng(3)
    values = np.clip(chance.normal(0.05, 0.3, 30), -1, 1)
    weights = chance.exponential(size=(40_000, groups.max() + 1))[:, groups]
    drawn = chance.exponential(size=(40_000, 2)) * (np.bincount(groups) ** 2).sum() / 30
    means = (weights @ values + drawn @ PRIOR) / (weights.sum(axis=1) + drawn.sum(axis=1))
    mean = Mean.of(values, groups, PRIOR)
    for limit in (-0.1, 0.0, 0.05, 0.2):
        assert mean.chance_below(limit) == pytest.approx((means < limit).mean(), abs=0.012)
    assert mean.lower_bound(0.95) == pytest.approx(np.quantile(means, 0.05), abs=0.008)


@given(found, st.floats(-0.99, 0.99))
def test_the_other_way_round_it_is_the_other_way_round(values, limit):
    mean, mirrored = Mean.of(values, prior=PRIOR), Mean.of(-values, prior=PRIOR)
    assert mean.chance_below(limit) + mirrored.chance_below(-limit) == pytest.approx(1, abs=1e-7)


@given(found, st.floats(0.5, 0.9999))
def test_the_mean_is_above_its_bound_with_that_probability(values, level):
    mean = Mean.of(values, prior=PRIOR)
    assert mean.chance_below(mean.lower_bound(level) + 2e-6) >= (1 - level) * (1 - 1e-5)
    assert mean.chance_below(mean.lower_bound(level) - 2e-6) <= (1 - level) * (1 + 1e-5)


@given(found, st.floats(-0.9, 0.9), st.floats(0, 0.5))
def test_a_higher_limit_is_no_less_probable(values, limit, more):
    mean = Mean.of(values, prior=PRIOR)
    assert mean.chance_below(min(0.99, limit + more)) >= mean.chance_below(limit) - 1e-7


@pytest.mark.parametrize(
    ("values", "counts"),
    [
        ([1.0, 1e-4, -1.0], [1, 500, 6]),  # hardly anything that adds up, against the rest
        ([1.0, -1e-4, -0.9], [1, 5000, 1]),
        ([0.98, -0.02, -1.02], [1, 400, 1]),
        ([1.0, 0.05, -0.45, -1.0], [1, 90, 14, 1]),
        ([0.9, 1e-3, -1e-2, -1.1], [3, 4000, 600, 2]),
    ],
)
def test_it_is_what_a_fine_sum_along_a_straight_line_comes_to(values, counts):
    """Gil-Pelaez 1951, by Davies's rule (1973): its error is the chance of a sum beyond 2 pi / step."""
    values, counts = np.array(values), np.array(counts, dtype=float)
    step = 2 * np.pi / (40 * np.abs(values).max() + 20 * np.sqrt(counts @ values**2) + abs(counts @ values))
    at = (np.arange(120_000) + 0.5) * step
    phase = sum(n * np.arctan(a * at) for a, n in zip(values, counts, strict=True))
    size = sum(n * np.log1p((a * at) ** 2) / 2 for a, n in zip(values, counts, strict=True))
    expected = 0.5 + (np.sin(phase) * np.exp(-size) / at).sum() * step / np.pi
    assert Mean(-values, np.ones(len(values)), counts).chance_below(0) == pytest.approx(expected, abs=2e-6)


@given(found, st.integers(1, 5), st.floats(-0.9, 0.9))
def test_pictures_that_are_drawn_together_count_as_one(values, times, limit):
    one, many = (
        Mean.of(values, prior=PRIOR),
        Mean.of(np.tile(values, times), np.tile(np.arange(len(values)), times), PRIOR),
    )
    assert many.chance_below(limit) == pytest.approx(one.chance_below(limit), abs=1e-6)
    assert many.lower_bound(0.95) == pytest.approx(one.lower_bound(0.95), abs=1e-5)


def test_where_nothing_differs_nothing_is_known():
    assert Mean.of(np.zeros(7)).chance_below(0) == 0.5
    assert Mean.of(np.zeros(7)).lower_bound(0.95) == 0
    assert Mean.of(np.array([]), prior=PRIOR).lower_bound(0.975) == pytest.approx(
        -0.95, abs=1e-5
    )  # evenly from -1 to 1
