"""How long does the search for similar pictures take? `python -m bench.similar` (a minute; nothing needs to run).

A file of unit vectors as inference keeps it, mapped into memory; each search is timed alone, after some that read the
file.
"""

import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from inference_api.vector_file import VectorFile

from closedloop import processor

SIZES = ((100_000, 512), (100_000, 1280), (1_000_000, 512))  # pictures, numbers of a vector
SEARCHES = 100
PART = 10_000


def main() -> None:
    """Print p50 and p95 in ms, and write them down."""
    said = {"processor": processor.name(), "cores": processor.cores(), "sizes": []}
    for count, dimension in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            seconds = searched(Path(folder), count, dimension)
        p50, p95 = statistics.median(seconds) * 1e3, float(np.quantile(seconds, 0.95)) * 1e3
        said["sizes"].append({"pictures": count, "dimension": dimension, "p50_ms": p50, "p95_ms": p95})
        print(f"{count:9,} x {dimension}: p50 {p50:.1f} ms, p95 {p95:.1f} ms ({SEARCHES} searches)", flush=True)
    results = Path("bench/results")
    results.mkdir(parents=True, exist_ok=True)
    (results / "similar.json").write_text(json.dumps(said, indent=1), encoding="utf-8")


def searched(folder: Path, count: int, dimension: int) -> list[float]:
    """Seconds of each search."""
    random = np.random.default_rng(0)
    file = VectorFile(folder / "bench", dimension)
    for start in range(0, count, PART):
        vectors = random.standard_normal((PART, dimension), np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        file.add([f"{number:032x}" for number in range(start, start + PART)], vectors)
    queries = random.standard_normal((SEARCHES + 3, dimension), np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    seconds = []
    for query in queries:
        started = time.perf_counter()
        assert len(file.nearest(query, 10)) == 10
        seconds.append(time.perf_counter() - started)
    file.close()
    return seconds[3:]


if __name__ == "__main__":
    main()
