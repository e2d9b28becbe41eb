"""An installation of its own for the demo: `closedloop run` on free ports in a temporary home."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

CLOSEDLOOP = str(Path(sys.executable).with_name("closedloop"))
CHECKOUT = Path(__file__).parents[1]
PARTS = ("WEB", "INFERENCE", "SAMPLER", "TRAINER", "LABEL_STUDIO", "S3")


@dataclass(frozen=True)
class Installation:
    """A running installation, and its command line."""

    home: Path
    env: dict[str, str]
    secrets: dict[str, str]
    ports: dict[str, int]

    @property
    def pages(self) -> str:
        """Base URL of the pages."""
        return f"http://127.0.0.1:{self.ports['WEB']}"

    @property
    def inference(self) -> str:
        """Base URL of the inference service."""
        return f"http://127.0.0.1:{self.ports['INFERENCE']}"

    def command(self, *words: str) -> dict[str, Any]:
        """Run a `closedloop` command; returns what `--json` prints. Raises RuntimeError with its error."""
        done = subprocess.run(  # noqa: S603
            [CLOSEDLOOP, *words, "--json"], env=self.env, cwd=CHECKOUT, capture_output=True, text=True, check=False
        )
        try:
            body = json.loads(done.stdout)
        except ValueError:
            raise RuntimeError(f"closedloop {' '.join(words)}: {done.stdout}{done.stderr}") from None
        if not body["ok"]:
            raise RuntimeError(f"closedloop {' '.join(words)}: {body}")
        return body


@contextmanager
def started(home: Path | None = None, **settings: str) -> Iterator[Installation]:
    """Start an installation and wait until it is ready; it ends with the block. Raises RuntimeError with its output."""
    with tempfile.TemporaryDirectory(prefix="closedloop-") as temporary:
        place = home or Path(temporary)
        ports: dict[str, int] = dict(zip(PARTS, free_ports(len(PARTS)), strict=True))
        env = {
            **os.environ,
            "CLOSEDLOOP_HOME": str(place),
            "CLOSEDLOOP_ENCODER": "embedded",
            **{f"CLOSEDLOOP_{name}_PORT": str(port) for name, port in ports.items()},
            **settings,
        }
        output = place / "run.log"
        place.mkdir(parents=True, exist_ok=True)
        with output.open("w") as file:
            process = subprocess.Popen(  # noqa: S603
                [CLOSEDLOOP, "run"], env=env, cwd=CHECKOUT, stdout=file, stderr=file, stdin=subprocess.DEVNULL
            )
        try:
            _wait(process, output)
            lines = (place / "secrets.env").read_text().splitlines()
            secrets = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
            yield Installation(place, env, secrets, ports)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(process: subprocess.Popen[bytes], output: Path) -> None:
    began = time.monotonic()
    while "End with Ctrl-C" not in output.read_text():
        if process.poll() is not None or time.monotonic() - began > 300:
            raise RuntimeError(f"closedloop did not start:\n{output.read_text()}")
        time.sleep(0.2)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on at this moment."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def live_release(installation: Installation, project: str) -> str | None:
    """The release that answers for a project at this moment."""
    said = httpx.get(f"{installation.inference}/v1/releases", timeout=10, trust_env=False).raise_for_status().json()
    return next((entry["release"] for entry in said["releases"] if entry["project"] == project), None)


def training_runs(installation: Installation, project: str) -> int:
    """How many candidates the trainer has judged for a project, by its metrics."""
    url = f"http://127.0.0.1:{installation.ports['TRAINER']}/metrics"
    text = httpx.get(url, timeout=10, trust_env=False).raise_for_status().text
    lines = (line for line in text.splitlines() if line.startswith("closedloop_training_runs_total"))
    return int(sum(float(line.rsplit(" ", 1)[1]) for line in lines if f'project="{project}"' in line))
