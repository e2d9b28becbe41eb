"""`closedloop run`: checks the machine, starts every part, waits until all are ready, prints one table."""

import datetime as dt
import fcntl
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from closedloop import first_start
from closedloop.errors import CannotStart, ClosedloopError
from closedloop.local.parts import Part, parts
from closedloop.local.secrets import ensure_secrets, with_secrets
from closedloop.local.supervisor import Supervisor
from closedloop.settings import Settings
from closedloop.storage import Stores
from closedloop.storage.database import Database
from closedloop.storage.objects import Objects

FREE_BYTES = 2**30
WIDE = 200  # characters a line
PATIENCE = 300.0  # s until a part that is not ready is named as one that will not be
SILENCE = 15.0  # s after which it is said what is waited for
Say = Callable[[str], None]


def run(settings: Settings) -> int:
    """Run one installation until Ctrl-C; returns the exit status. Raises CannotStart with what to do."""
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:  # a file takes lines of any length
        console = Console(highlight=False, soft_wrap=True, width=WIDE)
    home = settings.home
    _prepare_folder(home)
    with (home / "run.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CannotStart(
                problem=f"Closedloop already runs on {home}.", remedy="Use it, or end it with Ctrl-C in its terminal."
            ) from None
        secrets = ensure_secrets(settings)
        every = parts(settings, secrets)
        _check_ports(every, settings.closedloop_bind)
        stores = Stores(
            Database(settings.database_url),
            Objects(secrets["S3_ENDPOINT_URL"], secrets["AWS_ACCESS_KEY_ID"], secrets["AWS_SECRET_ACCESS_KEY"]),
        )
        first_start.prepare(stores, with_secrets(settings, secrets), dt.datetime.now(dt.UTC))
        ready = threading.Event()  # until then parts that wait for one another are no news
        supervisor = Supervisor(
            home / "logs",
            lambda text, urgent: console.print(f"[yellow]![/] {escape(text)}") if urgent or ready.is_set() else None,
        )
        for part in every:
            supervisor.add_process(part.name, part.command, env=part.env, cwd=part.cwd and str(part.cwd))
        ending = threading.Event()
        failed: list[str] = []

        def wait() -> None:
            try:
                wait_until_ready(every, stores, ending, console.print)
                ready.set()
                console.print(table(settings, secrets))
                console.print(f"Logs: {home / 'logs'}   Secrets: {home / 'secrets.env'}   End with Ctrl-C.")
            except CannotStart as error:
                failed.append(str(error))
                console.print(f"[red]✗[/] {escape(str(error))}")
                supervisor.terminate()

        # honcho forks in `loop`, so the thread that waits begins once the parts are started.
        starter = threading.Timer(0.5, wait)
        starter.daemon = True
        starter.start()
        console.print(f"Starting {len(every)} parts …")
        supervisor.loop()
        ending.set()
        console.print("Everything has ended. `make run` comes back with all there was.")
    return 1 if failed else 0


def wait_until_ready(every: Sequence[Part], stores: Stores, ending: threading.Event, say: Say) -> None:
    """Return when every part says that it is ready; raises CannotStart after five minutes."""
    began = time.monotonic()
    waiting = {part.name: part for part in every}
    said = "is not up"
    told = began
    while waiting and not ending.is_set():
        for part in list(waiting.values()):
            fault = _fault(part, stores)
            if fault is None:
                del waiting[part.name]
                told = time.monotonic()
                slow = " (the first start of Label Studio takes about a minute)" if "labelstudio" in waiting else ""
                if waiting:
                    say(f"[green]✓[/] {part.name} after {told - began:.0f} s; waiting for {', '.join(waiting)}{slow}")
            else:
                said = fault
        if waiting and time.monotonic() - told > SILENCE:
            told = time.monotonic()
            at_it = "; Label Studio is making its database" if "labelstudio" in waiting else ""
            say(f"… after {told - began:.0f} s still waiting for {', '.join(waiting)}{at_it}")
        if waiting and time.monotonic() - began > PATIENCE:
            name = next(iter(waiting))
            raise CannotStart(
                problem=f"{name} is not ready after {PATIENCE:.0f} s ({said}).",
                remedy=f"Its log says why: {name}.log in the folder of logs.",
            )
        ending.wait(0.3)


def table(settings: Settings, secrets: dict[str, str]) -> Table:
    """Part, URL, login."""
    rows = Table()
    for head in ("part", "URL", "login"):
        rows.add_column(head, overflow="fold")  # a key or an address that is cut off is of no use
    host = settings.host
    login = f"{secrets['LABEL_STUDIO_USERNAME']} / {secrets['LABEL_STUDIO_PASSWORD']}"
    owner = f"{secrets['CLOSEDLOOP_OWNER_EMAIL']} / {secrets['CLOSEDLOOP_OWNER_PASSWORD']}"
    keys = f"{secrets['AWS_ACCESS_KEY_ID']} / {secrets['AWS_SECRET_ACCESS_KEY']}"
    rows.add_row("pages", f"http://{host}:{settings.closedloop_web_port}", owner)
    rows.add_row("Label Studio", secrets["LABEL_STUDIO_URL"], login)
    rows.add_row("inference", f"http://{host}:{settings.closedloop_inference_port}/docs", "none")
    rows.add_row("S3 store", secrets["S3_ENDPOINT_URL"], keys)
    rows.add_row("sampler", f"http://{host}:{settings.closedloop_sampler_port}/metrics", "none")
    rows.add_row("trainer", f"http://{host}:{settings.closedloop_trainer_port}/metrics", "none")
    return rows


def _fault(part: Part, stores: Stores) -> str | None:
    """Why a part is not ready, None if it is. The store's buckets are made as soon as it answers."""
    try:
        if not part.ready:
            stores.objects.make_buckets()
            return None
        response = httpx.get(part.ready, timeout=5, trust_env=False)
    except (httpx.HTTPError, ClosedloopError) as error:
        return type(error).__name__
    return None if response.status_code == 200 else response.text[:300]


def _prepare_folder(home: Path) -> None:
    os.umask(0o077)  # pictures, logs and Label Studio's records hold what is nobody else's business
    try:
        home.mkdir(parents=True, exist_ok=True)
        home.chmod(0o700)
        (home / ".writable").write_bytes(b"")
    except OSError as error:
        raise CannotStart(
            problem=f"The folder {home} cannot be written ({error.strerror}).",
            remedy="Free space or mend its rights, or set CLOSEDLOOP_HOME to another folder.",
        ) from None
    free = shutil.disk_usage(home).free
    if free < FREE_BYTES:
        raise CannotStart(
            problem=f"The disk of {home} has {free / 2**20:.0f} MiB left; Closedloop wants {FREE_BYTES / 2**20:.0f}.",
            remedy="Free some, or set CLOSEDLOOP_HOME to a folder on another disk.",
        )


def _check_ports(every: Sequence[Part], bind: str) -> None:
    for part in every:
        with socket.socket(socket.AF_INET6 if ":" in bind else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((bind, part.port))
            except OSError as error:
                setting = {"objects": "S3", "labelstudio": "LABEL_STUDIO"}.get(part.name, part.name.upper())
                raise CannotStart(
                    problem=f"{part.name} cannot listen on {bind}:{part.port} ({error.strerror}).",
                    remedy=f"End the program that uses the port, or set CLOSEDLOOP_{setting}_PORT to another.",
                ) from None
