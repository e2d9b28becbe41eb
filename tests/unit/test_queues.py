"""Who is asked: the laws of sampling."""

import math
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from closedloop import queues

ids = st.lists(st.text("0123456789abcdef", min_size=4, max_size=4), unique=True, max_size=60)


@given(st.integers(0, 10_000), st.floats(0, 1), st.integers(0, 200))
def test_a_sample_is_its_share_but_at_least_so_many_and_never_more_than_all(frame, share, at_least):
    size = queues.sample_size(frame, share, at_least)
    assert size <= frame
    assert size == frame or size >= at_least
    assert size == frame or size >= share * frame


@given(ids, st.integers(0, 2**56), st.data())
def test_a_draw_takes_the_asked_number_with_one_probability_for_all(frame, seed, data):
    size = data.draw(st.integers(0, len(frame)))
    drawn, probability = queues.draw(frame, size, seed)
    assert len(drawn) == (size if frame else 0)
    assert drawn <= set(frame)
    assert math.isclose(probability, size / len(frame) if frame else 0.0)


@given(ids, st.integers(0, 2**56), st.randoms())
def test_a_draw_does_not_depend_on_the_order_of_the_frame(frame, seed, shuffler):
    size = len(frame) // 2
    shuffled = list(frame)
    shuffler.shuffle(shuffled)
    assert queues.draw(frame, size, seed) == queues.draw(shuffled, size, seed)


def test_every_picture_is_drawn_as_often_as_its_probability_says():
    frame = [f"{n:04d}" for n in range(20)]
    times = Counter(id_ for seed in range(4000) for id_ in queues.draw(frame, 5, seed)[0])
    # Binomial(4000, 1/4): mean 1000, standard deviation 27; 6 of them for 20 pictures
    assert all(abs(times[id_] - 1000) < 6 * 27.4 for id_ in frame)


def test_low_confidence_is_below_the_threshold_or_no_answer_at_all():
    assert queues.is_low_confidence(None, 0.0)
    assert queues.is_low_confidence(0.699, 0.7)
    assert not queues.is_low_confidence(0.7, 0.7)
