"""`make test-stack`: the whole stack in Docker, from outside, while its containers are killed.

Uploads, flags, relabels, answers tasks as two annotators, sees a release answer, takes the stack down and up, backs it up
and restores it elsewhere, and counts: whatever was acknowledged is there, once.
"""

import contextlib
import itertools
import random
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from demo.people import Annotators, Shown, Visitor, digits
from tests.stack import keys
from tests.stack.stack import Stack, status

PROJECT = "digits"
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
SEED = 11
PATIENCE = 120.0  # s that a visitor or annotator asks again while containers die


class Acknowledged:
    """What the stack said it has taken: nothing of it may be missing, nothing may be there twice."""

    def __init__(self) -> None:
        self.predictions: dict[str, str] = {}  # image id by prediction id
        self.flagged: set[str] = set()  # prediction ids
        self.relabelled: set[str] = set()
        self.answers = 0


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
                print(
                    f"--- {service}\n{stack.compose('logs', '--tail', '25', '--no-log-prefix', service, check=False)}"
                )
        finally:
            stack.destroy()
            other.destroy()
            images = [
                f"closedloop-test-{part}"
                for part in ("web", "inference", "trainer", "sampler", "label-studio", "front")
            ]
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
    taken, truths, pictures = Acknowledged(), {}, digits(SEED)
    with step("images built"):
        stack.compose("build", "--quiet")
    print(f"  {sizes()}")
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
    with step("two of each service"):
        stack.compose("up", "-d", "--wait", *(word for name in REPLICAS for word in ("--scale", f"{name}=2")))
    with step("a project for the digits"):
        manifest = stack.folder / "digits.yaml"
        manifest.write_text(MANIFEST)
        said = stack.cli("project", "add", str(manifest), mount=manifest)
        assert len(said["label_studio_projects"]) == 4, said
    visitor = Visitor(stack.pages, PROJECT, SEED, patience=PATIENCE)
    annotators = [
        Annotators(client, PROJECT, truths, seed=SEED + number)
        for number, client in enumerate((stack.admin(PATIENCE), stack.colleague("second@example.org", PATIENCE)))
    ]
    with step("60 pictures, before there is a model, while containers are killed"), restarts(stack, 3, 6):
        for _ in range(60):
            see(visitor, taken, truths, *next(pictures))
            time.sleep(0.4)
    with step("two annotators answer, a release goes live, while containers are killed"), restarts(stack, 12, 20):
        release = answer_until_released(stack, annotators, taken, visitor, pictures, truths)
    print(f"  {release} answers, learnt from {taken.answers} answers or fewer")
    with step("60 pictures more, flagged and relabelled, while containers are killed"), restarts(stack, 3, 6):
        for _ in range(60):
            react(visitor, taken, see(visitor, taken, truths, *next(pictures)))
            time.sleep(0.4)
    with step("nothing is lost and nothing is doubled"):
        first = settled_contents(stack, taken)
        assert taken.flagged, "nobody flagged anything: the test says too little"
    with step("a trainer that was paused wakes up too late and releases nothing"):
        check_fence(stack, annotators, taken, visitor, pictures, truths)
        first = settled_contents(stack, taken)
    with step("a wrong password is named, and heals"):
        check_wrong_password(stack)
    with step("down and up"):
        stack.compose("down", "--timeout", "30")
        stack.compose("up", "-d", "--wait")
        same(first, settled_contents(stack, taken))
    with step("backup"):
        print("\n".join(f"  {line}" for line in stack.make("backup", "BACKUP=backups/test").splitlines()))
    with step("restore into an empty stack"):
        stack.compose("stop", "--timeout", "10")
        other.set(**{name: value for name, value in stack.values.items() if "PORT" not in name})
        other.make("restore", f"BACKUP={stack.folder / 'backups' / 'test'}")
        same(first, settled_contents(other, taken))
        shown = see(Visitor(other.pages, PROJECT, SEED), Acknowledged(), {}, *next(pictures))
        assert shown.release, "the restored stack does not answer"


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


def sizes() -> str:
    """The images' sizes."""
    lines = subprocess.run(
        ["docker", "images", "--format", "{{.Repository}} {{.Size}}"], capture_output=True, text=True, check=True
    ).stdout.splitlines()  # fmt: skip
    return ", ".join(
        line.removeprefix("closedloop-test-") for line in sorted(lines) if line.startswith("closedloop-test-")
    )


def check_published(stack: Stack) -> None:
    """Which ports this machine sees."""
    lines = stack.compose("ps", "--format", "{{.Service}} {{.Ports}}").splitlines()
    published = {line.split()[0]: line for line in lines if "->" in line}
    assert set(published) == {"front", "label-studio"}, published
    assert all("127.0.0.1:" in line and "0.0.0.0:" not in line for line in published.values()), published
    assert (status(f"{stack.pages}/readyz"), status(f"{stack.studio}/health")) == (200, 200)


@contextlib.contextmanager
def restarts(stack: Stack, least: float, most: float) -> Iterator[None]:
    """Kill and start again one container after another, in a seeded order, every so many seconds, while the block runs."""
    order, over, count = random.Random(SEED), threading.Event(), Counter[str]()
    names = stack.containers()
    order.shuffle(names)
    turn = itertools.cycle(names)  # so that every one is hit

    def run() -> None:
        while not over.wait(order.uniform(least, most)):
            name = next(turn)
            stack.run("docker", "restart", "--time", "0", name, check=False)
            count[name.removeprefix(f"{stack.name}-")] += 1

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        print(f"  killed meanwhile: {', '.join(f'{name} {n}' for name, n in sorted(count.items()))}")


def see(visitor: Visitor, taken: Acknowledged, truths: dict[str, str], picture: bytes, truth: str) -> Shown:
    """Upload a picture and note that it was acknowledged."""
    shown = visitor.send(picture, truth)
    taken.predictions[shown.prediction_id] = shown.image_id
    truths[shown.image_id] = truth
    return shown


def react(visitor: Visitor, taken: Acknowledged, shown: Shown) -> None:
    """Flag or relabel a wrong answer, as the visitor likes, and note what was acknowledged."""
    done = visitor.react(shown)
    if done:
        (taken.flagged if done == "flagged" else taken.relabelled).add(shown.prediction_id)


def answer_until_released(
    stack: Stack,
    annotators: list[Annotators],
    taken: Acknowledged,
    visitor: Visitor,
    pictures: Iterator[tuple[bytes, str]],
    truths: dict[str, str],
) -> str:
    """Answer in turn until a new picture is answered by a release; returns it."""
    until = time.monotonic() + 300
    while time.monotonic() < until:
        taken.answers += sum(one.answer(10) for one in annotators)
        shown = see(visitor, taken, truths, *next(pictures))
        if shown.release:
            return shown.release
        time.sleep(2)
    raise AssertionError(f"no release after {taken.answers} answers: {stack.cli('releases', PROJECT)}")


def settle(stack: Stack) -> None:
    """Wait until nothing is promised any more and every picture is answered."""

    def waiting() -> str | None:
        findings = {one["part"]: one for one in stack.cli("doctor")["findings"]}
        ill = [f"{name}: {one['seen']}" for name, one in findings.items() if not one["ok"]]
        return "; ".join(ill) or (None if findings["outbox"]["seen"].startswith("0 ") else findings["outbox"]["seen"])

    eventually(lambda: waiting() is None, 120, lambda: f"the stack is not at rest: {waiting()}")
    eventually(lambda: sum(asked(stack).values()) == tasks_in_records(stack), 60, lambda: "tasks are not delivered")


def settled_contents(stack: Stack, taken: Acknowledged) -> dict[str, Any]:
    """`contents`, once the stack is at rest."""
    settle(stack)
    return contents(stack, taken)


def eventually(true: Callable[[], bool], seconds: float, why: Callable[[], str]) -> None:
    """Wait until something is true."""
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, why()
        time.sleep(2)


def asked(stack: Stack) -> Counter[tuple[str, str]]:
    """How often each (queue, image) is asked about in Label Studio."""
    found = Counter()
    for queue, tasks in studio_tasks(stack).items():
        found.update((queue, task["data"]["image_id"]) for task in tasks)
    return found


def studio_tasks(stack: Stack) -> dict[str, list[dict[str, Any]]]:
    """Label Studio's tasks by queue."""
    client = stack.admin()
    query = {"fields": "all", "page_size": 1000}
    numbers = Annotators(client, PROJECT, {}, 0).queues()
    return {q: client.get("/api/tasks", params={**query, "project": n}).json()["tasks"] for q, n in numbers.items()}


def tasks_in_records(stack: Stack) -> int:
    """How many tasks the records hold."""
    query = f"SELECT count(*) FROM tasks WHERE project_id = '{PROJECT}'"
    return int(stack.compose("exec", "-T", "postgres", "psql", "-U", "postgres", "-XAtq", "closedloop", "-c", query))


def contents(stack: Stack, taken: Acknowledged) -> dict[str, Any]:
    """What the stack holds, seen from outside; raises AssertionError where it is not what was acknowledged, once."""
    visitor = Visitor(stack.pages, PROJECT, SEED, patience=30)
    said = {id_: visitor.look(id_) for id_ in taken.predictions}
    assert all(body["status"] == "done" for body in said.values()), "a picture was never answered"
    assert {id_: body["image_id"] for id_, body in said.items()} == taken.predictions
    assert {id_ for id_, body in said.items() if body["flagged"]} >= taken.flagged
    times = asked(stack)
    assert max(times.values()) == 1, f"asked twice: {[key for key, n in times.items() if n > 1]}"
    want = {("low_confidence", body["image_id"]) for body in said.values() if body["label"] is None}
    want |= {("user_feedback", taken.predictions[id_]) for id_ in taken.flagged}
    want |= {("user_label", taken.predictions[id_]) for id_ in taken.relabelled}
    assert want <= set(times), f"never asked: {want - set(times)}"
    people = {
        (
            task["data"]["task_id"],
            annotation["completed_by"]["id"]
            if isinstance(annotation["completed_by"], dict)
            else annotation["completed_by"],
        )
        for tasks in studio_tasks(stack).values()
        for task in tasks
        for annotation in task["annotations"]
    }
    assert len(people) == taken.answers, f"{taken.answers} answers were acknowledged, {len(people)} are there"
    releases = [(row["release"], row["state"]) for row in stack.cli("releases", PROJECT)["releases"]]
    return {"predictions": said, "asked": dict(times), "answers": sorted(map(str, people)), "releases": releases}


def same(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Raise AssertionError where two stacks' contents differ."""
    for part, value in before.items():
        assert after[part] == value, f"{part} changed: {value} became {after[part]}"


def check_fence(
    stack: Stack,
    annotators: list[Annotators],
    taken: Acknowledged,
    visitor: Visitor,
    pictures: Iterator[tuple[bytes, str]],
    truths: dict[str, str],
) -> None:
    """Freeze the container that trains; the other one takes over, and the first releases nothing when it wakes up."""
    before = stack.cli("releases", PROJECT)["releases"]
    names = stack.containers("trainer")
    assert len(names) == 2, names
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with pause_who_trains(stack, names, since) as found:
        until = time.monotonic() + 150
        while not found:
            assert time.monotonic() < until, "no trainer began"
            for _ in range(4):
                react(visitor, taken, see(visitor, taken, truths, *next(pictures)))
            taken.answers += sum(one.answer(20) for one in annotators)
    (paused,) = found
    if '"event": "trained"' in log(stack, paused, since):
        stack.run("docker", "unpause", paused)
        raise AssertionError("the trainer was quicker than the pause: the test says nothing")
    eventually(lambda: len(stack.cli("releases", PROJECT)["releases"]) > len(before), 120, lambda: "nobody took over")
    made = stack.cli("releases", PROJECT)["releases"]
    stack.run("docker", "unpause", paused)
    eventually(
        lambda: '"event": "lease lost"' in log(stack, paused, since), 60, lambda: log(stack, paused, since)[-2000:]
    )
    assert stack.cli("releases", PROJECT)["releases"] == made, "the paused trainer released after all"


@contextlib.contextmanager
def pause_who_trains(stack: Stack, names: list[str], since: str) -> Iterator[list[str]]:
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


def log(stack: Stack, name: str, since: str) -> str:
    """What a container has logged since a moment."""
    done = stack.run("docker", "logs", "--since", since, name)
    return done.stdout + done.stderr


def check_wrong_password(stack: Stack) -> None:
    """A password in .env that the database does not know is said plainly, and all is well once it is right again."""
    right = stack.values["CLOSEDLOOP_DB_PASSWORD"]
    stack.set(CLOSEDLOOP_DB_PASSWORD="not-what-it-was-before")
    done = stack.run("docker", "compose", "up", "-d", "--wait", check=False)
    said = stack.compose("logs", "--tail", "5", "setup")
    stack.set(CLOSEDLOOP_DB_PASSWORD=right)
    assert done.returncode != 0
    assert "password authentication failed" in said, said
    stack.compose("up", "-d", "--wait")


if __name__ == "__main__":
    main()
