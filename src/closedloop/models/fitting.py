"""How everything here learns: one loop on one thread with fixed seeds, so that the same data gives the same bytes."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

SEED = 20260101
Progress = Callable[[int, int], None]  # done, of
Loss = Callable[[torch.Tensor], torch.Tensor]  # example numbers -> their loss, a scalar


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: Adam (Kingma and Ba 2015) at `rate`, `batch` examples a step.

    With `patience`, fitting ends after so many epochs that were no better than the best one on held-back examples.
    """

    epochs: int
    batch: int
    rate: float
    patience: int | None = None


def descend(
    parameters: Sequence[torch.Tensor],
    loss: Loss,
    count: int,
    schedule: Schedule,
    generator: torch.Generator,
    validate: Callable[[], float] | None = None,
    progress: Progress | None = None,
) -> int:
    """Move `parameters` in place down the loss of `count` examples; returns how many epochs they have learnt.

    `validate`, asked after each epoch, says how well they do on examples that are held back (lower is better): the
    parameters of the best epoch are put back in the end. `progress` is told the epochs done and the most there are.
    """
    adam = torch.optim.Adam(parameters, lr=schedule.rate, fused=True)
    least, best, kept = np.inf, 0, [parameter.detach().clone() for parameter in parameters]
    for epoch in range(1, schedule.epochs + 1):
        for rows in torch.randperm(count, generator=generator).split(schedule.batch):
            adam.zero_grad()
            loss(rows).backward()
            adam.step()
        if progress:
            progress(epoch, schedule.epochs)
        if validate is None:
            best = epoch
            continue
        with torch.no_grad():
            value = validate()
        if value < least:
            least, best, kept = value, epoch, [parameter.detach().clone() for parameter in parameters]
        if schedule.patience and epoch - best >= schedule.patience:
            break
    if validate is not None:
        with torch.no_grad():
            for parameter, value in zip(parameters, kept, strict=True):
                parameter.copy_(value)
    return best


def converge(parameters: Sequence[torch.Tensor], loss: Loss, count: int, steps: int) -> None:
    """Move `parameters` in place to the one optimum of a convex loss: at most `steps` of L-BFGS over all examples."""
    optimiser = torch.optim.LBFGS(parameters, max_iter=steps, line_search_fn="strong_wolfe")
    rows = torch.arange(count)

    def step() -> torch.Tensor:
        optimiser.zero_grad()
        value = loss(rows)
        value.backward()
        return value

    optimiser.step(step)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Small heads fit fastest on one thread, and only then to the same bit each time."""
    former = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(former)
