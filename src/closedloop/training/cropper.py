"""A crop proposer's lesson: which part of a picture people keep, from what lies where in it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from closedloop import graded_gate
from closedloop.features import Features, Grids, Progress
from closedloop.models import cropper, cross_fitting
from closedloop.models.crop_head import iou
from closedloop.project import CROPPER
from closedloop.training.lesson import GRADED_INTERVAL, Lesson, graded_interval


class CropperLesson(Lesson):
    """Crops of pictures."""

    head = CROPPER
    measure = graded_gate.OVERLAP
    interval = GRADED_INTERVAL

    def check_enough(self) -> None:
        """Raise TooFewAnswers below ten crops of two pictures that differ."""
        self._require_answers()

    def look(self, features: Features) -> None:
        """The pictures' grids."""
        self.seen: Grids = features.grids([item.image_id for item in self.dataset.items])

    @property
    def width(self) -> int:
        """The channels of a cell."""
        return self.seen.grids.shape[3]

    @property
    def boxes(self) -> np.ndarray:
        """The settled crops, (n, 4)."""
        return np.array([[i.box.x1, i.box.y1, i.box.x2, i.box.y2] for i in self.dataset.items])

    def fit(self, progress: Progress | None = None) -> cropper.Fitted:
        """Fit on all crops."""
        seen = self.seen
        return cropper.fit(
            seen.grids, seen.aspects, seen.saliencies, self.boxes, self.groups, self.fair, progress=progress
        )

    def scores(self, fitted: cropper.Fitted) -> np.ndarray:
        """The overlap of each proposal with the settled crop."""
        return iou(fitted.out_of_fold, self.boxes)

    def scores_of(self, made: Any, rows: np.ndarray) -> np.ndarray:
        """The same of a release."""
        if not len(rows):
            return np.empty(0)
        seen = self.seen
        proposed, _ = made.head.propose(seen.grids[rows], seen.aspects[rows], seen.saliencies[rows])
        return iou(proposed, self.boxes[rows])

    def baselines(self) -> Mapping[str, np.ndarray]:
        """The whole picture, its middle, and the mean crop of the other folds."""
        folds = cross_fitting.split(self.groups)
        return cropper.baselines(self.boxes, folds)

    def interval_of(self, scores: np.ndarray) -> tuple[float, float]:
        """See `graded_interval`; near-identical pictures drawn together."""
        return graded_interval(scores, self.groups)

    def said_of(self, fitted: cropper.Fitted) -> dict[str, Any]:
        """How honest the confidence is, and how many proposals overlap by half or more."""
        scores = self.scores(fitted)
        return {
            "mean_confidence": float(fitted.confidence.mean()),
            "confidence_error": float(np.abs(fitted.confidence - scores).mean()),
            "overlap_of_half": float((scores >= 0.5).mean()),
            "baselines": {name: float(said.mean()) for name, said in self.baselines().items()},
        }
