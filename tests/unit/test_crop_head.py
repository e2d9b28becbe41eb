"""Whatever the weights, a proposal is a box; a clear map is read as the box that it shows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from closedloop.models.crop_head import EXTRAS, Cropper, extras, iou, lattice, read_out, shapes

edges = st.floats(0, 1, allow_subnormal=False)
any_boxes = st.lists(st.tuples(edges, edges, edges, edges), min_size=1, max_size=10).map(
    lambda rows: np.array([[min(a, c), min(b, d), max(a, c), max(b, d)] for a, b, c, d in rows])
)


def cropper(seed: int, width: int, size: float) -> Cropper:
    random = np.random.default_rng(seed)
    made = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes(width).items()}
    return Cropper({name: (tensor * np.float32(size)) for name, tensor in made.items()})


@settings(deadline=None)
@given(st.integers(0, 2**20), st.integers(1, 7), st.sampled_from([1e-3, 1.0, 100.0, 1e37]), st.floats(0.01, 100))
def test_a_proposal_is_always_a_box(seed, side, size, aspect):
    random = np.random.default_rng(seed)
    grids = random.standard_normal((3, side, side, 5)).astype(np.float16)
    boxes, sure = cropper(seed, 5, size).propose(grids, np.full(3, aspect), random.random((3, side, side)))
    assert boxes.shape == (3, 4)
    assert boxes.dtype == np.float64
    assert ((boxes >= 0) & (boxes <= 1)).all()
    assert (boxes[:, 2:] - boxes[:, :2] > 0.99 / side).all()  # no believed box is narrower than a cell
    assert ((sure >= 0) & (sure <= 1)).all()


@pytest.mark.parametrize("side", [7, 14])
def test_a_clear_map_is_read_as_the_box_that_it_shows(side):
    truth = np.array([[1, 2, 4, 6], [0, 0, side, side], [side - 1, 0, side, 1], [2, 1, 3, side]])
    chances = np.zeros((len(truth), side, side))
    for number, (x1, y1, x2, y2) in enumerate(truth):
        chances[number, y1:y2, x1:x2] = 1
    boxes, signs = read_out(chances)
    # A box of one cell less has lost little of the overlap where boxes are large, and is believed a little too.
    np.testing.assert_allclose(boxes, truth / side, atol=0.1 / side)
    assert (signs[:, 0] > 0.99).all()
    vague = read_out(0.5 * chances + 0.2)[1]
    assert (vague[:, 0] < signs[:, 0]).all()
    assert (vague[:, 1] > signs[:, 1]).all()


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**20), st.integers(2, 8))
def test_a_mirrored_or_turned_map_has_a_mirrored_or_turned_box(seed, side):
    chances = np.random.default_rng(seed).random((1, side, side))
    boxes, signs = read_out(chances)
    x1, y1, x2, y2 = boxes[0]
    mirrored, same = read_out(chances[:, :, ::-1])
    assert mirrored[0] == pytest.approx((1 - x2, y1, 1 - x1, y2))
    assert same == pytest.approx(signs)
    assert read_out(chances.transpose(0, 2, 1))[0][0] == pytest.approx((y1, x1, y2, x2))


def test_many_pictures_are_answered_as_each_alone():
    random = np.random.default_rng(0)
    grids, aspects, saliencies = random.random((70, 3, 3, 4)), random.uniform(0.5, 2, 70), random.random((70, 3, 3))
    made = cropper(1, 4, 1.0)
    boxes, sure = made.propose(grids, aspects, saliencies)
    for n in (0, 64, 69):
        own = slice(n, n + 1)
        box, chance = made.propose(grids[own], aspects[own], saliencies[own])
        assert box[0] == pytest.approx(boxes[n])
        assert chance[0] == pytest.approx(sure[n])
    assert made.propose(grids[:0], aspects[:0], saliencies[:0])[0].shape == (0, 4)


def test_the_lattice_has_every_box_once():
    made = lattice(4)
    assert len({tuple(edge) for edge in made.edges.tolist()}) == len(made.edges) == 4 * 5 / 2
    assert (made.edges[:, 0] < made.edges[:, 1]).all()
    np.testing.assert_allclose(made.inside.sum(axis=1) / 4, made.edges[:, 1] - made.edges[:, 0])
    assert len(lattice(14).edges) ** 2 == 11_025


def test_beside_its_channels_a_cell_knows_shape_saliency_and_place():
    beside = extras(np.array([1.0, np.e]), np.full((2, 3, 3), 0.25))
    assert beside.shape == (2, 3, 3, EXTRAS)
    assert beside[1, 0, 2].tolist() == pytest.approx([1, 0.25, 2 / 3, -2 / 3, 4 / 9, 4 / 9])
    assert beside[0, 1, 1].tolist() == [0, 0.25, 0, 0, 0, 0]


@given(any_boxes, st.data())
def test_overlap_is_symmetric_and_lies_between_0_and_1(boxes, data):
    others = boxes[data.draw(st.permutations(range(len(boxes))))]
    both = iou(boxes, others)
    assert ((both >= 0) & (both <= 1 + 1e-9)).all()
    np.testing.assert_allclose(both, iou(others, boxes))
    real = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) > 1e-9
    assert iou(boxes, boxes)[real] == pytest.approx(1)


def test_known_overlaps():
    whole, half, other = [0, 0, 1, 1], [0, 0, 0.5, 1], [0.5, 0, 1, 1]
    found = iou(np.array([whole, half, [0, 0, 0.6, 1], half]), np.array([half, other, [0.4, 0, 1, 1], [0.2] * 4]))
    assert found == pytest.approx([0.5, 0, 0.2, 0])
