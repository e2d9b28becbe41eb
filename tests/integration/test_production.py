"""How good the model is in production, from records as the loop writes them."""

import datetime as dt

import pytest

from closedloop import production, queues, votes
from closedloop.estimates import wilson_interval
from closedloop.production import FLAGGED, REST, UNSURE, Cell
from closedloop.project import Project
from closedloop.storage import Stores, answers, asking, pictures
from tests.conftest import START, Clock

LAST = START - dt.timedelta(days=30)


class Month:
    """Writes pictures with their answers, questions and annotations."""

    def __init__(self, stores: Stores, project: Project) -> None:
        self.stores, self.project, self.count = stores, project, 0

    def __call__(
        self,
        said: str | None,
        truth: str | None = None,
        queue: str | None = None,
        probability: float = 1.0,
        release: str | None = "r0001",
        at: dt.datetime = START,
        also: str | None = None,
    ) -> None:
        """A picture that the release called `said`; asked about in `queue` (and `also`), and answered there if `truth`."""
        self.count += 1
        image_id, of = f"{self.count:032x}", {"project_id": self.project.id}
        with self.stores.db.write() as tx:
            pictures.add_image(
                tx,
                {
                    **of,
                    "id": image_id,
                    "key": f"production/pets/class_00/{image_id}.jpg",
                    "sha256": image_id * 2,
                    "phash": f"{self.count:016x}",
                    "width": 1,
                    "height": 1,
                    "bytes": 1,
                    "source": "upload",
                    "arrived_at": at,
                },
            )
            pictures.add_prediction(
                tx,
                {
                    **of,
                    "id": f"p{self.count}",
                    "image_id": image_id,
                    "status": "done",
                    "label": said,
                    "confidence": 0.5,
                    "release": release,
                    "created_at": at,
                    "answered_at": at,
                },
            )
            for name in filter(None, (queue, also)):
                asking.add_task(
                    tx,
                    {
                        **of,
                        "id": f"{name}-{self.count}",
                        "image_id": image_id,
                        "queue": name,
                        "probability": probability if name == queues.RANDOM_SAMPLE else 1.0,
                        "created_at": at,
                    },
                )
            if truth:
                answers.add_annotation(
                    tx,
                    {
                        **of,
                        "annotation_id": str(self.count),
                        "answered_at": at,
                        "task_id": f"{queue}-{self.count}",
                        "annotator": "7",
                        "state": votes.ANSWERED,
                        "label": truth,
                        "collected_at": at,
                    },
                )


@pytest.fixture
def month(stores: Stores, project: Project) -> Month:
    return Month(stores, project)


def test_nobody_can_say_before_anything_is_answered(stores: Stores, project: Project, month: Month) -> None:
    empty = production.record(stores, project, LAST).standing()
    assert (empty.pictures, empty.sample, empty.weighted) == (0, None, None)
    month("cat")
    month(None, "cat", queues.RANDOM_SAMPLE, release=None)  # no model answered it: it says nothing about one
    asked = production.record(stores, project, LAST).standing()
    assert (asked.pictures, asked.sample, asked.weighted) == (1, None, None)


def test_each_picture_counts_for_why_it_was_asked_about(stores: Stores, project: Project, month: Month) -> None:
    for n in range(60):  # nothing special: ten of them drawn, nine of these right
        drawn = n < 10
        month("cat", ("dog" if n == 0 else "cat") if drawn else None, queues.RANDOM_SAMPLE if drawn else None, 0.1)
    for n in range(30):  # unsure: all asked about, twenty answered, half right
        month("dog", ("dog" if n % 2 else "owl") if n < 20 else None, queues.LOW_CONFIDENCE)
    for n in range(10):  # flagged, unsure as well: all wrong but one
        month("owl", "owl" if n == 0 else "cat", queues.USER_FEEDBACK, also=queues.LOW_CONFIDENCE)
    record = production.record(stores, project, LAST)
    assert {cell.stratum: count for cell, count in record.pictures.items()} == {REST: 60, UNSURE: 30, FLAGGED: 10}
    standing = record.standing()
    assert standing.pictures == 100
    assert standing.weighted is not None
    assert standing.weighted.share == pytest.approx(0.6 * 0.9 + 0.3 * 0.5 + 0.1 * 0.1)
    assert (standing.weighted.answers, standing.weighted.pictures) == (40, 100)
    assert standing.sample is not None
    assert (standing.sample.share, standing.sample.answers) == (0.9, 10)
    assert (standing.sample.low, standing.sample.high) == pytest.approx(wilson_interval(9, 10))


def test_a_drawn_picture_that_was_flagged_counts_in_both_estimates(
    stores: Stores, project: Project, month: Month
) -> None:
    month("cat", "dog", queues.RANDOM_SAMPLE, 0.2, also=queues.USER_FEEDBACK)
    month("cat", "cat", queues.RANDOM_SAMPLE, 0.2)
    for _ in range(8):
        month("cat")
    standing = production.record(stores, project, LAST).standing()
    assert standing.sample is not None
    assert standing.weighted is not None
    assert standing.sample.share == 0.5
    assert standing.weighted.share == pytest.approx(0.9)  # one of ten was flagged, and wrong


def test_a_release_a_class_a_week(stores: Stores, project: Project, month: Month, clock: Clock) -> None:
    later = START + dt.timedelta(days=7)
    month("cat", "cat", queues.RANDOM_SAMPLE)
    month("dog", "cat", queues.RANDOM_SAMPLE)
    month("dog", "dog", queues.RANDOM_SAMPLE, release="r0002", at=later)
    month("dog", "dog", queues.RANDOM_SAMPLE, release="r0002", at=LAST - dt.timedelta(seconds=1))  # long ago
    record = production.record(stores, project, LAST)

    def share(of) -> tuple[int, float | None]:
        standing = record.standing(of)
        return standing.pictures, standing.sample and standing.sample.share

    assert share(lambda cell: True) == (3, pytest.approx(2 / 3))
    assert share(lambda cell: cell.release == "r0002") == (1, 1.0)
    assert share(lambda cell: cell.label == "dog") == (2, 0.5)
    assert share(lambda cell: cell.day >= later.date()) == (1, 1.0)
    assert Cell("r0002", "dog", later.date(), REST) in record.pictures
