"""The gate for graded answers: its rules, that it agrees with the gate of right and wrong, and its errors."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from closedloop import gate, graded_gate
from closedloop.graded_gate import OVERLAP
from closedloop.project import Gate

BETTER, NOT_WORSE = Gate(), Gate(policy="not_worse")
graded = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=40)


def judge(ours, theirs, rule=BETTER, looks=0, groups=None) -> gate.Verdict:
    return graded_gate.judge(np.array(ours), np.array(theirs), "r0001", rule, looks, OVERLAP, "random sample", groups)


def sides(differences) -> tuple[np.ndarray, np.ndarray]:
    """Answers of both sides that differ by so much."""
    return (1 + np.array(differences)) / 2, (1 - np.array(differences)) / 2


def split(found) -> tuple[np.ndarray, np.ndarray]:
    return np.array([a for a, _ in found]), np.array([b for _, b in found])


@given(graded)
@settings(max_examples=40)
def test_a_first_release_must_beat_every_baseline(found):
    """As surely as a candidate must be better than a live release, whatever the policy."""
    ours, theirs = split(found)
    baselines = {"whole picture": theirs, "nothing": theirs * 0}
    for looks in (0, 3):
        verdict = graded_gate.judge_first(ours, baselines, NOT_WORSE, looks, OVERLAP, "all answers")
        other = graded_gate.judge(ours, theirs, "r0001", Gate(), looks, OVERLAP, "all answers")
        assert (verdict.passed, verdict.look) == (other.passed, looks + 1)
        assert verdict.probability_needed == other.probability_needed
        assert (verdict.first, other.first) == (True, False)
        assert "every baseline" in verdict.rule


def test_a_first_release_is_compared_with_the_best_baseline_and_says_them_all():
    baselines = {"whole picture": np.full(40, 0.4), "mean box": np.full(40, 0.6), "centred box": np.full(40, 0.5)}
    verdict = graded_gate.judge_first(np.full(40, 0.55), baselines, Gate(), 0, OVERLAP, "all answers")
    assert (verdict.passed, verdict.against, verdict.candidate) == (False, "mean box", pytest.approx(0.55))
    said = "mean overlap (IoU) 0.550, whole picture 0.400, mean box 0.600, centred box 0.500, on 40 answers"
    assert verdict.reason == f"refused: {said} (all answers)"
    assert graded_gate.judge_first(np.full(40, 0.7), baselines, Gate(), 0, OVERLAP, "all answers").passed


@given(graded)
@settings(max_examples=40)
def test_what_a_person_decided_must_be_as_good(found):
    ours, theirs = split(found)
    verdict = graded_gate.judge_switch(ours, theirs, "e", OVERLAP, "folds")
    assert verdict.passed == (len(found) > 0 and np.mean(ours - theirs) >= -graded_gate.SAME)
    assert len(found) == 0 or graded_gate.judge_switch(ours, ours, "e", OVERLAP, "folds").passed


@pytest.mark.parametrize("rule", [Gate(probability_better=0.5), Gate(policy="not_worse", margin=0.5)])
def test_nothing_passes_with_fewer_than_a_handful(rule):
    for n in range(graded_gate.LEAST):
        assert not judge(*sides([1.0] * n), rule).passed
    assert not judge([], []).passed
    assert judge(*sides([1.0] * graded_gate.LEAST), rule).passed


def test_answers_that_do_not_differ_show_no_gain():
    few = judge(*sides([1.0] * 5 + [0.0] * 500))
    assert not few.passed
    assert "only 5 differ, 6 must" in few.reason
    assert judge(*sides([1.0] * 6 + [0.0] * 500)).passed


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 20))
@settings(max_examples=40)
def test_of_right_and_wrong_answers_it_says_what_the_other_gate_says(won, lost, both):
    """The exact test of one win more is the mid-p test of what was found, so they differ by one answer at most."""
    verdict = judge(*sides([1.0] * won + [-1.0] * lost + [0.0] * both))
    assert verdict.probability_better == pytest.approx(float(gate.probability_better(won, lost)), abs=1e-7)
    asked = gate.needed([], won + lost + 1, 0.1) - 1
    assert verdict.passed == (won >= asked and won + lost >= graded_gate.LEAST)


@pytest.mark.parametrize(("won", "lost", "both"), [(10, 10, 380), (60, 40, 100), (0, 0, 40), (3, 5, 92)])
def test_the_bound_is_near_that_of_the_other_gate(won, lost, both):
    verdict = judge(*sides([1.0] * won + [-1.0] * lost + [0.0] * both), NOT_WORSE)
    other = gate.lower_bound(won, lost, won + lost + both, graded_gate.bound_level(1))
    assert verdict.difference_above == pytest.approx(float(other), abs=0.03)


@given(graded, st.floats(0, 1))
@settings(max_examples=40)
def test_adding_the_same_to_both_changes_nothing(found, more):
    ours, theirs = split(found)
    ours, theirs = ours / 2, theirs / 2
    for rule in (BETTER, NOT_WORSE):
        before, after = judge(ours, theirs, rule), judge(ours + more / 2, theirs + more / 2, rule)
        assert after.passed == before.passed
        assert after.probability_better == pytest.approx(before.probability_better, abs=1e-6)
        assert after.difference_above == pytest.approx(before.difference_above, abs=1e-5)


@given(graded)
@settings(max_examples=40)
def test_swapping_the_sides_mirrors_the_probability(found):
    ours, theirs = split(found)
    one, other = judge(ours, theirs), judge(theirs, ours)
    assert one.probability_better + other.probability_better == pytest.approx(1, abs=1e-7)
    assert one.difference == -other.difference
    assert (one.candidate, one.baseline) == (other.baseline, other.candidate)
    assert not (one.passed and other.passed)


@given(graded, st.integers(0, 30), st.integers(0, 30), st.sampled_from([BETTER, NOT_WORSE]))
@settings(max_examples=40)
def test_more_looks_never_make_it_easier(found, looks, more, rule):
    ours, theirs = split(found)
    early, late = judge(ours, theirs, rule, looks), judge(ours, theirs, rule, looks + more)
    assert early.passed or not late.passed
    assert late.difference_above <= early.difference_above + 1e-5
    assert late.error <= early.error
    assert late.look == looks + more + 1


def test_all_looks_together_spend_half_of_the_error_and_the_bounds_all_of_theirs():
    sure = [graded_gate.needed(BETTER, look) for look in range(1, 2001)]
    assert sure[0] == 0.975
    assert sum(1 - each for each in sure) == pytest.approx(0.05, rel=1e-3)
    assert sum(1 - graded_gate.bound_level(look) for look in range(1, 2001)) == pytest.approx(0.05, rel=1e-3)


def test_later_looks_ask_for_more():
    ours, theirs = sides([0.2, 0.1, -0.05, 0.3] * 12)
    first, tenth = judge(ours, theirs), judge(ours, theirs, looks=9)
    assert (first.passed, tenth.passed) == (True, False)
    assert first.probability_needed < first.probability_better < tenth.probability_needed
    assert first.probability_better == tenth.probability_better


@given(st.lists(st.floats(-0.9, 0.9), min_size=1, max_size=30), st.floats(0, 0.1))
@settings(max_examples=40)
def test_better_answers_never_hurt(differences, more):
    fewer, better = (judge(*sides(np.array(differences) + by)) for by in (0.0, more))
    assert better.probability_better >= fewer.probability_better - 1e-7
    assert better.difference_above >= fewer.difference_above - 1e-5


@pytest.mark.parametrize("n", [6, 10, 20, 60])
@pytest.mark.parametrize(
    ("gain", "loss"), [(0.05, 0.45), (0.05, 0.95), (0.2, 0.2), (1.0, 1.0), (0.3, 0.1), (1 / 3, 2 / 3)]
)
def test_of_few_answers_a_candidate_that_is_no_better_seldom_passes(n, gain, loss):
    """A gain often and a loss seldom: without the prior, 59 of 100 passed with five answers, 34 with ten."""
    share = loss / (gain + loss)  # of gains, for a mean of 0
    passed = [judge(*sides([gain] * k + [-loss] * (n - k))).passed for k in range(n + 1)]
    assert stats.binom.pmf(np.arange(n + 1), n, share) @ passed <= 0.03  # 0.025 may be spent; mid-p, so not exactly


@pytest.mark.parametrize(
    ("rule", "n", "spread"),
    [
        (Gate(probability_better=0.5), 60, 0.5),
        (Gate(policy="not_worse", margin=0.2), 60, 0.4),
        (Gate(policy="not_worse", margin=0.1), 200, 0.2),
    ],
)
def test_the_stated_error_is_the_simulated_one(rule, n, spread):
    chance = np.random.default_rng(1)
    draws = [np.clip(chance.normal(-gate.WORSE_BY, spread, n), -1, 1) for _ in range(120)]
    verdicts = [judge(*sides(draw), rule) for draw in draws]
    passed = np.mean([verdict.passed for verdict in verdicts])
    assert 0.02 < passed < 0.98  # else it would show nothing
    assert np.mean([verdict.error for verdict in verdicts]) == pytest.approx(passed, abs=0.07)


def test_a_candidate_that_is_as_good_passes_as_not_worse_with_enough_answers():
    chance = np.random.default_rng(2)
    draws = chance.uniform(-0.2, 0.2, 4000)
    draws -= draws.mean()
    assert not judge(*sides(draws[:40]), NOT_WORSE).passed
    assert judge(*sides(draws), NOT_WORSE).passed
    assert not judge(*sides(draws - 0.02), NOT_WORSE).passed
    assert not judge(*sides(draws)).passed


def test_near_identical_pictures_count_once():
    ours, theirs = sides([0.5] * 60)
    assert judge(ours, theirs).passed
    together = judge(ours, theirs, groups=np.arange(60) // 12)
    assert not together.passed
    assert "only 5 differ" in together.reason
    ours, theirs = sides([0.3, 0.2, -0.05, 0.4, 0.1, 0.3] * 10)
    alone, together = judge(ours, theirs), judge(ours, theirs, groups=np.tile(np.arange(6), 10))
    assert (alone.passed, together.passed) == (True, False)
    assert alone.probability_better > together.probability_better
    assert alone.difference_above > together.difference_above


def test_the_stated_error_is_of_the_spread_that_was_found_and_not_of_the_difference():
    differences = np.random.default_rng(3).normal(0, 0.2, 60).clip(-0.5, 0.5)
    rule = Gate(probability_better=0.5)
    as_good, better = judge(*sides(differences), rule), judge(*sides(differences + 0.4), rule)
    assert better.error == pytest.approx(as_good.error, rel=1e-6)
    assert judge(*sides(differences / 10), rule).error < as_good.error


def test_the_verdict_says_all_of_it_on_the_card():
    card = judge(*sides([0.2, -0.1, 0.1] * 10)).as_json()
    assert json.loads(json.dumps(card)) == card
    assert (card["measure"], card["answers"], card["needed"]) == (OVERLAP, 30, None)
    assert card["right_candidate"] is card["only_baseline_right"] is None
    assert card["candidate"] - card["baseline"] == pytest.approx(card["difference"])
    assert "Rubin 1981" in card["method"]
    assert card["reason"].startswith("refused: mean overlap (IoU) 0.533, r0001 0.467, on 30 answers (random sample)")


@pytest.mark.parametrize(
    ("ours", "theirs", "groups"),
    [
        ([0.5], [0.5, 0.5], None),
        ([1.1], [0.5], None),
        ([0.5], [-0.1], None),
        ([np.nan], [0.5], None),
        ([0.5], [0.5], [1, 2]),
    ],
)
def test_answers_that_do_not_fit_are_refused(ours, theirs, groups):
    with pytest.raises(ValueError, match="answer"):
        judge(ours, theirs, groups=groups)


def test_baselines_of_other_answers_are_refused():
    with pytest.raises(ValueError, match="every baseline"):
        graded_gate.judge_first(
            np.full(3, 0.5), {"a": np.full(3, 0.4), "b": np.full(2, 0.1)}, Gate(), 0, OVERLAP, "all answers"
        )


def test_the_same_answers_give_the_same_verdict():
    ours, theirs = np.random.default_rng(7).random((2, 500))
    assert judge(ours, theirs) == judge(ours.copy(), theirs.copy())
