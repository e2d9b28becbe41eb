"""What was served last, on disk: enough to start and answer with storage and database away."""

import contextlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from closedloop.errors import BadArtefact
from closedloop.installations import ChosenEncoder
from closedloop.logs import get_logger
from closedloop.models import artefact
from closedloop.project import CLASSIFIER, Project
from inference_api.serving import Snapshot

FILES = (artefact.WEIGHTS, artefact.CARD, artefact.MANIFEST)


class LastKnown:
    """The last known good: who answered for each project with which encoder, and the files of the releases."""

    def __init__(self, folder: Path) -> None:
        self._state = folder / "state.json"
        self._releases = folder / "releases"
        self._releases.mkdir(parents=True, exist_ok=True)
        for torn in (
            *folder.glob("*.partial"),
            *self._releases.glob("*/.*.partial"),
            *self._releases.glob("*/*/.*.partial"),
        ):
            _remove_if_old(torn)

    @property
    def encoder(self) -> ChosenEncoder | None:
        """The encoder that answered last; None where nothing was ever served."""
        encoder = self._read()["encoder"]
        return ChosenEncoder(**encoder) if encoder else None

    def projects(self) -> list[Project]:
        """The projects that were answered for, as they were. Raises ValueError for what this version cannot read."""
        return [Project.model_validate(entry["manifest"]) for entry in self._read()["projects"].values()]

    def release_of(self, project_id: str, head: str) -> str | None:
        """The release that last answered as a project's head."""
        known = self._read()["projects"].get(project_id, {})
        releases = known.get("releases", {CLASSIFIER: known.get("release")})  # a former version knew one head
        return releases.get(head)

    def remember(self, snapshot: Snapshot) -> None:
        """Note what is served from now on."""
        state = {
            "encoder": asdict(snapshot.chosen),
            "projects": {
                id_: {
                    "manifest": served.project.model_dump(mode="json"),
                    # Where nothing could be loaded, what was good before stays noted: it may be loadable again.
                    "releases": {
                        head: ready.release
                        or (self.release_of(id_, head) if (id_, head) in snapshot.problems else None)
                        for head, ready in served.heads.items()
                    },
                }
                for id_, served in snapshot.projects.items()
            },
        }
        partial = self._state.with_suffix(f".{uuid.uuid4().hex}.partial")  # replicas may share the folder
        partial.write_text(json.dumps(state), encoding="utf-8")
        os.replace(partial, self._state)

    def read_release(
        self,
        project_id: str,
        head: str,
        release: str,
        check: Callable[[dict[str, bytes]], artefact.Artefact],
        fetch: Callable[[str], bytes],
    ) -> artefact.Artefact:
        """A release that passed `check`: from disk, or by `fetch(name)` and then kept on disk.

        Raises what `check` and `fetch` raise, except FileNotFoundError.
        """
        folder = self._releases / project_id / head / release
        for known in (folder, self._releases / project_id / release):  # where a former version kept it
            with contextlib.suppress(BadArtefact, OSError):  # not there, or torn: the store has it
                return check({name: (known / name).read_bytes() for name in FILES})
        files = {}
        for name in FILES:
            with contextlib.suppress(FileNotFoundError):  # `check` says what is missing
                files[name] = fetch(name)
        ready = check(files)
        partial = folder.with_name(f".{release}.{uuid.uuid4().hex}.partial")
        try:
            partial.mkdir(parents=True)
            for name, data in files.items():
                (partial / name).write_bytes(data)
            shutil.rmtree(folder, ignore_errors=True)  # torn, if it was there
            os.replace(partial, folder)
        except OSError as error:  # a full disk, or another replica was quicker: it serves all the same
            get_logger().warning("release not kept on disk", release=release, reason=str(error))
            shutil.rmtree(partial, ignore_errors=True)
        return ready

    def _read(self) -> dict[str, Any]:
        try:
            state = json.loads(self._state.read_text(encoding="utf-8"))
            return {"encoder": state["encoder"], "projects": dict(state["projects"])}
        except (OSError, ValueError, KeyError, TypeError):
            return {"encoder": None, "projects": {}}


def _remove_if_old(partial: Path) -> None:
    """Remove what a killed process left half written; a younger one may be another replica's."""
    with contextlib.suppress(OSError):
        if time.time() - partial.stat().st_mtime > 3600:
            shutil.rmtree(partial) if partial.is_dir() else partial.unlink()
