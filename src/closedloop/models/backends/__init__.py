"""Who computes an encoder's tower: torch, or OpenVINO on a processor."""

from typing import Protocol

import numpy as np

AUTO = "auto"
TORCH, CPU, CUDA, MPS = "torch", "cpu", "cuda", "mps"
REFERENCE = f"{TORCH}-{CPU}"  # what every other backend is compared with
FP32, BF16, INT8 = "openvino-fp32", "openvino-bf16", "openvino-int8"
ON_PROCESSOR = (FP32, BF16, INT8, REFERENCE)  # they take the cores that decode pictures
NAMES = (AUTO, FP32, BF16, INT8, REFERENCE, f"{TORCH}-{CUDA}", f"{TORCH}-{MPS}")


class Tower(Protocol):
    """Pixels -> features, on one machine's hardware."""

    @property
    def name(self) -> str:
        """The backend, as the setting names it."""
        ...

    @property
    def shapes(self) -> tuple[int, ...]:
        """How many pictures it takes at once: 1 and more, ascending. Others are made up of these."""
        ...

    def look(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """uint8 (n, size, size, 3) -> float32 vectors (n, dimension), rows of length 1, and textures."""
        ...

    def grid(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (n, size, size, 3) -> float32 (n, grid_side, grid_side, grid_channels)."""
        ...
