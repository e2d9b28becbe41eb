"""The daily random sample: what an honest estimate of the model's accuracy rests on."""

import datetime as dt
import hashlib
from dataclasses import dataclass

from closedloop import queues, tasks
from closedloop.project import CLASSIFICATION, Project
from closedloop.storage import Stores, asking, installation


@dataclass(frozen=True)
class Sample:
    """One drawn sample: `drawn` of the `frame` pictures that came since the last, each with this probability."""

    frame: int
    drawn: int
    probability: float


def draw_sample(stores: Stores, project: Project, now: dt.datetime) -> Sample:
    """Draw a simple random sample without replacement of the pictures that arrived since the last one.

    One transaction: killed in between, nothing was drawn. Every picture is in the frame of exactly one sample, and its
    inclusion probability is stored, drawn or not. Imported pictures are not what visitors send and are left out.
    Raises WrongKind for a project of sets, whose random share is drawn as they come (see `queues.is_drawn`).
    """
    project.check_kind(CLASSIFICATION)
    rule = project.random_sample
    with stores.db.write() as tx:
        installation.lock_project(tx, project.id)  # two draws at once would share a frame and draw too many
        frame = asking.sampling_frame(tx, project.id, queues.RANDOM_SAMPLE, now)
        size = queues.sample_size(len(frame), rule.share, rule.at_least)
        digest = hashlib.sha256(f"{project.id} {now.isoformat()} {len(frame)}".encode()).digest()
        seed = int.from_bytes(digest[:7], "big")
        drawn, probability = queues.draw(frame, size, seed)
        window = {"project_id": project.id, "ends_at": now, "frame": len(frame), "drawn": len(drawn), "seed": seed}
        window_id = asking.add_window(tx, window)
        for image_id in sorted(drawn):
            tasks.ask(tx, project.id, image_id, queues.RANDOM_SAMPLE, now, probability=probability, window_id=window_id)
        rest = [
            {
                "project_id": project.id,
                "image_id": image_id,
                "queue": queues.RANDOM_SAMPLE,
                "probability": probability,
                "drawn": False,
                "window_id": window_id,
                "at": now,
            }
            for image_id in frame
            if image_id not in drawn
        ]
        asking.add_inclusions(tx, rest)
    return Sample(len(frame), len(drawn), probability)
