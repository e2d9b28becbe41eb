"""`make test-stack`: the whole stack in Docker, from outside, while its containers are killed.

Uploads, flags, relabels, answers tasks as two annotators, sees a release answer, takes the stack down and up, backs it up
and restores it elsewhere, and counts: whatever was acknowledged is there, once.
"""

import contextlib
import dataclasses
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx

from demo.people import Visitor, digits
from tests.stack import keys
from tests.stack.counts import kept, settled_contents
from tests.stack.crowd import PROJECT, SEED, Acknowledged, Crowd
from tests.stack.faults import (
    check_fence,
    check_secrets_are_named,
    check_wrong_password,
    leave_syncs_half_way,
    restarts,
)
from tests.stack.meanwhile import meanwhile
from tests.stack.stack import IMAGES, Stack, status

MANIFEST = """\
id: digits
title: Which digit is it?
kind: classification
classes: ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
random_sample: {share: 0.1, at_least: 10, cron: "*/30 * * * * *"}
sync: {cron: "*/3 * * * * *"}
train: {at_least_new: 30, cron: "*/2 * * * * *"}
"""
REPLICAS = ("inference", "web", "trainer", "sampler")


def main() -> None:
    """Run every step; ends with status 1 at the first that fails."""
    began = time.monotonic()
    ok = False
    with tempfile.TemporaryDirectory(prefix="closedloop-stack-") as folder:
        stack = Stack(Path(folder) / "first", f"closedloop-test-{random.randrange(10**6)}")
        other = Stack(Path(folder) / "second", f"{stack.name}-restored")
        try:
            turn(stack, other)
            ok = True
        except BaseException as error:
            traceback.print_exc(file=sys.stdout)
            print(f"✗ {type(error).__name__}: {error}", flush=True)
            for service in ("secrets", "setup", "buckets", "web", "inference", "sampler", "trainer", "label-studio"):
                lines = stack.compose("logs", "--no-log-prefix", service, check=False).splitlines()
                errors = [line for line in lines[:-25] if '"level": "error"' in line]
                print("\n".join([f"--- {service}", *errors[-10:], *lines[-25:]]))
        finally:
            stack.destroy()
            other.destroy()
            images = [name for name, _ in built()]
            subprocess.run(["docker", "image", "rm", *images], capture_output=True, check=False)
    print(
        f"{'✓ The stack holds' if ok else '✗ The stack does not hold'} ({time.monotonic() - began:.0f} s).", flush=True
    )
    sys.exit(0 if ok else 1)


@contextlib.contextmanager
def step(name: str) -> Iterator[None]:
    """One step: said with its seconds when it is done."""
    began = time.monotonic()
    yield
    print(f"✓ {name} ({time.monotonic() - began:.0f} s)", flush=True)


def turn(stack: Stack, other: Stack) -> None:
    """Every step, in order."""
    with step("images built"):
        stack.compose("build", "--quiet")
    print(f"  {', '.join(f'{name.removeprefix(IMAGES)[1:]} {size}' for name, size in built())}")
    with step("a missing and a weak secret stop the start and are named"):
        check_secrets_are_named(stack)
    with step("make secrets"):
        stack.make("secrets")
        before = (stack.folder / ".env").read_text()
        stack.make("secrets")
        assert (stack.folder / ".env").read_text() == before, "a second `make secrets` changed a secret"
    with step("up to healthy"):
        stack.compose("up", "-d", "--wait")
    print("\n".join(f"  {line}" for line in stack.make("urls").splitlines()))
    with step("only pages and Label Studio are published, on this machine alone"):
        check_published(stack)
    with step("each key is refused what it need not do"):
        keys.check(stack)
        keys.check_former_operator(stack)
    with step("two of each service"):
        stack.compose("up", "-d", "--wait", *(word for name in REPLICAS for word in ("--scale", f"{name}=2")))
    with step("a project for the digits"):
        manifest = stack.folder / "digits.yaml"
        manifest.write_text(MANIFEST)
        said = stack.cli("project", "add", str(manifest), mount=manifest)
        assert len(said["label_studio_projects"]) == 4, said
    with step("the first owner signs in through the front, and sees a picture that a visitor sent"):
        check_pages(stack)
    crowd = Crowd(stack)
    with step("60 pictures, before there is a model, while containers are killed"), restarts(stack, 3, 6):
        crowd.send_many(60)
    with step("two annotators answer, a release goes live, while containers are killed"), restarts(stack, 12, 20):
        release = crowd.answer_until_released()
    print(f"  {release} answers, learnt from {crowd.taken.answers} answers or fewer")
    leave_syncs_half_way(stack)
    with step("60 pictures more, flagged and relabelled, while containers are killed"), restarts(stack, 3, 6):
        crowd.send_many(60, react=True)
    with step("a trainer that was paused wakes up too late and releases nothing"):
        check_fence(stack, crowd)
    with step("nothing is lost and nothing is doubled"):
        first = settled_contents(stack, crowd.taken)
        assert crowd.taken.flagged, "nobody flagged anything: the test says too little"
    with step("down, up with a wrong password, which is named, and with the right one"):
        stack.compose("down", "--timeout", "30")
        check_wrong_password(stack)
        kept(first, settled_contents(stack, crowd.taken))
    taken = copied(crowd.taken)
    with step("backup, while pictures come in"), uploads(crowd):
        print("\n".join(f"  {line}" for line in stack.make("backup", "BACKUP=backups/test").splitlines()))
    with step("restore into an empty stack"):
        stack.compose("stop", "--timeout", "10")
        other.set(**{name: value for name, value in stack.values.items() if "PORT" not in name})
        other.make("restore", f"BACKUP={stack.folder / 'backups' / 'test'}")
        came_in_time = {
            id_: image
            for id_, image in crowd.taken.predictions.items()
            if status(f"{other.pages}/predictions/{id_}") == 200
        }
        assert came_in_time.keys() >= taken.predictions.keys(), "the backup lacks pictures taken before it began"
        taken.predictions = came_in_time
        kept(first, settled_contents(other, taken))
        shown = Visitor(other.pages, PROJECT, SEED).send(*next(digits(SEED + 1)))
        assert shown.release, "the restored stack does not answer"
    print(f"  {len(came_in_time)} of {len(crowd.taken.predictions)} pictures had come when the records were copied")


def copied(taken: Acknowledged) -> Acknowledged:
    """What was acknowledged until now."""
    return dataclasses.replace(taken, predictions=dict(taken.predictions))


def uploads(crowd: Crowd) -> AbstractContextManager[None]:
    """Send pictures while the block runs."""

    def send(over: threading.Event) -> None:
        while not over.wait(0.5):
            crowd.send()

    return meanwhile(send)


def built() -> list[tuple[str, str]]:
    """Our images with their sizes."""
    lines = subprocess.run(
        ["docker", "images", "--format", "{{.Repository}} {{.Size}}"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    pairs = (line.split(" ", 1) for line in sorted(lines))
    return [(name, size) for name, size in pairs if name.startswith(f"{IMAGES}-")]


def check_pages(stack: Stack) -> None:
    """Send a picture to the default project, see its thumbnail as its visitor, and the dashboard as the owner."""
    with httpx.Client(base_url=stack.pages, timeout=60, trust_env=False, headers={"Accept": "text/html"}) as visitor:
        project = stack.values["CLOSEDLOOP_DEFAULT_PROJECT"]
        picture = {"file": ("digit.png", next(digits(SEED))[0])}
        said = visitor.post(f"/p/{project}/predict", files=picture, headers={"Accept": "application/json"}).json()
        address = f"/p/{project}/images/{said['image_id']}/thumbnail"
        assert visitor.get(address).headers["content-type"] == "image/jpeg"
    with httpx.Client(base_url=stack.pages, timeout=60, trust_env=False, headers={"Accept": "text/html"}) as owner:
        assert owner.get(address).status_code == 404, "a picture is shown to somebody without a right to it"
        token = re.search(r'name="csrf_token" value="([^"]+)"', owner.get("/sign-in").text)
        assert token, "the sign-in form has no token"
        login = {"email": "owner@closedloop.local", "password": stack.values["CLOSEDLOOP_OWNER_PASSWORD"]}
        signed_in = owner.post("/sign-in", data={**login, "csrf_token": token[1], "next": "/dashboard"})
        assert signed_in.headers["location"] == "/dashboard", signed_in.text
        assert owner.get("/dashboard").status_code == 200
        assert owner.get(address).status_code == 200


def check_published(stack: Stack) -> None:
    """Which ports this machine sees."""
    lines = stack.compose("ps", "--format", "{{.Service}} {{.Ports}}").splitlines()
    published = {line.split()[0]: line for line in lines if "->" in line}
    assert set(published) == {"front", "label-studio"}, published
    assert all("127.0.0.1:" in line and "0.0.0.0:" not in line for line in published.values()), published
    assert (status(f"{stack.pages}/readyz"), status(f"{stack.studio}/health")) == (200, 200)


if __name__ == "__main__":
    main()
