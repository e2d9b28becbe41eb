"""Do 10,000 connections that send nothing stop the others? `python -m bench.serving.idle` (a minute).

Our service in a process of its own is asked about pictures and whether it is well, alone and beside them, in turn.
"""

import argparse
import asyncio
import contextlib
import resource
import statistics
import tempfile
import time
from pathlib import Path

import httpx

from bench.serving import cache, servers
from bench.serving.load import closed_loop
from closedloop.models import backends


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    asyncio.run(_measure(parser.parse_args()))


async def _measure(asked: argparse.Namespace) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    pictures = servers.pictures(512, 8)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        with servers.closedloop("Closedloop", "embedded", backends.AUTO, cache(), home) as ours:
            await closed_loop(ours.server, pictures, 8, 3.0)
            found: dict[str, list[float]] = {}
            for _ in range(asked.rounds):
                for name, count in (("alone", 0), ("beside them", asked.connections)):
                    silent = await _connected(ours.server.port, count)
                    said = await closed_loop(ours.server, pictures, 8, 2.0)
                    assert set(said.statuses) == {200}, said.statuses
                    found.setdefault(f"answers/s {name}", []).append(said.per_second)
                    found.setdefault(f"/healthz p50 {name}, ms", []).append(await _well(ours.server.port))
                    still = sum(not reader.at_eof() for reader, _ in silent)
                    if count:
                        found.setdefault("connections still open", []).append(still)
                    for _, writer in silent:
                        writer.close()
    for name, values in found.items():
        print(f"{name:32} median {statistics.median(values):9.1f} ({min(values):.1f} - {max(values):.1f})")


async def _connected(port: int, count: int) -> list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    silent = []
    for start in range(0, count, 500):
        many = (asyncio.open_connection("127.0.0.1", port) for _ in range(min(500, count - start)))
        silent += await asyncio.gather(*many)
    return silent


async def _well(port: int) -> float:
    """Milliseconds."""
    took = []
    async with httpx.AsyncClient(trust_env=False) as client:
        for _ in range(20):
            started = time.perf_counter()
            with contextlib.suppress(httpx.HTTPError):
                (await client.get(f"http://127.0.0.1:{port}/healthz")).raise_for_status()
                took.append(1e3 * (time.perf_counter() - started))
    return statistics.median(took)


if __name__ == "__main__":
    main()
