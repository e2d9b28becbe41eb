"""The people around a stack, and what it has acknowledged to them."""

import time
from dataclasses import dataclass, field
from typing import Any

from demo.people import Annotators, Shown, Visitor, digits
from tests.stack.stack import Stack

PROJECT, SEED = "digits", 11
PATIENCE = 120.0  # s that a visitor or annotator asks again while containers die


@dataclass
class Acknowledged:
    """What the stack said it has taken: nothing of it may be missing, nothing may be there twice."""

    predictions: dict[str, str] = field(default_factory=dict)  # image id by prediction id
    flagged: set[str] = field(default_factory=set)  # prediction ids
    relabelled: set[str] = field(default_factory=set)
    answers: int = 0


class Crowd:
    """A visitor at the page and two annotators in Label Studio, all of them patient."""

    def __init__(self, stack: Stack) -> None:
        self.taken = Acknowledged()
        self._stack = stack
        self._pictures = digits(SEED)
        self._visitor = Visitor(stack.pages, PROJECT, SEED, PATIENCE)
        clients = (stack.admin(PATIENCE), stack.colleague("second@example.org", PATIENCE))
        self._annotators = [
            Annotators(client, PROJECT, self._visitor.truths, SEED + number) for number, client in enumerate(clients)
        ]

    def send(self, react: bool = False) -> Shown:
        """Upload the next picture, flag or relabel the answer now and then, and note what was acknowledged."""
        shown = self._visitor.send(*next(self._pictures))
        self.taken.predictions[shown.prediction_id] = shown.image_id
        done = self._visitor.react(shown) if react else None
        if done:
            (self.taken.flagged if done == "flagged" else self.taken.relabelled).add(shown.prediction_id)
        return shown

    def send_many(self, pictures: int, react: bool = False) -> None:
        """Upload so many, at most two or three a second."""
        for _ in range(pictures):
            self.send(react)
            time.sleep(0.4)

    def answer(self, at_most: int) -> None:
        """Each annotator answers so many open tasks."""
        self.taken.answers += sum(one.answer(at_most) for one in self._annotators)

    def answer_until_released(self) -> str:
        """Answer in turn until a new picture is answered by a release; returns it."""
        until = time.monotonic() + 300
        while time.monotonic() < until:
            self.answer(10)
            if release := self.send().release:
                return release
            time.sleep(2)
        raise AssertionError(f"no release after {self.taken.answers} answers: {releases(self._stack)}")


def releases(stack: Stack) -> list[dict[str, Any]]:
    """The releases, as the command line lists them."""
    return stack.cli("releases", PROJECT)["releases"]
