"""Towers that OpenVINO computes on a processor, from files that were converted once. Without torch."""

import threading
from pathlib import Path

import numpy as np
import openvino

from closedloop.models.backends import BF16, FP32, INT8
from closedloop.processor import cores

LOOK, GRID = "look.xml", "grid.xml"
_PRECISIONS = {FP32: "f32", BF16: "bf16"}


class OpenVinoTower:
    """A converted tower in one precision, on all cores; compiled for a shape when that is first asked for."""

    # Compiled for fixed shapes it is a quarter faster than for any; each takes the weights once more. One picture alone
    # is nearly as fast as several, so that numbers between are seen one by one rather than filled up.
    shapes = (1, 8)

    def __init__(self, folder: Path, name: str, look: Path | None = None) -> None:
        """`folder` has what `conversion.convert` wrote, `name` is a backend of OpenVINO's; `look` has the tower for
        `look`, where that is another one.
        """
        self.name = name
        self._folders = {LOOK: look or folder, GRID: folder}
        self._core = openvino.Core()
        self._ready: dict[tuple[str, int], openvino.InferRequest] = {}
        self._busy = threading.Lock()  # a request does one thing at a time, and uses every core for it

    def look(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Tower`."""
        vectors, textures = self._seen(LOOK, pixels)
        return vectors, textures

    def grid(self, pixels: np.ndarray) -> np.ndarray:
        """See `Tower`."""
        return self._seen(GRID, pixels)[0]

    def _seen(self, way: str, pixels: np.ndarray) -> list[np.ndarray]:
        parts, start = [], 0
        while start < len(pixels):
            count = max(shape for shape in self.shapes if shape <= len(pixels) - start)
            with self._busy:
                found = self._request(way, count).infer({0: pixels[start : start + count]})
            parts.append([found[number] for number in range(len(found))])
            start += count
        return [np.concatenate(of) for of in zip(*parts, strict=True)]

    def _request(self, way: str, count: int) -> openvino.InferRequest:
        if (way, count) not in self._ready:
            model = self._core.read_model(self._folders[way] / way)
            sides = [side.get_length() for side in list(model.input(0).partial_shape)[1:]]
            model.reshape({0: [count, *sides]})
            how = {
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": self._precision(),
                "INFERENCE_NUM_THREADS": cores(),
            }
            self._ready[way, count] = self._core.compile_model(model, "CPU", how).create_infer_request()
        return self._ready[way, count]

    def _precision(self) -> str:
        """Of an 8-bit tower: of what is not in 8 bits."""
        return _PRECISIONS[self.name] if self.name != INT8 else _PRECISIONS[available()[-1]]


def available() -> list[str]:
    """The backends of OpenVINO that this processor has instructions for."""
    can = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return [FP32] + [BF16] * ("BF16" in can)
