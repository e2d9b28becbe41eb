"""What was served last, on disk: enough to start and answer with storage and database away."""

import contextlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from closedloop.errors import BadArtefact
from closedloop.installations import ChosenEncoder
from closedloop.logs import get_logger
from closedloop.models import artefact
from closedloop.project import CLASSIFIER, Project
from inference_api.serving import Snapshot

FILES = (artefact.WEIGHTS, artefact.CARD, artefact.MANIFEST)


@dataclass(frozen=True)
class _State:
    """What `state.json` says."""

    encoder: dict[str, Any] | None = None
    manifests: tuple[dict[str, Any], ...] = ()
    releases: dict[tuple[str, str], str | None] | None = None  # by project and head


class LastKnown:
    """The last known good: who answered for each project and head with which encoder, and the files of the releases."""

    def __init__(self, folder: Path) -> None:
        self._state = folder / "state.json"
        self._releases = folder / "releases"
        self._releases.mkdir(parents=True, exist_ok=True)
        for torn in (*folder.glob("*.partial"), *self._releases.glob("*/**/.*.partial")):
            _remove_if_old(torn)

    @property
    def encoder(self) -> ChosenEncoder | None:
        """The encoder that answered last; None where nothing was ever served."""
        encoder = self._read().encoder
        return ChosenEncoder(**encoder) if encoder else None

    def projects(self) -> list[Project]:
        """The projects that were answered for, as they were. Raises ValueError for what this version cannot read."""
        return [Project.model_validate(manifest) for manifest in self._read().manifests]

    def release_of(self, project_id: str, head: str) -> str | None:
        """The release that last answered for a head of a project."""
        return (self._read().releases or {}).get((project_id, head))

    def remember(self, snapshot: Snapshot) -> None:
        """Note what is served from now on."""
        state = {
            "encoder": asdict(snapshot.chosen),
            "projects": {
                id_: {
                    "manifest": next(iter(heads.values())).project.model_dump(mode="json"),
                    # Where nothing could be loaded, what was good before stays noted: it may be loadable again.
                    "releases": {
                        head: served.release
                        or (self.release_of(id_, head) if (id_, head) in snapshot.problems else None)
                        for head, served in heads.items()
                    },
                }
                for id_, heads in snapshot.projects.items()
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
        formerly = self._releases / project_id / release  # where versions that knew classifiers alone kept them
        for place in (folder, formerly) if head == CLASSIFIER else (folder,):
            with contextlib.suppress(BadArtefact, OSError):  # not there, or torn: the store has it
                return check({name: (place / name).read_bytes() for name in FILES})
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
            get_logger().warning("release not kept on disk", head=head, release=release, reason=str(error))
            shutil.rmtree(partial, ignore_errors=True)
        return ready

    def _read(self) -> _State:
        try:
            state = json.loads(self._state.read_text(encoding="utf-8"))
            projects = dict(state["projects"])
            releases = {
                (id_, head): release
                for id_, entry in projects.items()
                # A version that knew classifiers alone noted one release.
                for head, release in entry.get("releases", {CLASSIFIER: entry.get("release")}).items()
            }
            return _State(state["encoder"], tuple(entry["manifest"] for entry in projects.values()), releases)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return _State()


def _remove_if_old(partial: Path) -> None:
    """Remove what a killed process left half written; a younger one may be another replica's."""
    with contextlib.suppress(OSError):
        if time.time() - partial.stat().st_mtime > 3600:
            shutil.rmtree(partial) if partial.is_dir() else partial.unlink()
