"""Changing the encoder: every project must get a release that is not worse, or nothing changes."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from closedloop import encoder_switch, gate, image, importing, installations, labels, releases, training
from closedloop import project as projects
from closedloop.errors import EncoderNotSwitched, LeaseLost
from closedloop.features import VECTOR
from closedloop.installations import ChosenEncoder
from closedloop.models import encoder as encoders
from closedloop.storage import features, installation, pictures
from tests.conftest import START
from tests.unit.test_encoder import tiny

__all__ = ["tiny"]

MANIFEST = "{id: shapes, title: Shapes, kind: classification, classes: [round, square]}"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "shapes"


@pytest.fixture
def shapes(stores, clock, folder):
    """A project with a release on the embedded encoder, from real pictures."""
    project = projects.parse_manifest(MANIFEST)
    projects.add(stores, project, START)
    random = np.random.default_rng(0)
    for name in project.classes:
        (folder / name).mkdir(parents=True)
        for number in range(12):
            picture = Image.new("RGB", (96, 96), tuple(int(v) for v in random.integers(180, 255, 3)))
            x, y = (int(v) for v in random.integers(4, 30, 2))
            draw = ImageDraw.Draw(picture)
            (draw.ellipse if name == "round" else draw.rectangle)((x, y, x + 50, y + 50), fill=(40, 20, number * 9))
            picture.save(folder / name / f"{number}.png")
    done = importing.run(stores, project, folder, clock)
    assert (done.added, done.skipped) == (24, [])
    tower = encoders.load("embedded")
    chosen = ChosenEncoder("embedded", tower.digest, 1280, False, "", "")
    with stores.db.write() as tx:
        installations.choose_encoder(tx, chosen, START)
    assert training.train(stores, project, clock).passed
    return project


def test_a_worse_encoder_is_refused_and_nothing_changes(stores, shapes, clock, tiny):
    before = (installations.chosen_encoder(stores), releases.listing(stores, "shapes"))
    with pytest.raises(EncoderNotSwitched, match="shapes's classifier was refused"):
        encoder_switch.use(stores, tiny, clock)  # random weights
    assert (installations.chosen_encoder(stores), releases.listing(stores, "shapes")) == before


def test_an_encoder_that_is_not_worse_takes_over_with_its_release(stores, shapes, clock, tiny, monkeypatch):
    monkeypatch.setattr(gate, "judge_switch", _generous(gate.judge_switch))
    chosen = encoder_switch.use(stores, tiny, clock)
    assert installations.chosen_encoder(stores) == chosen
    assert chosen.name == tiny
    rows = releases.listing(stores, "shapes")
    assert [row["state"] for row in rows] == ["retired", "live"]
    with stores.db.read() as tx:
        ids = [f.image_id for f in labels.settled_items(stores, shapes)]
        assert len(features.parts_with(tx, "shapes", chosen.digest, VECTOR, ids)) == 24


def test_a_switch_that_was_paused_while_another_trained_changes_nothing(stores, shapes, clock, tiny, monkeypatch):
    monkeypatch.setattr(gate, "judge_switch", _generous(gate.judge_switch))
    before, write = installations.chosen_encoder(stores), encoder_switch.write

    def slow_write(*arguments):
        card = write(*arguments)
        later = clock.forward(minutes=10)
        with stores.db.write() as tx:
            assert installation.take_lease(tx, "train:shapes:classifier", "another", later, later.replace(year=2027))
        return card

    monkeypatch.setattr(encoder_switch, "write", slow_write)
    with pytest.raises(LeaseLost):
        encoder_switch.use(stores, tiny, clock)
    assert installations.chosen_encoder(stores) == before
    assert [row["state"] for row in releases.listing(stores, "shapes")] == ["live"]


def test_importing_again_adds_nothing_and_names_what_is_no_picture(stores, shapes, clock, folder):
    (folder / "round" / "notes.txt").write_text("not a picture")
    (folder / "oval").mkdir()
    again = importing.run(stores, shapes, folder, clock)
    assert (again.added, again.known) == (0, 24)
    assert len(again.skipped) == 1
    assert "round/notes.txt" in again.skipped[0]
    assert again.not_classes == ["oval"]


def _generous(judge):
    """The gate, as if the candidate were always right: random weights would never pass the real one."""

    def always(candidate, baseline, against, basis):
        return judge([True] * len(candidate), baseline, against, basis)

    return always


def test_a_stored_import_is_what_an_upload_would_store(stores, shapes, folder):
    file = next((folder / "round").glob("*.png"))
    picture = image.accept(file.read_bytes())
    with stores.db.read() as tx:
        row = pictures.image(tx, "shapes", picture.id)
    assert stores.objects.get(row["key"]) == picture.jpeg
    assert Image.open(io.BytesIO(picture.jpeg)).format == "JPEG"
