"""Towers that OpenVINO computes on a processor, from files that were converted once. Without torch."""

import threading
from collections import defaultdict, deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openvino

from closedloop.models.backends import BF16, FP32, INT8, fitting
from closedloop.processor import cores

LOOK, GRID = "look.xml", "grid.xml"
_PRECISIONS = {FP32: "f32", BF16: "bf16"}


class OpenVinoTower:
    """A converted tower in one precision; compiled for each use when that is first asked for.

    A pass in a lane is computed by one core. Two cores that look at a picture each are faster than both at one picture,
    and nearly as fast as both at several; who is alone is answered sooner by all cores together.
    """

    # Compiled for fixed shapes it is a quarter faster than for any; each takes the weights once more. One picture alone
    # is nearly as fast as several, so that numbers between are seen one by one rather than filled up.
    shapes = (1, 4)

    def __init__(self, folder: Path, name: str, look: Path | None = None) -> None:
        """`folder` has what `conversion.convert` wrote, `name` is a backend of OpenVINO's; `look` has the tower for
        `look`, where that is another one.
        """
        self.name = name
        self.lanes = cores()
        self._folders = {LOOK: look or folder, GRID: folder}
        self._core = openvino.Core()
        self._read: dict[str, openvino.Model] = {}
        self._compiled: dict[tuple[str, int, bool], openvino.CompiledModel] = {}
        self._compiling = threading.Lock()
        self._setting = threading.Lock()  # two first uses of a model at once were seen to wait for each other for ever
        self._idle: defaultdict[tuple[str, int, bool], deque[openvino.InferRequest]] = defaultdict(deque)
        self._together = threading.Lock()  # two passes of all cores at once would be slower than one after the other
        self._beside = ThreadPoolExecutor(self.lanes, thread_name_prefix="lane")

    def look(self, pixels: np.ndarray, lane: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """See `Tower`."""
        vectors, textures = self._seen(LOOK, pixels, lane)
        return vectors, textures

    def grid(self, pixels: np.ndarray, lane: bool = False) -> np.ndarray:
        """See `Tower`."""
        return self._seen(GRID, pixels, lane)[0]

    def _seen(self, way: str, pixels: np.ndarray, lane: bool) -> list[np.ndarray]:
        if len(pixels) < self.lanes and not lane:
            with self._together:
                found = [self._computed(way, pixels[number : number + 1], False) for number in range(len(pixels))]
        elif lane:
            found = [self._computed(way, part, True) for part in self._parts(pixels)]
        else:
            found = list(self._beside.map(lambda part: self._computed(way, part, True), self._parts(pixels)))
        return [np.concatenate(of) for of in zip(*found, strict=True)]

    def _parts(self, pixels: np.ndarray) -> Iterator[np.ndarray]:
        """As many at once as a shape has."""
        start = 0
        while start < len(pixels):
            count = fitting(self, len(pixels) - start)
            yield pixels[start : start + count]
            start += count

    def _computed(self, way: str, pixels: np.ndarray, lane: bool) -> list[np.ndarray]:
        idle = self._idle[way, len(pixels), lane]
        try:
            request = idle.pop()
        except IndexError:  # those who have one go on while another use is compiled
            with self._compiling:
                request = self._model(way, len(pixels), lane).create_infer_request()
        with self._setting:
            request.set_input_tensor(openvino.Tensor(np.ascontiguousarray(pixels)))
        request.infer()
        said = [np.array(tensor.data) for tensor in request.output_tensors]
        idle.append(request)
        return said

    def _model(self, way: str, count: int, lane: bool) -> openvino.CompiledModel:
        if (way, count, lane) not in self._compiled:
            if way not in self._read:  # once: each reading maps the whole file into memory
                self._read[way] = self._core.read_model(self._folders[way] / way)
            model = self._read[way]
            sides = [side.get_length() for side in list(model.input(0).partial_shape)[1:]]
            model.reshape({0: [count, *sides]})
            how = {
                "NUM_STREAMS": self.lanes if lane else 1,
                "INFERENCE_PRECISION_HINT": self._precision(),
                "INFERENCE_NUM_THREADS": self.lanes,
                "ENABLE_HYPER_THREADING": True,  # what `cores` counts
                "ENABLE_CPU_PINNING": not lane,  # a lane that is would wait for who decodes on its core
            }
            self._compiled[way, count, lane] = self._core.compile_model(model, "CPU", how)
        return self._compiled[way, count, lane]

    def _precision(self) -> str:
        """Of an 8-bit tower: of what is not in 8 bits."""
        return _PRECISIONS[self.name] if self.name != INT8 else _PRECISIONS[available()[-1]]


def available() -> list[str]:
    """The backends of OpenVINO that this processor has instructions for."""
    can = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return [FP32] + [BF16] * ("BF16" in can)
