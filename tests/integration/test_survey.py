"""What a dashboard shows is what a plain count of the records gives."""

import datetime as dt
from collections import Counter
from typing import Any

import pytest

from closedloop import catalogue, production, survey
from closedloop.project import Project
from closedloop.queues import LOW_CONFIDENCE, RANDOM_SAMPLE, USER_FEEDBACK
from closedloop.storage import Stores, asking, pictures, surveys
from tests.conftest import START
from tests.integration.test_production import Month


@pytest.fixture
def month(stores: Stores, project: Project) -> Month:
    return Month(stores, project)


def counted_now(stores: Stores, project: Project) -> dict[str, Any]:
    catalogue.fill(stores)  # a month writes its rows by hand
    return survey.count(stores, project, START)


def test_parts_add_up_to_the_whole(stores: Stores, project: Project, month: Month) -> None:
    for number in range(12):
        month(
            ("cat", "dog", "owl")[number % 3],
            "cat" if number % 2 else None,
            RANDOM_SAMPLE if number % 2 else LOW_CONFIDENCE,
            0.5 if number % 2 else 1.0,
            release=f"r000{1 + number // 6}",
            at=START - dt.timedelta(days=3 * number),
        )
    counted = counted_now(stores, project)
    assert (counted["pictures"], counted["all"]["pictures"]) == (12, 12)
    for table, name in (("releases", "release"), ("classes", "label"), ("weeks", "week")):
        assert sum(row["pictures"] for row in counted[table]) == 12
        assert [row[name] for row in counted[table]] == sorted(row[name] for row in counted[table])
    assert [row["release"] for row in counted["releases"]] == ["r0001", "r0002"]
    assert all(dt.date.fromisoformat(row["week"]).weekday() == 0 for row in counted["weeks"])
    assert counted["recent"]["pictures"] == 11
    record = production.record(stores, project, survey.BEGINNING)
    assert counted["releases"][0]["sample"]["share"] == record.standing(lambda c: c.release == "r0001").sample.share  # type: ignore[union-attr]


def test_days_are_counted_one_by_one(stores: Stores, project: Project, month: Month) -> None:
    for back in (0, 0, 1, 70):
        month("cat", at=START - dt.timedelta(days=back))
    said = {"project_id": project.id, "prediction_id": "p1", "said_at": START}
    with stores.db.write() as tx:
        pictures.add_feedback(tx, {**said, "kind": "flag", "label": ""})
        pictures.add_feedback(tx, {**said, "kind": "label", "label": "dog"})
    days = counted_now(stores, project)["days"]
    assert len(days) == survey.DAYS
    assert days[-1] == {
        "day": START.date().isoformat(),
        "pictures": 2,
        "answers": 2,
        "flagged": 1,
        "flags": 1,
        "relabels": 1,
    }
    assert days[-2] == {
        "day": (START.date() - dt.timedelta(days=1)).isoformat(),
        "pictures": 1,
        "answers": 1,
        "flagged": 0,
        "flags": 0,
        "relabels": 0,
    }
    assert Counter(row["pictures"] for row in days) == {0: 58, 1: 1, 2: 1}


def test_queues_say_who_waits_and_how_long(stores: Stores, project: Project, month: Month) -> None:
    month("cat", "cat", LOW_CONFIDENCE, at=START)
    for hours in (1, 2, 9):
        month("cat", None, LOW_CONFIDENCE, at=START - dt.timedelta(hours=hours))
    month("cat", None, USER_FEEDBACK, at=START)
    with stores.db.write() as tx:
        asking.withdraw(tx, project.id, f"{5:032x}", USER_FEEDBACK, START)
    queues = {row["queue"]: row for row in counted_now(stores, project)["queues"]}
    assert (queues[LOW_CONFIDENCE]["waiting"], queues[LOW_CONFIDENCE]["answered"]) == (3, 1)
    assert queues[LOW_CONFIDENCE]["median_age"] == pytest.approx(2 * 3600)
    assert (queues[USER_FEEDBACK]["waiting"], queues[USER_FEEDBACK]["median_age"]) == (0, None)  # nobody need answer


def test_a_survey_is_kept_in_place_of_the_former(stores: Stores, project: Project, month: Month) -> None:
    assert survey.latest(stores, project.id) is None
    taken = survey.take(stores, project, START)
    assert survey.latest(stores, project.id) == (START, taken)
    month("cat")
    assert survey.take(stores, project, START + survey.EVERY)["all"]["pictures"] == 1


@pytest.mark.parametrize(("seconds", "after"), [(0.0, 20), (1.0, 20), (10.0, 200)])
def test_what_takes_long_to_count_is_counted_less_often(
    stores: Stores, project: Project, seconds: float, after: int
) -> None:
    assert survey.is_due(stores, project.id, START)
    with stores.db.write() as tx:
        surveys.keep(tx, project.id, START, seconds, {})
    assert not survey.is_due(stores, project.id, START + dt.timedelta(seconds=after - 1))
    assert survey.is_due(stores, project.id, START + dt.timedelta(seconds=after))


def test_an_empty_project_has_zeros_and_no_estimate(stores: Stores, project: Project) -> None:
    counted = counted_now(stores, project)
    assert (counted["pictures"], counted["settled"], counted["releases"]) == (0, 0, [])
    assert counted["all"] == {"pictures": 0, "sample": None, "weighted": None}
    assert [row["waiting"] for row in counted["queues"]] == [0, 0, 0, 0]
