"""What a stack holds, counted from outside and in its records, against what it has acknowledged."""

from collections import Counter
from typing import Any

from demo.people import Annotators, Visitor, author
from tests.stack.crowd import PROJECT, SEED, Acknowledged, releases
from tests.stack.stack import Stack
from tests.waiting import wait_for


def settled_contents(stack: Stack, taken: Acknowledged) -> dict[str, Any]:
    """`contents`, once the stack is at rest: all parts well, nothing promised, every answer collected."""

    def waiting() -> str | None:
        findings = {one["part"]: one for one in stack.cli("doctor")["findings"]}
        ill = [f"{name}: {one['seen']}" for name, one in findings.items() if not one["ok"]]
        return "; ".join(ill) or (None if findings["outbox"]["seen"].startswith("0 ") else findings["outbox"]["seen"])

    wait_for(lambda: waiting() is None, 120, lambda: f"the stack is not at rest: {waiting()}")
    wait_for(lambda: sum(asked(stack).values()) == rows(stack, "tasks"), 60, lambda: "tasks are not delivered")
    wait_for(
        lambda: rows(stack, "annotations") >= taken.answers,
        60,
        lambda: f"{taken.answers} answers were acknowledged, {rows(stack, 'annotations')} collected",
    )
    return contents(stack, taken)


def contents(stack: Stack, taken: Acknowledged) -> dict[str, Any]:
    """What the stack holds; raises AssertionError where it is not what was acknowledged, once."""
    visitor = Visitor(stack.pages, PROJECT, SEED, patience=30)
    said = {id_: visitor.look(id_) for id_ in taken.predictions}
    assert all(body["status"] == "done" for body in said.values()), "a picture was never answered"
    assert {id_: body["image_id"] for id_, body in said.items()} == taken.predictions
    assert {id_ for id_, body in said.items() if body["flagged"]} >= taken.flagged

    expected = {
        "predictions": len(taken.predictions),
        "images": len(set(taken.predictions.values())),
        "feedback": len(taken.flagged) + len(taken.relabelled),
        "annotations": taken.answers,
    }
    found = {table: rows(stack, table) for table in expected}
    assert found == expected, f"the records hold {found}, acknowledged were {expected}"
    stored = Counter(stored_pictures(stack))
    wrong = {id_: stored[id_] for id_ in taken.predictions.values() if stored[id_] != 1}
    assert not wrong, f"pictures that are not there once: {wrong}"

    times = asked(stack)
    assert max(times.values()) == 1, f"asked twice: {[key for key, n in times.items() if n > 1]}"
    want = {("low_confidence", body["image_id"]) for body in said.values() if body["label"] is None}
    want |= {("user_feedback", taken.predictions[id_]) for id_ in taken.flagged}
    want |= {("user_label", taken.predictions[id_]) for id_ in taken.relabelled}
    assert want <= set(times), f"never asked: {want - set(times)}"

    tasks = [task for tasks in studio_tasks(stack).values() for task in tasks]
    answers = sorted((task["data"]["task_id"], author(one)) for task in tasks for one in task["annotations"])
    assert len(answers) == taken.answers, f"{taken.answers} answers were acknowledged, {len(answers)} are there"
    look_at_picture(stack, tasks[0]["id"])
    states = sorted((row["release"], row["state"]) for row in releases(stack))
    return {
        "predictions": said,
        "asked": dict(times),
        "answers": dict.fromkeys(answers, True),
        "releases": dict(states),
    }


def kept(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Raise AssertionError where something of the former contents is missing or another."""
    for part, entries in before.items():
        lost = {key: (value, after[part].get(key)) for key, value in entries.items() if after[part].get(key) != value}
        assert not lost, f"{part} changed: {lost}"


def rows(stack: Stack, table: str) -> int:
    """How many rows of the project a table of the records has."""
    query = f"SELECT count(*) FROM {table} WHERE project_id = '{PROJECT}'"
    return int(stack.compose("exec", "-T", "postgres", "psql", "-U", "postgres", "-XAtq", "closedloop", "-c", query))


def stored_pictures(stack: Stack) -> list[str]:
    """The image ids of the pictures in the store, wherever they lie."""
    key, secret = stack.values["AWS_ACCESS_KEY_ID"], stack.values["AWS_SECRET_ACCESS_KEY"]
    script = f"export MC_HOST_s=http://{key}:{secret}@minio:9000; mc find s/production/{PROJECT} --name '*.jpg'"
    said = stack.compose("run", "--rm", "-T", "--no-deps", "buckets", "-c", script)
    return [line.rsplit("/", 1)[-1].removesuffix(".jpg") for line in said.split()]


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


def look_at_picture(stack: Stack, task: int) -> None:
    """Fetch a task's picture as an annotator's browser does; raises AssertionError where there is none."""
    client = stack.admin()
    shown = client.get(f"/api/tasks/{task}", params={"resolve_uri": "true"}).json()["data"]["image"]
    picture = client.get(shown, follow_redirects=True).content
    assert picture[:3] == b"\xff\xd8\xff", f"{shown} is no JPEG: {picture[:60]}"
