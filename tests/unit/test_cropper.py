"""Learning where people crop: what is there is found, what is not there is not claimed, and no fold knows its own."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from closedloop.models import artefact, cropper
from closedloop.models.crop_head import confidence, iou, shapes

SIDE, WIDTH = 5, 12


def crops(n: int, clearness: float = 1.5, seed: int = 0) -> cropper.Crops:
    """Pictures in which the cells that people keep look otherwise, by `clearness` standard deviations."""
    random = np.random.default_rng(seed)
    corner = random.uniform(0, 0.5, (n, 2))
    boxes = np.concatenate([corner, corner + random.uniform(0.25, 0.5, (n, 2))], axis=1)
    middles = (np.arange(SIDE) + 0.5) / SIDE
    across, down = ((middles > boxes[:, axis, None]) & (middles < boxes[:, axis + 2, None]) for axis in (0, 1))
    inside = down[:, :, None] & across[:, None, :]
    direction = np.eye(WIDTH)[0]
    grids = random.standard_normal((n, SIDE, SIDE, WIDTH)) + clearness * inside[..., None] * direction * 2
    grids = (grids / WIDTH**0.5).astype(np.float16)
    return cropper.Crops(grids, random.uniform(0.6, 1.6, n), random.random((n, SIDE, SIDE)), boxes)


def fitted(known: cropper.Crops, groups=None, **given):
    groups = np.arange(len(known.boxes)) if groups is None else groups
    return cropper.fit(known.grids, known.aspects, known.saliencies, known.boxes, groups, **given)


@pytest.mark.parametrize("n", [120, 450])
def test_what_is_there_is_found_and_the_out_of_fold_overlap_is_that_on_pictures_never_seen(n):
    known, fresh = crops(n), crops(400, seed=9)
    made = fitted(known)
    out_of_fold = iou(made.out_of_fold, known.boxes).mean()
    unseen, sure = made.head.propose(fresh.grids, fresh.aspects, fresh.saliencies)
    unseen = iou(unseen, fresh.boxes)
    best = max(said.mean() for said in cropper.baselines(known.boxes, made.folds).values())
    assert best + 0.15 < out_of_fold < 0.95  # neither hopeless nor trivial, else this shows nothing
    assert abs(out_of_fold - unseen.mean()) < 0.05
    assert made.losses == {"linear": pytest.approx(1 - out_of_fold)}
    # and the confidence is the overlap to expect: in the mean, and for the surer and the less sure half
    assert made.confidence.mean() == pytest.approx(out_of_fold, abs=0.01)
    for half in (sure > np.median(sure), sure <= np.median(sure)):
        assert sure[half].mean() == pytest.approx(unseen[half].mean(), abs=0.08)  # of 120 crops, 0.03 off is usual
    assert {name: tensor.shape for name, tensor in made.head.tensors.items()} == shapes(WIDTH)
    assert all(tensor.dtype == np.float32 for tensor in made.head.tensors.values())


def test_where_nothing_is_to_be_seen_it_proposes_about_the_mean_box_and_does_not_boast():
    known = crops(150, clearness=0)
    made = fitted(known)
    reached = iou(made.out_of_fold, known.boxes).mean()
    mean_box = cropper.baselines(known.boxes, made.folds)["mean box of the other folds"].mean()
    assert abs(reached - mean_box) < 0.06
    assert made.confidence.mean() == pytest.approx(reached, abs=0.02)


def test_what_stands_out_beside_blind_cells_is_learnt_from_too():
    known = crops(60, clearness=0)
    middles = (np.arange(SIDE) + 0.5) / SIDE
    across, down = (
        (middles > known.boxes[:, axis, None]) & (middles < known.boxes[:, axis + 2, None]) for axis in (0, 1)
    )
    known.saliencies[:] = 0.5 * known.saliencies + 0.5 * (down[:, :, None] & across[:, None, :])
    known.grids[:] = 0
    made = fitted(known)
    mean_box = cropper.baselines(known.boxes, made.folds)["mean box of the other folds"].mean()
    assert iou(made.out_of_fold, known.boxes).mean() > mean_box + 0.15


@pytest.mark.parametrize("n", [60, cropper.LEAST_TO_WATCH])
def test_a_folds_head_knows_nothing_of_its_fold(n):
    known = crops(n)
    one = fitted(known)
    own = one.folds == one.folds[0]
    known.boxes[own] = [0, 0, 0.2, 0.2]
    other = fitted(known)
    assert other.out_of_fold[own].tobytes() == one.out_of_fold[own].tobytes()
    assert not np.array_equal(other.out_of_fold[~own], one.out_of_fold[~own])


def test_watching_tells_a_fold_nothing_of_its_own_crops_and_the_final_head_learns_from_all():
    n = cropper.LEAST_TO_WATCH
    known, of_fold = crops(n), np.arange(n)[:, None] % 3 == np.arange(3)
    watched, recipe = np.arange(n) % 8 == 0, replace(cropper.recipe_for(n), epochs=20)
    heads = cropper.SideBySide(known, of_fold, watched, recipe, 1)
    learnt = heads.learn(None)
    assert 1 <= learnt.epochs < recipe.epochs
    with torch.no_grad():
        before = heads._watched_misses().numpy()
        heads._boxes[np.flatnonzero(of_fold[:, 0])] = torch.tensor([0, 0, 0.2, 0.2])
        after = heads._watched_misses().numpy()
    assert (before != after).tolist() == [False, True, True]
    unwatched = cropper.SideBySide(crops(n), of_fold, np.zeros(n, dtype=bool), replace(recipe, epochs=learnt.epochs), 1)
    unwatched.learn(None)
    final, same = (made.head(-1, np.zeros(3)).tensors["weight"] for made in (heads, unwatched))
    assert final.tobytes() == same.tobytes()
    fold, other = (made.head(0, np.zeros(3)).tensors["weight"] for made in (heads, unwatched))
    assert not np.array_equal(fold, other)


def test_near_identical_pictures_share_a_fold_and_two_groups_are_needed():
    groups = np.arange(40) // 4
    made = fitted(crops(40), groups)
    assert all(len(np.unique(made.folds[groups == group])) == 1 for group in groups)
    assert len(fitted(crops(2)).confidence) == 2
    with pytest.raises(ValueError, match="two groups"):
        fitted(crops(6), np.zeros(6))


def test_the_same_crops_give_the_same_bytes_and_others_do_not():
    made = [artefact.weights_bytes(fitted(crops(40)).head) for _ in range(2)]
    assert made[0] == made[1]
    assert artefact.weights_bytes(fitted(crops(40, seed=1)).head) != made[0]


def test_what_is_learnt_with_is_what_answers():
    known = crops(30)
    of_fold = np.arange(30)[:, None] % 2 == np.arange(2)
    heads = cropper.SideBySide(known, of_fold, np.zeros(30, dtype=bool), cropper.recipe_for(30), 1)
    heads.learn(None)
    while_learning = heads._propose(torch.arange(30), heads._all).detach().numpy()
    for row in range(3):
        answered, _ = heads.head(row, np.zeros(3)).believe(known.grids, known.aspects, known.saliencies)
        np.testing.assert_allclose(while_learning[:, row], answered, atol=1e-4)


def test_of_many_crops_a_step_looks_at_the_boxes_between_some_lines():
    n, side = cropper.LEAST_TO_WATCH, 14
    known = cropper.Crops(np.zeros((n, side, side, 1)), np.ones(n), np.zeros((n, side, side)), np.full((n, 4), 0.5))
    nobody = np.zeros((n, 1), dtype=bool)
    heads = cropper.SideBySide(known, nobody, nobody[:, 0], cropper.recipe_for(n), 1)
    seen = [heads._some() for _ in range(50)]
    lines = cropper.INNER_LINES + 2
    for boxes in seen:
        assert boxes.areas.shape == (lines * (lines - 1) // 2,) * 2
        assert len(np.unique(boxes.edges)) == lines
        assert boxes.areas.max() == side**2  # the whole picture is always one of them
        np.testing.assert_allclose(boxes.inside.sum(dim=1), (boxes.edges @ torch.tensor([-1.0, 1.0])) * side, atol=1e-5)
    assert len(np.unique(np.concatenate([boxes.edges.flatten() for boxes in seen]))) == side + 1  # each has its turn
    few = cropper.SideBySide(known, nobody, nobody[:, 0], cropper.recipe_for(n - 1), 1)
    assert few._some() is few._all


def test_confidence_is_fitted_on_the_fair_crops_where_there_are_enough():
    known = crops(200)
    hard = np.arange(200) >= 100
    known.boxes[hard] = crops(100, seed=5).boxes
    for_all, for_fair = fitted(known), fitted(known, fair=~hard)
    fair_overlap = iou(for_fair.out_of_fold, known.boxes)[~hard].mean()
    assert for_fair.confidence[~hard].mean() == pytest.approx(fair_overlap, abs=0.02)
    assert for_all.confidence[~hard].mean() < fair_overlap - 0.05
    fresh = crops(100, seed=7)
    _, fair_sure = for_fair.head.propose(fresh.grids, fresh.aspects, fresh.saliencies)
    _, all_sure = for_all.head.propose(fresh.grids, fresh.aspects, fresh.saliencies)
    assert fair_sure.mean() > all_sure.mean() + 0.05


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(-7, 0), st.floats(0, 1)), min_size=2, max_size=60),
    st.sampled_from([1.0, 1e-3]),
)
def test_the_mean_of_the_confidence_is_the_mean_overlap(rows, scale):
    signs, overlaps = np.array(rows)[:, :2] * scale, np.array(rows)[:, 2]
    said = confidence(cropper.fit_confidence(signs, overlaps), signs)
    assert said.mean() == pytest.approx(overlaps.mean(), abs=2e-3)  # overlaps near 0 and 1 are taken a little inwards


def test_baselines_are_what_they_say():
    boxes = np.array([[0.1, 0.1, 0.9, 0.9], [0, 0, 1, 1], [0, 0, 0.5, 1]])
    found = cropper.baselines(boxes, np.array([0, 1, 1]))
    assert found["whole picture"] == pytest.approx([0.64, 1, 0.5])
    assert found["centred 0.8 box"] == pytest.approx([1, 0.64, 0.32 / 0.82])
    assert found["mean box of the other folds"][1] == pytest.approx(0.64)
    assert found["mean box of the other folds"][0] == pytest.approx(iou(boxes[:1], np.array([[0, 0, 0.75, 1]]))[0])


def test_the_work_grows_with_the_crops():
    passes = [
        (n, recipe.batch, recipe.epochs) for n in (10, 115, 320, 1280, 7194) for recipe in [cropper.recipe_for(n)]
    ]
    assert passes == [(10, 16, 160), (115, 16, 20), (320, 16, 8), (1280, 64, 8), (7194, 64, 8)]


@pytest.mark.parametrize(
    ("misses", "kept"), [([3.0], (0, True)), ([3, 2, 2.5, 2.1], (1, False)), ([3, 2, 2.5, 1, 2], (3, True))]
)
def test_fitting_stops_after_two_epochs_that_were_no_better(misses, kept):
    assert cropper.best_epoch(misses) == kept
