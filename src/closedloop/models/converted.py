"""Encoders ready to serve: converted once, computed by the backend that was measured to be the fastest here.

What was converted lies in a cache by the encoder's digest, checked like any artefact; what was measured lies beside it
for each machine. A second start reads both, and needs neither torch nor the file of weights.
"""

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from closedloop import processor
from closedloop.errors import EncoderUnavailable
from closedloop.logs import get_logger
from closedloop.models import conversions, manifest, quantized, weights
from closedloop.models import encoder as encoders
from closedloop.models.backends import AUTO, INT8, REFERENCE, Tower, agreement
from closedloop.models.encoder import Encoder
from closedloop.models.spec import Spec

MEASURED = "in lanes"  # how backends are timed: what was timed in another way is not compared with
FEW = 2  # pictures that are looked at in each way
LENGTH = 0.01  # that a unit vector's may be off
SPEC, SEEN = "spec.json", "seen.npz"


class Disagrees(Exception):
    """A backend sees something else than the reference."""


@dataclass(frozen=True)
class Trial:
    """What became of trying one backend on this machine."""

    backend: str
    pictures_per_second: float | None = None  # of one that is busy
    cosine: float | None = None  # the smallest with the reference, on built-in pictures
    problem: str | None = None  # why it is not used


@dataclass(frozen=True)
class Choice:
    """Which backend computes the tower, and why."""

    backend: str
    reason: str
    processor: str
    cores: int
    trials: tuple[Trial, ...]

    def as_json(self) -> dict[str, Any]:
        """For `/v1/releases` and `doctor`."""
        return asdict(self)


class Converted:
    """The encoders of a machine's cache."""

    def __init__(self, folder: Path, backend: str = AUTO) -> None:
        """`backend` is a name that a person forces, or `auto`."""
        self._folder = folder / "encoders"
        self._backend = backend

    def choose(self, setting: str) -> tuple[Encoder, Choice, str]:
        """The encoder of a new installation, who computes it, and why it is this one. Raises EncoderUnavailable."""
        (encoder, choice), reason = encoders.choose(
            setting, lambda name: self._open(name, self._digest(name), self._backend)
        )
        return encoder, choice, reason

    def open(self, name: str, digest: str, backend: str | None = None) -> tuple[Encoder, Choice]:
        """The encoder that an installation records, computed by `backend` where another one is wanted.

        Raises EncoderUnavailable, also where its weights have changed.
        """
        if not self._is_ready(digest) and self._digest(name) != digest:
            reason = (
                "its weights are not those that this installation was made with. Put the former file back, or "
                f"run `closedloop encoder use {name}` to retrain with the new ones."
            )
            raise EncoderUnavailable(name=name, reason=reason)
        return self._open(name, digest, backend or self._backend)

    def folder(self, digest: str) -> Path:
        """Where an encoder lies that was opened."""
        return self._folder / digest

    def quantized_tower(self, digest: str, folder: Path) -> Tower:
        """The tower in 8-bit numbers that lies in a folder, which need not be kept yet."""
        from closedloop.models.backends.openvino_tower import OpenVinoTower

        return OpenVinoTower(self._folder / digest, INT8, folder)

    def _digest(self, name: str) -> str:
        """The digest of an encoder that is ready to be opened from here on."""
        known = self._folder / "names" / hashlib.sha256(weights.identity(name).encode()).hexdigest()
        with contextlib.suppress(OSError):
            digest = known.read_text(encoding="utf-8")
            if self._is_ready(digest):
                return digest
        digest = self._prepare(name)
        _write(known, digest)
        return digest

    def _prepare(self, name: str) -> str:
        said = conversions.asked({"folder": str(self._folder), "name": name}, name)
        digest = str(said["digest"])
        _write(self._trials_file(digest), json.dumps(said["trials"]))
        get_logger().info("encoder converted", encoder=name, trials=said["trials"])
        return digest

    def _open(self, name: str, digest: str, wanted: str) -> tuple[Encoder, Choice]:
        own = self._folder / digest
        spec = Spec.from_json(json.loads((own / SPEC).read_text(encoding="utf-8")))
        spec = replace(spec, name=name)  # the same weights may lie elsewhere today
        trials = {trial.backend: trial for trial in self._trials(digest)}
        usable = [trial.backend for trial in trials.values() if trial.problem is None]
        usable.sort(key=lambda name: -(trials[name].pictures_per_second or 0.0))
        if wanted != AUTO:
            usable = [wanted, *usable]
        for backend in dict.fromkeys([*usable, REFERENCE]):
            try:
                tower = _tower(spec.name, own, backend)
                cosine = look_agrees(tower, own, spec)
            except Exception as error:  # whatever a library makes of this machine: another one may serve
                why = error.explained() if isinstance(error, EncoderUnavailable) else str(error) or repr(error)
                if backend == REFERENCE:
                    raise EncoderUnavailable(name=name, reason=why) from error
                get_logger().error("backend not used", backend=backend, reason=why)
                trials[backend] = replace(trials.get(backend, Trial(backend)), problem=why[:300])
                continue
            trials[backend] = replace(trials.get(backend, Trial(backend)), cosine=cosine)
            why = _why(backend, wanted, trials)
            choice = Choice(backend, why, processor.name(), processor.cores(), tuple(trials.values()))
            return Encoder(**vars(spec), tower=tower, words=self._words(spec) if spec.knows_words else None), choice
        raise AssertionError("the reference is always tried")

    def _words(self, spec: Spec) -> Any:
        """A reader of texts that asks another process, and keeps what it said."""

        def read(texts: Sequence[str]) -> np.ndarray:
            key = hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()
            file = self._folder / spec.digest / "words" / f"{key}.json"
            try:
                return np.array(json.loads(file.read_text(encoding="utf-8")), np.float32)
            except (OSError, ValueError):
                said = conversions.asked({"name": spec.name, "texts": list(texts)}, spec.name)
            if said["digest"] != spec.digest:
                raise EncoderUnavailable(name=spec.name, reason="its weights are not those that read pictures here.")
            _write(file, json.dumps(said["vectors"]))
            return np.array(said["vectors"], np.float32)

        return read

    def _is_ready(self, digest: str) -> bool:
        """Whether an encoder was converted, and the backends tried on this machine."""
        return self._is_whole(digest) and self._trials_file(digest).exists()

    def _is_whole(self, digest: str) -> bool:
        """Whether every file of a converted encoder is there as it was written; what is not whole is put away."""
        own = self._folder / digest
        if not own.exists():
            return False
        try:
            manifest.check(own)
        except (OSError, ValueError) as error:
            get_logger().warning("converted encoder is damaged, and made anew", digest=digest, reason=str(error))
            damaged = own.with_name(f"{digest}.{uuid.uuid4().hex}.damaged")
            with contextlib.suppress(FileNotFoundError):  # another process was quicker
                own.rename(damaged)
            shutil.rmtree(damaged, ignore_errors=True)
            return False
        return True

    def _trials(self, digest: str) -> list[Trial]:
        try:
            return [Trial(**said) for said in json.loads(self._trials_file(digest).read_text(encoding="utf-8"))]
        except (OSError, ValueError, TypeError):
            return []

    def _trials_file(self, digest: str) -> Path:
        """Where it lies how fast the backends are: one for each kind of machine, since a cache may be shared."""
        machine = [MEASURED, processor.name(), processor.cores(), *map(_version, ("openvino", "torch"))]
        machine += sorted(str(path) for path in Path("/dev").glob("nvidia[0-9]*"))
        return self._folder / digest / f"trials-{hashlib.sha256(json.dumps(machine).encode()).hexdigest()[:16]}.json"


def _why(backend: str, wanted: str, trials: dict[str, Trial]) -> str:
    if backend == wanted:
        return "asked for by CLOSEDLOOP_BACKEND"
    if wanted != AUTO:
        return f"CLOSEDLOOP_BACKEND asks for {wanted}, which cannot be used: {trials[wanted].problem}"
    return "the fastest that was measured here"


def look_agrees(tower: Tower, own: Path, spec: Spec) -> float:
    """The smallest cosine of a tower's vectors and textures with the reference's; raises Disagrees below the least, and
    where the vectors are not of unit length.

    Afterwards the tower is ready for each of its shapes.
    """
    pixels = agreement.pictures(spec.prepare.size)
    least = agreement.LEAST_INT8 if tower.name == INT8 else spec.least_cosine
    cosines = []
    ways = {(1, False)} | {(count, tower.lanes > 1) for count in tower.shapes}
    # All of them in one go, and a few in each way that they may come: this is done at every start.
    for count, lane in [(len(pixels), False), *sorted(ways)]:
        many = pixels[np.arange(max(count, FEW)) % len(pixels)]
        parts = [tower.look(many[start : start + count], lane) for start in range(0, len(many), count)]
        seen = [np.concatenate(of)[: len(pixels)] for of in zip(*parts, strict=True)]
        lengths = np.linalg.norm(seen[0], axis=1)
        if not np.allclose(lengths, 1, atol=LENGTH):
            raise Disagrees(f"its vectors are not of length 1, but {lengths.min():.3f} to {lengths.max():.3f}")
        cosines.append(_agrees(seen, own, ("vectors", "textures"), least))
    return min(cosines)


def grid_agrees(tower: Tower, own: Path, spec: Spec) -> float:
    """The same of a tower's grids."""
    pixels = agreement.pictures(spec.prepare_grid.size)
    seen = [np.concatenate([tower.grid(one[None], lane) for one in pixels]) for lane in {False, tower.lanes > 1}]
    return min(_agrees([one], own, ("grids",), spec.least_cosine) for one in seen)


def _agrees(ours: Sequence[np.ndarray], own: Path, names: Sequence[str], least: float) -> float:
    with np.load(own / SEEN) as seen:
        cosine = agreement.least_cosine(ours, [seen[name][: len(ours[0])] for name in names])
    if cosine < least:
        what = " and ".join(names)
        raise Disagrees(f"its {what} are others than the reference's: cosine {cosine:.5f}, wanted {least}")
    return cosine


def _tower(name: str, own: Path, backend: str) -> Tower:
    if backend.startswith("openvino"):
        from closedloop.models.backends.openvino_tower import OpenVinoTower

        return OpenVinoTower(own, backend, quantized.kept(own, name) if backend == INT8 else own)
    from closedloop.models.backends.torch_tower import TorchTower

    reference = encoders.load(name, "cpu").tower
    assert isinstance(reference, TorchTower)
    return TorchTower(reference.net, backend.removeprefix("torch-"), fast=True)


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.{uuid.uuid4().hex}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, file)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
