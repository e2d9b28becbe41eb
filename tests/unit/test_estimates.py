"""The Wilson interval against published values and its own laws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from closedloop.estimates import wilson_interval


def test_known_values():
    # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson_interval(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


@given(st.integers(0, 500), st.data())
def test_it_holds_the_share_and_mirrors(n, data):
    right = data.draw(st.integers(0, n))
    low, high = wilson_interval(right, n)
    assert 0 <= low <= (right / n if n else 0) <= high <= 1 or n == 0
    mirrored = wilson_interval(n - right, n)
    assert (1 - mirrored[1], 1 - mirrored[0]) == pytest.approx((low, high), abs=1e-9)


def test_it_covers_as_often_as_it_says():
    random = np.random.default_rng(0)
    for share in (0.5, 0.7, 0.9):
        intervals = [wilson_interval(int(k), 100) for k in random.binomial(100, share, 4000)]
        covered = np.mean([low <= share <= high for low, high in intervals])
        assert 0.93 < covered < 0.97
