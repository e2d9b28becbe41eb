"""The gate: its rules, and that the error it states is the error it makes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from closedloop import gate
from closedloop.project import Gate

pairs = st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60)
BETTER, NOT_WORSE = Gate(), Gate(policy="not_worse")


def outcomes(won: int, lost: int, both: int = 0) -> tuple[list[bool], list[bool]]:
    """Answers of which `won` only the candidate got right, `lost` only the baseline, `both` both."""
    return [True] * won + [False] * lost + [True] * both, [False] * won + [True] * lost + [True] * both


@given(pairs)
def test_a_first_release_must_beat_the_commonest_class(found):
    """As surely as a candidate must be better than a live release, whatever the policy."""
    ours, theirs = [a for a, _ in found], [b for _, b in found]
    verdict = gate.judge_first(ours, theirs, NOT_WORSE)
    other = gate.judge(ours, theirs, "r0001", BETTER)
    assert (verdict.passed, verdict.needed) == (other.passed, other.needed)
    assert (verdict.first, other.first, verdict.against) == (True, False, gate.COMMONEST)
    assert "always saying the commonest class" in verdict.rule


@given(pairs)
def test_what_a_person_decided_must_be_right_at_least_as_often(found):
    ours, theirs = [a for a, _ in found], [b for _, b in found]
    verdict = gate.judge_switch(ours, theirs, "e", "folds")
    assert verdict.passed == (bool(found) and sum(ours) >= sum(theirs))
    assert verdict.only_candidate_right - verdict.only_baseline_right == sum(ours) - sum(theirs)


def test_nothing_passes_without_answers_to_compare_on():
    assert not gate.judge([], [], "r0001", Gate(probability_better=0.5)).passed
    assert not gate.judge([], [], "r0001", Gate(policy="not_worse", margin=0.5)).passed
    assert not gate.judge_first([], [], BETTER).passed


def test_the_first_look_may_spend_a_quarter_of_the_error():
    """Of 0.1, 0.025: six against none come up once in 64 times where both are as good, five once in 32."""
    five, six = (gate.judge(*outcomes(won, 0, 30), "r0001", BETTER) for won in (5, 6))
    assert (five.passed, six.passed) == (False, True)
    assert (five.needed, six.needed) == (6, 6)  # of five, six are never won
    assert five.probability_better > 0.9  # sure enough once, not as one look of many
    assert "in 6 of the 6" in six.rule


def test_a_second_look_at_the_same_asks_for_more_than_a_first():
    former = []
    for count in (20, 24, 28, 32, 36):
        former.append(gate.Look(count, gate.needed(former, count, 0.1)))
    sixth = gate.judge(*outcomes(28, 12), "r0001", BETTER, former)
    assert sixth.look == 6
    assert sixth.needed > gate.needed([], 40, 0.1 * 2 * 6 / 7)  # one look that may spend as much as six together
    alone = gate.judge(*outcomes(28, 12), "r0001", BETTER)
    ten = gate.judge(*outcomes(28, 12), "r0001", BETTER, [gate.Look(n, n + 1) for n in range(30, 40)])
    assert ten.needed <= alone.needed  # looks that nothing could pass have spent nothing


@pytest.mark.parametrize("steps", [(4, 4, 4, 4, 4, 4), (20, 1, 1, 1, 1), (1, 2, 4, 8, 16, 32), (9,)])
def test_all_looks_together_spend_what_they_may_and_not_much_less(steps):
    error, former, at = 0.1, [], 0
    for step in steps:
        at += step
        former.append(gate.Look(at, gate.needed(former, at, error)))
    chance = np.random.default_rng(4)
    heads = chance.binomial(steps, 0.5, (40_000, len(steps))).cumsum(axis=1)
    passed = (heads >= [look.needed for look in former]).any(axis=1).mean()
    allowed = gate.SPENT * error * len(steps) / (len(steps) + 1)
    assert passed <= allowed + 0.005
    if at > 30:
        assert passed > allowed / 2  # a lattice cannot spend it all


def test_a_look_with_fewer_answers_than_the_one_before_counts_too():
    alone, after = gate.needed([], 20, 0.1), gate.needed([gate.Look(30, 20)], 20, 0.1)
    assert after >= alone


@given(st.integers(0, 60), st.integers(0, 60), st.lists(st.integers(0, 40), max_size=4))
def test_more_right_answers_never_hurt(won, lost, before):
    former = [gate.Look(count, count // 2 + 2) for count in before]
    for rule in (BETTER, NOT_WORSE):
        fewer = gate.judge(*outcomes(won, lost + 1, 20), "r0001", rule, former)
        more = gate.judge(*outcomes(won + 1, lost, 20), "r0001", rule, former)
        assert more.passed or not fewer.passed


@given(st.integers(0, 200), st.integers(0, 200))
def test_the_probability_of_being_better_is_the_posterior(won, lost):
    assert gate.probability_better(won, lost) == pytest.approx(stats.beta.sf(0.5, 1 + won, 1 + lost), abs=1e-9)


@pytest.mark.parametrize(("won", "lost", "n"), [(20, 10, 100), (3, 3, 40), (0, 0, 30), (50, 40, 1000)])
def test_the_bound_of_the_difference_holds_what_it_says(won, lost, n):
    """Of differences that lie at the bound, as large a one as was found comes up in about one of twenty."""
    level = 0.95
    bound = float(gate.lower_bound(won, lost, n, level))
    share = max((won + lost) / n, abs(bound), 1.5 / n)
    chance = np.random.default_rng(2)
    discordant = chance.binomial(n, share, 40_000)
    wins = chance.binomial(discordant, np.clip((share + bound) / (2 * share), 0, 1))
    assert (wins - (discordant - wins) > won - lost).mean() < 1 - level + 0.02


def test_a_candidate_that_is_as_good_passes_as_not_worse_with_enough_answers():
    assert not gate.judge(*outcomes(1, 1, 38), "r0001", NOT_WORSE).passed
    assert gate.judge(*outcomes(10, 10, 4000), "r0001", NOT_WORSE).passed
    assert not gate.judge(*outcomes(10, 200, 4000), "r0001", NOT_WORSE).passed


@pytest.mark.parametrize("rule", [BETTER, NOT_WORSE, Gate(policy="not_worse", margin=0.1)])
@pytest.mark.parametrize(("won", "lost", "both"), [(6, 6, 28), (20, 25, 300)])
def test_the_stated_error_is_the_simulated_one(rule, won, lost, both):
    verdict = gate.judge(*outcomes(won, lost, both), "r0001", rule)
    n, share = won + lost + both, (won + lost) / (won + lost + both)
    chance = np.random.default_rng(1)
    discordant = chance.binomial(n, share, 10_000)
    wins = chance.binomial(discordant, (share - gate.WORSE_BY) / (2 * share))
    passes = gate.better(rule, []) if rule.policy == "better" else gate.not_worse(rule, 1, n)
    assert verdict.passed == passes(np.array(won), np.array(lost))
    assert verdict.error == pytest.approx(passes(wins, discordant - wins).mean(), abs=0.015)


def test_the_card_says_what_was_compared_and_how():
    card = gate.judge(*outcomes(12, 2, 26), "r0001", BETTER).as_json()
    assert (card["measure"], card["candidate"], card["baseline"]) == ("accuracy", 38 / 40, 28 / 40)
    assert (card["probability_needed"], card["method"]) == (0.9, gate.METHOD)
    assert gate.judge(*outcomes(12, 2, 26), "r0001", NOT_WORSE).probability_needed is None
    assert gate.judge_first([], [], BETTER).candidate == 0


def test_a_worse_candidate_passes_less_often_the_more_answers_there_are():
    errors = [gate.judge(*outcomes(n // 10, n // 10, n - 2 * (n // 10)), "r", BETTER).error for n in (100, 500, 2000)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.001
