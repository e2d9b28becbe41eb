"""A project with imported answers whose embeddings are made by hand, so that no encoder is loaded."""

from collections.abc import Callable, Mapping

import numpy as np

from closedloop import installations
from closedloop.features import VECTOR, Features
from closedloop.installations import ChosenEncoder
from closedloop.project import Gate, Project
from closedloop.storage import Stores, answers, pictures
from tests.conftest import START, Clock

ENCODER = ChosenEncoder("embedded", "e" * 64, 16, False, "for a test", START.isoformat())


def lenient(project: Project) -> Project:
    """The project, releasing all that is not clearly worse."""
    return project.model_copy(update={"gate": Gate(policy="not_worse", margin=0.5)})


def seen(
    stores: Stores, project_id: str, encoder: str, vectors: Mapping[str, np.ndarray], clock: Clock | None = None
) -> None:
    """As if the encoder's reference had looked at these pictures, of which there are records alone."""
    features = Features(stores, project_id, encoder, lambda: None, clock or Clock())  # type: ignore[arg-type, return-value]
    features._compute(
        VECTOR, list(vectors), lambda ids: {"vector": np.stack([vectors[id_] for id_ in ids])}, None, 0, len(vectors)
    )


def adding(stores: Stores, project: Project, clock: Clock) -> Callable[..., None]:
    """A function `add(n, noise)`: n more imported pictures with answers, whose vectors show their class, more or less."""
    random = np.random.default_rng(0)
    with stores.db.write() as tx:
        installations.choose_encoder(tx, ENCODER, START)
    count = 0

    def add(n: int, noise: float = 0.3, wrong: bool = False) -> None:
        nonlocal count
        vectors = {}
        with stores.db.write() as tx:
            for _ in range(n):
                image_id, number = f"{count:032x}", count % 3
                count += 1
                vector = np.eye(3, 16)[number] + noise * random.standard_normal(16)
                vectors[image_id] = (vector / np.linalg.norm(vector)).astype("<f4")
                row = {
                    "project_id": project.id,
                    "id": image_id,
                    "key": f"production/pets/class_00/{image_id}.jpg",
                    "sha256": image_id * 2,
                    "phash": f"{int(random.integers(0, 2**63)):016x}",
                    "width": 1,
                    "height": 1,
                    "bytes": 1,
                    "source": "import",
                    "arrived_at": clock(),
                }
                pictures.add_image(tx, row)
                of = {"project_id": project.id, "image_id": image_id}
                label = project.classes[(number + wrong) % 3]
                answers.add_import(tx, {**of, "label": label, "at": clock()})
        seen(stores, project.id, ENCODER.digest, vectors, clock)

    return add
