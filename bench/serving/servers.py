"""The servers that are measured, each a process of its own in an environment of its own."""

import contextlib
import datetime as dt
import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from bench.serving.load import Server
from closedloop import first_start
from closedloop import project as projects
from closedloop.image import decode
from closedloop.models import backends, quantized
from closedloop.models.backends import agreement
from closedloop.models.converted import Converted
from closedloop.settings import Settings
from closedloop.storage import Stores, open_stores
from demo.installation import free_ports

HERE = Path(__file__).parent
PEERS = HERE / "peers"
PATIENCE = 300.0  # s for a server to be ready
KEYS = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "a secret of the bench"}
PROJECT = "{id: bench, title: Bench, kind: classification, classes: [a, b, c, d, e, f, g, h, i, j]}"


@dataclass
class Running:
    """A server that answers."""

    name: str
    server: Server
    processes: list["subprocess.Popen[bytes]"]
    ready_after: float  # s
    env: dict[str, str]  # of its processes
    stores: Stores | None = None  # behind it, where it is ours

    def memory(self) -> float:
        """Resident bytes of its processes and theirs."""
        import psutil

        own = [psutil.Process(process.pid) for process in self.processes]
        return float(sum(one.memory_info().rss for of in own for one in (of, *of.children(recursive=True))))

    def signal(self, which: signal.Signals) -> None:
        """Tell all of its processes."""
        for process in self.processes:
            os.killpg(process.pid, which)


@contextlib.contextmanager
def alone(one: Running | None, every: list[Running]) -> Iterator[None]:
    """A block in which the others (None: all of them) do nothing, not even look whether there is something to do."""
    others = [other for other in every if other is not one]
    for other in others:
        other.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for other in others:
            other.signal(signal.SIGCONT)


def pictures(side: int, count: int) -> list[bytes]:
    """Made-up photographs as JPEG, `side` px wide and high."""
    random = np.random.default_rng(side)
    found = []
    for _ in range(count):
        buffer = io.BytesIO()
        agreement.like_a_photograph(side, random).save(buffer, "JPEG", quality=80)
        found.append(buffer.getvalue())
    return found


def weights(folder: Path) -> Path:
    """A ViT-B-32 with random weights: they do not change its speed."""
    file = folder / "vit-b-32.safetensors"
    if not file.exists():
        import open_clip
        import torch
        from safetensors.torch import save_file

        torch.manual_seed(0)
        model = open_clip.create_model("ViT-B-32", pretrained=None, load_weights=False)
        save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, file)
    return file


def quantize(cache: Path, name: str, some: list[bytes]) -> None:
    """Have an encoder in 8-bit numbers in a cache. What it says is judged elsewhere: here its speed counts."""
    converted = Converted(cache, backends.FP32)
    encoder, _, _ = converted.choose(name)
    own = converted.folder(encoder.digest)
    if not (own / backends.INT8).exists():
        pixels = np.stack([encoder.prepare(decode(data, encoder.size)) for data in some])
        with quantized.made(name, own, pixels) as folder:
            quantized.keep(own, folder, {})


@contextlib.contextmanager
def store(home: Path) -> Iterator[Stores]:
    """An S3 server in a process of its own, and records with a project, all below a new folder."""
    (port,) = free_ports(1)
    home.mkdir(parents=True)
    served = subprocess.Popen(  # noqa: S603
        [str(Path(sys.executable).with_name("rclone")), "serve", "s3", "--addr", f"127.0.0.1:{port}", str(home)],
        env={**os.environ, "RCLONE_AUTH_KEY": f'"{",".join(KEYS.values())}"', "RCLONE_CONFIG": os.devnull},
        stderr=subprocess.DEVNULL,
    )
    own: dict[str, Any] = {key.lower(): value for key, value in KEYS.items()}
    own["closedloop_owner_password"] = KEYS["AWS_SECRET_ACCESS_KEY"]  # nobody signs in
    own |= {"closedloop_home": home, "closedloop_database_url": "", "s3_endpoint_url": f"http://127.0.0.1:{port}"}
    settings = Settings(**own)
    stores = open_stores(settings)
    try:
        _wait_for(lambda: stores.objects.make_buckets() is None)
        now = dt.datetime.now(dt.UTC)
        first_start.prepare(stores, settings, now)
        projects.add(stores, projects.parse_manifest(PROJECT), now)
        yield stores
    finally:
        stores.db.close()
        served.kill()
        served.wait()


@contextlib.contextmanager
def closedloop(name: str, encoder: str, backend: str, cache: Path, home: Path) -> Iterator[Running]:
    """Our inference service, over a store and records of its own."""
    (port,) = free_ports(1)
    with store(home) as stores:
        env = {
            **os.environ,
            **KEYS,
            "CLOSEDLOOP_HOME": str(home),
            "CLOSEDLOOP_DATABASE_URL": "",
            "CLOSEDLOOP_CACHE": str(cache),
            "CLOSEDLOOP_ENCODER": encoder,
            "CLOSEDLOOP_BACKEND": backend,
            "CLOSEDLOOP_INFERENCE_PORT": str(port),
            "S3_ENDPOINT_URL": stores.objects.endpoint_url,
            "CLOSEDLOOP_LOG_LEVEL": "WARNING",
        }
        ours = Server(port, "/v1/predict?project=bench", form=False)
        with _started(name, ours, [sys.executable, "-m", "inference_api"], "/readyz", env) as running:
            running.stores = stores
            yield running


@contextlib.contextmanager
def pages(asked: Running) -> Iterator[Running]:
    """Our pages, which ask that inference service of ours."""
    (port,) = free_ports(1)
    env = {
        **asked.env,
        "CLOSEDLOOP_WEB_PORT": str(port),
        "CLOSEDLOOP_SESSION_KEY": KEYS["AWS_SECRET_ACCESS_KEY"],
        "CLOSEDLOOP_UPLOADS_PER_MINUTE": "0",
    }
    server = Server(port, "/p/bench/predict", form=True)
    with _started("pages", server, [sys.executable, "-m", "flask_app"], "/healthz", env) as running:
        yield running


@contextlib.contextmanager
def usual(encoder: str) -> Iterator[Running]:
    """Flask calls FastAPI, which calls torch: one forward for each request."""
    python = _environment("usual")
    (api, page), name, env = free_ports(2), "usual service", dict(os.environ)
    behind, front = Server(api, "/predict", form=True), Server(page, "/predict", form=True)
    api_command = [python, str(PEERS / "usual_api.py"), encoder, str(api)]
    page_command = [python, str(PEERS / "usual_page.py"), f"http://127.0.0.1:{api}", str(page)]
    with (
        _started(name, behind, api_command, "/healthz", env) as first,
        _started(name, front, page_command, "/healthz", env) as second,
    ):
        second.processes += first.processes
        second.ready_after += first.ready_after
        yield second


@contextlib.contextmanager
def litserve(model: Path, precision: str, way: str) -> Iterator[Running]:
    """LitServe with our tower and our decoding."""
    (port,) = free_ports(1)
    command = [_environment("litserve"), str(PEERS / "litserve_server.py"), str(model), precision, way, str(port)]
    with _started("LitServe", Server(port, "/predict", form=True), command, "/health", dict(os.environ)) as one:
        yield one


@contextlib.contextmanager
def _started(name: str, server: Server, command: list[str], ready: str, env: dict[str, str]) -> Iterator[Running]:
    started = time.perf_counter()
    log = Path(env.get("BENCH_LOGS", "/tmp")) / f"bench-{name.replace(' ', '-')}.log"  # noqa: S108
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=env, stdout=output, stderr=output, start_new_session=True)  # noqa: S603
        try:
            address = f"http://127.0.0.1:{server.port}{ready}"
            _wait_for(lambda: httpx.get(address, timeout=5, trust_env=False).status_code == 200)
            yield Running(name, server, [process], time.perf_counter() - started, env)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGCONT)
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _wait_for(well: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while True:
        try:
            if well():
                return
        except Exception:
            if time.monotonic() > until:
                raise
        if time.monotonic() > until:
            raise TimeoutError("a server is not ready")
        time.sleep(0.02)


def _environment(name: str) -> str:
    """The Python of a peer's environment, made at its first use."""
    folder = HERE.parent / "results" / "environments" / name
    python = folder / "bin" / "python"
    wanted = (PEERS / f"{name}.txt").read_text(encoding="utf-8")
    noted = folder / "installed.txt"
    if not noted.exists() or noted.read_text(encoding="utf-8") != wanted:
        uv = shutil.which("uv") or str(HERE.parents[1] / ".uv" / "bin" / "uv")
        subprocess.run([uv, "venv", "-q", "--clear", "--python", sys.executable, str(folder)], check=True)  # noqa: S603
        subprocess.run(  # noqa: S603
            [uv, "pip", "install", "-q", "--python", str(python), "-r", str(PEERS / f"{name}.txt")], check=True
        )
        noted.write_text(wanted, encoding="utf-8")
    return str(python)
