"""Which pictures are versions of one another."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from closedloop import near_identical

hashes = st.lists(st.integers(0, 2**64 - 1).map(lambda n: f"{n:016x}"), min_size=1, max_size=25)


@given(hashes, st.data())
def test_near_identical_pictures_share_a_group_and_groups_are_components(phashes, data):
    # add versions of some pictures: up to four bits flipped
    for _ in range(data.draw(st.integers(0, 8))):
        base = int(data.draw(st.sampled_from(phashes)), 16)
        for bit in data.draw(st.lists(st.integers(0, 63), max_size=4)):
            base ^= 1 << bit
        phashes = [*phashes, f"{base:016x}"]
    groups = near_identical.groups_of(phashes)
    values = [int(text, 16) for text in phashes]
    near = np.array([[(a ^ b).bit_count() <= near_identical.BITS for b in values] for a in values])
    reach = near.copy()
    for _ in range(len(values)):  # transitive closure, the slow and obvious way
        reach = (reach.astype(int) @ near.astype(int)) > 0
    assert ((groups[:, None] == groups[None, :]) == reach).all()


def test_a_group_is_called_after_its_first_picture():
    far, near = "0" * 16, "f" * 16
    assert near_identical.groups_of([near, far, "f" * 15 + "e", far]).tolist() == [0, 1, 0, 1]
    assert near_identical.groups_of([]).tolist() == []
