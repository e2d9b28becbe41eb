"""Converts an encoder's tower for OpenVINO, and tries the backends of this machine.

It is a process of its own (`python -m closedloop.models.conversion`), so that the one that serves loads no torch on a
processor, and goes on where a library that is new to a machine ends the process. `converted.py` asks it with JSON on
standard input, and names a file to answer in.
"""

import gc
import json
import os
import shutil
import sys
import time
import uuid
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from closedloop.errors import EncoderUnavailable
from closedloop.models import encoder as encoders
from closedloop.models import manifest
from closedloop.models.backends import CPU, REFERENCE, Tower, agreement, most
from closedloop.models.backends.torch_tower import TorchTower, gpus
from closedloop.models.converted import SEEN, SPEC, Trial, grid_agrees, look_agrees
from closedloop.models.nets import Net
from closedloop.models.spec import Spec

# Converting would tell OpenVINO's makers of it, over the network and unasked; without this package it does not.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

_EXACT = ["ReduceL2", "ReduceMean", "NormalizeL2", "Subtract", "Multiply", "Divide", "Sqrt", "Power"]
SECONDS = 0.5  # for which a backend is timed
PASSES = 3  # at least


def prepare(folder: Path, name: str) -> dict[str, Any]:
    """Have an encoder converted below `folder`, and every backend tried; says its digest."""
    spec, trials = _by_torch(folder, name)
    gc.collect()  # what comes holds the weights once more
    own = folder / spec.digest
    trials += [_tried(name, lambda name=name: _openvino(own, name), own, spec) for name in _openvino_names(own)]
    return {"digest": spec.digest, "trials": [asdict(trial) for trial in trials]}


def quantize(own: Path, into: Path, pixels: Path) -> dict[str, Any]:
    """Write the tower for `look` in 8-bit numbers, calibrated by pixels, uint8 (n, side, side, 3) in a file of numpy's.

    Weights and activations, after training, by minima and maxima, with biases corrected (NNCF; Nagel et al. 2021).
    """
    try:
        import nncf
    except ImportError:
        return {"missing": True}
    import openvino

    from closedloop.models.backends.openvino_tower import LOOK

    seen = np.load(pixels)
    # Beside them the built-in ones: what is greater than all that calibrated it is cut off, and whoever keeps pictures
    # of one kind will be sent another one (by pictures of plain colours alone, a photograph's cosine was 0.2).
    seen = np.concatenate([seen, agreement.pictures(seen.shape[1])])
    model = openvino.Core().read_model(own / LOOK)
    attends = any(op.get_type_name() in ("Softmax", "ScaledDotProductAttention") for op in model.get_ops())
    smaller = nncf.quantize(
        model,
        nncf.Dataset([seen[number : number + 1] for number in range(len(seen))]),
        model_type=nncf.ModelType.TRANSFORMER if attends else None,
        # Lengths, means and spreads: cheap, and in 8 bits a vector is no longer of unit length.
        ignored_scope=nncf.IgnoredScope(types=_EXACT, validate=False),
        subset_size=len(seen),
    )
    openvino.save_model(smaller, into / LOOK, compress_to_fp16=False)
    return {}


def words(name: str, texts: list[str]) -> dict[str, Any]:
    """The vectors of texts, and the digest of the encoder that reads them."""
    encoder = encoders.load(name)
    return {"digest": encoder.digest, "vectors": encoder.embed_words(texts).tolist()}


def _by_torch(folder: Path, name: str) -> tuple[Spec, list[Trial]]:
    """What an encoder is, and torch's backends; converted, if it was not."""
    encoder = encoders.load(name, CPU)
    assert isinstance(encoder.tower, TorchTower)
    net, spec = encoder.tower.net, encoder.spec()
    own = folder / spec.digest
    if not (own / manifest.MANIFEST).exists():
        _convert(net, spec, own)
    trials = [_tried(REFERENCE, lambda: TorchTower(net, CPU), own, spec)]
    trials += [_tried(f"torch-{gpu}", lambda gpu=gpu: TorchTower(net, gpu, fast=True), own, spec) for gpu in gpus()]
    return spec, trials


def _convert(net: Net, spec: Spec, own: Path) -> None:
    """Write a folder that is whole or not there: towers, what is known of them, what the reference sees, digests last.

    Where OpenVINO cannot be had or cannot read this tower, there are no towers in it.
    """
    partial = own.with_name(f"{own.name}.{uuid.uuid4().hex}.partial")
    partial.mkdir(parents=True)
    (partial / SPEC).write_text(json.dumps(spec.as_json()), encoding="utf-8")
    reference = TorchTower(net, CPU)
    looks, grids = (agreement.pictures(of.size) for of in (spec.prepare, spec.prepare_grid))
    vectors, textures = reference.look(looks)
    np.savez(partial / SEEN, vectors=vectors, textures=textures, grids=reference.grid(grids))
    try:
        _save_towers(net, spec, partial)
    except Exception as error:
        print(f"OpenVINO cannot have this tower: {error!r}", file=sys.stderr)
    manifest.write(partial)
    try:
        os.replace(partial, own)
    except OSError:  # another process was quicker
        shutil.rmtree(partial)


def _save_towers(net: Net, spec: Spec, folder: Path) -> None:
    import openvino

    from closedloop.models.backends.openvino_tower import GRID, LOOK

    for name, method, prepare_ in ((LOOK, net.look, spec.prepare), (GRID, net.grid, spec.prepare_grid)):
        side = prepare_.size
        example = torch.zeros((2, side, side, 3), dtype=torch.uint8)
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what tracing says of every model
            model = openvino.convert_model(_Forward(net, method).eval(), example_input=example)
        model.reshape({0: [-1, side, side, 3]})
        openvino.save_model(model, folder / name, compress_to_fp16=False)


class _Forward(torch.nn.Module):
    """One way into a net, as converters want it."""

    def __init__(self, net: Net, method: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.net, self._method = net, method

    def forward(self, pixels: torch.Tensor) -> Any:
        return self._method(pixels)


def _openvino_names(own: Path) -> list[str]:
    try:
        from closedloop.models.backends import openvino_tower

        return openvino_tower.available() if (own / openvino_tower.LOOK).exists() else []
    except Exception as error:
        print(f"OpenVINO cannot be used: {error!r}", file=sys.stderr)
        return []


def _openvino(own: Path, name: str) -> Tower:
    from closedloop.models.backends.openvino_tower import OpenVinoTower

    return OpenVinoTower(own, name)


def _tried(name: str, make: Callable[[], Tower], own: Path, spec: Spec) -> Trial:
    """How fast a backend is on this machine, and how far it agrees with the reference."""
    try:
        grid_agrees(make(), own, spec)
        tower = make()
        cosine = look_agrees(tower, own, spec)
        seen = agreement.pictures(spec.prepare.size)
        pixels = seen[np.arange(most(tower)) % len(seen)]
        seconds: list[float] = []
        while len(seconds) < PASSES or sum(seconds) < SECONDS:
            started = time.perf_counter()
            tower.look(pixels)
            seconds.append(time.perf_counter() - started)
        return Trial(name, len(pixels) / float(np.median(seconds)), cosine)
    except Exception as error:
        return Trial(name, problem=str(error)[:300] or repr(error))


def main() -> None:
    """Answer what is asked for."""
    asked, answer = json.load(sys.stdin), Path(sys.argv[1])
    try:
        if "quantize" in asked:
            said = quantize(Path(asked["quantize"]), Path(asked["into"]), Path(asked["pixels"]))
        elif "texts" in asked:
            said = words(asked["name"], asked["texts"])
        else:
            said = prepare(Path(asked["folder"]), asked["name"])
    except EncoderUnavailable as error:
        said = {"unavailable": error.details}
    answer.write_text(json.dumps(said), encoding="utf-8")


if __name__ == "__main__":
    main()
