"""A classifier's lesson: what pictures show, from their embeddings."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from closedloop.estimates import wilson_interval
from closedloop.features import Features
from closedloop.models import calibration, classifier, cross_fitting
from closedloop.project import CLASSIFIER
from closedloop.training.lesson import Lesson


class ClassifierLesson(Lesson):
    """Labels of pictures."""

    head = CLASSIFIER
    interval = "Wilson 1927, 95 %"

    def check_enough(self) -> None:
        """Raise TooFewAnswers below ten answers of two classes, about two pictures that differ."""
        self._require_answers(len({item.label for item in self.dataset.items}))

    def look(self, features: Features) -> None:
        """The pictures' embeddings."""
        self.vectors = features.vectors([item.image_id for item in self.dataset.items])

    @property
    def width(self) -> int:
        """The embedding's dimension."""
        return self.vectors.shape[1]

    @property
    def labels(self) -> np.ndarray:
        """The number of each answer's class, (n,)."""
        return np.array([self.project.classes.index(item.label) for item in self.dataset.items], dtype=np.int64)

    def fit(self) -> classifier.Fitted:
        """Fit on all answers."""
        return classifier.fit(self.vectors, self.labels, self.groups, len(self.project.classes), self.fair)

    def scores(self, fitted: classifier.Fitted) -> np.ndarray:
        """1 where the likeliest class is the answer, else 0."""
        return (fitted.out_of_fold.argmax(axis=1) == self.labels).astype(float)

    def scores_of(self, made: Any, rows: np.ndarray) -> np.ndarray:
        """The same of a release, whose classes may be fewer."""
        if not len(rows):
            return np.empty(0)
        numbers = np.array([self.project.classes.index(name) for name in made.classes])
        said = numbers[made.head.logits(self.vectors[rows]).argmax(axis=1)]
        return (said == self.labels[rows]).astype(float)

    def baselines(self) -> Mapping[str, np.ndarray]:
        """Always saying the commonest class of the other folds."""
        labels = self.labels
        folds = cross_fitting.split(labels, self.groups)
        right = np.empty(len(labels))
        for fold in np.unique(folds):
            right[folds == fold] = labels[folds == fold] == np.bincount(labels[folds != fold]).argmax()
        return {"commonest class": right}

    def interval_of(self, scores: np.ndarray) -> tuple[float, float]:
        """Wilson's."""
        return wilson_interval(int(scores.sum()), len(scores))

    def said_of(self, fitted: classifier.Fitted) -> dict[str, Any]:
        """Accuracy by its own name, log loss and calibration."""
        scores, labels = self.scores(fitted), self.labels
        confidence = fitted.out_of_fold[np.arange(len(labels)), labels]
        return {
            "accuracy": float(scores.mean()),
            "accuracy_95": list(self.interval_of(scores)),
            "log_loss": float(-np.log(np.clip(confidence, 1e-12, None)).mean()),
            "calibration_error": calibration.expected_calibration_error(fitted.out_of_fold, labels),
        }

    def about(self, fitted: classifier.Fitted) -> dict[str, Any]:
        """Its classes, in order, and its temperature."""
        return {"classes": list(self.project.classes), "temperature": fitted.temperature}

    def per_answer(self) -> dict[str, int]:
        """How many answers each class has."""
        return dict(Counter(item.label for item in self.dataset.items))
