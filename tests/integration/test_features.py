"""Features of pictures in Parquet: computed once, in whatever order they are wanted, forgotten with their picture."""

import contextlib
import datetime as dt
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from closedloop import features, outbox, removal, sets
from closedloop import project as projects
from closedloop.errors import EncoderUnavailable, PictureRemoved, UnknownPicture
from closedloop.features import Features
from closedloop.storage import Stores, asking, tables, vectors
from tests.conftest import START, Clock
from tests.integration.stack import StandIn

Make = Callable[..., bytes]
DIGEST = "f" * 64


class Tower:
    """An encoder that counts what it looks at, and whose answers follow from the pixels."""

    name, digest, size, grid_size, grid_side = "tower", DIGEST, 8, 16, 2

    def __init__(self) -> None:
        self.looked = 0

    def embed(self, images: Sequence[Any]) -> np.ndarray:
        self.looked += len(images)
        return np.stack([np.asarray(image.resize((2, 2)), np.float32).ravel()[:4] / 255 for image in images])

    def embed_with_texture(self, images: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
        return self.embed(images), np.stack([np.asarray(i, np.float32).std((0, 1)) / 255 for i in images])

    def grid(self, images: Sequence[Any]) -> np.ndarray:
        self.looked += len(images)
        return np.stack([np.asarray(image.resize((2, 2)), np.float32) / 255 for image in images])


class Desk:
    def __init__(self, stores: Stores, clock: Clock) -> None:
        self.stores, self.clock, self.tower = stores, clock, Tower()
        self.project = projects.parse_manifest("{id: scenes, title: Scenes, kind: selection}")
        projects.add(stores, self.project, START)
        self.ids: list[str] = []

    def bring(self, *files: bytes) -> None:
        made = sets.receive(self.stores, StandIn(), self.project, files, self.clock())  # type: ignore[arg-type]
        self.ids += made.image_ids

    @property
    def features(self) -> Features:
        return Features(self.stores, "scenes", DIGEST, lambda: self.tower, self.clock)  # type: ignore[arg-type, return-value]

    def files(self) -> list[str]:
        return [listed.key for listed in self.stores.objects.list("models/scenes/features")]

    def rows(self, table: sa.Table) -> list[sa.Row]:
        with self.stores.db.read() as tx:
            return list(tx.execute(sa.select(table)).all())

    def work(self, after: dt.timedelta = dt.timedelta(seconds=20)) -> None:
        self.clock.now += after
        outbox.work(self.stores, StandIn(), self.clock)  # type: ignore[arg-type]


@pytest.fixture
def desk(stores: Stores, clock: Clock, picture: Make, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr(features, "PART", 3)
    made = Desk(stores, clock)
    made.bring(*(picture(seed, (64, 48 + 8 * seed)) for seed in range(5)))
    return made


@pytest.mark.parametrize("kind", ["vectors", "looks", "grids"])
def test_each_picture_is_looked_at_once_whoever_asks(desk: Desk, kind: str) -> None:
    def asked(ids: list[str]) -> np.ndarray:
        found = getattr(desk.features, kind)(ids)
        return found.grids if kind == "grids" else found

    first = asked(desk.ids)
    assert len(np.unique(first.reshape(5, -1), axis=0)) == 5
    backwards = asked(desk.ids[::-1])
    assert desk.tower.looked == 5
    np.testing.assert_array_equal(backwards, first[::-1])
    np.testing.assert_array_equal(asked([desk.ids[3], desk.ids[3], desk.ids[0]]), first[[3, 3, 0]])
    assert len(desk.files()) == 2  # three pictures and two
    assert asked([]).size == 0


def test_what_a_crop_proposer_sees(desk: Desk) -> None:
    seen = desk.features.grids(desk.ids)
    assert (seen.grids.shape, seen.grids.dtype) == ((5, 2, 2, 3), np.float16)
    assert seen.saliencies.shape == (5, 2, 2)
    np.testing.assert_allclose(seen.aspects, [64 / (48 + 8 * seed) for seed in range(5)])


def test_one_is_told_how_far_the_looking_is_and_only_where_there_is_something_to_look_at(desk: Desk) -> None:
    told: list[tuple[str, int, int]] = []
    one = Features(
        desk.stores, "scenes", DIGEST, lambda: desk.tower, desk.clock,
        lambda title: lambda done, total: told.append((title, done, total)),
    )  # type: ignore[arg-type, return-value]  # fmt: skip
    one.vectors(desk.ids)
    titles, done, total = zip(*told, strict=True)
    assert set(titles) == {"looking at pictures"}
    assert list(done) == sorted(done)
    assert (done[-1], set(total)) == (5, {5})
    one.vectors(desk.ids)
    assert len(told) == len(titles)


def test_what_serves_may_see_it_otherwise_and_training_does_not_take_it(desk: Desk) -> None:
    """Whoever makes a release again computes vectors by the reference; a backend that serves is only close to it."""
    with desk.stores.db.write() as tx:
        vectors.add(tx, "scenes", DIGEST, [vectors.Vector(desk.ids[1], bytes(16))], desk.clock())
    assert desk.features.vectors(desk.ids)[1].any()
    assert desk.tower.looked == 5
    assert len(desk.rows(tables.embeddings)) == 1  # it stays for whoever looks for similar ones


def test_killed_between_file_and_record_it_goes_on_and_leaves_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(features.features, "add_part", killed)
        with pytest.raises(KeyboardInterrupt):
            desk.features.vectors(desk.ids)
    (orphan,) = desk.files()
    with desk.stores.db.read() as tx:
        assert asking.waiting(tx, desk.clock()) == (0, None)  # it is promised for later
    desk.features.vectors(desk.ids)
    assert desk.tower.looked == 8  # the three of the lost part, and all five
    desk.work()
    assert orphan in desk.files()  # its process may still be alive
    desk.work(features.ABANDONED)
    assert orphan not in desk.files()
    assert len(desk.files()) == 2
    desk.features.vectors(desk.ids)
    assert desk.tower.looked == 8


def test_killed_after_a_part_it_goes_on_after_it(desk: Desk) -> None:
    def interrupted(done: int, _total: int) -> None:
        if done > 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Features(desk.stores, "scenes", DIGEST, lambda: desk.tower, desk.clock, lambda _: interrupted).vectors(desk.ids)  # type: ignore[arg-type, return-value]
    before = desk.tower.looked
    desk.features.vectors(desk.ids)
    assert desk.tower.looked == before + 2


def test_a_removed_picture_takes_its_parts_with_it(desk: Desk) -> None:
    first = desk.features.looks(desk.ids)
    desk.features.grids(desk.ids[:2])
    removal.remove(desk.stores, "scenes", desk.ids[0], "owner", desk.clock())
    desk.work()
    assert len(desk.files()) == 1
    assert desk.ids[0] not in {row.image_id for row in desk.rows(tables.feature_pictures)}
    with pytest.raises(PictureRemoved):
        desk.features.looks(desk.ids)
    np.testing.assert_array_equal(desk.features.looks(desk.ids[1:]), first[1:])
    desk.work(features.ABANDONED)
    assert len(desk.files()) == 2


def test_what_is_seen_does_not_depend_on_the_pictures_beside_it(desk: Desk) -> None:
    class Crowded(type(desk.tower)):  # type: ignore[misc]
        """As real encoders are, to the last bit: what they say depends on how many are looked at together."""

        def embed(self, images: Sequence[Any]) -> np.ndarray:
            return super().embed(images) + np.float32(1e-6 * len(images))

        def embed_with_texture(self, images: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
            vectors, textures = super().embed_with_texture(images)
            return vectors + np.float32(1e-6 * len(images)), textures

        def grid(self, images: Sequence[Any]) -> np.ndarray:
            return super().grid(images) + len(images) / 16

    desk.tower.__class__ = Crowded
    one = desk.features
    first = one.vectors(desk.ids), one.looks(desk.ids), one.grids(desk.ids).grids
    removal.remove(desk.stores, "scenes", desk.ids[0], "owner", desk.clock())
    desk.work()
    again = one.vectors(desk.ids[1:]), one.looks(desk.ids[1:]), one.grids(desk.ids[1:]).grids
    for before, after in zip(first, again, strict=True):
        np.testing.assert_array_equal(before[1:], after)


def test_a_picture_that_is_removed_while_it_is_looked_at_leaves_no_features(desk: Desk) -> None:
    looked = desk.tower.embed

    def remove_then_look(images: Sequence[Any]) -> np.ndarray:
        with contextlib.suppress(UnknownPicture):  # the second time
            removal.remove(desk.stores, "scenes", desk.ids[0], "owner", desk.clock())
        return looked(images)

    desk.tower.embed = remove_then_look  # type: ignore[method-assign]
    with pytest.raises(PictureRemoved):
        desk.features.vectors(desk.ids)
    assert desk.rows(tables.feature_pictures) == []
    desk.work()
    assert desk.files() == []


@pytest.mark.parametrize("others", [slice(0, 5), slice(1, 2)])
def test_two_that_look_at_the_same_at_once_leave_no_part_that_outlives_its_pictures(desk: Desk, others: slice) -> None:
    looked = desk.tower.embed

    def after_another(images: Sequence[Any]) -> np.ndarray:
        desk.tower.embed = looked  # type: ignore[method-assign]
        desk.features.vectors(desk.ids[others])
        return looked(images)

    desk.tower.embed = after_another  # type: ignore[method-assign]
    seen = desk.features.vectors(desk.ids)
    np.testing.assert_array_equal(desk.features.vectors(desk.ids), seen)
    assert {row.id for row in desk.rows(tables.feature_parts)} == {
        row.part_id for row in desk.rows(tables.feature_pictures)
    }
    desk.work()
    assert len(desk.files()) == len(desk.rows(tables.feature_parts))
    for id_ in desk.ids:
        removal.remove(desk.stores, "scenes", id_, "owner", desk.clock())
    desk.work()
    assert desk.files() == []


@pytest.mark.parametrize("harm", ["lost", "cut off"])
def test_a_part_whose_file_is_harmed_is_computed_anew(desk: Desk, harm: str) -> None:
    first, place = desk.features.vectors(desk.ids), desk.files()[0]
    content = desk.stores.objects.get(place)
    desk.stores.objects.remove(place)
    if harm == "cut off":
        desk.stores.objects.put(place, content[:-20])
    with pytest.raises(PictureRemoved):
        desk.features.vectors(desk.ids)
    np.testing.assert_array_equal(desk.features.vectors(desk.ids), first)


def test_another_encoders_weights_are_refused(desk: Desk) -> None:
    desk.tower.digest = "0" * 64
    with pytest.raises(EncoderUnavailable, match="not those that this installation records"):
        desk.features.vectors(desk.ids)
