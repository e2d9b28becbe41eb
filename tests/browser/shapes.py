"""A project that has lived: circles and squares, sent, flagged, relabelled, answered and learnt from."""

import datetime as dt
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import sqlalchemy as sa
from PIL import Image, ImageDraw

from closedloop import annotations, datasets, importing, outbox, sampling, survey, sync, training
from closedloop import project as projects
from closedloop.inference import Inference
from closedloop.label_studio import LabelStudio
from closedloop.project import CLASSIFIER, Project
from closedloop.storage import Stores
from demo.installation import Installation, live_release
from demo.people import Annotators, Patient, Visitor, logged_in

CLASSES = ("round", "square")
NEVER = "0 0 1 1 *"  # a schedule that no test meets
SHAPES = projects.parse_manifest(f"""
id: shapes
title: Round or square?
kind: classification
classes: [round, square]
random_sample: {{share: 0.5, at_least: 12, cron: {NEVER}}}
sync: {{cron: {NEVER}}}
train: {{at_least_new: 100000}}
gate: {{policy: not_worse, margin: 0.5}}
""")
LONG_AGO = dt.timedelta(days=40)


def pictures(seed: int = 0) -> Iterator[tuple[bytes, str]]:
    """PNG pictures of circles and squares in turn, each with its class; no two are the same."""
    random = np.random.default_rng(seed)
    while True:
        for name in CLASSES:
            shade, x, y, more = (int(v) for v in random.integers(20, 100, 4))
            picture = Image.new("RGB", (160, 160), (255 - shade, 250 - more, 255 - shade // 2))
            box = (x // 2, y // 2, x // 2 + 90, y // 2 + 90)
            draw = ImageDraw.Draw(picture)
            (draw.ellipse if name == "round" else draw.rectangle)(box, fill=(shade, 40, more))
            file = BytesIO()
            picture.save(file, "PNG")
            yield file.getvalue(), name


def lived(installation: Installation, stores: Stores, folder: Path) -> Project:
    """Make the project and let people use it: 46 pictures imported, three releases, 30 sent and most of them answered."""
    projects.add(stores, SHAPES, now())
    for name, count, before in (("first", 30, LONG_AGO), ("second", 8, LONG_AGO), ("third", 8, dt.timedelta())):
        _import(stores, folder / name, count, now() - before)
        _release(installation, stores)
    truths = _visit(installation, 30, seed=7)
    sampling.draw_sample(stores, SHAPES, now())
    label_studio = f"http://127.0.0.1:{installation.ports['LABEL_STUDIO']}"
    key = installation.secrets["LABEL_STUDIO_API_KEY"]
    _sync(installation, stores, LabelStudio(label_studio, key))  # tasks go to Label Studio
    with logged_in(label_studio, key) as http:
        annotators = Annotators(http, SHAPES.id, truths, seed=0)
        while annotators.answer(at_most=1000):
            pass
    _sync(installation, stores, LabelStudio(label_studio, key))  # answers come back
    datasets.freeze(stores, SHAPES, CLASSIFIER, now())  # what the next release would learn from
    survey.take(stores, SHAPES, now())
    return SHAPES


def now() -> dt.datetime:
    """This moment, in UTC."""
    return dt.datetime.now(dt.UTC)


def _import(stores: Stores, folder: Path, count: int, at: dt.datetime) -> None:
    seed = int.from_bytes(folder.name.encode(), "big")
    for (picture, name), number in zip(pictures(seed), range(count), strict=False):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / f"{number}.png").write_bytes(picture)
    importing.run(stores, SHAPES, folder, lambda: at)


def _release(installation: Installation, stores: Stores) -> None:
    made = training.train(stores, SHAPES, now)
    assert made.passed, made.reason
    while live_release(installation, SHAPES.id) != made.release:
        time.sleep(0.2)


def _visit(installation: Installation, count: int, seed: int) -> dict[str, str]:
    """Visitors send pictures, and some say something; returns what annotators will say, by picture."""
    visitor = Visitor(installation.pages, SHAPES.id, seed)
    with Patient(base_url=installation.pages) as http:
        for (picture, truth), number in zip(pictures(seed), range(count), strict=False):
            other = CLASSES[1 - CLASSES.index(truth)]
            said = {"prediction_id": visitor.send(picture, truth if number % 6 else other).prediction_id}
            if number % 5 == 0:
                http.post("/feedback", json=said)
            if number % 5 == 1:
                http.post("/label", json={**said, "label": other})
    return visitor.truths


def _sync(installation: Installation, stores: Stores, label_studio: LabelStudio) -> None:
    while outbox.work(stores, Inference(installation.inference, 30), now):
        pass
    done = sync.run(stores, label_studio, now, [SHAPES], patience=sync.PATIENCE)
    assert not done.faults, done.faults


def annotate(
    tx: sa.Connection, project: Project, queue: str, task: str, number: int, label: str, annotator: int = 1
) -> None:
    """Keep one annotator's answer to a task, as Label Studio tells it."""
    choice = {"from_name": "choice", "to_name": "image", "type": "choices", "value": {"choices": [label]}}
    said = {"id": number, "completed_by": annotator, "updated_at": now().isoformat(), "result": [choice]}
    assert annotations.keep(tx, project, queue, {"task_id": task}, said, now())
