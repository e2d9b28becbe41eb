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


def test_choices_that_a_row_does_not_have_change_nothing():
    random = np.random.default_rng(0)
    logits, labels = random.standard_normal((8, 3)) * 3, random.integers(0, 3, 8)
    padded = np.concatenate([logits, np.full((8, 4), -np.inf)], axis=1)
    assert calibration.fit_temperature(padded, labels) == pytest.approx(calibration.fit_temperature(logits, labels))
    assert calibration.losses_of(padded, labels) == pytest.approx(calibration.losses_of(logits, labels))


def test_the_calibration_error_is_how_far_confidence_is_from_what_was_right():
    labels = np.repeat([0, 1], [700, 300])
    honest, boasting = np.tile([0.7, 0.3], (1000, 1)), np.tile([0.9, 0.1], (1000, 1))
    assert calibration.expected_calibration_error(honest, labels) == pytest.approx(0.0, abs=1e-9)
    assert calibration.expected_calibration_error(boasting, labels) == pytest.approx(0.2)
