"""A made-up project of any size, written straight into the records: 20 weeks of visitors, annotators and releases.

The rows are those that the loop would have written, and so is the catalogue: `differing` looks whether it is.
"""

import datetime as dt
import hashlib
import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from closedloop import catalogue, gate, labels, queues
from closedloop import project as projects
from closedloop.estimates import wilson_interval
from closedloop.project import CLASSIFIER, Project
from closedloop.storage import Stores, tables
from closedloop.votes import ANSWERED, SKIPPED, UNSURE, Vote

SEED = 11
WEEKS = 20
LIVE_SINCE = (1, 5, 9, 13, 17)  # weeks after the beginning; until the first release the encoder's words answer
UNSURE_SHARE, SAMPLE_SHARE, ANNOTATED = 0.3, 0.05, 0.5
RIGHT, RIGHT_UNSURE = 0.965, 0.75  # together nine in ten
FLAGS, RELABELS = (0.21, 0.01), (0.14, 0.0067)  # of wrong and of right answers: 3 % and 2 % of all
ENCODER = "e" * 64
VISITOR = "bench"  # what the one visitor's cookie holds
SENT = 50  # by that visitor

Rows = dict[sa.Table, list[dict[str, Any]]]


@dataclass(frozen=True)
class Crowd:
    """A project that was made: its pictures as (moment, confidence, id), the oldest first."""

    project: Project
    pictures: Sequence[tuple[dt.datetime, float, str]]


def make(stores: Stores, count: int, now: dt.datetime) -> Crowd:
    """Write a project with `count` pictures up to now, in one transaction. The same count makes the same project."""
    names = tuple(f"class {number}" for number in range(10))
    project = Project.model_validate(
        {"id": "bench", "title": "Which of ten?", "kind": "classification", "classes": names}
    )
    beginning = now - dt.timedelta(weeks=WEEKS)
    projects.add(stores, project, beginning)
    made = _Writer(project, random.Random(SEED), beginning, now)
    step = (now - beginning) / count
    for number in range(count):
        made.picture(beginning + number * step, number >= count - SENT)
    made.releases()
    with stores.db.write() as tx:
        for table in (tables.sampling_windows, *(one for one in made.rows if one is not tables.sampling_windows)):
            rows = made.rows[table]
            for start in range(0, len(rows), 10_000):
                tx.execute(table.insert(), rows[start : start + 10_000])
    if not stores.db.is_sqlite:  # autovacuum would within minutes; nothing does so on SQLite
        with stores.db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("ANALYZE"))
    return Crowd(project, made.pictures)


def differing(stores: Stores, project_id: str, sample: int) -> int:
    """How many of `sample` rows of the catalogue are not what the loop would have written."""
    chosen = sa.select(tables.catalogue).where(tables.catalogue.c.project_id == project_id)
    with stores.db.write() as tx:
        written = {row["image_id"]: dict(row) for row in tx.execute(chosen).mappings()}
        sampled = random.Random(SEED).sample(sorted(written), sample)
        for image_id in sampled:
            catalogue.refresh(tx, project_id, image_id)
        fresh = {row["image_id"]: dict(row) for row in tx.execute(chosen).mappings()}
    return sum(written[image_id] != fresh[image_id] for image_id in sampled)


class _Writer:
    """Makes the rows, picture by picture; parents stand before what names them."""

    def __init__(self, project: Project, chance: random.Random, beginning: dt.datetime, now: dt.datetime) -> None:
        self.project, self.chance, self.beginning, self.now = project, chance, beginning, now
        self.own = {"project_id": project.id}
        self.rows: Rows = {
            table: []
            for table in (
                tables.images,
                tables.predictions,
                tables.feedback,
                tables.sampling_windows,
                tables.inclusions,
                tables.tasks,
                tables.annotations,
                tables.datasets,
                tables.dataset_items,
                tables.releases,
                tables.catalogue,
            )
        }
        self.pictures: list[tuple[dt.datetime, float, str]] = []
        self.settled: list[tuple[dt.datetime, str, str]] = []  # (when, picture, answer)
        self.windows: dict[int, int] = {}

    def picture(self, at: dt.datetime, by_the_visitor: bool) -> None:
        """A picture, what was answered and said, who was asked and what they said."""
        chance, image_id = self.chance, f"{self.chance.getrandbits(128):032x}"
        unsure = chance.random() < UNSURE_SHARE
        confidence = round(chance.uniform(0.3, 0.7) if unsure else chance.uniform(0.7, 1.0), 6)
        truth = label = chance.choice(self.project.classes)
        if wrong := chance.random() > (RIGHT_UNSURE if unsure else RIGHT):
            label = chance.choice([name for name in self.project.classes if name != truth])
        flagged, relabelled = (chance.random() < share[0 if wrong else 1] for share in (FLAGS, RELABELS))
        self.rows[tables.images].append(
            {
                **self.own,
                "id": image_id,
                "key": f"production/{self.project.id}/class_{self.project.classes.index(label):02d}/{image_id}.jpg",
                "sha256": image_id * 2,
                "phash": f"{chance.getrandbits(64):016x}",
                "width": 640,
                "height": 480,
                "bytes": 60_000,
                "source": "upload",
                "arrived_at": at,
            }
        )
        self.pictures.append((at, confidence, image_id))
        prediction_id = self._predict(at, image_id, label, confidence, by_the_visitor)
        for kind, said in (("flag", flagged), ("label", relabelled)):
            if said:
                named = truth if kind == "label" else ""
                row = {**self.own, "prediction_id": prediction_id, "kind": kind, "label": named, "said_at": at}
                self.rows[tables.feedback].append(row)
        drawn = chance.random() < SAMPLE_SHARE
        reasons = {
            queues.LOW_CONFIDENCE: unsure,
            queues.RANDOM_SAMPLE: drawn,
            queues.USER_FEEDBACK: flagged,
            queues.USER_LABEL: relabelled,
        }
        votes = []
        for queue, asked in reasons.items():
            self._include(image_id, queue, asked, at)
            if asked:
                votes += self._ask(image_id, queue, prediction_id, truth, at)
        answer, _ = labels.settle(votes)
        if answer is not None:
            self.settled.append((max(vote.at for vote in votes), image_id, answer))
        self.rows[tables.catalogue].append(
            {
                **self.own,
                "image_id": image_id,
                "arrived_at": at,
                "label": label,
                "confidence": confidence,
                "flagged": flagged,
                "user_label": truth if relabelled else None,
                "answer": answer,
                "answered": answer is not None,
                "disagrees": answer is not None and answer != label,
            }
        )

    def _predict(self, at: dt.datetime, image_id: str, label: str, confidence: float, by_the_visitor: bool) -> str:
        others = [self.chance.random() for _ in self.project.classes[1:]]
        rest = iter([(1 - confidence) * part / sum(others) for part in others])
        released = sum(at >= self.beginning + dt.timedelta(weeks=week) for week in LIVE_SINCE)
        who = VISITOR if by_the_visitor else str(self.chance.randrange(10_000))
        row = {
            **self.own,
            "id": uuid.UUID(int=self.chance.getrandbits(128)).hex,
            "image_id": image_id,
            "status": "done",
            "label": label,
            "confidence": confidence,
            "probabilities": {name: confidence if name == label else next(rest) for name in self.project.classes},
            "release": _release(released) if released else None,
            "encoder": ENCODER,
            "created_at": at,
            "answered_at": at,
            "visitor": hashlib.sha256(who.encode()).hexdigest()[:32],
        }
        self.rows[tables.predictions].append(row)
        return row["id"]

    def _include(self, image_id: str, queue: str, asked: bool, at: dt.datetime) -> None:
        """Every picture is in a day's frame of the random sample; the other queues hold what gave a reason."""
        probability, window = 1.0, None
        if queue == queues.RANDOM_SAMPLE:
            day = (at - self.beginning).days
            ends_at = self.beginning + dt.timedelta(days=day + 1)
            if day not in self.windows:
                self.windows[day] = len(self.windows) + 1
                row = {**self.own, "id": self.windows[day], "ends_at": ends_at, "frame": 0, "drawn": 0, "seed": day}
                self.rows[tables.sampling_windows].append(row)
            probability, window = SAMPLE_SHARE, self.windows[day]
        elif not asked:
            return
        row = {"image_id": image_id, "queue": queue, "probability": probability, "drawn": asked, "at": at}
        self.rows[tables.inclusions].append({**self.own, **row, "window_id": window})

    def _ask(self, image_id: str, queue: str, prediction_id: str, truth: str, at: dt.datetime) -> list[Vote]:
        chance, task_id = self.chance, str(uuid.UUID(int=self.chance.getrandbits(128), version=4))
        probability = SAMPLE_SHARE if queue == queues.RANDOM_SAMPLE else 1.0
        task = {"id": task_id, "image_id": image_id, "queue": queue, "probability": probability, "created_at": at}
        sent = {"prediction_id": prediction_id, "delivered_at": at, "synced_at": at}
        self.rows[tables.tasks].append({**self.own, **task, **sent})
        when = at + dt.timedelta(hours=chance.uniform(1, 48))
        if chance.random() > ANNOTATED or when > self.now:
            return []
        state = chance.choices((ANSWERED, UNSURE, SKIPPED), (95, 3, 2))[0]
        given = {
            "annotation_id": str(len(self.rows[tables.annotations]) + 1),
            "answered_at": when,
            "task_id": task_id,
            "annotator": str(chance.randrange(1, 6)),
            "state": state,
            "label": truth if state == ANSWERED else None,
            "seconds": chance.uniform(1, 20),
            "collected_at": when,
        }
        self.rows[tables.annotations].append({**self.own, **given})
        return [Vote(image_id, given["annotator"], truth, queue, probability, when)] if state == ANSWERED else []

    def releases(self) -> None:
        """Five releases, each trained on everything that was settled when it went live."""
        for number, week in enumerate(LIVE_SINCE, start=1):
            at = self.beginning + dt.timedelta(weeks=week)
            learnt = [(image_id, answer) for when, image_id, answer in self.settled if when < at]
            digest = hashlib.sha256(str(number).encode()).hexdigest()
            frozen = {"id": digest[:16], "head": CLASSIFIER, "digest": digest, "items": len(learnt), "created_at": at}
            self.rows[tables.datasets].append({**self.own, **frozen})
            self.rows[tables.dataset_items] += [
                {**self.own, "dataset_id": digest[:16], "image_id": image_id, "label": label}
                for image_id, label in learnt
            ]
            former = _release(number - 1) if number > 1 else None
            candidate, baseline = ([self.chance.random() < share for _ in range(400)] for share in (0.93, 0.85))
            basis = "random sample and imports"
            verdict = (
                gate.judge(candidate, baseline, former, self.project.gate, basis=basis)
                if former
                else gate.judge_first(candidate, baseline, self.project.gate, basis=basis)
            )
            low, high = wilson_interval(sum(candidate), len(candidate))
            self.rows[tables.releases].append(
                {
                    **self.own,
                    "head": CLASSIFIER,
                    "id": _release(number),
                    "number": number,
                    "dataset_id": digest[:16],
                    "encoder": ENCODER,
                    "state": "live" if number == len(LIVE_SINCE) else "retired",
                    "reason": verdict.reason,
                    "card": {
                        "release": _release(number),
                        "classes": list(self.project.classes),
                        "dataset": {"id": digest[:16], "digest": digest, "items": len(learnt)},
                        "metrics": {"accuracy": sum(candidate) / len(candidate), "accuracy_95": [low, high]},
                        "gate": verdict.as_json(),
                    },
                    "created_at": at,
                    "went_live_at": at,
                }
            )


def _release(number: int) -> str:
    return f"r{number:04d}-{hashlib.sha256(f'release {number}'.encode()).hexdigest()[:8]}"
