"""Confidence that means what it says."""

import numpy as np
import pytest

from closedloop.models import calibration
from closedloop.models.heads import softmax


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_the_temperature_that_made_the_answers_is_found(temperature):
    random = np.random.default_rng(0)
    logits = random.standard_normal((20_000, 4)) * 2
    chances = softmax(logits / temperature)
    labels = (chances.cumsum(axis=1) > random.random((20_000, 1))).argmax(axis=1)
    assert calibration.fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.06)
