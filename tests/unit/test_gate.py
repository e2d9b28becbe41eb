"""The gate: its rule, and that the error it states is the error it makes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from closedloop import gate

pairs = st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60)


@given(pairs)
def test_a_candidate_passes_exactly_if_it_is_right_at_least_as_often(outcomes):
    ours, theirs = [a for a, _ in outcomes], [b for _, b in outcomes]
    verdict = gate.judge(ours, theirs, "r0001")
    assert verdict.passed == (bool(outcomes) and sum(ours) >= sum(theirs))
    assert verdict.passed == (bool(outcomes) and verdict.probability_better >= 0.5 - 1e-12)
    assert verdict.only_candidate_right - verdict.only_baseline_right == sum(ours) - sum(theirs)


@given(pairs)
def test_a_first_release_must_beat_the_commonest_class(outcomes):
    ours, theirs = [a for a, _ in outcomes], [b for _, b in outcomes]
    assert gate.judge(ours, theirs, None).passed == (sum(ours) > sum(theirs))


def test_nothing_passes_without_answers_to_compare_on():
    assert not gate.judge([], [], "r0001").passed
    assert not gate.judge([], [], None).passed


@pytest.mark.parametrize(
    ("n", "share", "difference", "strict"), [(40, 0.3, -0.05, False), (25, 0.2, -0.1, True), (60, 0.1, 0.05, False)]
)
def test_the_stated_error_is_the_simulated_one(n, share, difference, strict):
    random = np.random.default_rng(1)
    discordant = random.binomial(n, share, 40_000)
    wins = random.binomial(discordant, (share + difference) / (2 * share))
    simulated = ((wins > discordant - wins) if strict else (wins >= discordant - wins)).mean()
    assert gate.pass_probability(n, share, difference, strict) == pytest.approx(simulated, abs=0.01)


def test_a_worse_candidate_passes_less_often_the_more_answers_there_are():
    errors = [gate.pass_probability(n, 0.2, -0.05, False) for n in (20, 100, 500, 2000)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.01
