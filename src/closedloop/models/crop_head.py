"""The crop proposer: which box a person would draw on a picture, and how well that will fit. Applied with numpy.

From what lies in each cell of a grid, one linear map says how probably the cell is inside the person's box. Each box
whose edges lie on the grid's lines then has an expected overlap with it, and the better it is, the more it is believed;
the proposal is the mean box of that belief, in centre and size, so it lies between the lines and its left edge is never
right of its right one. Fitted in `cropper.py`.
"""

import itertools
from dataclasses import dataclass
from functools import cache

import numpy as np

SHARPNESS = 100.0  # a box whose expected overlap is 0.01 less is believed e times less
SLICE = 64  # pictures read out at once: there are 11,025 boxes on a grid of 14 x 14
LARGEST_LOGIT = 30.0
EXTRAS = 6  # aspect ratio, saliency and four terms of the position, beside a cell's channels
SIGNS = 2
_SURE = 1e-3  # of a side: the least distance of believed edges that is told apart


@dataclass(frozen=True)
class Lattice:
    """The boxes whose edges lie on the lines of a grid: every interval of columns with every interval of rows."""

    edges: np.ndarray  # (m, 2) the intervals, as fractions of a side
    inside: np.ndarray  # (m, side) 1 where a cell is in the interval

    @property
    def areas(self) -> np.ndarray:
        """The cells of each box, (m, m): row interval, column interval."""
        lengths = self.inside.sum(axis=1)
        return np.outer(lengths, lengths)

    def among(self, lines: np.ndarray) -> "Lattice":
        """Those whose edges are on these lines, numbered from 0 at the edge of the picture to `side`."""
        kept = np.isin(np.rint(self.edges * self.inside.shape[1]), lines).all(axis=1)
        return Lattice(self.edges[kept], self.inside[kept])


@dataclass(frozen=True)
class Cropper:
    """A fitted proposer for grids of `width` channels.

    `tensors`, all float32: "weight" (width + EXTRAS,) and "bias" (1,), a cell's log-odds of being inside; "confidence"
    (3,), the log-odds of the overlap from 1 and the two signs of the belief.
    """

    tensors: dict[str, np.ndarray]

    def propose(self, grids: np.ndarray, aspects: np.ndarray, saliencies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (n, 4) float64 as x1, y1, x2, y2 in 0-1, and the expected overlap (IoU) of each, (n,).

        `grids` (n, side, side, width) of any float type, `aspects` (n,) width / height, `saliencies` (n, side, side).
        """
        boxes, signs = self.believe(grids, aspects, saliencies)
        return boxes, confidence(self.tensors["confidence"], signs)

    def believe(self, grids: np.ndarray, aspects: np.ndarray, saliencies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (n, 4) and the signs of how good they are, (n, 2), before calibration."""
        width = grids.shape[3]
        weight, bias = (self.tensors[name].astype(np.float64) for name in ("weight", "bias"))
        boxes, signs = np.empty((len(grids), 4)), np.empty((len(grids), 2))
        for start in range(0, len(grids), SLICE):
            part = slice(start, start + SLICE)
            beside = extras(aspects[part], saliencies[part])
            logits = grids[part].astype(np.float64) @ weight[:width] + beside @ weight[width:] + bias
            boxes[part], signs[part] = read_out(_sigmoid(logits))
        return boxes, signs


def shapes(width: int) -> dict[str, tuple[int, ...]]:
    """The names and shapes that a proposer's tensors must have, for grids of `width` channels."""
    return {"weight": (width + EXTRAS,), "bias": (1,), "confidence": (1 + SIGNS,)}


def extras(aspects: np.ndarray, saliencies: np.ndarray) -> np.ndarray:
    """What a cell has beside its channels, (n, side, side, EXTRAS) float32.

    The logarithm of the aspect ratio, how much the cell stands out, and its position from the middle (-1 to 1) with its
    square, so that people's liking for the middle, or for what stands a little above it, can be learnt.
    """
    side = saliencies.shape[1]
    across = (np.arange(side) + 0.5) / side * 2 - 1
    found = np.empty((*saliencies.shape, EXTRAS), np.float32)
    found[..., 0] = np.log(aspects)[:, None, None]
    found[..., 1] = saliencies
    found[..., 2], found[..., 3] = across[None, None, :], across[None, :, None]
    found[..., 4:] = np.square(found[..., 2:4])
    return found


@cache
def lattice(side: int) -> Lattice:
    """The boxes on a grid of `side` x `side` cells."""
    ends = np.array(list(itertools.combinations(range(side + 1), 2)))
    cells = np.arange(side)
    return Lattice(ends / side, ((ends[:, :1] <= cells) & (cells < ends[:, 1:])).astype(np.float64))


def read_out(chances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """From each cell's chance of being inside, (n, side, side), to boxes (n, 4) and signs (n, 2).

    A box's expected overlap is the fuzzy Jaccard index: the chances inside it over its area and the chances outside.
    The signs of how good a proposal is: its expected overlap, and the logarithm of how far the believed boxes' edges
    lie apart (root of the mean variance, as a fraction of a side).
    """
    boxes_of = lattice(chances.shape[1])
    inside = boxes_of.inside @ chances @ boxes_of.inside.T
    overlaps = inside / (boxes_of.areas + chances.sum(axis=(1, 2))[:, None, None] - inside)
    belief = np.exp(SHARPNESS * (overlaps - overlaps.max(axis=(1, 2), keepdims=True)))
    belief /= belief.sum(axis=(1, 2), keepdims=True)
    columns, rows = belief.sum(axis=1), belief.sum(axis=2)
    across, down = columns @ boxes_of.edges, rows @ boxes_of.edges
    variances = [
        (of @ np.square(boxes_of.edges) - np.square(mean)).mean(axis=1)
        for of, mean in ((columns, across), (rows, down))
    ]
    apart = np.sqrt(np.maximum(np.mean(variances, axis=0), _SURE**2))
    boxes = np.stack([across[:, 0], down[:, 0], across[:, 1], down[:, 1]], axis=1)
    return boxes.clip(0, 1), np.stack([(belief * overlaps).sum(axis=(1, 2)), np.log(apart)], axis=1)


def confidence(numbers: np.ndarray, signs: np.ndarray) -> np.ndarray:
    """The overlap to expect, (n,) in 0-1, from the signs of a belief, (n, 2), and the tensor "confidence"."""
    return _sigmoid(numbers[0] + signs @ numbers[1:].astype(np.float64))


def iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of each box with the one beside it, (n, 4) and (n, 4) -> (n,); 0 where both are empty."""
    sides = np.minimum(boxes[:, 2:], others[:, 2:]) - np.maximum(boxes[:, :2], others[:, :2])
    common = sides.clip(0).prod(axis=1)
    union = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (others[:, 2:] - others[:, :2]).prod(axis=1) - common
    return np.divide(common, union, out=np.zeros(len(common)), where=union > 0)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits.clip(-LARGEST_LOGIT, LARGEST_LOGIT)))
