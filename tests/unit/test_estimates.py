"""The Wilson interval against published values and its own laws; the weighted estimate against known truth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from closedloop.estimates import Group, weighted_share, wilson_interval


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


@given(st.integers(1, 400), st.floats(0.01, 1), st.data())
def test_one_stratum_and_one_probability_is_wilson(n, probability, data):
    right = data.draw(st.integers(0, n))
    estimate = weighted_share({"all": n * 3}, [Group("all", probability, n, right)])
    assert estimate is not None
    assert (estimate.share, estimate.answers, estimate.pictures) == (pytest.approx(right / n), n, n * 3)
    assert (estimate.low, estimate.high) == pytest.approx(wilson_interval(right, n), abs=1e-9)


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.floats(0.01, 1), st.integers(1, 50), st.floats(0, 1)),
        min_size=1,
        max_size=9,
    ),
    st.integers(1, 1000),
    st.floats(0.1, 1),
)
def test_the_share_lies_in_its_interval_and_only_ratios_of_probabilities_count(rows, count, factor):
    groups = [Group(name, p, n, round(n * share)) for name, p, n, share in rows]
    pictures = {g.stratum: count for g in groups}
    estimate = weighted_share(pictures, groups)
    assert estimate is not None
    assert 0 <= estimate.low <= estimate.share + 1e-12
    assert estimate.share - 1e-12 <= estimate.high <= 1
    scaled = [Group(g.stratum, g.probability * factor, g.answers, g.right) for g in groups]
    again = weighted_share(pictures, reversed(scaled))
    assert again is not None
    assert (again.share, again.low, again.high) == pytest.approx(
        (estimate.share, estimate.low, estimate.high), abs=1e-9
    )


def test_without_answers_in_a_stratum_there_is_no_estimate():
    assert weighted_share({}, []) is None
    assert weighted_share({"rest": 100, "flagged": 2}, [Group("rest", 0.1, 10, 9)]) is None
    assert weighted_share({"rest": 100, "flagged": 0}, [Group("rest", 0.1, 10, 9)]) is not None


STRATA = ("rest", "low_confidence", "flagged")


def simulated_months(months: int, a_day: float, skill: float, answered: float):
    """Months of 30 days as groups: confidence decides how often the model is right, visitors flag what is wrong."""
    random = np.random.default_rng(5)
    for _ in range(months):
        day = np.repeat(np.arange(30), np.maximum(random.poisson(a_day, 30), 1))
        confidence = random.beta(5, 1.6, len(day))
        right = random.random(len(day)) < np.minimum(confidence * skill, 1)
        flagged = random.random(len(day)) < np.where(right, 0.01, 0.3)
        stratum = np.where(flagged, 2, np.where(confidence < 0.6, 1, 0))
        order = np.lexsort((random.random(len(day)), day))  # each day's pictures, shuffled: the first ones are drawn
        per_day = np.bincount(day)
        size = np.minimum(per_day, np.maximum(10, np.ceil(0.02 * per_day)))
        place = np.arange(len(day)) - (np.cumsum(per_day) - per_day)[day]
        drawn = np.zeros(len(day), dtype=bool)
        drawn[order] = place < size[day]
        yield right, stratum, drawn, day, size / per_day, random.random(len(day)) < answered


def grouped(right, known, stratum, day, per_day):
    """The known answers as groups: the rest by day, since each day has its own probability."""
    rest = known & (stratum == 0)
    answers = np.bincount(day[rest], minlength=30)
    hits = np.bincount(day[rest], weights=right[rest], minlength=30)
    groups = [Group("rest", *row) for row in zip(per_day.tolist(), answers.tolist(), hits.tolist(), strict=True)]
    for number, name in enumerate(STRATA[1:], 1):
        of = known & (stratum == number)
        groups.append(Group(name, 1.0, int(of.sum()), int(right[of].sum())))
    return groups


@pytest.mark.parametrize(("a_day", "skill", "answered"), [(100, 0.9, 0.9), (20, 1.2, 0.6)])
def test_a_thousand_months_are_covered_and_the_other_queues_narrow_the_interval(a_day, skill, answered):
    (right, *_) = next(simulated_months(1, 40_000, skill, answered))
    truth = right.mean()
    covered, widths, narrower = 0, 0.0, 0.0
    for right, stratum, drawn, day, per_day, answer in simulated_months(1000, a_day, skill, answered):
        pictures = {name: int((stratum == number).sum()) for number, name in enumerate(STRATA)}
        both = weighted_share(pictures, grouped(right, ((stratum > 0) | drawn) & answer, stratum, day, per_day))
        sample = weighted_share({"rest": len(right)}, grouped(right, drawn & answer, 0 * stratum, day, per_day))
        assert both is not None
        assert sample is not None
        covered += both.low <= truth <= both.high
        narrower += both.high - both.low
        widths += sample.high - sample.low
    assert 930 <= covered <= 970
    assert narrower < 0.9 * widths
    print(f"covered {covered} of 1000; width {narrower / 1000:.3f}, from the random sample alone {widths / 1000:.3f}")
