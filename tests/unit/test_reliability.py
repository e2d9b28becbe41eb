"""How far a source of labels can be trusted, found from what sources say of the same pictures."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from closedloop import reliability
from closedloop.reliability import Reliability

CLASSES = ["cat", "dog", "owl", "fox"]


def told(rights: dict[str, float], pictures: int, seed: int = 0) -> list[dict[str, str]]:
    """What sources that are right so often say of pictures, each of two of them."""
    chance, said = random.Random(seed), []
    for _ in range(pictures):
        truth = chance.choice(CLASSES)
        of = {}
        for source in chance.sample(sorted(rights), 2):
            wrong = chance.choice([name for name in CLASSES if name != truth])
            of[source] = truth if chance.random() < rights[source] else wrong
        said.append(of)
    return said


def test_the_reliabilities_are_found_without_knowing_the_truth() -> None:
    rights = {"1": 0.95, "2": 0.9, "import": 0.85, "visitor": 0.6}
    found = reliability.measure(told(rights, 2000), 4)
    assert {source: one.right for source, one in found.items()} == pytest.approx(rights, abs=0.05)
    assert found["visitor"].compared > 500


def test_who_was_seldom_compared_is_thought_to_be_like_the_others() -> None:
    votes = [*told({"1": 0.9, "2": 0.9}, 300), {"1": "cat", "new": "dog"}, {"lonely": "cat"}]
    found = reliability.measure(votes, 4)
    assert found["new"].right == pytest.approx(found["1"].right, abs=0.12)
    assert (found["lonely"].right, found["lonely"].compared) == (pytest.approx(0.9, abs=0.05), 0)


def test_two_who_agree_are_trusted_more_than_one_and_two_who_differ_less() -> None:
    known = {"a": Reliability(0.9, 50), "b": Reliability(0.7, 50)}
    one = reliability.trust({"a": "cat"}, "cat", known, 4)
    assert one == pytest.approx(0.9)
    assert reliability.trust({"a": "cat", "b": "cat"}, "cat", known, 4) > one
    assert reliability.trust({"a": "cat", "b": "dog"}, "cat", known, 4) < one
    assert reliability.trust({"a": "cat"}, "dog", known, 4) == 0


@given(
    st.lists(st.dictionaries(st.sampled_from("abc"), st.sampled_from(CLASSES), min_size=1), max_size=30),
)
def test_a_reliability_is_a_probability(votes: list[dict[str, str]]) -> None:
    found = reliability.measure(votes, 4)
    assert all(0 < one.right < 1 for one in found.values())
    for of in votes:
        total = sum(reliability.trust(of, label, found, 4) for label in set(of.values()))
        assert 0 < total <= 1 + 1e-9
