"""Boxes that can be used, and the crop that several people's boxes settle."""

import datetime as dt
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from closedloop import crops
from closedloop.crops import Box
from closedloop.errors import UnusableBox
from closedloop.votes import Vote

T0 = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
side = st.tuples(st.floats(0, 0.98), st.floats(0.011, 1)).map(lambda of: (of[0], min(1.0, of[0] + of[1])))
boxes = st.tuples(side, side).map(lambda of: (of[0][0], of[1][0], of[0][1], of[1][1]))


def vote(annotator: str, *edges: float, minute: int = 0) -> Vote:
    at = T0 + dt.timedelta(minutes=minute)
    return Vote("a" * 32, annotator, Box.of(*edges).as_text(), "crop", 1.0, at)


@pytest.mark.parametrize(
    ("edges", "said"),
    [
        ((0.5, 0.1, 0.2, 0.9), "x1 must be less than x2"),
        ((0.1, 0.9, 0.2, 0.1), "y1 less than y2"),
        ((0, 0, 640, 480), "not pixels"),
        ((-0.2, 0, 0.5, 0.5), "outside of the picture"),
        ((0, 0, math.nan, 1), "not four numbers"),
        ((0, 0, math.inf, 1), "not four numbers"),
        ((0, 0, "1", 1), "not four numbers"),
        ((0, 0, None, 1), "not four numbers"),
        ((True, 0, 1, 1), "not four numbers"),
        ((0.2, 0.2, 0.205, 0.9), "narrower than 1 %"),
    ],
    ids=str,
)
def test_a_box_that_cannot_be_used_says_why(edges: tuple, said: str) -> None:
    with pytest.raises(UnusableBox, match=said):
        Box.of(*edges)


def test_what_sticks_out_by_rounding_is_clipped() -> None:
    assert Box.of(-0.0004, 0, 1.0003, 1) == Box(0, 0, 1, 1)
    assert Box.from_percent(10, 20, 90.00001, 30) == Box(0.1, 0.2, 1, 0.5)


@given(boxes, boxes)
def test_overlap_is_symmetric_and_a_fraction(one: tuple, other: tuple) -> None:
    a, b = Box.of(*one), Box.of(*other)
    assert a.overlap(b) == pytest.approx(b.overlap(a))
    assert 0 <= a.overlap(b) <= 1
    assert a.overlap(a) == pytest.approx(1)


@given(boxes)
def test_a_box_survives_its_text(edges: tuple) -> None:
    box = Box.of(*edges)
    assert Box.from_text(box.as_text()) == box


def test_the_median_of_three_boxes_is_the_crop() -> None:
    votes = [vote("1", 0.1, 0.1, 0.8, 0.8), vote("2", 0.2, 0.1, 0.9, 0.8), vote("3", 0.15, 0.2, 0.85, 0.9)]
    box, counting = crops.settle(votes)
    assert box == Box(0.15, 0.1, 0.85, 0.8)
    assert len(counting) == 3


def test_boxes_of_different_parts_settle_nothing() -> None:
    assert crops.settle([vote("1", 0, 0, 0.3, 0.3), vote("2", 0.6, 0.6, 1, 1)])[0] is None
    assert crops.settle([])[0] is None


def test_an_annotator_has_one_box_a_picture_the_newest() -> None:
    assert crops.settle([vote("1", 0, 0, 0.3, 0.3), vote("1", 0.6, 0.6, 1, 1, minute=1)])[0] == Box(0.6, 0.6, 1, 1)
