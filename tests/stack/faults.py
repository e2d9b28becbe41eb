"""What goes wrong on purpose: killed containers, a trainer that freezes, secrets that are missing, weak or wrong."""

import contextlib
import itertools
import random
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from tests.stack.crowd import SEED, Crowd, releases
from tests.stack.meanwhile import meanwhile
from tests.stack.stack import Stack
from tests.waiting import wait_for


@contextlib.contextmanager
def restarts(stack: Stack, least: float, most: float) -> Iterator[None]:
    """Kill and start again one container after another, in a seeded order, every so many seconds, while the block runs."""
    order, count = random.Random(SEED), Counter[str]()
    names = stack.containers()
    order.shuffle(names)
    turn = itertools.cycle(names)  # so that every one is hit

    def kill(over: threading.Event) -> None:
        while not over.wait(order.uniform(least, most)):
            name = next(turn)
            stack.run("docker", "restart", "--time", "0", name, check=False)
            count[name.removeprefix(f"{stack.name}-")] += 1

    with meanwhile(kill):
        yield
    print(f"  killed meanwhile: {', '.join(f'{name} {n}' for name, n in sorted(count.items()))}")


def check_secrets_are_named(stack: Stack) -> None:
    """Empty and known-weak secrets end the first one-shot with their names."""
    stack.set(MINIO_ROOT_PASSWORD="minioadmin", POSTGRES_PASSWORD="short")
    done = stack.run("docker", "compose", "up", "-d", "--wait", check=False)
    said = stack.compose("logs", "secrets")
    stack.compose("down", "--volumes")
    stack.set(MINIO_ROOT_PASSWORD="", POSTGRES_PASSWORD="")
    assert done.returncode != 0
    assert "secrets" in done.stderr
    for fault in ("MINIO_ROOT_PASSWORD is a value that everyone knows", "POSTGRES_PASSWORD has fewer than 12 characters",
                  "LABEL_STUDIO_API_KEY is missing"):  # fmt: skip
        assert fault in said, said


def check_wrong_password(stack: Stack) -> None:
    """Start a stack that is down with a password that its database does not know: it is said, and heals."""
    right = stack.values["CLOSEDLOOP_DB_PASSWORD"]
    stack.set(CLOSEDLOOP_DB_PASSWORD="not-what-it-was-before")
    done = stack.run("docker", "compose", "up", "-d", "--wait", check=False)
    said = stack.compose("logs", "--tail", "5", "setup")
    stack.set(CLOSEDLOOP_DB_PASSWORD=right)
    assert done.returncode != 0
    assert "password authentication failed" in said, said
    stack.compose("up", "-d", "--wait")


def leave_syncs_half_way(stack: Stack) -> None:
    """Put Label Studio's storages into the state in which a sync that was killed leaves them for ever on Postgres."""
    meta = '{"attempts": 1, "time_queued": "2026-01-01 00:00:00+00:00"}'
    query = f"UPDATE io_storages_s3importstorage SET status = 'in_progress', meta = '{meta}'"
    said = stack.compose("exec", "-T", "postgres", "psql", "-U", "postgres", "-XAt", "labelstudio", "-c", query)
    assert said.strip() != "UPDATE 0", "Label Studio has no storages"


def check_fence(stack: Stack, crowd: Crowd) -> None:
    """Freeze the container that trains; the other one takes over, and the first releases nothing when it wakes up."""
    before = releases(stack)
    names = stack.containers("trainer")
    assert len(names) == 2, names
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with _pause_who_trains(stack, names, since) as found:
        until = time.monotonic() + 150
        while not found:
            assert time.monotonic() < until, "no trainer began"
            crowd.send_many(4, react=True)
            crowd.answer(20)
    (paused,) = found
    if '"event": "trained"' in stack.log(paused, since):
        stack.run("docker", "unpause", paused)
        raise AssertionError("the trainer was quicker than the pause: the test says nothing")
    wait_for(lambda: len(releases(stack)) > len(before), 120, lambda: "nobody took over")
    made, made_at = releases(stack), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    stack.run("docker", "unpause", paused)
    # Or its connection, where it was frozen in a transaction, which Postgres ends so that the other one can go on.
    noticed = ('"event": "lease lost"', '"event": "job failed"')
    wait_for(
        lambda: any(one in stack.log(paused, made_at) for one in noticed), 60, lambda: stack.log(paused, since)[-2000:]
    )
    assert releases(stack) == made, "the paused trainer released after all"


@contextlib.contextmanager
def _pause_who_trains(stack: Stack, names: list[str], since: str) -> Iterator[list[str]]:
    """Pause the first of these containers that says that it trains; yields a list that its name is put into."""
    found: list[str] = []
    first = threading.Lock()
    readers = [
        subprocess.Popen(
            ["docker", "logs", "--follow", "--since", since, name],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name in names
    ]

    def watch(name: str, lines: Any) -> None:
        if any('"event": "training"' in line for line in lines):
            with first:
                if not found:
                    stack.run("docker", "pause", name)
                    found.append(name)

    threads = [threading.Thread(target=watch, args=(n, r.stdout)) for n, r in zip(names, readers, strict=True)]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        for reader in readers:
            reader.kill()
        for thread in threads:
            thread.join()
