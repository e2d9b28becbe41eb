"""What stands on top of the encoder, applied with numpy: a classifier and a ranker; the cropper is in `crop_head.py`.

`classifier.py` and `ranker.py` fit them. The tensors are all float32.
"""

from dataclasses import dataclass

import numpy as np

RANKER_HIDDEN = (512, 256, 64)  # widths of a ranker's hidden layers
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Classifier:
    """A linear head on unit embeddings, or an MLP with one hidden layer of ReLUs, followed by a temperature.

    `tensors`: "weight" (classes, d) and "bias" (classes,); for an MLP also "hidden.weight" (h, d) and "hidden.bias"
    (h,), and then weight is (classes, h).
    """

    kind: str  # linear | mlp
    tensors: dict[str, np.ndarray]
    temperature: float = 1.0

    def logits(self, vectors: np.ndarray) -> np.ndarray:
        """Uncalibrated scores, (n, d) float32 -> (n, classes) float32."""
        if self.kind == "mlp":
            vectors = np.maximum(vectors @ self.tensors["hidden.weight"].T + self.tensors["hidden.bias"], 0.0)
        return vectors @ self.tensors["weight"].T + self.tensors["bias"]

    def probabilities(self, vectors: np.ndarray) -> np.ndarray:
        """Calibrated probabilities, (n, d) -> (n, classes), rows sum to 1."""
        return softmax(self.logits(vectors) / self.temperature)


@dataclass(frozen=True)
class Ranker:
    """How much is to be said for each picture of a set: a linear score, or an MLP d-512-256-64-1 with ReLUs.

    `tensors`: "weight" (1, d); for an MLP "0.weight" (512, d), "0.bias" (512,) and so on up to "3.weight" (1, 64),
    "3.bias" (1,). Only the differences of scores within a set mean something.
    """

    kind: str  # linear | mlp
    tensors: dict[str, np.ndarray]
    temperature: float = 1.0

    def scores(self, inputs: np.ndarray) -> np.ndarray:
        """Uncalibrated scores, (n, d) float32 -> (n,) float64: the highest is the best."""
        if self.kind == "linear":
            return (inputs @ self.tensors["weight"].T)[:, 0].astype(np.float64)
        for number in range(len(RANKER_HIDDEN) + 1):
            inputs = inputs @ self.tensors[f"{number}.weight"].T + self.tensors[f"{number}.bias"]
            if number < len(RANKER_HIDDEN):
                inputs = np.maximum(inputs, 0.0)
        return inputs[:, 0].astype(np.float64)

    def chances(self, inputs: np.ndarray) -> np.ndarray:
        """The calibrated probability that each picture of one set is the chosen one, (n, d) -> (n,), their sum is 1."""
        return softmax(self.scores(inputs)[None] / self.temperature)[0]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Row-wise softmax in float64, (n, k) -> (n, k); -inf is impossible."""
    logits = np.asarray(logits, dtype=np.float64)
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


def classifier_shapes(kind: str, width: int, classes: int, hidden: int | None) -> Shapes:
    """The names and shapes that a classifier's tensors must have. Raises ValueError for an unknown kind."""
    if kind == "linear":
        return {"weight": (classes, width), "bias": (classes,)}
    if kind == "mlp" and hidden:
        return {
            "hidden.weight": (hidden, width),
            "hidden.bias": (hidden,),
            "weight": (classes, hidden),
            "bias": (classes,),
        }
    raise ValueError(f"a classifier of the kind {kind!r}")


def ranker_shapes(kind: str, width: int) -> Shapes:
    """The names and shapes that a ranker's tensors must have. Raises ValueError for an unknown kind."""
    if kind == "linear":
        return {"weight": (1, width)}
    if kind == "mlp":
        widths = (width, *RANKER_HIDDEN, 1)
        layers = range(len(RANKER_HIDDEN) + 1)
        weights: Shapes = {f"{number}.weight": (widths[number + 1], widths[number]) for number in layers}
        return weights | {f"{number}.bias": (widths[number + 1],) for number in layers}
    raise ValueError(f"a ranker of the kind {kind!r}")
