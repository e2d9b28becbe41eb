"""A classifier: honest, calibrated, weighed, and that the same answers give the same bytes."""

import numpy as np
import pytest

from closedloop.models import artefact, calibration, classifier


def blobs(n: int, classes: int = 3, d: int = 16, noise: float = 0.6, seed: int = 0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, n)
    labels[:classes] = np.arange(classes)
    vectors = np.eye(classes, d)[labels] + noise * random.standard_normal((n, d))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), labels


def test_the_same_answers_give_the_same_bytes_and_others_do_not():
    vectors, labels = blobs(60)
    made = [artefact.weights_bytes(classifier.fit(vectors, labels, np.arange(60), 3).head) for _ in range(2)]
    assert made[0] == made[1]
    labels[5] = (labels[5] + 1) % 3
    assert artefact.weights_bytes(classifier.fit(vectors, labels, np.arange(60), 3).head) != made[0]


def test_out_of_fold_accuracy_is_that_on_pictures_never_seen():
    vectors, labels = blobs(300, noise=0.5)
    fresh, truth = blobs(2000, noise=0.5, seed=9)
    fitted = classifier.fit(vectors, labels, np.arange(300), 3)
    out_of_fold = (fitted.out_of_fold.argmax(axis=1) == labels).mean()
    unseen = (fitted.head.logits(fresh).argmax(axis=1) == truth).mean()
    assert 0.6 < unseen < 0.99  # neither trivial nor hopeless, else this shows nothing
    assert abs(out_of_fold - unseen) < 0.06


def test_pure_noise_is_not_flattered():
    random = np.random.default_rng(3)
    vectors = random.standard_normal((120, 64)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = random.integers(0, 2, 120)
    accuracy = (classifier.fit(vectors, labels, np.arange(120), 2).out_of_fold.argmax(axis=1) == labels).mean()
    assert accuracy < 0.65  # chance is 0.5, three standard deviations 0.14


def test_seventy_percent_means_seventy_percent():
    vectors, labels = blobs(400, noise=0.55)
    fresh, truth = blobs(4000, noise=0.55, seed=5)
    head = classifier.fit(vectors, labels, np.arange(400), 3).head
    assert calibration.expected_calibration_error(head.probabilities(fresh), truth) < 0.05


def test_classes_without_answers_stay_improbable_and_one_class_is_refused():
    vectors, labels = blobs(40)
    fitted = classifier.fit(vectors, labels, np.arange(40), 5)
    assert fitted.head.probabilities(vectors).shape == (40, 5)
    assert fitted.head.probabilities(vectors)[:, 3:].max() < 0.3
    with pytest.raises(ValueError, match="two classes"):
        classifier.fit(vectors, np.zeros(40, dtype=np.int64), np.arange(40), 3)


def test_ten_right_answers_do_not_mean_certainty():
    vectors, labels = blobs(10, classes=2, noise=0.05)
    fitted = classifier.fit(vectors, labels, np.arange(10), 2)
    assert fitted.head.probabilities(vectors).max() < 0.97


def test_confidence_is_fitted_on_the_fair_answers_where_there_are_enough():
    vectors, labels = blobs(300, noise=0.4)
    hard = np.arange(300) >= 150
    labels[hard] = np.random.default_rng(1).integers(0, 3, 150)  # what was asked about because it is hard
    for_all = classifier.fit(vectors, labels, np.arange(300), 3)
    for_fair = classifier.fit(vectors, labels, np.arange(300), 3, fair=~hard)
    assert (
        for_fair.head.probabilities(vectors).max(axis=1).mean() > for_all.head.probabilities(vectors).max(axis=1).mean()
    )


def test_answers_that_are_trusted_less_weigh_less():
    vectors, labels = blobs(300, noise=0.5)
    fresh, truth = blobs(2000, noise=0.5, seed=9)
    wrong = np.random.default_rng(2).random(300) < 0.45
    said = np.where(wrong, 2 - labels, labels)  # somebody takes class 0 for class 2, and the other way round

    def right(trust: np.ndarray | None) -> float:
        head = classifier.fit(vectors, said, np.arange(300), 3, trust=trust).head
        return float((head.logits(fresh).argmax(axis=1) == truth).mean())

    assert right(np.where(wrong, 0.01, 1.0)) > right(None) + 0.05
    for bad in (0.0, 1.5, np.nan):
        with pytest.raises(ValueError, match="trust"):
            classifier.fit(vectors, labels, np.arange(300), 3, trust=np.full(300, bad))


def test_balanced_classes_weigh_alike_whatever_was_answered_and_trusted():
    labels, trust = np.repeat([0, 1, 2], [70, 20, 10]), np.tile([1.0, 0.5], 50)
    plain, balanced = classifier.RECIPES[1], classifier.BALANCED[0]
    weights = classifier.weights_of(balanced, labels, trust)
    assert [float(weights[labels == c].sum()) for c in range(3)] == pytest.approx([100 / 3] * 3, rel=1e-5)
    assert weights[0] == pytest.approx(2 * weights[1])
    assert classifier.weights_of(plain, labels, np.ones(100)) == pytest.approx(np.ones(100))


def test_balanced_recipes_are_tried_where_classes_differ_in_number():
    vectors, labels = blobs(60)
    even = np.concatenate([np.flatnonzero(labels == c)[:10] for c in range(3)])
    tried = [
        set(classifier.fit(vectors[rows], labels[rows], np.arange(len(rows)), 3).losses) for rows in (even, even[:-4])
    ]
    assert {name.endswith("balanced") for name in tried[0]} == {False}
    assert {name.endswith("balanced") for name in tried[1]} == {False, True}


def test_answers_that_do_not_judge_teach_and_say_nothing_of_confidence():
    vectors, labels = blobs(300, noise=0.3)
    judged = np.arange(300) < 200
    labels[~judged] = np.random.default_rng(1).integers(0, 3, 100)  # nobody has looked at what these say
    heads = [classifier.fit(vectors, labels, np.arange(300), 3, judged=which).head for which in (judged, None)]
    fresh, truth = blobs(2000, noise=0.3, seed=9)
    errors = [calibration.expected_calibration_error(head.probabilities(fresh), truth) for head in heads]
    assert errors[0] < errors[1] - 0.05
