"""`closedloop encoder quantize`: the encoder in 8-bit numbers, calibrated and judged by the installation's pictures.

They are faster and a little coarser; how much coarser depends on the pictures. So some of the kept pictures calibrate
it, others judge it by what counts, the labels of the live releases; and nothing uses it unless it is asked for.
"""

import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from closedloop import backfill, installations
from closedloop import project as projects
from closedloop.backfill import Picture
from closedloop.errors import NotQuantized
from closedloop.features import Progress, Stages
from closedloop.models import quantized
from closedloop.models.backends import AUTO, FP32, Tower, most
from closedloop.models.converted import Converted
from closedloop.models.encoder import Encoder
from closedloop.models.heads import Classifier
from closedloop.project import CLASSIFICATION, CLASSIFIER, Project
from closedloop.storage import Stores, pictures, registry
from closedloop.training import release as releases

CALIBRATION, CHECK = 300, 1_000  # pictures, at most; NNCF's makers calibrate by 300
LEAST = 100  # of each, at least
LEAST_SAME = 0.99  # of the labels
SECONDS = 2.0  # for which a tower is timed


@dataclass(frozen=True)
class Quantized:
    """What was made, and how good it is."""

    calibrated_on: int  # pictures
    checked_on: int  # others
    same_labels: float  # the share of these whose label, by the live releases, is the one of full precision
    median_cosine: float  # of their vectors with those of full precision
    least_cosine: float
    times_as_fast: float  # as the fastest of the others here

    def as_json(self) -> dict[str, Any]:
        """For the command, and the note beside the model."""
        return asdict(self)


@dataclass(frozen=True)
class _Answered:
    """Pictures of a project, and who labels them."""

    head: Classifier
    pixels: np.ndarray  # uint8 (n, side, side, 3)


def run(stores: Stores, converted: Converted, stages: Stages) -> Quantized:
    """Make it, judge it, and keep it where enough labels stay the same.

    Raises NotQuantized, MissingExtra, EncoderUnavailable, StoreAway, DatabaseAway.
    """
    chosen = installations.encoder(stores)
    encoder, choice = converted.open(chosen.name, chosen.digest, FP32)
    if choice.backend != FP32:
        raise NotQuantized(reason=f"OpenVINO cannot compute this encoder here: {choice.reason}")
    calibration, answered = _pictures(stores, encoder, stages("reading pictures"))
    stages("quantizing")
    own = converted.folder(chosen.digest)
    with quantized.made(chosen.name, own, calibration) as folder:
        tower = converted.quantized_tower(chosen.digest, folder)
        same, cosines = _compared(encoder.tower, tower, answered, stages("comparing"))
        fastest = converted.open(chosen.name, chosen.digest, AUTO)[0].tower
        done = Quantized(
            len(calibration),
            len(cosines),
            float(np.mean(same)),
            float(np.median(cosines)),
            float(np.min(cosines)),
            _rate(tower, calibration) / _rate(fastest, calibration),
        )
        if done.same_labels < LEAST_SAME:
            reason = (
                f"only {done.same_labels:.1%} of {done.checked_on} pictures keep their label, {LEAST_SAME:.0%} must"
            )
            raise NotQuantized(reason=reason)
        quantized.keep(own, folder, done.as_json())
    return done


def _pictures(stores: Stores, encoder: Encoder, progress: Progress) -> tuple[np.ndarray, list[_Answered]]:
    """Pixels to calibrate by, and others to judge by, in equal shares of every project with a live classifier."""
    judged = [(project, head) for project in projects.all_projects(stores) if (head := _live(stores, project, encoder))]
    if not judged:
        raise NotQuantized(reason="no classifier is live yet, so nobody could judge it. Train one first")
    share = -(-(CALIBRATION + CHECK) // len(judged))
    calibration, answered = [], []
    for number, (project, head) in enumerate(judged):
        with stores.db.read() as tx:
            some = [Picture(*row) for row in pictures.some(tx, project.id, share)]
        read = backfill.read_ahead(stores.objects, encoder, some)
        pixels = [of for _, of in read if not isinstance(of, str)]
        progress(number + 1, len(judged))
        cut = min(round(share * CALIBRATION / (CALIBRATION + CHECK)), len(pixels) // 2)
        calibration += pixels[:cut]
        if pixels[cut:]:
            answered.append(_Answered(head, np.stack(pixels[cut:])))
    if len(calibration) < LEAST:
        raise NotQuantized(reason=f"{2 * LEAST} kept pictures of projects with a live classifier are wanted at least")
    return np.stack(calibration), answered


def _live(stores: Stores, project: Project, encoder: Encoder) -> Classifier | None:
    """The live classifier of a project, if it has one."""
    if project.kind != CLASSIFICATION:
        return None
    with stores.db.read() as tx:
        live = {(one["project_id"], one["head"]): one["id"] for one in registry.live_releases(tx)}
    release = live.get((project.id, CLASSIFIER))
    if release is None:
        return None
    width = encoder.inputs[CLASSIFIER]
    head = releases.read(stores, project, CLASSIFIER, release, encoder.digest, width).head
    return head if isinstance(head, Classifier) else None


def _compared(
    full: Tower, coarse: Tower, answered: list[_Answered], progress: Progress
) -> tuple[list[bool], list[float]]:
    """Of every picture: whether its label stays the same, and the cosine of its two vectors."""
    same, cosines = list[bool](), list[float]()
    total = sum(len(one.pixels) for one in answered)
    for one in answered:
        for start in range(0, len(one.pixels), 32):
            a, b = (tower.look(one.pixels[start : start + 32])[0] for tower in (full, coarse))
            labels = [one.head.probabilities(vectors).argmax(axis=1) for vectors in (a, b)]
            same += [bool(equal) for equal in labels[0] == labels[1]]
            cosines += [float(cosine) for cosine in (a * b).sum(axis=1)]
            progress(len(same), total)
    return same, cosines


def _rate(tower: Tower, pixels: np.ndarray) -> float:
    """Pictures a second, of a tower that is busy."""
    batch = pixels[: most(tower)]
    tower.look(batch)
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < SECONDS:
        tower.look(batch)
        count += len(batch)
    return count / (time.perf_counter() - started)
