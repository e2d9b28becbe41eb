"""Does the service grow? `python -m bench.serving.memory` (ten minutes): its memory after 1,000 and 100,000 requests.

Every picture is another one, so that what is remembered of pictures is pushed out again.
"""

import argparse
import asyncio
import json
import tempfile
from pathlib import Path

from bench.serving import RESULTS, cache, servers
from bench.serving.load import closed_loop
from closedloop.models import backends

MARKS = (1_000, 10_000, 50_000, 100_000)


def main() -> None:
    """Print resident MB after so many requests."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=MARKS[-1])
    asyncio.run(_measure(parser.parse_args().requests))


async def _measure(requests: int) -> None:
    pictures = servers.pictures(256, 8)
    said: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        with servers.closedloop("Closedloop", "embedded", backends.AUTO, cache(), home) as ours:
            done, marks = 0, [mark for mark in MARKS if mark <= requests]
            while marks:
                answers = await closed_loop(ours.server, pictures, 32, 2.0)
                done += len(answers.seconds)
                if done >= marks[0]:
                    said[marks.pop(0)] = ours.memory() / 1e6
                    print(f"after {done:,} requests: {ours.memory() / 1e6:.0f} MB", flush=True)
    ratio = said[max(said)] / said[min(said)]
    print(f"{ratio:.3f} times as much after {max(said):,} as after {min(said):,}")
    (RESULTS / "memory.json").write_text(json.dumps({"mb": said, "ratio": ratio}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
