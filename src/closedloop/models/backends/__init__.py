"""Who computes an encoder's tower: torch, or OpenVINO on a processor."""

from typing import Protocol

import numpy as np

AUTO = "auto"
TORCH, CPU, CUDA, MPS = "torch", "cpu", "cuda", "mps"
REFERENCE = f"{TORCH}-{CPU}"  # what every other backend is compared with
FP32, BF16, INT8 = "openvino-fp32", "openvino-bf16", "openvino-int8"
ON_PROCESSOR = (FP32, BF16, INT8, REFERENCE)  # they take the cores that decode pictures, too
NAMES = (AUTO, FP32, BF16, INT8, REFERENCE, f"{TORCH}-{CUDA}", f"{TORCH}-{MPS}")


class Tower(Protocol):
    """Pixels -> features, on one machine's hardware."""

    @property
    def name(self) -> str:
        """The backend, as the setting names it."""
        ...

    @property
    def lanes(self) -> int:
        """How many passes it can do beside each other, each by its share of the cores. A GPU does one."""
        ...

    @property
    def shapes(self) -> tuple[int, ...]:
        """How many pictures a pass takes at once: 1 and more, ascending. Others are made up of these."""
        ...

    def look(self, pixels: np.ndarray, lane: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """uint8 (n, size, size, 3) -> float32 vectors (n, dimension), rows of length 1, and textures.

        With all that the tower has, or in a lane.
        """
        ...

    def grid(self, pixels: np.ndarray, lane: bool = False) -> np.ndarray:
        """uint8 (n, size, size, 3) -> float32 (n, grid_side, grid_side, grid_channels)."""
        ...


def most(tower: Tower) -> int:
    """How many pictures keep a tower fully busy."""
    return tower.lanes * tower.shapes[-1]


def fitting(tower: Tower, count: int) -> int:
    """The largest of a tower's shapes that so many pictures, 1 or more, fill."""
    return max(shape for shape in tower.shapes if shape <= count)
