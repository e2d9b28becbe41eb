"""What do the pages add to inference's own time? `python -m bench.serving.front` (two minutes): one client, 1 MP.

Both are asked in turn about pictures that were never sent before. The pages make a JPEG of their own of each, keep it
in S3 and write its records before they answer.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
from pathlib import Path

from bench.serving import RESULTS, cache, servers
from bench.serving.load import closed_loop
from closedloop.models import backends


def main() -> None:
    """Print p50 in ms, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    asyncio.run(_measure(parser.parse_args().rounds))


async def _measure(rounds: int) -> None:
    pictures = servers.pictures(1000, 8)
    found: dict[str, list[float]] = {"inference": [], "pages": [], "pages add": []}
    with (
        tempfile.TemporaryDirectory() as folder,
        servers.closedloop("Closedloop", "embedded", backends.AUTO, cache(), Path(folder) / "home") as inference,
        servers.pages(inference) as pages,
    ):
        for one in (inference, pages):
            await closed_loop(one.server, pictures, 1, 2.0)
        for _ in range(rounds):
            p50 = []
            for one in (inference, pages):
                said = await closed_loop(one.server, pictures, 1, 4.0)
                assert set(said.statuses) <= {200, 201}, said.statuses
                p50.append(1e3 * said.quantile(0.5))
            for values, value in zip(found.values(), (*p50, p50[1] - p50[0]), strict=True):
                values.append(value)
    for name, values in found.items():
        print(f"{name:10} p50 {statistics.median(values):6.1f} ms ({min(values):.1f} - {max(values):.1f})")
    (RESULTS / "front.json").write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
