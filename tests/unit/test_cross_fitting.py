"""Folds, the race of recipes, and that no answer is flattered."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from closedloop.models import cross_fitting
from closedloop.models.cross_fitting import Answered


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 15)), min_size=2, max_size=80))
def test_a_group_never_stands_on_both_sides_of_a_split(pairs):
    labels, groups = (np.array(column) for column in zip(*pairs, strict=True))
    if len(np.unique(groups)) < 2:
        return
    folds = cross_fitting.split(groups, labels)
    for group in np.unique(groups):
        assert len(np.unique(folds[groups == group])) == 1
    assert len(np.unique(folds)) > 1


def loss(answers: np.ndarray, held: np.ndarray) -> np.ndarray:
    return answers


def test_a_fold_is_answered_by_the_recipe_that_is_best_on_the_others():
    folds = np.array([0, 1, 2, 2, 1, 0])
    good_for = {"a": np.array([1, 9, 5, 5, 9, 1.0]), "b": np.array([4, 4, 4, 4, 4, 4.0])}

    def answer(recipe: str, learnt: np.ndarray, held: np.ndarray) -> Answered:
        assert not set(folds[learnt]) & set(folds[held])
        return Answered(good_for[recipe][held], epochs=2 * (int(folds[held[0]]) + 1))

    found = cross_fitting.cross_fit(["a", "b"], folds, answer, loss)
    assert found.best == "b"
    # Fold 0 is where `a` is good, and does not choose it; without fold 1, where it is bad, `a` looks better.
    assert [recipe for _, recipe in found.chosen()] == ["b", "a", "b"]
    assert (found.answers["a"] == good_for["a"]).all()
    assert found.epochs == {"a": 4, "b": 4}
    assert found.mean_losses == {"a": 5.0, "b": 4.0}
    weighed = cross_fitting.cross_fit(["a", "b"], folds, answer, loss, np.array([9, 1, 1, 1, 1, 9.0]))
    assert weighed.best == "a"


def test_what_is_clearly_worse_on_the_first_fold_is_tried_no_further_and_what_may_be_level_is():
    folds = np.repeat([0, 1, 2], 50)
    chance = np.random.default_rng(0)
    noise = chance.standard_normal(150)
    tried: dict[str, list[int]] = {"best": [], "level": [], "worse": []}
    made = {"best": np.zeros(150), "level": 0.1 + noise, "worse": 1.0 + noise}

    def answer(recipe: str, learnt: np.ndarray, held: np.ndarray) -> Answered:
        tried[recipe].append(int(folds[held[0]]))
        return Answered(made[recipe][held])

    seen = []
    found = cross_fitting.cross_fit(list(made), folds, answer, loss, progress=lambda done, of: seen.append((done, of)))
    assert tried == {"best": [0, 1, 2], "level": [0, 1, 2], "worse": [0]}
    assert set(found.answers) == {"best", "level"}
    assert found.mean_losses["worse"] == pytest.approx(made["worse"][:50].mean())
    assert seen[-1] == (9, 9)


def test_whole_groups_are_held_back_and_one_group_alone_is_not():
    groups, rows = np.arange(400) // 4, np.arange(0, 400, 2)
    learnt, held = cross_fitting.hold_back(groups, rows)
    assert sorted([*learnt, *held]) == rows.tolist()
    assert not set(groups[learnt]) & set(groups[held])
    assert len(held) == pytest.approx(len(rows) / 8, abs=2)
    assert [len(part) for part in cross_fitting.hold_back(np.zeros(5), np.arange(5))] == [5, 0]


def test_large_data_has_fewer_folds_and_one_group_none():
    assert len(np.unique(cross_fitting.split(np.arange(100)))) == 5
    assert len(np.unique(cross_fitting.split(np.arange(3000)))) == 3
    with pytest.raises(ValueError, match="two groups"):
        cross_fitting.split(np.zeros(10))
