"""Training from settled answers to a judged release, on real records and a real store.

Embeddings are made by hand and lie in the cache, so no encoder is loaded; everything else is the real thing.
"""

import json

import pytest

from closedloop import datasets, installations, releases, training
from closedloop.errors import LeaseLost, LeaseTaken, LiveChanged, NothingToRollBack, ReleaseChanged, TooFewAnswers
from closedloop.features import Features
from closedloop.installations import ChosenEncoder
from closedloop.models import artefact
from closedloop.project import CLASSIFIER
from closedloop.storage import installation, registry
from tests.integration.answered import ENCODER, lenient


def live(stores) -> str | None:
    with stores.db.read() as tx:
        row = registry.live_release(tx, "pets", CLASSIFIER)
    return row["id"] if row else None


def test_a_first_release_goes_live_and_its_card_says_all(stores, project, clock, answered):
    answered(60)
    made = training.train(stores, project, clock)
    assert made.passed
    assert live(stores) == made.release
    folder = artefact.place("pets", CLASSIFIER, made.release)
    card = json.loads(stores.objects.get(f"{folder}/card.json"))
    assert card["classes"] == ["cat", "dog", "owl"]
    assert card["encoder"]["digest"] == ENCODER.digest
    assert card["metrics"]["accuracy_95"][0] < card["metrics"]["accuracy"] < card["metrics"]["accuracy_95"][1]
    assert card["gate"]["against"] == "commonest class"
    assert {"rule", "error", "only_candidate_right", "probability_better"} <= set(card["gate"])
    frozen = stores.objects.get(f"models/pets/datasets/{card['dataset']['id']}.jsonl").decode().splitlines()
    assert len(frozen) == 61


def test_one_is_told_how_far_the_learning_is(stores, project, clock, answered):
    answered(45)
    told = []
    training.train(stores, project, clock, lambda title: lambda done, total: told.append((title, done, total)))
    titles, done, total = zip(*told, strict=True)
    assert set(titles) == {"learning"}  # the pictures were looked at before
    assert list(done) == sorted(done)
    assert (done[-1], len(set(total))) == (total[-1], 1)


def test_the_same_answers_train_the_same_bytes(stores, project, clock, answered):
    answered(45)
    made = training.train(stores, project, clock)
    dataset = datasets.freeze(stores, project, CLASSIFIER, clock())
    lesson = training.lesson_on(stores, project, CLASSIFIER, dataset)
    lesson.look(Features(stores, "pets", ENCODER.digest, lambda: pytest.fail("nothing is embedded twice"), clock))
    fitted = lesson.fit()
    place = artefact.place("pets", CLASSIFIER, made.release)
    assert stores.objects.get(f"{place}/model.safetensors") == artefact.weights_bytes(fitted.head)


def test_where_nothing_is_new_the_live_release_stays(stores, project, clock, answered):
    answered(45)
    first, second = training.train(stores, project, clock), training.train(stores, project, clock)
    assert (second.release, second.passed) == (first.release, True)
    assert len(releases.listing(stores, "pets")) == 1


def test_a_worse_candidate_is_refused_kept_and_never_live(stores, project, clock, answered):
    answered(60)
    good = training.train(stores, project, clock).release
    answered(60)  # what live is judged on as well
    answered(160, noise=3.0, wrong=True)
    rows_before = len(releases.listing(stores, "pets"))
    made = training.train(stores, project, clock)
    if made.passed:
        pytest.fail(f"the gate let a candidate pass that learnt from nonsense: {made.reason}")
    assert live(stores) == good
    refused = releases.listing(stores, "pets")[-1]
    assert len(releases.listing(stores, "pets")) == rows_before + 1
    assert refused["state"] == "refused"
    assert "right about" in refused["reason"]
    assert stores.objects.exists(f"{artefact.place('pets', CLASSIFIER, made.release)}/{artefact.MANIFEST}")


def test_noise_does_not_go_live_as_the_first_release(stores, project, clock, answered):
    answered(90, noise=50.0)
    made = training.train(stores, project, clock)
    assert made.card["metrics"]["accuracy"] < 0.55
    verdict = made.card["gate"]
    assert verdict["only_candidate_right"] > verdict["only_baseline_right"]  # by luck, as every second one of noise
    assert (made.passed, verdict["first"], verdict["look"]) == (False, True, 1)
    answered(10, noise=50.0)
    again = training.train(stores, project, clock).card["gate"]
    assert (again["first"], again["look"]) == (True, 2)


def test_too_few_answers_say_how_many_are_needed(stores, project, clock, answered):
    answered(6)
    with pytest.raises(TooFewAnswers, match="has 6 usable answers"):
        training.train(stores, project, clock)


def test_new_answers_are_counted_since_the_last_judged_dataset(stores, project, clock, answered):
    answered(30)
    assert datasets.count_new(stores, project, CLASSIFIER) == 30
    training.train(stores, project, clock)
    assert datasets.count_new(stores, project, CLASSIFIER) == 0
    answered(7)
    assert datasets.count_new(stores, project, CLASSIFIER) == 7


def test_every_dataset_that_is_judged_against_the_live_release_is_one_more_look(stores, project, clock, answered):
    answered(60)
    training.train(stores, project, clock)
    looked = []
    for _ in range(3):
        answered(20, noise=0.2)
        for _ in range(2):  # the same answers again are no new look
            made = training.train(stores, project, clock)
            looked.append((made.passed, made.card["gate"]["look"]))
    assert looked == [(False, 1), (False, 1), (False, 2), (False, 2), (False, 3), (False, 3)]


def test_a_project_that_wants_the_newest_answers_learnt_gets_what_is_not_worse(stores, project, clock, answered):
    answered(60, noise=0.1)
    training.train(stores, project, clock)
    answered(40, noise=0.1)
    refused = training.train(stores, project, clock)
    assert (refused.passed, refused.card["gate"]["difference"]) == (False, 0.0)  # as good is not better
    made = training.train(stores, lenient(project), clock)
    assert made.passed
    assert made.reason.startswith("not worse")


def test_rollback_goes_back_one_release_at_a_time(stores, project, clock, answered):
    project, made = lenient(project), []
    for _ in range(3):
        answered(40, noise=0.1)
        made.append(training.train(stores, project, clock))
    assert all(m.passed for m in made)
    names = [m.release for m in made]
    assert releases.rollback(stores, "pets", CLASSIFIER, clock()) == (names[2], names[1])
    assert live(stores) == names[1]
    with pytest.raises(ReleaseChanged):  # the button of a page that showed another live release, pressed again
        releases.rollback(stores, "pets", CLASSIFIER, clock(), expected=names[2])
    assert releases.rollback(stores, "pets", CLASSIFIER, clock(), expected=names[1]) == (names[1], names[0])
    with pytest.raises(NothingToRollBack):
        releases.rollback(stores, "pets", CLASSIFIER, clock())
    assert live(stores) == names[0]
    assert releases.listing(stores, "pets")[0]["reason"] == f"put back in place of {names[1]}"


def test_only_one_trains_a_project_at_a_time(stores, project, clock, answered):
    answered(30)
    with stores.db.write() as tx:
        installation.take_lease(tx, "train:pets:classifier", "another", clock(), clock.now.replace(year=2027))
    with pytest.raises(LeaseTaken):
        training.train(stores, project, clock)


def test_a_trainer_that_was_paused_too_long_cannot_release(stores, project, clock, answered, monkeypatch):
    answered(30)
    write = training.write

    def slow_write(*arguments):
        card = write(*arguments)
        later = clock.forward(minutes=10)  # meanwhile the lease ran out and another took it
        with stores.db.write() as tx:
            assert installation.take_lease(tx, "train:pets:classifier", "another", later, later.replace(year=2027))
        return card

    monkeypatch.setattr(training, "write", slow_write)
    with pytest.raises(LeaseLost):
        training.train(stores, project, clock)
    assert live(stores) is None
    assert releases.listing(stores, "pets") == []


@pytest.mark.parametrize("survives", [1, 2])
def test_a_run_that_is_killed_while_writing_leaves_no_release_and_the_next_one_finishes_it(
    stores, project, clock, answered, survives, monkeypatch
):
    answered(45)
    put, written = stores.objects.put, []

    def put_until_killed(key: str, data: bytes) -> None:
        if "classifier" in key and len(written) == survives:
            raise KeyboardInterrupt
        if "classifier" in key:
            written.append(key)
        put(key, data)

    monkeypatch.setattr(stores.objects, "put", put_until_killed)
    with pytest.raises(KeyboardInterrupt):
        training.train(stores, project, clock)
    monkeypatch.undo()
    assert releases.listing(stores, "pets") == []
    assert not any(entry.key.endswith(artefact.MANIFEST) for entry in stores.objects.list("models/pets"))
    made = training.train(stores, project, clock)
    assert live(stores) == made.release
    assert len([e for e in stores.objects.list("models/pets") if e.key.endswith(artefact.MANIFEST)]) == 1


def test_a_candidate_never_follows_a_release_that_it_was_not_judged_against(
    stores, project, clock, answered, monkeypatch
):
    for _ in range(2):
        answered(40, noise=0.1)
        training.train(stores, lenient(project), clock)
    first, second = (row["release"] for row in releases.listing(stores, "pets"))
    assert live(stores) == second
    answered(40, noise=0.1)
    write = training.write

    def after_a_rollback(*arguments):
        releases.rollback(stores, "pets", CLASSIFIER, clock())
        return write(*arguments)

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(training, "write", after_a_rollback)
        with pytest.raises(LiveChanged, match="Train again"):
            training.train(stores, lenient(project), clock)
    assert live(stores) == first
    assert len(releases.listing(stores, "pets")) == 2
    # What was written then says that it was judged against another release: it is not this candidate's card.
    made = training.train(stores, lenient(project), clock)
    assert made.card["gate"]["against"] == first
    assert made.release.startswith("r0004-")


def test_a_live_release_that_was_tampered_with_does_not_bar_the_way_to_a_new_one(stores, project, clock, answered):
    answered(45)
    first = training.train(stores, project, clock)
    stores.objects.put(f"{artefact.place('pets', CLASSIFIER, first.release)}/model.safetensors", b"evil")
    answered(45)
    second = training.train(stores, project, clock)
    assert live(stores) == second.release
    assert "not what the manifest says" in second.reason


def test_the_random_sample_decides_once_enough_of_it_was_answered(stores, project, clock, answered):
    answered(60)
    assert "random sample and imports" in training.train(stores, project, clock).reason


def test_a_candidate_is_compared_only_on_answers_that_live_has_not_learnt_from(stores, project, clock, answered):
    answered(60)
    training.train(stores, project, clock)
    answered(25)
    gate = training.train(stores, project, clock).card["gate"]
    assert gate["answers"] == 25
    assert gate["against"].startswith("r0001-")


def test_a_trainer_whose_encoder_was_changed_meanwhile_cannot_release(stores, project, clock, answered, monkeypatch):
    answered(30)
    write = training.write

    def write_while_it_changes(*arguments):
        other = ChosenEncoder("other", "f" * 64, 16, False, "", "")
        with stores.db.write() as tx:
            installations.choose_encoder(tx, other, clock())
        return write(*arguments)

    monkeypatch.setattr(training, "write", write_while_it_changes)
    with pytest.raises(LeaseLost):
        training.train(stores, project, clock)
    assert releases.listing(stores, "pets") == []
