"""How soon does the service answer after a start? `python -m bench.serving.start` (two minutes).

The first start converts the encoder and tries the backends; the others find all of that in the cache. Beside them
stands how long reading that takes, which every start does to check the digests.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from bench.serving import RESULTS, cache, servers
from closedloop.models import backends, manifest


def main() -> None:
    """Print seconds, and write them down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--encoder", choices=("vit", "embedded"), default="vit")
    asked = parser.parse_args()
    name = f"openclip:ViT-B-32@{servers.weights(cache())}" if asked.encoder == "vit" else "embedded"
    found: dict[str, list[float]] = {"first start": [], "second start": [], "reading the cache": []}
    with tempfile.TemporaryDirectory() as folder:
        own = Path(folder) / "cache"
        for number in range(asked.rounds + 1):
            home = Path(folder) / f"home-{number}"
            with servers.closedloop("Closedloop", name, backends.AUTO, own, home) as ours:
                found["second start" if number else "first start"].append(ours.ready_after)
            (converted,) = (file.parent for file in own.glob(f"encoders/*/{manifest.MANIFEST}"))
            started = time.perf_counter()
            manifest.check(converted)
            found["reading the cache"].append(time.perf_counter() - started)
    for what, values in found.items():
        print(f"{what:18} {statistics.median(values):6.2f} s ({min(values):.2f} - {max(values):.2f})")
    (RESULTS / f"start-{asked.encoder}.json").write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
