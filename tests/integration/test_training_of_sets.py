"""A ranker and a crop proposer from settled picks and crops, on real records and a real store.

What the encoder sees is made by hand: the brightness of a picture, and where its bright part is.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from closedloop import datasets, installations, lineage, releases, removal, reproduction, sets, training
from closedloop import project as projects
from closedloop.errors import NothingToRollBack, TooFewAnswers
from closedloop.image import accept
from closedloop.installations import ChosenEncoder
from closedloop.models import artefact, ranker
from closedloop.models import encoder as encoders
from closedloop.project import CROPPER, RANKER, Project
from closedloop.storage import Stores
from closedloop.storage import sets as rows
from tests.conftest import START, Clock

ENCODER = ChosenEncoder("hand", "f" * 64, 4, False, "for a test", START.isoformat())
MANIFEST = "{id: %s, title: Scenes, kind: selection, gate: {policy: not_worse, margin: 0.5}, learn_together: %s}"


class Tower:
    """An encoder that sees brightness and place."""

    name, digest, dimension, size, grid_size, grid_side = "hand", "f" * 64, 4, 16, 16, 4

    def embed_with_texture(self, images: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
        bright = np.array([np.asarray(image, np.float32).mean() / 255 for image in images])
        vectors = np.stack([bright, 1 - bright, np.ones_like(bright), bright**2], axis=1)
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), vectors[:, :2]

    def grid(self, images: Sequence[Any]) -> np.ndarray:
        small = [np.asarray(image.resize((4, 4), Image.Resampling.BOX), np.float32) / 255 for image in images]
        return np.stack([np.concatenate([one, 1 - one], axis=2) for one in small])


def shot(chance: np.random.Generator) -> tuple[bytes, float, tuple[float, float, float, float]]:
    """A picture with a bright square in the dark: its bytes, its brightness, the square."""
    level, x, y = int(chance.integers(60, 250)), *chance.integers(0, 3, 2) * 16
    pixels = chance.integers(0, 40, (64, 64, 3))
    pixels[y : y + 32, x : x + 32] += level - 40
    buffer = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue(), float(pixels.mean()), (x / 64, y / 64, (x + 32) / 64, (y + 32) / 64)


class Studio:
    """Sets with a pick and a crop of earlier work."""

    def __init__(self, stores: Stores, clock: Clock, id_: str = "scenes", together: str = "false") -> None:
        self.stores, self.clock = stores, clock
        self.project: Project = projects.parse_manifest(MANIFEST % (id_, together))
        projects.add(stores, self.project, START)
        self.chance = np.random.default_rng(sum(map(ord, id_)))

    def add(self, count: int, whole: bool = False) -> None:
        for _ in range(count):
            shots = [shot(self.chance) for _ in range(int(self.chance.integers(2, 5)))]
            pictures = [accept(data) for data, _, _ in shots]
            best = int(np.argmax([bright for _, bright, _ in shots]))
            pick = sets.Pick(pictures[best].id, "session", self.clock())
            sets.keep(self.stores, self.project, pictures, "import", self.clock(), picked=pick)
            drawn = (0.0, 0.0, 1.0, 1.0) if whole else shots[best][2]
            box = dict(zip(("x1", "y1", "x2", "y2"), drawn, strict=True))
            of = {"project_id": self.project.id, "image_id": pictures[best].id, "session": "s", "at": self.clock()}
            with self.stores.db.write() as tx:
                rows.add_crop(tx, {**of, **box})

    def train(self, head: str) -> training.Outcome:
        return training.train(self.stores, self.project, self.clock, head=head)


@pytest.fixture  # what a head learns does not depend on the database; test_sets.py runs on both
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'closedloop.db'}"


@pytest.fixture
def studio(stores: Stores, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Studio:
    monkeypatch.setattr(encoders, "load", lambda _name: Tower())
    with stores.db.write() as tx:
        installations.choose_encoder(tx, ENCODER, START)
    return Studio(stores, clock)


@pytest.mark.parametrize(("head", "least"), [(RANKER, 0.9), (CROPPER, 0.6)])
def test_a_first_release_goes_live_and_its_card_says_all(studio: Studio, head: str, least: float) -> None:
    studio.add(40)
    made = studio.train(head)
    assert (made.state, made.passed) == ("live", True), made.reason
    card = json.loads(studio.stores.objects.get(f"{artefact.place('scenes', head, made.release)}/card.json"))
    metrics = card["metrics"]
    assert metrics["value"] > least
    assert metrics["value_95"][0] < metrics["value"] <= metrics["value_95"][1]
    assert (card["dataset"]["items"], metrics["answers"]) == (40, 40)
    assert card["gate"]["against"] in {
        "picking by chance",
        "whole picture",
        "centred 0.8 box",
        "mean box of the other folds",
    }
    assert (card["gate"]["measure"], card["gate"]["only_candidate_right"]) == (metrics["measure"], None)
    (row,) = releases.listing(studio.stores, "scenes")
    assert (row["head"], row["measure"], row["value"]) == (head, metrics["measure"], metrics["value"])


@pytest.mark.parametrize("head", [RANKER, CROPPER])
def test_it_can_be_made_again_byte_by_byte_and_traced(studio: Studio, head: str) -> None:
    studio.add(24)
    made = studio.train(head)
    assert reproduction.run(studio.stores, f"scenes/{head}/{made.release}", studio.clock).same
    (told,) = lineage.of(studio.stores, f"scenes/{head}/{made.release}")
    assert told["annotators"] == {"import": 24}
    (picture,) = [entry for entry in lineage.of(studio.stores, told["pictures"][0]) if entry["project"] == "scenes"]
    assert made.release in {row["release"] for one in picture["datasets"] for row in one["releases"]}


@pytest.mark.parametrize("head", [RANKER, CROPPER])
def test_a_candidate_is_compared_with_the_live_release_on_what_neither_has_learnt(studio: Studio, head: str) -> None:
    studio.add(30)
    first = studio.train(head)
    studio.add(25)
    second = studio.train(head)
    gate = second.card["gate"]
    assert (gate["against"], gate["answers"], gate["look"]) == (first.release, 25, 1)
    assert second.passed  # by its lenient gate
    with pytest.raises(NothingToRollBack):
        releases.rollback(studio.stores, "scenes", "classifier", studio.clock())
    gone, back = releases.rollback(studio.stores, "scenes", head, studio.clock())
    assert (gone, back) == (second.release, first.release)


def test_every_look_at_the_same_live_release_counts(studio: Studio) -> None:
    strict = studio.project.gate.model_copy(update={"policy": "better", "probability_better": 0.99})
    studio.add(30)
    studio.train(RANKER)
    studio.project = studio.project.model_copy(update={"gate": strict})
    looks = []
    for _ in range(3):
        studio.add(8)
        made = studio.train(RANKER)
        looks.append((made.state, made.card["gate"]["look"]))
    assert looks == [("refused", 1), ("refused", 2), ("refused", 3)]


def test_what_is_no_better_than_a_baseline_is_refused(studio: Studio) -> None:
    studio.add(30, whole=True)  # people keep the whole picture: nobody can know better
    made = studio.train(CROPPER)
    assert made.state == "refused"
    assert "whole picture 1.000" in made.reason


def test_too_few_answers_say_so(studio: Studio) -> None:
    studio.add(9)
    for head in (RANKER, CROPPER):
        with pytest.raises(TooFewAnswers, match=f"9 usable answers for its {head}"):
            studio.train(head)


def test_projects_that_learn_together_are_named_and_others_are_not_asked(
    studio: Studio, stores: Stores, clock: Clock
) -> None:
    studio.add(20)
    alone = studio.train(RANKER)
    assert (alone.card["offered_by"], alone.card["learnt_together_with"]) == ([], [])
    more, some = Studio(stores, clock, "more", "true"), Studio(stores, clock, "some", "true")
    more.add(30)
    some.add(15)
    made = some.train(RANKER)
    assert [other["project"] for other in made.card["offered_by"]] == ["more"]  # not "scenes", which keeps to itself
    if made.card["recipe"]["shared"]:
        assert made.card["learnt_together_with"] == made.card["offered_by"]
    frozen, _ = datasets.read(stores, "some", made.card["dataset"]["id"], made.card["dataset"]["digest"], RANKER)
    assert len(frozen.items) == 15  # its own sets alone
    more.add(5)  # what comes later changes nothing about how it was made
    assert reproduction.run(stores, f"some/ranker/{made.release}", clock).same


def test_what_was_learnt_from_another_project_is_known_to_judge_lineage_and_removal(
    stores: Stores, clock: Clock, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ranker.fit

    def fit(*arguments: Any, **named: Any) -> ranker.Fitted:
        made = real(*arguments, **named)
        return replace(made, recipe=replace(made.recipe, shared=True))  # whatever cross-validation says of so few

    monkeypatch.setattr(ranker, "fit", fit)
    more, some = Studio(stores, clock, "more", "true"), Studio(stores, clock, "some", "true")
    more.add(20)
    some.add(15)
    live = some.train(RANKER)
    assert live.state == "live"
    some.chance = np.random.default_rng(sum(map(ord, "more")))
    some.add(20)  # what the live ranker has seen in the other project
    assert some.train(RANKER).card["gate"]["answers"] == 0
    some.add(12)
    assert some.train(RANKER).card["gate"]["answers"] == 12

    name = f"some/ranker/{live.release}"
    with stores.db.read() as tx:
        first = sorted(rows.picks(tx, "more"), key=lambda row: row["set_id"])[0]["image_id"]
    (here,) = [one for one in lineage.of(stores, first) if one["project"] == "more"]
    assert name in [release["release"] for dataset in here["datasets"] for release in dataset["releases"]]
    assert [other["project"] for other in lineage.of(stores, name)[0]["learnt_together_with"]] == ["more"]
    removal.remove(stores, "more", first, "owner", clock())
    assert name in removal.listing(stores, "more")[0].releases


def test_a_damaged_live_release_does_not_bar_the_way(studio: Studio) -> None:
    studio.add(30)
    first = studio.train(CROPPER)
    place = f"{artefact.place('scenes', CROPPER, first.release)}/model.safetensors"
    studio.stores.objects.remove(place)
    studio.add(12)
    made = studio.train(CROPPER)
    assert made.card["gate"]["against"] != first.release
    assert first.release in made.card["gate"]["reason"]


def test_the_encoder_of_another_digest_fits_no_release(studio: Studio) -> None:
    studio.add(20)
    made = studio.train(RANKER)
    other = replace(ENCODER, digest="0" * 64)
    with pytest.raises(training.BadArtefact, match="another encoder"):
        training.read(studio.stores, studio.project, RANKER, made.release, other.digest, 6)
