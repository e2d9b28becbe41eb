"""Folds, the race of recipes, and that no answer is flattered."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from closedloop.models import cross_fitting


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
