"""A ranker: it learns who is chosen from a set, is honest about it, and the same picks give the same bytes."""

import numpy as np
import pytest

from closedloop.models import artefact, ranker
from closedloop.models.heads import Ranker, ranker_shapes
from closedloop.models.ranker import Picks, Recipe

D = 12
LINEAR = (Recipe("linear", l2=1.0), Recipe("linear", l2=1 / 16))
MLP = (Recipe("mlp", l2=1 / 4),)
TASTE = np.random.default_rng(99).standard_normal(D)


def picks(n: int, strength: float = 4.0, seed: int = 0, taste: np.ndarray = TASTE) -> Picks:
    """Sets of two to four pictures, in each of which a taste with some whim chooses."""
    chance = np.random.default_rng(seed)
    sizes = chance.integers(2, 5, n)
    ends = sizes.cumsum()
    inputs = chance.standard_normal((int(ends[-1]), D)).astype(np.float32)
    inputs /= np.linalg.norm(inputs, axis=1, keepdims=True)
    liking = strength * inputs @ taste + chance.gumbel(size=len(inputs))
    sets = [np.arange(end - size, end) for size, end in zip(sizes, ends, strict=True)]
    return Picks(inputs, sets, np.array([int(liking[members].argmax()) for members in sets]))


def fit(of: Picks, offered=LINEAR, **more) -> ranker.Fitted:
    groups = more.pop("groups", np.arange(len(of.sets)))
    return ranker.fit(of.inputs, of.sets, of.chosen, groups, offered=offered, **more)


def right(chances: list[np.ndarray], of: Picks) -> float:
    return float(np.mean([said.argmax() == choice for said, choice in zip(chances, of.chosen, strict=True)]))


def test_what_is_said_out_of_fold_is_how_good_it_is_on_sets_never_seen():
    known, fresh = picks(300), picks(2000, seed=7)
    fitted = fit(known)
    unseen = right([fitted.head.chances(fresh.inputs[members]) for members in fresh.sets], fresh)
    assert 0.6 < unseen < 0.97  # neither trivial nor hopeless, else this shows nothing
    assert abs(right(fitted.out_of_fold, known) - unseen) < 0.08
    assert [len(said) for said in fitted.out_of_fold] == [len(members) for members in known.sets]
    assert [said.sum() for said in fitted.out_of_fold] == pytest.approx([1.0] * 300)


def test_confidence_is_how_often_the_suggested_one_is_chosen():
    known, fresh = picks(600, strength=1.0), picks(4000, strength=1.0, seed=7)
    head = fit(known).head
    said = [head.chances(fresh.inputs[members]) for members in fresh.sets]
    assert np.mean([chances.max() for chances in said]) == pytest.approx(right(said, fresh), abs=0.04)


def test_whims_are_not_flattered():
    known = picks(150, strength=0.0)
    by_chance = np.mean([1 / len(members) for members in known.sets])
    fitted = fit(known)
    assert right(fitted.out_of_fold, known) < by_chance + 0.14  # three standard deviations
    assert np.mean([said.max() for said in fitted.out_of_fold]) < by_chance + 0.14


def test_the_same_picks_give_the_same_bytes_and_others_do_not():
    known = picks(30)
    for offered in (LINEAR, MLP):
        made = [artefact.weights_bytes(fit(known, offered).head) for _ in range(2)]
        assert made[0] == made[1]
        others = Picks(known.inputs, known.sets, (known.chosen + 1) % 2)
        assert artefact.weights_bytes(fit(others, offered).head) != made[0]


def test_what_no_line_can_tell_an_mlp_is_chosen_for_and_numpy_says_what_torch_learnt():
    chance = np.random.default_rng(3)
    inputs = chance.standard_normal((800, D)).astype(np.float32)
    sets = [np.array([row, row + 1]) for row in range(0, 800, 2)]
    liking = np.abs(inputs[:, 0])
    known = Picks(inputs, sets, np.array([int(liking[members].argmax()) for members in sets]))
    fitted = fit(known, (LINEAR[0], *MLP))
    assert fitted.recipe.kind == "mlp"
    assert fitted.recipe.epochs > 0
    assert right(fitted.out_of_fold, known) > 0.8
    assert {name: tensor.shape for name, tensor in fitted.head.tensors.items()} == ranker_shapes("mlp", D)
    assert right([fitted.head.chances(inputs[members]) for members in sets], known) > 0.8


def test_a_clearly_worse_recipe_is_tried_on_one_fold_alone():
    known = picks(400)
    seen = []
    fitted = fit(known, (LINEAR[0], Recipe("linear", l2=1e6)), progress=lambda done, of: seen.append((done, of)))
    assert [done for done, _ in seen] == [1, 2, 7, 8, 9, 10]
    assert set(fitted.losses) == {"linear l2=1", "linear l2=1e+06"}


def test_other_projects_teach_where_taste_is_the_same_and_only_there():
    known = picks(25, seed=1)
    alike, unlike = picks(300, seed=2), picks(300, seed=2, taste=-TASTE)
    assert fit(known, others=[alike]).recipe.shared
    assert not fit(known, others=[unlike]).recipe.shared
    assert not fit(known).recipe.shared
    fresh = picks(1000, seed=8)

    def reached(others: list[Picks]) -> float:
        head = fit(known, others=others).head
        return right([head.chances(fresh.inputs[members]) for members in fresh.sets], fresh)

    assert reached([alike]) > reached([]) + 0.02


def test_other_projects_copies_of_a_held_out_set_are_held_out_with_it():
    known = picks(60, strength=0.0, seed=4)  # whims: who knows the answer has seen it
    copies = Picks(known.inputs, known.sets, known.chosen, groups=np.arange(60))
    told = Picks(known.inputs, known.sets, known.chosen)  # nobody said that they are copies

    def gained(others: list[Picks]) -> float:
        losses = fit(known, LINEAR[:1], others=others).losses
        return losses["linear l2=1"] - losses["linear l2=1 shared"]

    assert gained([copies] * 3) < 0.01
    assert gained([told] * 3) > 0.05


def test_sets_of_one_group_are_never_on_both_sides():
    known = picks(90)
    groups = np.arange(90) // 3
    folds = fit(known, groups=groups).folds
    assert all(len(np.unique(folds[groups == group])) == 1 for group in range(30))
    with pytest.raises(ValueError, match="two groups"):
        fit(known, groups=np.zeros(90, dtype=int))


def test_only_the_differences_within_a_set_decide():
    head = Ranker("linear", {"weight": np.ones((1, 2), np.float32)}, temperature=2.0)
    chances = head.chances(np.array([[1, 1], [0, 0], [2, 0]], np.float32))
    assert chances == pytest.approx(np.exp([1, 0, 1]) / np.exp([1, 0, 1]).sum())
    assert head.chances(np.array([[6, 6], [5, 5], [7, 5]], np.float32)) == pytest.approx(chances)
