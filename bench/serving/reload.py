"""Do answers get slower while releases change? `python -m bench.serving.reload` (three minutes).

Eight clients ask the service, in turn while nothing happens and while another release goes live every second.
"""

import argparse
import asyncio
import datetime as dt
import json
import statistics
import tempfile
from pathlib import Path

import numpy as np

from bench.serving import RESULTS, cache, servers
from bench.serving.load import Answers, closed_loop
from closedloop import installations
from closedloop import project as projects
from closedloop.models import artefact, backends
from closedloop.models.classifier import RECIPES
from closedloop.models.heads import Classifier, classifier_shapes
from closedloop.project import CLASSIFIER
from closedloop.storage import Stores, answers, registry

EVERY = 1.0  # s


def main() -> None:
    """Print p99 of both in ms and their ratio, and write them down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--encoder", choices=("vit", "embedded"), default="embedded")
    asyncio.run(_measure(parser.parse_args()))


async def _measure(asked: argparse.Namespace) -> None:
    pictures = servers.pictures(512, 8)
    name = f"openclip:ViT-B-32@{servers.weights(cache())}" if asked.encoder == "vit" else "embedded"
    found: dict[str, list[float]] = {"alone": [], "beside": [], "ratio": []}
    with (
        tempfile.TemporaryDirectory() as folder,
        servers.closedloop("Closedloop", name, backends.AUTO, cache(), Path(folder) / "home") as ours,
    ):
        assert ours.stores
        releases = [_published(ours.stores, number) for number in (1, 2)]
        await closed_loop(ours.server, pictures, 8, 3.0)
        for _ in range(asked.rounds):
            alone = await closed_loop(ours.server, pictures, 8, asked.seconds)
            beside = await _beside(ours, releases, pictures, asked.seconds)
            for said in (alone, beside):
                assert set(said.statuses) == {200}, said.statuses
            p99 = [1e3 * said.quantile(0.99) for said in (alone, beside)]
            for values, value in zip(found.values(), (*p99, p99[1] / p99[0]), strict=True):
                values.append(value)
    for what, values in found.items():
        print(f"p99 {what:8} {statistics.median(values):7.2f} ({min(values):.2f} - {max(values):.2f})")
    (RESULTS / "reload.json").write_text(json.dumps(found, indent=1), encoding="utf-8")


async def _beside(ours: servers.Running, releases: list[str], pictures: list[bytes], seconds: float) -> Answers:
    """What is answered while releases take turns."""
    assert ours.stores
    asking = asyncio.create_task(closed_loop(ours.server, pictures, 8, seconds))
    changes = 0
    while not asking.done():
        release = releases[changes % 2]
        with ours.stores.db.write() as tx:
            registry.go_live(tx, "bench", CLASSIFIER, release, dt.datetime.now(dt.UTC), "bench")
        changes += 1
        await asyncio.wait([asking], timeout=EVERY)
    return await asking


def _published(stores: Stores, number: int) -> str:
    """A release that labels by chance, not live yet."""
    encoder = installations.encoder(stores)
    classes = projects.get(stores, "bench").classes
    (recipe, *_), release = RECIPES, f"r{number:04d}"
    random = np.random.default_rng(number)
    card = {
        "release": release,
        "project": "bench",
        "head": CLASSIFIER,
        "classes": list(classes),
        "encoder": {"digest": encoder.digest},
        "recipe": recipe.as_json(),
        "temperature": 1.0,
    }
    shapes = classifier_shapes(recipe.kind, encoder.dimension, len(classes), None)
    tensors = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    for file, data in artefact.pack(artefact.weights_bytes(Classifier(recipe.kind, tensors, 1.0)), card).items():
        stores.objects.put(f"{artefact.place('bench', CLASSIFIER, release)}/{file}", data)
    made = {"project_id": "bench", "head": CLASSIFIER, "created_at": dt.datetime.now(dt.UTC)}
    row = {"id": release, "number": number, "dataset_id": release, "encoder": encoder.digest, "state": "candidate"}
    with stores.db.write() as tx:
        answers.add_dataset(tx, {**made, "id": release, "digest": f"{number:064x}", "items": 0}, [])
        registry.add_release(tx, {**made, **row, "reason": "", "card": card})
    return release


if __name__ == "__main__":
    main()
