"""What stands on top of the encoder: a classifier on unit embeddings. Applied with numpy, fitted in `fitting.py`."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Head:
    """A linear head, or an MLP with one hidden layer of ReLUs, followed by a temperature.

    `tensors`: "weight" (classes, d) and "bias" (classes,); for an MLP also "hidden.weight" (h, d) and "hidden.bias"
    (h,), and then weight is (classes, h). All float32.
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


def softmax(logits: np.ndarray) -> np.ndarray:
    """Row-wise softmax in float64, (n, k) -> (n, k)."""
    logits = np.asarray(logits, dtype=np.float64)
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


def shapes(kind: str, dimension: int, classes: int, hidden: int | None) -> dict[str, tuple[int, ...]]:
    """The names and shapes that a head's tensors must have. Raises ValueError for an unknown kind."""
    if kind == "linear":
        return {"weight": (classes, dimension), "bias": (classes,)}
    if kind == "mlp" and hidden:
        return {
            "hidden.weight": (hidden, dimension),
            "hidden.bias": (hidden,),
            "weight": (classes, hidden),
            "bias": (classes,),
        }
    raise ValueError(f"a head of the kind {kind!r}")
