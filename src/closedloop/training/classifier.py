"""A classifier's lesson: what pictures show, from their embeddings."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from closedloop import gate, reliability
from closedloop.estimates import wilson_interval
from closedloop.features import Features, Progress
from closedloop.labels import VISITOR
from closedloop.models import calibration, classifier, cross_fitting
from closedloop.project import CLASSIFIER
from closedloop.reliability import Reliability
from closedloop.training.lesson import Lesson

NOT_TRUSTED = 1e-6  # of an answer's weight


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

    @property
    def reliabilities(self) -> dict[str, Reliability]:
        """How far each source of labels can be trusted, from this dataset."""
        return reliability.measure([item.by_source for item in self.dataset.items], len(self.project.classes))

    @property
    def trust(self) -> np.ndarray:
        """How much each answer counts, (n,) in (0, 1]: the probability that its label is right, over the highest one.

        What visitors alone said counts as far as visitors can be trusted, and as good as nothing before that is known.
        """
        known, classes = self.reliabilities, len(self.project.classes)
        measured = VISITOR in known and known[VISITOR].compared >= reliability.LEAST
        trusted = np.array(
            [
                reliability.trust(item.by_source, item.label, known, classes)
                if item.is_settled or measured
                else NOT_TRUSTED
                for item in self.dataset.items
            ]
        )
        return np.maximum(trusted / trusted.max(), NOT_TRUSTED)

    def fit(self, progress: Progress | None = None) -> classifier.Fitted:
        """Fit on all answers, each weighed by how far its sources can be trusted."""
        count = len(self.project.classes)
        return classifier.fit(
            self.vectors, self.labels, self.groups, count, self.fair, self.trust, self.judged, progress=progress
        )

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
        folds = cross_fitting.split(self.groups, labels)
        right = np.empty(len(labels))
        for fold in np.unique(folds):
            others = labels[(folds != fold) & self.judged]
            right[folds == fold] = labels[folds == fold] == np.bincount(others, minlength=1).argmax()
        return {gate.COMMONEST: right}

    def interval_of(self, scores: np.ndarray) -> tuple[float, float]:
        """Wilson's."""
        return wilson_interval(int(scores.sum()), len(scores))

    def said_of(self, fitted: classifier.Fitted) -> dict[str, Any]:
        """Accuracy by its own name, log loss and calibration."""
        scores, labels = self.scores(fitted)[self.judged], self.labels[self.judged]
        honest = fitted.out_of_fold[self.judged]
        confidence = honest[np.arange(len(labels)), labels]
        return {
            "accuracy": float(scores.mean()),
            "accuracy_95": list(self.interval_of(scores)),
            "log_loss": float(-np.log(np.clip(confidence, 1e-12, None)).mean()),
            "calibration_error": calibration.expected_calibration_error(honest, labels),
        }

    def about(self, fitted: classifier.Fitted) -> dict[str, Any]:
        """Its classes, in order, its temperature, and how far each source was trusted."""
        return {
            "classes": list(self.project.classes),
            "temperature": fitted.temperature,
            "sources": {source: known.as_json() for source, known in self.reliabilities.items()},
            "learnt_from_visitors_alone": int((~self.judged).sum()),
        }

    def per_answer(self) -> dict[str, int]:
        """How many answers each class has."""
        return dict(Counter(item.label for item in self.dataset.items if item.is_settled))
