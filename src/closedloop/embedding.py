"""The cache of embeddings: each picture is embedded once per encoder, ever. Uploads bring theirs with the answer."""

from collections.abc import Callable, Sequence

import numpy as np

from closedloop.errors import EncoderUnavailable, PictureRemoved
from closedloop.image import decode
from closedloop.models.encoder import BATCH, Encoder
from closedloop.storage import Stores, pictures

Progress = Callable[[int, int], None]


def vectors_of(
    stores: Stores,
    project_id: str,
    image_ids: Sequence[str],
    digest: str,
    encoder: Callable[[], Encoder],
    progress: Progress | None = None,
) -> np.ndarray:
    """Embeddings of these pictures under the encoder of this digest, (n, d) float32 in the order of `image_ids`.

    What the cache lacks is computed (`encoder` is called only then) and kept batch by batch, so that a run that is
    killed goes on where it was. Raises StoreAway, DatabaseAway, EncoderUnavailable, and PictureRemoved where one of
    them is removed in the meantime.
    """
    with stores.db.read() as tx:
        known = pictures.embeddings_of(tx, project_id, digest, image_ids)
        missing = [id_ for id_ in image_ids if id_ not in known]
        there = pictures.images_of(tx, project_id, missing)
        keys = {id_: row["key"] for id_, row in there.items() if row["removed_at"] is None}
    if len(keys) < len(set(missing)):
        raise PictureRemoved
    tower = encoder() if missing else None
    if tower and tower.digest != digest:
        raise EncoderUnavailable(name=tower.name, reason="its weights are not those that this installation records.")
    for start in range(0, len(missing), BATCH):
        assert tower is not None
        ids = missing[start : start + BATCH]
        images = [decode(_bytes(stores, keys[id_]), tower.size) for id_ in ids]
        vectors = tower.embed(images)
        rows = [
            {"project_id": project_id, "image_id": id_, "encoder": digest, "vector": vector.astype("<f4").tobytes()}
            for id_, vector in zip(ids, vectors, strict=True)
        ]
        with stores.db.write() as tx:
            pictures.add_embeddings(tx, rows)
        known.update((row["image_id"], row["vector"]) for row in rows)
        if progress:
            progress(min(start + BATCH, len(missing)), len(missing))
    return np.stack([np.frombuffer(known[id_], dtype="<f4") for id_ in image_ids]) if image_ids else np.empty((0, 0))


def _bytes(stores: Stores, key: str) -> bytes:
    try:
        return stores.objects.get(key)
    except FileNotFoundError:
        raise PictureRemoved from None
