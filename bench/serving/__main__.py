"""How fast are answers, beside peers and the machine's limit? `python -m bench.serving` (half an hour on two cores).

Each round asks every server in turn, so that noise hits all alike; while one is asked, the others are stopped. Figures
are medians of the rounds with their smallest and largest. All in ratios of one run: on another machine other figures
come, and much the same ratios.
"""

import argparse
import asyncio
import contextlib
import json
import platform
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.serving import RESULTS, cache, servers
from bench.serving.load import Answers, arrivals, closed_loop, ideal
from bench.serving.servers import Running
from closedloop import processor
from closedloop.models import backends

CLIENTS = (1, 8, 32)
LOADS = (0.5, 0.9, 1.5, 4.0)
GPUS = (f"{backends.TORCH}-{backends.CUDA}", f"{backends.TORCH}-{backends.MPS}")  # no peer serves these
HINTS = {backends.BF16: "bf16", backends.FP32: "f32", backends.INT8: "bf16"}  # LitServe's, by our backend


def main() -> None:
    """Measure, and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each load in each round")
    parser.add_argument("--megapixels", type=float, default=1.0)
    parser.add_argument("--encoder", choices=("vit", "embedded"), default="vit")
    parser.add_argument("--backend", choices=(*HINTS, *GPUS), default=backends.BF16)
    parser.add_argument("--without-peers", action="store_true")
    asked = parser.parse_args()
    said = asyncio.run(_measure(asked))
    file = RESULTS / f"serving-{asked.encoder}-{asked.backend}-{asked.megapixels:g}mp.json"
    file.write_text(json.dumps(said, indent=1), encoding="utf-8")
    print(f"written to {file}")


async def _measure(asked: argparse.Namespace) -> dict[str, Any]:
    side = round((asked.megapixels * 1e6) ** 0.5)
    pictures = servers.pictures(side, 8)
    print(f"{len(pictures)} pictures of {side} px, {statistics.median(map(len, pictures)) / 1e3:.0f} kB", flush=True)
    kept = cache()
    weights = servers.weights(kept)
    encoder = f"openclip:ViT-B-32@{weights}" if asked.encoder == "vit" else "embedded"
    said: dict[str, Any] = {"machine": _machine(), "asked": vars(asked), "rounds": []}
    with contextlib.ExitStack() as all_, tempfile.TemporaryDirectory() as folder:
        homes = Path(folder)
        photos = homes / "photos"
        photos.mkdir()
        for number, data in enumerate(pictures):
            (photos / f"{number}.jpg").write_bytes(data)
        if asked.backend == backends.INT8:
            servers.quantize(kept, encoder, pictures)
        ours = all_.enter_context(servers.closedloop("Closedloop", encoder, asked.backend, kept, homes / "ours"))
        running = [ours]
        digest = _digest(ours)
        if not asked.without_peers and asked.backend in HINTS:
            running.append(all_.enter_context(servers.usual(asked.encoder)))
            model = kept / "encoders" / digest / (backends.INT8 if asked.backend == backends.INT8 else "") / "look.xml"
            way = {"vit": "crop", "embedded": "squash"}[asked.encoder]
            running.append(all_.enter_context(servers.litserve(model, HINTS[asked.backend], way)))
        for one in running:
            print(f"{one.name}: ready after {one.ready_after:.1f} s", flush=True)
            with servers.alone(one, running):
                await closed_loop(one.server, pictures, 8, 3.0)
        for number in range(asked.rounds):
            said["rounds"].append(await _round(number, asked, running, pictures, (kept, digest, photos)))
    said["summary"] = _summary(said["rounds"])
    print(_table(said["summary"]))
    return said


async def _round(
    number: int, asked: argparse.Namespace, running: list[Running], pictures: list[bytes], limit: tuple[Path, str, Path]
) -> dict[str, float]:
    """One figure by name."""
    found: dict[str, float] = {}
    kept, digest, photos = limit
    command = [sys.executable, "-m", "bench.serving.limit", str(kept), digest, asked.backend, str(photos)]
    with servers.alone(None, running):
        ended = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    found |= {f"limit {name}": value for name, value in json.loads(ended.stdout.splitlines()[-1]).items()}
    for clients in CLIENTS:
        for one in running:
            with servers.alone(one, running):
                said = await closed_loop(one.server, pictures, clients, asked.seconds)
            _note(found, f"{one.name}, {clients} clients", said)
    capacity = found["Closedloop, 32 clients: answers/s"]
    for load in LOADS:
        with servers.alone(running[0], running):
            said = await arrivals(running[0].server, pictures, load * capacity, 2 * asked.seconds, seed=number)
        _note(found, f"Closedloop, {load:.0%} load", said)
        if load < 1:
            least = found["limit decode_one_s"] + found["limit tower_one_s"]
            perfect = ideal(1 / found["limit both"], least, load * capacity, 2 * asked.seconds, seed=number)
            found[f"limit, {load:.0%} load: p99, ms"] = 1e3 * perfect.quantile(0.99)
    found |= {f"{one.name}: memory, MB": one.memory() / 1e6 for one in running}
    rates = {one.name: found[f"{one.name}, {CLIENTS[-1]} clients: answers/s"] for one in running}
    rates["limit"] = found["limit both"]
    print(f"round {number + 1}: " + ", ".join(f"{name} {value:.1f}/s" for name, value in rates.items()), flush=True)
    return found


def _note(found: dict[str, float], name: str, said: Answers) -> None:
    found[f"{name}: answers/s"] = said.per_second
    found[f"{name}: p50, ms"] = 1e3 * said.quantile(0.5)
    found[f"{name}: p99, ms"] = 1e3 * said.quantile(0.99)
    asked = sum(said.statuses.values())
    for status, count in said.statuses.items():
        if status != 200:
            found[f"{name}: share of {status}"] = count / asked


def _summary(rounds: list[dict[str, float]]) -> dict[str, list[float]]:
    """Name -> median, smallest, largest of the rounds."""
    names = list(dict.fromkeys(name for one in rounds for name in one))
    values = {name: [one.get(name, 0.0) for one in rounds] for name in names}
    return {name: [statistics.median(of), min(of), max(of)] for name, of in values.items()}


def _table(summary: dict[str, list[float]]) -> str:
    return "\n".join(f"{name:55} {m:10.2f}  ({low:.2f} - {high:.2f})" for name, (m, low, high) in summary.items())


def _digest(ours: Running) -> str:
    import httpx

    answer = httpx.get(f"http://127.0.0.1:{ours.server.port}/v1/releases", timeout=30, trust_env=False)
    return str(answer.json()["encoder"]["digest"])


def _machine() -> dict[str, Any]:
    return {
        "processor": processor.name(),
        "cores": processor.cores(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("openvino", "torch", "uvicorn", "fastapi", "pillow")},
    }


if __name__ == "__main__":
    main()
