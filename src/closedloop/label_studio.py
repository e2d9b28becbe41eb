"""The only module that knows the Label Studio SDK: projects and storages, syncs, and annotations by the API.

Label Studio's records hold no secret of ours: endpoint and keys of its storages stay empty, its own process has them in
its environment.
"""

import contextlib
import datetime as dt
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from label_studio_sdk import LabelStudio as Client
from label_studio_sdk.core.api_error import ApiError

from closedloop.annotations import TaskAnswers
from closedloop.errors import LabelStudioAway, LabelStudioRefused, LabelStudioSync
from closedloop.settings import Settings
from closedloop.task_files import MODEL_VERSION

CONFIGS = Path(__file__).parents[2] / "label_studio"  # a checkout, or the image built from one
TITLE_LENGTH = 50
SYNC_TIMEOUT = 300  # s; a sync of 1,000 new tasks takes about 35 s inside the request
STALE = dt.timedelta(seconds=60)  # a running sync gives a sign of life every few seconds
_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"


@dataclass(frozen=True)
class FoundTask:
    """A task as Label Studio has it: its number there, and the numbers of its annotations."""

    number: int
    annotations: tuple[str, ...]


class LabelStudio:
    """One Label Studio. Methods raise LabelStudioAway where it does not answer, LabelStudioRefused where it says no."""

    def __init__(self, url: str, api_key: str) -> None:
        self.url = url.rstrip("/")
        self._client = Client(base_url=self.url, api_key=api_key, timeout=60)

    @classmethod
    def from_settings(cls, settings: Settings) -> "LabelStudio":
        """The Label Studio that the settings name; raises MissingSetting."""
        return cls(settings.require("label_studio_url"), settings.require("label_studio_api_key"))

    def check(self) -> str:
        """The name of the user whose token is used."""
        with self._away_said_plainly():
            return self._client.users.whoami().email or ""

    def version(self) -> str:
        """Label Studio's release."""
        with self._away_said_plainly():
            return str(self._client.versions.get().release)

    def provision(self, project_id: str, queue: str, config_name: str, known: int | None) -> int:
        """Make the project of a queue and its three storages, or repair what is missing; returns its number.

        The prefixes must not be empty (see `sync.py`): Label Studio refuses a storage on an empty prefix.
        """
        config = (CONFIGS / f"{config_name}.xml").read_text(encoding="utf-8").strip()  # as Label Studio keeps it
        marker = f"closedloop:{project_id}/{queue}"
        with self._away_said_plainly():
            found = self._project(known, marker)
            if found is None:
                title = f"{project_id[: TITLE_LENGTH - len(queue) - 3]} / {queue}"
                number = self._client.projects.create(title=title, description=marker, label_config=config).id
            else:
                number = found.id
                if found.label_config != config:
                    self._client.projects.update(id=number, label_config=config)
            assert number is not None
            self._make_storages(number, project_id, queue)
        return number

    def _project(self, known: int | None, marker: str) -> Any:
        if known is not None:
            try:
                project = self._client.projects.get(id=known)
                if project.description == marker:
                    return project
            except ApiError as error:
                if error.status_code != 404:
                    raise
        return next(
            (p for p in self._client.projects.list(include="id,description,label_config") if p.description == marker),
            None,
        )

    def _make_storages(self, number: int, project_id: str, queue: str) -> None:
        sources = {storage.title: storage for storage in self._client.import_storage.s3.list(project=number)}
        if "pictures" not in sources:  # lets Label Studio show s3://production/...; it is never synced
            self._client.import_storage.s3.create(
                project=number,
                title="pictures",
                bucket="production",
                prefix=f"{project_id}/",
                regex_filter="(?!)",
                use_blob_urls=True,
                presign=False,
                synchronizable=False,
            )
        if "tasks" not in sources:
            self._client.import_storage.s3.create(
                project=number,
                title="tasks",
                bucket="labelstudio",
                prefix=f"tasks/{project_id}/{queue}",
                regex_filter=r".*\.json$",
                use_blob_urls=False,
                presign=False,
            )
        if not any(storage.title == "answers" for storage in self._client.export_storage.s3.list(project=number)):
            self._client.export_storage.s3.create(
                project=number, title="answers", bucket="labelstudio", prefix=f"output/{project_id}/{queue}"
            )

    def sync(self, number: int, project_id: str, queue: str, now: dt.datetime) -> int:
        """Have a project read its new task files; returns how many it read. Heals a sync that was left half-way.

        Never call two at once: on SQLite, Label Studio then makes every task twice. Raises LabelStudioSync where it
        failed or one that somebody else began is still going on.
        """
        with self._away_said_plainly():
            storage = next(s for s in self._client.import_storage.s3.list(project=number) if s.title == "tasks")
            if str(storage.status) in ("in_progress", "queued"):
                ping = (storage.meta or {}).get("time_last_ping") or (storage.meta or {}).get("time_queued")
                if ping and now - dt.datetime.fromisoformat(ping) < STALE:
                    raise LabelStudioSync(project=project_id, queue=queue, reason="an earlier sync is still going on")
                self._heal(storage.id)
            synced = self._client.import_storage.s3.sync(
                id=storage.id or 0, request_options={"timeout_in_seconds": SYNC_TIMEOUT}
            )
            if str(synced.status) != "completed":
                reason = (synced.traceback or "").strip().splitlines()[-1:] or [f"status {synced.status}"]
                raise LabelStudioSync(project=project_id, queue=queue, reason=reason[0][:500])
            if synced.last_sync_count:
                self._preselect(number)
        return synced.last_sync_count or 0

    def _preselect(self, number: int) -> None:
        """Show the model's answers as pre-selected; Label Studio takes the name only once such predictions exist."""
        if self._client.projects.get(id=number).model_version != MODEL_VERSION:
            with contextlib.suppress(ApiError):  # none of the tasks has a suggestion yet: next time
                self._client.projects.update(id=number, model_version=MODEL_VERSION)

    def _heal(self, storage_id: int | None) -> None:
        # On Postgres a storage that says it is queued or in progress is never synced again; on SQLite it is.
        self._send("PATCH", f"api/storages/s3/{storage_id}", {"status": "initialized"})

    def touched(self, number: int, since: dt.datetime | None, above: int) -> Iterator[TaskAnswers]:
        """The tasks of a project that were touched after `since` (all where it is None), with their annotations.

        Also those with an annotation whose number is greater than `above`: where the store or the database went away
        while Label Studio saved an annotation, that is there, but its task looks untouched.
        """
        query: dict[str, Any] = {}
        if since:
            newer = {"filter": "filter:tasks:updated_at", "operator": "greater", "type": "Datetime"}
            later = {"filter": "filter:tasks:annotations_ids", "operator": "greater", "type": "Number"}
            items = [{**newer, "value": since.astimezone(dt.UTC).strftime(_TIME)}, {**later, "value": above}]
            query = {"filters": {"conjunction": "or", "items": items}}
        with self._away_said_plainly():
            for task in self._client.tasks.list(
                project=number, fields="all", page_size=200, resolve_uri=False, query=json.dumps(query)
            ):
                annotations = [a if isinstance(a, dict) else a.model_dump() for a in task.annotations or []]
                yield TaskAnswers(
                    dict(task.data or {}), annotations, _moment(task.created_at), _moment(task.updated_at)
                )

    def remove_doubles(self, number: int, expected: int) -> int:
        """Leave one task of those that ask the same, with the annotations of all; returns how many were removed.

        A storage that was removed and made again reads every file a second time, into new tasks. The newest stays,
        since it is the one that the storage knows. Looks only where there are more tasks than `expected`.
        """
        with self._away_said_plainly():
            if (self._client.projects.get(id=number).task_number or 0) <= expected:
                return 0
            same: dict[str, list[Any]] = {}
            for task in self._client.tasks.list(project=number, fields="all", page_size=200, resolve_uri=False):
                same.setdefault(str((task.data or {}).get("task_id")), []).append(task)
            same.pop("None", None)  # what somebody else put there
            doubles = []
            for copies in same.values():
                *old, newest = sorted(copies, key=lambda task: task.id or 0)
                doubles += [task.id for task in old]
                for annotation in (a for task in old for a in task.annotations or []):
                    id_ = annotation["id"] if isinstance(annotation, dict) else annotation.id
                    self._send("PATCH", f"api/annotations/{id_}/", {"task": newest.id})
        self.remove_tasks(number, doubles)
        return len(doubles)

    def find(self, number: int, task_ids: Sequence[str]) -> dict[str, list[FoundTask]]:
        """The tasks of a project that ask for these tasks of ours, by our id."""
        found: dict[str, list[FoundTask]] = {}
        with self._away_said_plainly():
            for start in range(0, len(task_ids), 50):
                same = {"filter": "filter:tasks:data.task_id", "operator": "equal", "type": "String"}
                items = [{**same, "value": id_} for id_ in task_ids[start : start + 50]]
                query = json.dumps({"filters": {"conjunction": "or", "items": items}})
                for task in self._client.tasks.list(
                    project=number, fields="all", page_size=200, resolve_uri=False, query=query
                ):
                    data = task.data or {}
                    given = (a["id"] if isinstance(a, dict) else a.id for a in task.annotations or [])
                    one = FoundTask(task.id or 0, tuple(map(str, given)))
                    found.setdefault(str(data.get("task_id")), []).append(one)
        return found

    def remove_tasks(self, number: int, ids: Sequence[int]) -> None:
        """Remove tasks (by Label Studio's own numbers) with their annotations."""
        with self._away_said_plainly():
            for start in range(0, len(ids), 500):
                chosen = {"all": False, "included": list(ids[start : start + 500])}
                self._send("POST", f"api/dm/actions?id=delete_tasks&project={number}", {"selectedItems": chosen})

    def _send(self, method: str, path: str, body: dict[str, Any]) -> None:
        """What the SDK has no words for."""
        response = self._client._client_wrapper.httpx_client.request(path, method=method, json=body)
        if response.status_code >= 300:
            raise ApiError(status_code=response.status_code, body=response.text)

    @contextlib.contextmanager
    def _away_said_plainly(self) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPError as error:
            raise LabelStudioAway(url=self.url, reason=type(error).__name__) from None
        except ApiError as error:
            said = "" if "<html" in str(error.body) else f": {str(error.body)[:500]}"  # a page of Django's says nothing
            reason = f"it said {error.status_code}{said}"
            if error.status_code in (401, 403, 502, 503, 504):
                raise LabelStudioAway(url=self.url, reason=reason) from None
            raise LabelStudioRefused(reason=reason) from None


def _moment(value: dt.datetime | str | None) -> dt.datetime:
    """A moment as the SDK gives it: parsed or not."""
    assert value is not None
    return dt.datetime.fromisoformat(value) if isinstance(value, str) else value
