"""Which release stays, whether it can be made again, and where it comes from: on real records and a real store."""

import datetime as dt
import json

import numpy as np
import pytest

from closedloop import annotations, installations, lineage, releases, removal, reproduction, tasks, training
from closedloop.errors import (
    AmbiguousRelease,
    CannotPin,
    NotPinned,
    NotReproducible,
    Pinned,
    UnknownRelease,
    UnknownTrace,
)
from closedloop.models import artefact
from closedloop.project import CLASSIFIER, Project
from closedloop.queues import RANDOM_SAMPLE
from closedloop.storage import asking, features, pictures, registry
from tests.integration.answered import ENCODER, lenient, seen


def live(stores) -> str | None:
    with stores.db.read() as tx:
        row = registry.live_release(tx, "pets", CLASSIFIER)
    return row["id"] if row else None


def pin(stores, clock, release: str) -> str | None:
    return releases.pin(stores, "pets", CLASSIFIER, release, "owner@example.org", clock())


@pytest.fixture
def two(stores, project, clock, answered) -> list[str]:
    """Two releases, the second one live."""
    made = []
    for _ in range(2):
        answered(40, noise=0.1)
        made.append(training.train(stores, lenient(project), clock).release)
    assert live(stores) == made[1]
    return made


def test_a_pinned_release_stays_whatever_candidates_come(stores, project, clock, answered, two):
    assert pin(stores, clock, two[1]) is None
    answered(40, noise=0.1)
    made = training.train(stores, lenient(project), clock)
    assert (made.state, made.passed) == ("candidate", True)
    assert f"{two[1]} stays live, since it is pinned" in made.reason
    assert live(stores) == two[1]
    with pytest.raises(Pinned):
        releases.rollback(stores, "pets", CLASSIFIER, clock())
    assert releases.earlier(stores, "pets", CLASSIFIER) is None
    assert [row["pinned"] for row in releases.listing(stores, "pets")] == [False, True, False]

    releases.unpin(stores, "pets", CLASSIFIER)
    answered(40, noise=0.1)
    assert training.train(stores, lenient(project), clock).state == "live"
    with pytest.raises(NotPinned):
        releases.unpin(stores, "pets", CLASSIFIER)


def test_pinning_an_earlier_release_puts_it_back(stores, clock, two):
    assert pin(stores, clock, two[0]) == two[1]
    assert live(stores) == two[0]
    states = {row["release"]: (row["state"], row["reason"]) for row in releases.listing(stores, "pets")}
    assert states[two[1]] == ("retired", f"{two[0]} was pinned")
    assert states[two[0]] == ("live", f"pinned in place of {two[1]}")
    assert pin(stores, clock, two[1]) == two[0]  # another pin instead of the first
    assert [row["pinned"] for row in releases.listing(stores, "pets")] == [False, True]


def test_what_cannot_answer_cannot_be_pinned(stores, project, clock, answered, two):
    with pytest.raises(UnknownRelease):
        pin(stores, clock, "r0009-00000000")
    answered(20, noise=0.1)
    refused = training.train(stores, project, clock)
    assert refused.state == "refused"
    with pytest.raises(CannotPin, match="the gate refused it"):
        pin(stores, clock, refused.release)
    with stores.db.write() as tx:
        tx.execute(registry.releases.update().where(registry.releases.c.id == two[0]).values(encoder="f" * 64))
    with pytest.raises(CannotPin, match="another encoder"):
        pin(stores, clock, two[0])
    assert live(stores) == two[1]


def test_a_release_is_made_again_byte_by_byte(stores, clock, two):
    made = reproduction.run(stores, two[0], clock)
    assert (made.release, made.same, made.differences) == (f"pets/classifier/{two[0]}", True, {})
    assert made.made_with == {}
    assert reproduction.run(stores, f"pets/classifier/{two[1]}", clock).same


def test_new_classes_do_not_change_what_was_made(stores, project, clock, two):
    from closedloop import project as projects

    projects.add(stores, project.model_copy(update={"classes": (*project.classes, "newt")}), clock())
    assert reproduction.run(stores, two[0], clock).same


def test_another_picture_than_then_makes_other_weights(stores, clock, two):
    """The same features, but two pictures look like another one."""
    chosen = installations.chosen_encoder(stores)
    ids = [f"{n:032x}" for n in range(80)]
    vectors = training.features_of(stores, "pets", chosen, clock).vectors(ids)
    vectors[:2] = np.eye(1, 16, dtype="<f4")
    with stores.db.write() as tx:
        for id_ in ids:
            features.drop_parts(tx, "pets", id_)
    seen(stores, "pets", chosen.digest, dict(zip(ids, vectors, strict=True)), clock)
    made = reproduction.run(stores, two[0], clock)
    assert not made.same
    assert all(by is None or by > 0 for by in made.differences.values())
    assert made.differences


@pytest.mark.parametrize("lost", ["picture", "dataset", "tampered", "weights"])
def test_what_is_gone_is_named(stores, clock, two, lost):
    with stores.db.read() as tx:
        row = next(row for row in registry.releases_of(tx, "pets") if row["id"] == two[0])
    key = f"models/pets/datasets/{row['dataset_id']}.jsonl"
    if lost == "picture":
        removal.remove(stores, "pets", f"{0:032x}", "owner@example.org", clock())
    elif lost == "dataset":
        stores.objects.remove(key)
    elif lost == "tampered":
        stores.objects.put(key, stores.objects.get(key) + b"\n")
    else:
        stores.objects.remove(f"{artefact.place('pets', CLASSIFIER, two[0])}/{artefact.WEIGHTS}")
    said = {"picture": "were removed", "dataset": "not there", "tampered": "not what was frozen", "weights": "missing"}
    with pytest.raises(NotReproducible, match=said[lost]):
        reproduction.run(stores, two[0], clock)


def test_a_name_that_two_projects_have_wants_the_project(stores, project, clock, two):
    from closedloop import project as projects

    other = Project.model_validate({**project.model_dump(), "id": "zoo"})
    projects.add(stores, other, clock())
    with stores.db.write() as tx:
        row = dict(next(row for row in registry.releases_of(tx, "pets") if row["id"] == two[0]))
        dataset = {"id": row["dataset_id"], "head": CLASSIFIER, "digest": "0" * 64, "items": 0, "created_at": clock()}
        tx.execute(asking.sa.insert(pictures.images.metadata.tables["datasets"]).values(project_id="zoo", **dataset))
        registry.add_release(tx, {**row, "project_id": "zoo"})
    with pytest.raises(AmbiguousRelease, match=f"pets/classifier/{two[0]}, zoo/classifier/{two[0]}"):
        releases.find(stores, two[0])
    assert releases.find(stores, f"zoo/classifier/{two[0]}")["project_id"] == "zoo"
    for wrong in ("r0001", f"pets/{two[0]}", f"pets/ranker/{two[0]}", ""):
        with pytest.raises(UnknownRelease):
            releases.find(stores, wrong)


def ask_and_answer(stores, project, clock, image_id: str, number: int, label: str) -> None:
    """A task about a picture, and an annotator's answer to it."""
    with stores.db.write() as tx:
        task_id = tasks.ask(tx, project.id, image_id, RANDOM_SAMPLE, clock())
    raw = {
        "id": number,
        "completed_by": 7,
        "updated_at": (clock() + dt.timedelta(minutes=1)).isoformat(),
        "result": [{"from_name": "choice", "value": {"choices": [label]}}],
    }
    with stores.db.write() as tx:
        annotations.keep(tx, project, RANDOM_SAMPLE, {"task_id": task_id}, raw, clock())


def test_from_a_picture_an_annotation_or_a_release_to_all_the_others(stores, project, clock, answered):
    answered(45, noise=0.1)
    image_id = f"{0:032x}"
    ask_and_answer(stores, project, clock, image_id, 31, "cat")
    made = training.train(stores, project, clock)
    frozen = made.card["dataset"]["id"]
    learnt = [{"dataset": frozen, "label": "cat", "releases": [{"release": made.release, "state": "live"}]}]

    [picture] = lineage.of(stores, image_id)
    assert (picture["answer"], picture["imported"], picture["datasets"]) == ("cat", "cat", learnt)
    assert [(one["annotation"], one["label"]) for one in picture["annotations"]] == [("31", "cat")]

    [annotation] = lineage.of(stores, "31")
    assert (annotation["picture"], annotation["annotator"], annotation["datasets"]) == (image_id, "7", learnt)

    [release] = lineage.of(stores, made.release)
    assert release["dataset"] == frozen
    assert release["annotations"] == ["31"]
    assert release["annotators"] == {"7": 1, "import": 45}
    assert len(release["pictures"]) == 45
    assert release["encoder"]["digest"] == ENCODER.digest
    json.dumps([picture, annotation, release])


def test_an_answer_given_after_the_freeze_counted_in_no_dataset(stores, project, clock, answered):
    answered(45, noise=0.1)
    training.train(stores, project, clock)
    ask_and_answer(stores, project, clock, f"{0:032x}", 32, "cat")
    [annotation] = lineage.of(stores, "32")
    assert annotation["datasets"] == []


def test_of_a_removed_picture_is_left_who_learnt_from_it(stores, project, clock, answered):
    answered(45, noise=0.1)
    made = training.train(stores, project, clock)
    removal.remove(stores, "pets", f"{0:032x}", "owner@example.org", clock())
    [picture] = lineage.of(stores, f"{0:032x}")
    assert picture["removed"]
    assert picture["datasets"][0]["releases"] == [{"release": made.release, "state": "live"}]
    assert "predictions" not in picture


@pytest.mark.parametrize("name", ["", "nonsense", "12", "r0001-12345678", "a" * 32, "pets/classifier/../x"])
def test_a_name_that_nothing_has_is_said(stores, project, name):
    with pytest.raises((UnknownTrace, UnknownRelease)):
        lineage.of(stores, name)
