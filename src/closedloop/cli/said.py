"""How every command talks: faults in one line, `--json` as one JSON object, a bar for long work."""

import datetime as dt
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from closedloop.errors import ClosedloopError
from closedloop.logs import configure_logs
from closedloop.settings import Settings, load_settings
from closedloop.storage import Stores, open_stores

LINE_EVERY = 5.0  # s between two lines of progress
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def now() -> dt.datetime:
    """This moment, in UTC."""
    return dt.datetime.now(dt.UTC)


@contextmanager
def faults(as_json: bool) -> Iterator[None]:
    """Say an error in one line (or one JSON object) and end with status 1."""
    try:
        yield
    except ClosedloopError as error:
        if as_json:
            out.print_json(json.dumps(error.as_json()))
        else:
            err.print(f"✗ {error.explained()}", style="red", markup=False)
        raise typer.Exit(1) from None


def opened() -> tuple[Settings, Stores]:
    """The settings and the stores of this installation; raises what their check raises."""
    settings = load_settings()
    configure_logs("cli", "WARNING", sys.stderr)
    stores = open_stores(settings)
    stores.db.check()
    return settings, stores


def say(as_json: bool, body: dict[str, Any], text: str) -> None:
    """Print what was done, as a sentence or as JSON."""
    if as_json:
        out.print_json(json.dumps({"ok": True, **body}))
    else:
        out.print(text, markup=False)


@contextmanager
def bar(as_json: bool, title: str) -> Iterator[Any]:
    """A progress bar on stderr, or a line from time to time where that is a file; yields a function (done, of)."""
    with bars(as_json) as stage:
        yield stage(title)


@contextmanager
def bars(as_json: bool) -> Iterator[Callable[[str], Any]]:
    """The same for what goes on in stages; yields a function that makes a stage of a title: a function (done, of)."""
    if not as_json and not err.is_terminal:
        yield _lines
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=as_json) as progress:

        def stage(title: str) -> Callable[[int, int], None]:
            for former in progress.task_ids:
                progress.remove_task(former)
            task = progress.add_task(title, total=None)
            return lambda done, total: progress.update(task, completed=done, total=total)

        yield stage


def _lines(title: str) -> Callable[[int, int], None]:
    told = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal told
        if done == total or time.monotonic() - told > LINE_EVERY:
            told = time.monotonic()
            err.print(f"{title}: {done} of {total}", markup=False)

    return tell
