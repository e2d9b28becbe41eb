"""One round with Label Studio: provision what is missing, hand over new tasks, collect what was answered.

One round at a time in the whole installation (a lease), since two simultaneous syncs double Label Studio's tasks.
"""

import contextlib
import datetime as dt
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from closedloop import annotations, catalogue, leases, selections, task_files, tasks, votes
from closedloop import project as projects
from closedloop.errors import ClosedloopError, LabelStudioRefused, LabelStudioSync
from closedloop.label_studio import FoundTask, LabelStudio
from closedloop.logs import get_logger
from closedloop.project import Project
from closedloop.storage import Stores, answers, asking, installation, tombstones
from closedloop.storage.objects import LABEL_STUDIO, PRODUCTION

LEASE = "label-studio"
READY = "_ready.txt"  # a prefix must not be empty when a storage is made on it
PATIENCE = 120.0  # s that a command waits for a round that is under way
OVERLAP = dt.timedelta(seconds=5)  # looked at again at the next reconciliation, for clocks and open transactions
NUMBERS_OVERLAP = 50  # annotations looked at again: of two at once, the one with the smaller number may be saved later


@dataclass
class Round:
    """What one round did, over all queues."""

    tasks_read: int = 0
    answers_collected: int = 0
    answers_reconciled: int = 0
    quarantined: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def run(
    stores: Stores,
    label_studio: LabelStudio,
    clock: Callable[[], dt.datetime],
    only: list[Project] | None = None,
    repair: bool = True,
    patience: float = 0.0,
) -> Round:
    """Do one round for some projects (all by default). A queue that fails is named in `faults`; the others go on.

    `repair` looks whether Label Studio still has every project and storage; without it only new queues are made.
    Raises LeaseTaken while another round is under way (for longer than `patience`, in seconds), LabelStudioAway,
    StoreAway or DatabaseAway.
    """
    done = Round()
    with leases.held(stores, LEASE, clock, patience):
        for project in projects.all_projects(stores) if only is None else only:
            for name in project.queues:
                queue = _Queue(stores, label_studio, project, name, clock, done)
                number = None
                with queue.named():
                    number = provision(stores, label_studio, project, name, repair)
                    queue.take_back(number)
                    queue.hand_over(number)
                # Before the reconciliation: it withdraws what was collected and is no longer in Label Studio.
                queue.collect()
                if number is not None:
                    with queue.named():
                        queue.reconcile(number)
    return done


def provision_alone(
    stores: Stores, label_studio: LabelStudio, project: Project, queue: str, clock: Callable[[], dt.datetime]
) -> int:
    """`provision` under the lease, so that no round makes the same project at the same moment."""
    with leases.held(stores, LEASE, clock, patience=PATIENCE):
        return provision(stores, label_studio, project, queue)


def provision(stores: Stores, label_studio: LabelStudio, project: Project, queue: str, repair: bool = True) -> int:
    """Make the Label Studio project of a queue, or `repair` one that was made before; returns its number."""
    with stores.db.read() as tx:
        row = installation.label_studio_project(tx, project.id, queue)
    known = row["ls_project"] if row else None
    if known is not None and not repair:
        return known
    if known is None or not stores.objects.exists(f"{tasks.prefix(project.id, queue)}/{READY}"):
        for place in (
            f"{PRODUCTION}/{project.id}",
            tasks.prefix(project.id, queue),
            f"{LABEL_STUDIO}/output/{project.id}/{queue}",
        ):
            stores.objects.put(f"{place}/{READY}", b"Label Studio wants a prefix that is not empty.\n")
    number = label_studio.provision(project.id, queue, task_files.config(project, queue), known)
    if number != known:
        with stores.db.write() as tx:
            installation.set_label_studio_project(tx, project.id, queue, number)
            asking.unsync(tx, project.id, queue)
    return number


@dataclass(frozen=True)
class _Queue:
    """One queue in one round."""

    stores: Stores
    label_studio: LabelStudio
    project: Project
    name: str
    clock: Callable[[], dt.datetime]
    done: Round

    def hand_over(self, number: int) -> None:
        """Have Label Studio read the queue's new files, after whatever would stop it was put aside."""
        prefix = tasks.prefix(self.project.id, self.name)
        there = self.stores.objects.list(prefix)  # before the records: a task is recorded before its file is put
        with self.stores.db.read() as tx:
            ours = {
                tasks.key(self.project.id, self.name, id_) for id_ in asking.task_ids(tx, self.project.id, self.name)
            }
            new = asking.unsynced(tx, self.project.id, self.name)
            delivered = asking.count_delivered(tx, self.project.id, self.name)
            ours |= {
                tasks.key(self.project.id, self.name, row["task_id"])
                for row in tombstones.left(tx, self.project.id, self.name)
            }
        for listed in there:
            if listed.key not in ours and listed.key != f"{prefix}/{READY}":
                self._quarantine(listed.key, "it is not a task that this installation asked")
        if not new:
            return
        for id_ in new:
            self._repair(id_)
        self.done.tasks_read += self.label_studio.sync(number, self.project.id, self.name, self.clock())
        if doubles := self.label_studio.remove_doubles(number, delivered):
            get_logger().warning("tasks were doubled", project=self.project.id, queue=self.name, removed=doubles)
        with self.stores.db.write() as tx:
            asking.synced(tx, new, self.clock())

    def take_back(self, number: int) -> None:
        """Remove the tasks that nobody needs an answer to any more: the picture was removed, or what was said undone.

        An answer that an annotator has given in the meantime stays, unless its picture was removed.
        """
        with self.stores.db.read() as tx:
            undone = asking.withdrawn(tx, self.project.id, self.name)
            left = tombstones.left(tx, self.project.id, self.name)
        if not undone and not left:
            return
        found = self.label_studio.find(number, [row["id"] for row in undone] + [row["task_id"] for row in left])
        for row in left:
            gone = self._clear(number, row["task_id"], found.get(row["task_id"], []), row["annotations"])
            with self.stores.db.write() as tx:
                tombstones.cleared(tx, row["task_id"], gone)
        for row in undone:
            self._take_back(number, row["id"], row["image_id"], found.get(row["id"], []))

    def _take_back(self, number: int, id_: str, image_id: str, copies: list[FoundTask]) -> None:
        """Remove a task to which what was said was undone; with an answer it stays."""
        with self.stores.db.write() as tx:
            kept = answers.annotations_of_task(tx, self.project.id, id_)
            stands = [one for one in kept if one["state"] != votes.WITHDRAWN]
            if stands or any(copy.annotations for copy in copies):
                asking.ask_again(tx, self.project.id, image_id, self.name)
                return
        gone = self._clear(number, id_, copies, [one["annotation_id"] for one in kept])
        with self.stores.db.write() as tx:
            if asking.is_withdrawn(tx, id_):
                tombstones.drop_task(tx, self.project.id, id_, gone)
                catalogue.refresh(tx, self.project.id, image_id)
            elif asking.undeliver(tx, id_):  # wanted again while Label Studio was asked
                asking.promise(tx, "deliver", id_, self.clock())

    def _clear(self, number: int, id_: str, copies: list[FoundTask], collected: list[str]) -> list[str]:
        """Remove all that lies of a task outside the records; returns the objects of its answers, which are gone."""
        # The file first: a storage that still had it would make the task again.
        self.stores.objects.remove(tasks.key(self.project.id, self.name, id_))
        self.label_studio.remove_tasks(number, [copy.number for copy in copies])
        given = {*collected, *(annotation for copy in copies for annotation in copy.annotations)}
        output = [f"{LABEL_STUDIO}/output/{self.project.id}/{self.name}/{annotation}" for annotation in sorted(given)]
        for key in output:
            self.stores.objects.remove(key)
        return output

    def _repair(self, id_: str) -> None:
        """One malformed file fails Label Studio's whole sync, so each new one is read once before."""
        key = tasks.key(self.project.id, self.name, id_)
        try:
            task_files.TaskFile.model_validate_json(self.stores.objects.get(key))
            return
        except FileNotFoundError:
            get_logger().warning("task file missing, delivered again", key=key)
        except ValueError as error:
            self._quarantine(key, f"it was changed after its delivery: {str(error)[:200]}")
        with self.stores.db.write() as tx:
            asking.undeliver(tx, id_)
            asking.promise(tx, "deliver", id_, self.clock())  # should this process die before the next line
        tasks.deliver(self.stores, id_, self.clock())

    def _quarantine(self, key: str, why: str) -> None:
        """Move an object out of Label Studio's way, and name it."""
        aside = key.replace(f"{LABEL_STUDIO}/tasks/", f"{LABEL_STUDIO}/quarantine/", 1)
        self.stores.objects.move(key, aside)
        get_logger().warning("quarantined", key=key, moved_to=aside, reason=why)
        self.done.quarantined.append(f"{key}: {why}")
        with self.stores.db.write() as tx:
            answers.note_collected(tx, key, "quarantined", f"{why}; moved to {aside}", self.clock())

    def collect(self) -> None:
        """Read what Label Studio wrote on submit: one object per annotation, rewritten at each edit."""
        prefix = f"{LABEL_STUDIO}/output/{self.project.id}/{self.name}/"
        with self.stores.db.read() as tx:
            known = answers.known_versions(tx, prefix)
        for listed in self.stores.objects.list(prefix):
            if listed.key.endswith(READY) or known.get(listed.key) == listed.version:
                continue
            problem = None
            try:
                raw = json.loads(self.stores.objects.get(listed.key))
                self.done.answers_collected += self._keep(raw["task"]["data"], raw)
            except FileNotFoundError:
                continue
            except annotations.NotOurs as error:
                problem = str(error)
            except ClosedloopError:
                raise
            except Exception as error:  # whatever one object holds, the others are collected
                problem = f"not an annotation: {type(error).__name__} {str(error)[:200]!r}"
            if problem:
                get_logger().warning("annotation not used", key=listed.key, reason=problem)
            with self.stores.db.write() as tx:
                answers.note_collected(tx, listed.key, listed.version, problem, self.clock())

    def reconcile(self, number: int) -> None:
        """Compare with the API, which is the truth: an answer whose object was never written, one that was deleted."""
        with self.stores.db.read() as tx:
            row = installation.label_studio_project(tx, self.project.id, self.name)
        since = row["reconciled_to"] if row else None
        above = max((row["answers_seen"] if row else None) or 0, NUMBERS_OVERLAP)
        newest, seen = since, above
        touched = self.label_studio.touched(number, since - OVERLAP if since else None, above - NUMBERS_OVERLAP)
        for task in touched:
            seen = max(seen, *(raw["id"] for raw in task.annotations), 0)
            for raw in task.annotations:
                try:
                    self.done.answers_reconciled += self._keep(task.data, raw)
                except ClosedloopError:
                    raise
                except Exception as error:  # NotOurs, or what nobody has thought of: the others are collected
                    why = str(error)[:300]
                    get_logger().warning("annotation not used", project=self.project.id, queue=self.name, reason=why)
            with self.stores.db.write() as tx:
                asking.lock_pictures(tx, task.data.get("task_id"))
                if annotations.withdraw_missing(tx, self.project, self.name, task, self.clock()):
                    self._follow(tx, task.data)
            newest = max(newest or task.updated_at, task.updated_at)
        if newest and (newest, seen) != (since, above):
            with self.stores.db.write() as tx:
                installation.set_reconciled(tx, self.project.id, self.name, newest, seen)

    def _keep(self, data: dict[str, Any], raw: dict[str, Any]) -> int:
        with self.stores.db.write() as tx:
            asking.lock_pictures(tx, data.get("task_id"))  # before anything of them: one order for all
            kept = annotations.keep(tx, self.project, self.name, data, raw, self.clock())
            if kept:
                self._follow(tx, data)
            return kept

    def _follow(self, tx: Any, data: dict[str, Any]) -> None:
        """What follows from an answer that came or went."""
        task = asking.task(tx, data["task_id"])
        if task is not None and task["set_id"]:
            selections.ask_for_crop(tx, self.project.id, task["set_id"], self.clock())
        elif task is not None:
            catalogue.refresh(tx, self.project.id, task["image_id"])

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """What Label Studio refuses for this queue is named, and the others go on."""
        try:
            yield
        except (LabelStudioSync, LabelStudioRefused) as error:
            get_logger().warning("sync failed", project=self.project.id, queue=self.name, reason=str(error))
            self.done.faults.append(f"{self.project.id}/{self.name}: {error}")
