"""The loop in which everything learns."""

import numpy as np
import pytest
import torch

from closedloop.models.fitting import Schedule, converge, descend


def line(n: int = 64):
    """A line to find, its loss over chosen points, and the parameters."""
    generator = torch.Generator().manual_seed(0)
    x = torch.linspace(-1, 1, n)
    y = 3 * x + 1
    parameters = [torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)]

    def loss(rows: torch.Tensor) -> torch.Tensor:
        return (parameters[0] * x[rows] + parameters[1] - y[rows]).square().mean()

    return parameters, loss, generator


def test_it_goes_down_to_the_least_loss_and_says_how_far_it_is():
    parameters, loss, generator = line()
    seen = []
    learnt = descend(
        parameters, loss, 64, Schedule(60, 8, 0.05), generator, progress=lambda done, most: seen.append((done, most))
    )
    assert [p.item() for p in parameters] == pytest.approx([3, 1], abs=1e-3)
    assert learnt == 60
    assert seen == [(epoch, 60) for epoch in range(1, 61)]


def test_it_stops_when_held_back_examples_get_worse_and_puts_the_best_back():
    parameters, loss, generator = line()
    values, states = iter([5.0, 3.0, 4.0, 3.5, 9.0, 9.0]), []

    def validate() -> float:
        states.append([p.item() for p in parameters])
        return next(values)

    learnt = descend(parameters, loss, 64, Schedule(100, 8, 0.05, patience=3), generator, validate)
    assert learnt == 2
    assert len(states) == 5
    assert [p.item() for p in parameters] == states[1]


def test_without_patience_every_epoch_is_learnt_and_the_best_still_put_back():
    parameters, loss, generator = line()
    values, states = iter([5.0, 9.0, 4.0, 6.0]), []

    def validate() -> float:
        states.append([p.item() for p in parameters])
        return next(values)

    assert descend(parameters, loss, 64, Schedule(4, 8, 0.05), generator, validate) == 3
    assert [p.item() for p in parameters] == states[2]


def test_the_seed_alone_decides_the_bytes():
    def made(seed: int) -> bytes:
        parameters, loss, _ = line()
        descend(parameters, loss, 64, Schedule(3, 8, 0.05), torch.Generator().manual_seed(seed))
        return np.array([p.item() for p in parameters]).tobytes()

    assert made(1) == made(1) != made(2)


def test_a_convex_loss_is_taken_to_its_optimum():
    parameters, loss, _ = line()
    converge(parameters, loss, 64, 50)
    assert [p.item() for p in parameters] == pytest.approx([3, 1], abs=1e-4)
