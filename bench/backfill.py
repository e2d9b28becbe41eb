"""Does `closedloop embed` keep the tower busy? `python -m bench.backfill` (ten minutes; nothing needs to run).

2,000 pictures in a real S3 server on this machine are embedded; beside that rate stand the tower's alone, and what both
cores can do who must decode the pictures, too. In turn, several times.
"""

import argparse
import datetime as dt
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from bench.serving import RESULTS, cache, servers
from closedloop import backfill, processor
from closedloop.backfill import Picture
from closedloop.image import decode
from closedloop.models.converted import Converted


def main() -> None:
    """Print the ratios, and write them down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", type=int, default=512, help="of the pictures, in px")
    parser.add_argument("--encoder", choices=("vit", "embedded"), default="vit")
    asked = parser.parse_args()
    name = f"openclip:ViT-B-32@{servers.weights(cache())}" if asked.encoder == "vit" else "embedded"
    encoder, choice, _ = Converted(cache()).choose(name)
    photos = servers.pictures(asked.side, 16)
    rounds = []
    with tempfile.TemporaryDirectory() as folder, servers.store(Path(folder) / "home") as stores:
        every = [
            Picture(f"{number:032x}", f"production/bench/unclassified/{number:032x}.jpg")
            for number in range(asked.pictures)
        ]
        for number, one in enumerate(every):
            stores.objects.put(one.key, photos[number % len(photos)])
        pixels = np.stack([encoder.prepare(decode(data, encoder.size)) for data in photos])
        for _ in range(asked.rounds):
            started, count = time.perf_counter(), 0
            while time.perf_counter() - started < 5:
                encoder.tower.look(pixels)
                count += len(pixels)
            tower = count / (time.perf_counter() - started)
            started = time.perf_counter()
            for number in range(200):
                encoder.prepare(decode(photos[number % len(photos)], encoder.size))
            decoding = processor.cores() * 200 / (time.perf_counter() - started)
            started = time.perf_counter()
            done = list(backfill.looked_at(stores.objects, encoder, every))
            assert not [one for one in done if one.fault]
            rate = len(done) / (time.perf_counter() - started)
            limit = 1 / (1 / tower + 1 / decoding)
            rounds.append(
                {"rate": rate, "tower": tower, "limit": limit, "of_tower": rate / tower, "of_limit": rate / limit}
            )
            print(
                f"{rate:.1f} pictures/s; {rate / tower:.2f} of the tower, {rate / limit:.2f} of decode + tower",
                flush=True,
            )
    said = {"at": dt.date.today().isoformat(), "processor": processor.name(), "backend": choice.backend, **vars(asked)}
    said["rounds_"] = rounds
    (RESULTS / f"backfill-{asked.encoder}.json").write_text(json.dumps(said, indent=1), encoding="utf-8")
    for key in ("rate", "of_tower", "of_limit"):
        print(f"{key}: median {statistics.median(one[key] for one in rounds):.2f} of {len(rounds)} rounds")


if __name__ == "__main__":
    main()
