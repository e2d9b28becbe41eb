"""How long do three heads take to learn again, and how much memory? `python -m bench.heads` (five minutes).

The size of a real project: 9,838 sets of two to four pictures, as many labelled pictures, 7,194 crops, with made-up
features of 512 numbers (for crops, of each of 7 x 7 cells), as they lie in the cache; the crops once more with what the
embedded encoder says of a picture, 14 x 14 cells of 432 numbers. Each head is fitted with all of its cross-validation
in a process of its own, on one thread, at half the size and at the full one. Picks are made twice: by a taste that is
linear in the features, and by one that is not, where the slow MLP is the one to choose.
"""

import argparse
import json
import multiprocessing
import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from closedloop import processor
from closedloop.models import classifier, cropper, ranker

SEED = 6
SETS, LABELS, CROPS = 9_838, 9_838, 7_194
WIDTH, CLASSES = 512, 10
CELLS, EMBEDDED_CELLS = (7, WIDTH), (14, 432)  # cells a side, numbers of each
SECONDS, MEGABYTES = 60.0, 1500.0  # the targets: of all three heads together, and of each at its peak


@dataclass(frozen=True)
class Run:
    """One fit in a process of its own."""

    head: str
    examples: int
    seconds: float
    busy_seconds: float  # of the processor: what the wall would say if nothing else ran
    megabytes: float  # resident at the peak, torch and the features included
    recipe: str


def main() -> None:
    """Fit everything, print a table, write JSON."""
    arguments = argparse.ArgumentParser(prog="python -m bench.heads", description=__doc__)
    arguments.add_argument("--out", type=Path, default=Path("bench/results/heads.json"))
    given = arguments.parse_args()
    print(f"{'head':28}{'examples':>10}{'seconds':>10}{'busy':>8}{'full / half':>13}{'peak MB':>10}  recipe")
    runs = []
    for head, (_, full) in HEADS.items():
        half, whole = alone(head, full // 2), alone(head, full)
        runs += [half, whole]
        ratio = f"{whole.busy_seconds / half.busy_seconds:.2f}"
        print(
            f"{head:28}{whole.examples:>10,}{whole.seconds:>10.1f}{whole.busy_seconds:>8.1f}"
            f"{ratio:>13}{whole.megabytes:>10.0f}  {whole.recipe}",
            flush=True,
        )
    asked = [run for run in runs if "14 x 14" not in run.head]  # at the widths of the target
    full_size = {run.head: run for run in asked}  # the last of each
    worst = max(full_size[name].seconds for name in full_size if name.startswith("ranker"))
    total = sum(run.seconds for name, run in full_size.items() if not name.startswith("ranker")) + worst
    peak = max(run.megabytes for run in asked)
    print(
        f"together at 512 numbers, with the slower ranker: {total:.1f} s (wanted: under {SECONDS:.0f}); "
        f"peak of one {peak:.0f} MB (wanted: under {MEGABYTES:.0f})"
    )
    body = {"processor": processor.name(), "runs": [asdict(run) for run in runs], "together_s": total, "peak_mb": peak}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(body, indent=2) + "\n")


def alone(head: str, examples: int) -> Run:
    """Fit a head on so many made-up examples in a new process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_run, (head, examples))


def _run(head: str, examples: int) -> Run:
    make, _ = HEADS[head]
    fit = make(examples, np.random.default_rng(SEED))
    began, busy = time.perf_counter(), time.process_time()
    recipe = fit()
    seconds, busy = time.perf_counter() - began, time.process_time() - busy
    return Run(head, examples, seconds, busy, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, recipe)


def _unit(values: np.ndarray) -> np.ndarray:
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def _labels(examples: int, chance: np.random.Generator) -> Callable[[], str]:
    centres = chance.standard_normal((CLASSES, WIDTH), dtype=np.float32)
    truth = chance.integers(0, CLASSES, examples)
    vectors = _unit(0.15 * centres[truth] + chance.standard_normal((examples, WIDTH), dtype=np.float32))
    return lambda: str(classifier.fit(vectors, truth, np.arange(examples), CLASSES).recipe)


def _picks(linear: bool) -> Callable[[int, np.random.Generator], Callable[[], str]]:
    def make(examples: int, chance: np.random.Generator) -> Callable[[], str]:
        sizes = chance.integers(2, 5, examples)
        ends = sizes.cumsum()
        sets = [np.arange(end - size, end) for size, end in zip(sizes, ends, strict=True)]
        # As embeddings are: a few directions say most, and taste looks at these.
        main = chance.standard_normal((int(ends[-1]), 8), dtype=np.float32)
        rest = chance.standard_normal((len(main), WIDTH), dtype=np.float32)
        inputs = _unit(main @ chance.standard_normal((8, WIDTH), dtype=np.float32) + rest)
        one, two, three, four = main.T[:4]
        liking = 1.5 * one if linear else 2 * np.abs(one) - 2 * np.abs(two) + three * four
        liking = liking + chance.gumbel(size=len(inputs))
        chosen = np.array([int(liking[members].argmax()) for members in sets])
        return lambda: str(ranker.fit(inputs, sets, chosen, np.arange(examples)).recipe)

    return make


def _crops(side: int, width: int) -> Callable[[int, np.random.Generator], Callable[[], str]]:
    def make(examples: int, chance: np.random.Generator) -> Callable[[], str]:
        size = chance.uniform(0.3, 0.8, (examples, 2))
        corner = chance.random((examples, 2)) * (1 - size)
        boxes = np.concatenate([corner, corner + size], axis=1)
        middle = (np.arange(side) + 0.5) / side
        across = (middle > boxes[:, :1]) & (middle < boxes[:, 2:3])
        down = (middle > boxes[:, 1:2]) & (middle < boxes[:, 3:])
        inside = down[:, :, None] & across[:, None, :]
        sign = _unit(chance.standard_normal(width)).astype(np.float32)
        grids = np.empty((examples, side, side, width), np.float16)
        for row in range(examples):  # in float32 all at once they would be twice as large as what is measured
            noise = chance.standard_normal((side, side, width), dtype=np.float32)
            grids[row] = _unit(noise + 1.5 * inside[row, :, :, None] * sign)
        aspects = chance.uniform(0.6, 1.7, examples)
        saliencies = chance.random((examples, side, side), dtype=np.float32)
        return lambda: str(cropper.fit(grids, aspects, saliencies, boxes, np.arange(examples)).recipe)

    return make


HEADS = {
    "classifier": (_labels, LABELS),
    "ranker": (_picks(linear=True), SETS),
    "ranker, not linear": (_picks(linear=False), SETS),
    "cropper": (_crops(*CELLS), CROPS),
    "cropper, 14 x 14 x 432": (_crops(*EMBEDDED_CELLS), CROPS),
}


if __name__ == "__main__":
    main()
