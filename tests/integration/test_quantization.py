"""The encoder in 8-bit numbers: made by kept pictures, judged by the live labels, used only where it is asked for."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from closedloop import installations, quantization, training
from closedloop.errors import NotQuantized
from closedloop.installations import ChosenEncoder
from closedloop.models import backends
from closedloop.models.backends import agreement
from closedloop.models.converted import Converted
from closedloop.project import Project
from closedloop.storage import Stores, answers, pictures
from tests.conftest import CACHE, START, Clock
from tests.integration.answered import lenient, seen

COLOURS = [(220, 60, 60), (60, 220, 60), (60, 60, 220)]
Keep = Callable[[int], dict[str, np.ndarray]]


@pytest.fixture(params=["sqlite"])
def database_url(tmp_path: Any) -> str:
    """One kind of records will do: what is made here lies beside the encoder."""
    return f"sqlite:///{tmp_path / 'closedloop.db'}"


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("CALIBRATION", 24), ("CHECK", 36), ("LEAST", 12), ("SECONDS", 0.1)):
        monkeypatch.setattr(quantization, name, value)


@pytest.fixture
def digest(stores: Stores) -> str:
    encoder, _, _ = Converted(CACHE, backends.FP32).choose("embedded")
    chosen = ChosenEncoder("embedded", encoder.digest, encoder.dimension, False, "for a test", START.isoformat())
    with stores.db.write() as tx:
        installations.choose_encoder(tx, chosen, START)
    return encoder.digest


@pytest.fixture
def keep(stores: Stores, project: Project, digest: str) -> Keep:
    """`keep(n)`: n answered pictures of three colours; returns their vectors."""
    encoder, _ = Converted(CACHE, backends.FP32).open("embedded", digest)

    def add(count: int) -> dict[str, np.ndarray]:
        import io

        vectors = {}
        for seed in range(count):
            image_id, key = f"{seed:032x}", f"production/pets/class_00/{seed:032x}.jpg"
            noise = np.random.default_rng(seed).integers(-50, 50, (6, 8, 3))
            pixels = np.clip(np.array(COLOURS[seed % 3]) + noise, 0, 255).astype(np.uint8)
            image = Image.fromarray(pixels).resize((300, 240), Image.Resampling.BICUBIC)
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=95)
            stores.objects.put(key, buffer.getvalue())
            vectors[image_id] = encoder.embed([Image.open(buffer)])[0]
            row: dict[str, Any] = {
                "project_id": "pets",
                "id": image_id,
                "key": key,
                "sha256": image_id * 2,
                "phash": f"{int(np.random.default_rng(seed).integers(0, 2**63)):016x}",
                "width": 300,
                "height": 240,
                "bytes": 1,
                "source": "import",
                "arrived_at": START,
            }
            with stores.db.write() as tx:
                pictures.add_image(tx, row)
                of = {"project_id": "pets", "image_id": image_id}
                answers.add_import(tx, {**of, "label": project.classes[seed % 3], "at": START})
        return vectors

    return add


def stages(_title: str) -> Callable[[int, int], None]:
    return lambda done, of: None


def test_made_judged_kept_and_used_only_where_it_is_asked_for(
    stores: Stores, project: Project, digest: str, keep: Keep, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    converted = Converted(CACHE)
    # Before: asked for, it is named why another one serves.
    _, choice = converted.open("embedded", digest, backends.INT8)
    assert choice.backend != backends.INT8
    assert "closedloop encoder quantize" in choice.reason

    with pytest.raises(NotQuantized, match="no classifier is live"):
        quantization.run(stores, converted, stages)
    vectors = keep(60)
    seen(stores, "pets", digest, vectors, clock)
    assert training.train(stores, lenient(project), clock).passed

    # One that changes labels is not kept.
    monkeypatch.setattr(quantization, "LEAST_SAME", 1.01)
    with pytest.raises(NotQuantized, match=r"of 36 pictures keep their label, 101% must"):
        quantization.run(stores, converted, stages)
    assert not [entry for entry in converted.folder(digest).iterdir() if entry.is_dir() and "int8" in entry.name]

    monkeypatch.setattr(quantization, "LEAST_SAME", 0.97)
    done = quantization.run(stores, converted, stages)
    assert (done.calibrated_on, done.checked_on) == (24, 36)
    assert done.same_labels >= 0.97
    assert 0.7 < done.least_cosine <= done.median_cosine < 0.99999  # coarser, and not by much
    assert done.times_as_fast > 0

    # Not unless it is asked for; then it is, and sees what was said of it.
    assert converted.open("embedded", digest)[1].backend != backends.INT8
    coarse, choice = converted.open("embedded", digest, backends.INT8)
    assert (choice.backend, coarse.tower.name) == (backends.INT8, backends.INT8)
    full, _ = converted.open("embedded", digest, backends.FP32)
    pixels = agreement.pictures(full.size)[:3]
    cosines = (full.tower.look(pixels)[0] * coarse.tower.look(pixels)[0]).sum(axis=1)
    assert ((cosines > 0.9) & (cosines < 0.999999)).all()
    whole = agreement.pictures(full.grid_size)[:1]
    grids = [tower.grid(whole) for tower in (full.tower, coarse.tower)]
    assert float((grids[0] * grids[1]).sum() / np.linalg.norm(grids[0]) / np.linalg.norm(grids[1])) > 0.99

    # Damaged, it is named, and another one serves.
    weights = converted.folder(digest) / backends.INT8 / "look.bin"
    weights.write_bytes(weights.read_bytes()[:-8] + bytes(8))
    _, choice = converted.open("embedded", digest, backends.INT8)
    assert choice.backend != backends.INT8
    assert "damaged" in choice.reason


def test_too_few_pictures_are_said(stores: Stores, project: Project, digest: str, keep: Keep, clock: Clock) -> None:
    vectors = keep(21)
    seen(stores, "pets", digest, vectors, clock)
    training.train(stores, lenient(project), clock)
    with pytest.raises(NotQuantized, match="24 kept pictures"):
        quantization.run(stores, Converted(CACHE), stages)
