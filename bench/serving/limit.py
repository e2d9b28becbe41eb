"""What the processor can do: decoding alone, the tower alone, and both one after the other, with every core.

`python -m bench.serving.limit CACHE DIGEST BACKEND FOLDER` prints pictures a second as JSON. It is a process of
its own, as the servers are.
"""

import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from closedloop.image import decode
from closedloop.models.backends import ON_PROCESSOR, most
from closedloop.models.converted import Converted
from closedloop.processor import cores

SECONDS = 2.0


def rate(work: Callable[[], int]) -> float:
    """Pictures a second; `work` says how many it did."""
    work()
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < SECONDS:
        count += work()
    return count / (time.perf_counter() - started)


def main() -> None:
    """Measure."""
    cache, digest, backend, folder = sys.argv[1:]
    encoder, _ = Converted(Path(cache), backend).open("bench", digest)
    files = [file.read_bytes() for file in sorted(Path(folder).glob("*.jpg"))]

    def prepared(data: bytes) -> np.ndarray:
        return encoder.prepare(decode(data, encoder.size))

    with ThreadPoolExecutor(cores()) as pool:

        def decode_all() -> int:
            return len(list(pool.map(prepared, files)))

        decoded = rate(decode_all)
    pixels = np.stack([prepared(data) for data in files])
    # The best of both: several pictures for each core, or all cores at them together, one after the other.
    batch = pixels[np.arange(most(encoder.tower)) % len(pixels)]

    def look(some: np.ndarray) -> Callable[[], int]:
        return lambda: len(encoder.tower.look(some)[0])

    alone, together = rate(look(batch[:1])), rate(look(batch))
    one = rate(lambda: len([prepared(files[0])]))
    best = max(alone, together)
    said = {
        "decode": decoded,
        "tower": best,
        # A GPU looks while the processor decodes; a processor does one after the other.
        "both": 1 / (1 / decoded + 1 / best) if encoder.tower.name in ON_PROCESSOR else min(decoded, best),
        "decode_one_s": 1 / one,
        "tower_one_s": 1 / alone,
    }
    print(json.dumps(said))


if __name__ == "__main__":
    main()
