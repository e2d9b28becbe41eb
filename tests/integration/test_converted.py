"""Encoders that were converted for this machine: which backend computes them, and what happens when one cannot."""

import functools
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from closedloop.errors import EncoderUnavailable
from closedloop.models import backends, conversions, manifest, zero_shot
from closedloop.models import encoder as encoders
from closedloop.models.backends import FP32, agreement, openvino_tower
from closedloop.models.backends.openvino_tower import OpenVinoTower, available
from closedloop.models.converted import Converted
from closedloop.project import parse_manifest
from tests.conftest import CACHE
from tests.unit.test_encoder import pictures, tiny  # noqa: F401

OPENED_WITHOUT_TORCH = """
import json, sys
from pathlib import Path
from closedloop.models.converted import Converted
encoder, choice = Converted(Path(sys.argv[1])).open("embedded", sys.argv[2])
print(json.dumps([choice.backend, "torch" in sys.modules]))
"""


@pytest.fixture(scope="module")
def digest() -> str:
    """The embedded encoder, converted in the cache of all tests."""
    return digest_of("embedded")


@pytest.fixture
def cache(tmp_path: Path, digest: str) -> Path:
    """A cache of one's own that has the embedded encoder."""
    shutil.copytree(CACHE / "encoders" / digest, tmp_path / "encoders" / digest)
    return tmp_path


def converted_once(name: str, folder: Path) -> tuple[encoders.Encoder, Converted]:
    """An encoder, converted in the cache of all tests, in a copy of that."""
    digest = digest_of(name)
    shutil.copytree(CACHE / "encoders" / digest, folder / "encoders" / digest)
    return Converted(folder).open(name, digest)[0], Converted(folder)


@functools.cache
def digest_of(name: str) -> str:
    """Of an encoder that is in the cache of all tests from now on."""
    return Converted(CACHE).choose(name)[0].digest


def test_the_fastest_that_agrees_is_chosen(digest: str) -> None:
    encoder, choice = Converted(CACHE).open("embedded", digest)
    tried = {trial.backend: trial for trial in choice.trials}
    assert {backends.REFERENCE, *available()} <= set(tried)
    usable = [trial for trial in choice.trials if trial.problem is None]
    assert choice.backend == max(usable, key=lambda trial: trial.pictures_per_second or 0).backend
    assert all(trial.cosine >= encoder.least_cosine for trial in usable if trial.cosine)
    assert choice.reason == "the fastest that was measured here"


@pytest.mark.parametrize("backend", available())
def test_a_backend_sees_what_the_reference_sees(digest: str, backend: str) -> None:
    encoder, choice = Converted(CACHE, backend).open("embedded", digest)
    assert (choice.backend, choice.reason) == (backend, "asked for by CLOSEDLOOP_BACKEND")
    reference = encoders.load("embedded", "cpu")
    images = [Image.fromarray(one).resize((300, 200)) for one in agreement.pictures(256)[:5]]
    for ours, theirs in zip(encoder.embed_with_texture(images), reference.embed_with_texture(images), strict=True):
        assert agreement.least_cosine([ours], [theirs]) > 0.996
        assert ours.dtype == np.float32
    assert agreement.least_cosine([encoder.grid(images)], [reference.grid(images)]) > 0.99


def test_a_picture_is_seen_alike_alone_and_among_others(digest: str) -> None:
    encoder, _ = Converted(CACHE, backends.FP32).open("embedded", digest)
    images = pictures(11)  # a full shape, and three more
    together = encoder.embed(images)
    alone = np.concatenate([encoder.embed([image]) for image in images])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_a_second_start_needs_no_torch(digest: str) -> None:
    command = [sys.executable, "-c", OPENED_WITHOUT_TORCH, str(CACHE), digest]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    backend, torch = json.loads(ended.stdout.splitlines()[-1])
    assert backend in available()
    assert not torch


def test_a_backend_that_sees_something_else_is_not_used(
    cache: Path, digest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = Converted(cache).open("embedded", digest)[1].backend
    right = OpenVinoTower.look

    def look(self: OpenVinoTower, pixels: np.ndarray, lane: bool = False) -> tuple[np.ndarray, np.ndarray]:
        vectors, textures = right(self, pixels, lane)
        return (np.roll(vectors, 1, axis=1) if self.name == best else vectors), textures

    monkeypatch.setattr(OpenVinoTower, "look", look)
    _, choice = Converted(cache).open("embedded", digest)
    assert choice.backend != best
    (problem,) = [trial.problem for trial in choice.trials if trial.backend == best]
    assert problem
    assert "cosine" in problem
    _, forced = Converted(cache, best).open("embedded", digest)
    assert forced.backend != best
    assert best in forced.reason
    assert "cosine" in forced.reason


@pytest.mark.parametrize("lanes", [1, 3])
def test_lanes_see_what_all_cores_see_also_beside_each_other(
    cache: Path, digest: str, lanes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_tower, "cores", lambda: lanes)
    tower = Converted(cache, FP32).open("embedded", digest)[0].tower
    assert (tower.name, tower.lanes) == (FP32, lanes)
    seen = agreement.pictures(224)
    alone = np.concatenate([tower.look(one[None])[0] for one in seen])
    np.testing.assert_allclose(tower.look(seen)[0], alone, atol=1e-4)
    ways = [(seen[start : start + count], start) for count in (1, 3, 4, 5) for start in range(4)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda way: tower.look(way[0], lane=True)[0], ways * 3))
    for (pixels, start), vectors in zip(ways * 3, found, strict=True):
        np.testing.assert_allclose(vectors, alone[start : start + len(pixels)], atol=1e-4)


def test_what_is_no_number_never_agrees() -> None:
    said = np.ones((2, 3))
    assert agreement.least_cosine([said], [said]) == pytest.approx(1)
    assert agreement.least_cosine([said * [[1], [np.nan]]], [said]) == -1
    assert agreement.least_cosine([said * 0], [said]) == -1


def test_without_openvino_torch_serves(cache: Path, digest: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        OpenVinoTower, "__init__", lambda *_: (_ for _ in ()).throw(RuntimeError("no such instruction"))
    )
    encoder, choice = Converted(cache).open("embedded", digest)
    assert choice.backend == backends.REFERENCE
    assert any(trial.problem == "no such instruction" for trial in choice.trials)
    np.testing.assert_array_equal(encoder.embed(pictures(2)), encoders.load("embedded", "cpu").embed(pictures(2)))


@pytest.mark.parametrize("harm", ["changed", "gone", "half"])
def test_a_damaged_cache_is_made_anew(tiny: str, tmp_path: Path, harm: str) -> None:  # noqa: F811
    encoder, _ = converted_once(tiny, tmp_path)
    own = tmp_path / "encoders" / encoder.digest
    file = own / "look.bin"
    before = file.read_bytes()
    if harm == "changed":
        file.write_bytes(before[:1000] + bytes([before[1000] ^ 1]) + before[1001:])
    elif harm == "gone":
        file.unlink()
    else:  # killed while it was written
        (own / manifest.MANIFEST).unlink()
    again, choice = Converted(tmp_path).open(tiny, encoder.digest)
    assert np.isfinite(again.embed(pictures(1))).all()
    assert choice.backend in available()
    assert (own / manifest.MANIFEST).exists()
    assert not list((tmp_path / "encoders").glob("*.damaged"))


def test_words_are_read_by_another_process_once(tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    encoder, cache = converted_once(tiny, tmp_path)
    pets = parse_manifest("{id: pets, title: Pets, kind: classification, classes: [cat, dog]}")
    times: list[str] = []
    asked = conversions.asked
    monkeypatch.setattr(conversions, "asked", lambda what, name: times.append(name) or asked(what, name))
    first = zero_shot.head(encoder, pets).tensors["weight"]
    assert times == [tiny]  # for all classes: each time is the start of a process that loads the encoder
    np.testing.assert_allclose(first, zero_shot.head(encoders.load(tiny), pets).tensors["weight"], rtol=1e-4, atol=1e-4)
    monkeypatch.setattr(conversions, "asked", lambda *_: pytest.fail("it was asked again"))
    again, _ = cache.open(tiny, encoder.digest)
    np.testing.assert_array_equal(zero_shot.head(again, pets).tensors["weight"], first)


def test_other_weights_under_the_same_name_are_refused(tiny: str, tmp_path: Path) -> None:  # noqa: F811
    with pytest.raises(EncoderUnavailable, match="former file"):
        Converted(tmp_path).open(tiny, "0" * 64)


def test_what_cannot_be_had_is_said(tmp_path: Path) -> None:
    with pytest.raises(EncoderUnavailable, match="no file"):
        Converted(tmp_path).choose("openclip:ViT-B-32@/no/such/file.safetensors")


def test_converting_tells_nobody() -> None:
    """OpenVINO would send statistics to its makers; what the process converts with must be its stub."""
    look = (
        "import closedloop.models.conversion, openvino; from openvino.tools.ovc import telemetry_utils as t; "
        "print(t.tm.__name__)"
    )
    ended = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True, timeout=120)
    assert ended.stdout.strip().endswith("telemetry_stub")
