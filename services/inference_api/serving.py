"""What is served at this moment, and how it follows the releases without dropping a request.

The whole of what is served is one immutable snapshot that is swapped. The last known good one is kept on disk (release
files, manifests, encoder), so that the service starts and answers with storage and database away.
"""

import base64
import contextlib
import datetime as dt
import json
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from closedloop import installations
from closedloop import project as projects
from closedloop.errors import BadArtefact, ClosedloopError, EncoderUnavailable, StoreAway, UnknownProject
from closedloop.image import decode
from closedloop.installations import ChosenEncoder
from closedloop.logs import get_logger
from closedloop.models import artefact, zero_shot
from closedloop.models import encoder as encoders
from closedloop.models.encoder import Encoder
from closedloop.models.heads import Head
from closedloop.project import CLASSIFIER, Project
from closedloop.storage import Stores, registry

LOOK_EVERY = 2.0  # s


@dataclass(frozen=True)
class Served:
    """Who answers for a project: a release, the encoder's words, or nobody (`head` None)."""

    project: Project
    release: str | None = None
    classes: tuple[str, ...] = ()
    head: Head | None = None


@dataclass(frozen=True)
class Snapshot:
    """Everything that answers rest on."""

    encoder: Encoder
    chosen: ChosenEncoder
    projects: dict[str, Served]
    problems: dict[str, str] = field(default_factory=dict)  # by project: why its live release is not served


class Serving:
    """Answers from a snapshot, and keeps it up with the records."""

    def __init__(
        self, stores: Callable[[], Stores], setting: str, folder: Path, clock: Callable[[], dt.datetime]
    ) -> None:
        self._open_stores = stores
        self._stores: Stores | None = None
        self._setting = setting
        self._folder = folder
        self._clock = clock
        self._snapshot: Snapshot | None = None
        self._embedding = threading.Lock()
        self._away: str | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="releases", daemon=True)

    def start(self) -> None:
        """Load what was served last, or what the records say; then follow them from a thread."""
        folder = self._folder / "releases"
        folder.mkdir(parents=True, exist_ok=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._over.set()
        self._thread.join(timeout=10)

    def snapshot(self) -> Snapshot:
        """What is served now; raises EncoderUnavailable while nothing is loaded yet."""
        if self._snapshot is None:
            raise EncoderUnavailable(name=self._setting, reason=self._away or "it is still being loaded; try again.")
        return self._snapshot

    # Answering

    def embed(self, data: bytes) -> tuple[np.ndarray, Snapshot]:
        """The vector (d,) of a picture and the snapshot whose encoder made it. Raises the errors of `decode`."""
        now = self.snapshot()
        picture = decode(data, now.encoder.size)
        with self._embedding:  # one at a time: torch uses every core for each
            return now.encoder.embed([picture])[0], now

    def predict(self, project_id: str, data: bytes) -> dict[str, Any]:
        """The answer about a picture: label, confidence, probabilities, release, encoder, vector (base64)."""
        if project_id not in self.snapshot().projects:
            raise UnknownProject(project=project_id[:40])
        vector, now = self.embed(data)
        served = now.projects[project_id]
        if served.head is None:
            classes = served.project.classes
            label, probabilities = None, np.full(len(classes), 1 / len(classes))
        else:
            classes, probabilities = served.classes, served.head.probabilities(vector[None])[0]
            label = classes[int(probabilities.argmax())]
        return {
            "ok": True,
            "project": project_id,
            "label": label,
            "confidence": float(probabilities.max()),
            "probabilities": {name: float(p) for name, p in zip(classes, probabilities, strict=True)},
            "release": served.release,
            "encoder": now.chosen.digest,
            "vector": base64.b64encode(vector.astype("<f4").tobytes()).decode(),
        }

    def describe(self) -> dict[str, Any]:
        """What `/v1/releases` says."""
        now = self.snapshot()
        notices = [now.chosen.reason]
        if self._setting not in ("auto", now.chosen.name):
            notices.append(
                f"CLOSEDLOOP_ENCODER is {self._setting}, but this installation uses {now.chosen.name}. "
                f"`closedloop encoder use {self._setting}` changes it."
            )
        if self._away:
            notices.append(f"The records cannot be read ({self._away}); the last known releases are served.")
        releases = [
            {
                "project": id_,
                "head": CLASSIFIER,
                "release": served.release,
                "classes": list(served.classes or served.project.classes),
                "problem": now.problems.get(id_),
            }
            for id_, served in now.projects.items()
        ]
        return {"ok": True, "encoder": now.chosen.as_json(), "notices": notices, "releases": releases}

    # Following the records

    def _follow(self) -> None:
        while not self._over.is_set():
            try:
                self._look()
                self._away = None
            except ClosedloopError as error:
                if self._away != str(error):
                    get_logger().warning("records not read", reason=str(error))
                self._away = str(error)
                self._fall_back()
            except Exception as error:
                get_logger().exception("releases not followed")
                self._away = f"{type(error).__name__}: {error}"
                self._fall_back()
            self._over.wait(LOOK_EVERY)

    def _look(self) -> None:
        """Compare the records with what is served, and swap if they differ."""
        stores = self._stores = self._stores or self._open_stores()
        stores.db.check()
        chosen = installations.chosen_encoder(stores)
        now = self._snapshot
        if chosen is None:
            encoder, chosen = self._choose(stores)
        elif now is not None and now.chosen.digest == chosen.digest:
            encoder = now.encoder
        else:
            encoder = self._load(chosen)
        with stores.db.read() as tx:
            live = {row["project_id"]: row["id"] for row in registry.live_releases(tx) if row["head"] == CLASSIFIER}
        former = now.projects if now and now.chosen.digest == chosen.digest else {}
        served, problems = {}, {}
        for project in projects.all_projects(stores):
            try:
                served[project.id] = self._serve(project, live.get(project.id), former.get(project.id), encoder, chosen)
            except Exception as error:
                # A release that cannot be used never serves: who answered until now goes on, over a restart too.
                problems[project.id] = str(error)
                if not now or now.problems.get(project.id) != str(error):
                    get_logger().error("release not served", project=project.id, reason=str(error))
                served[project.id] = former.get(project.id) or self._last_known(project, encoder, chosen)
        new = Snapshot(encoder, chosen, served, problems)
        if now is None or (now.chosen, now.projects, now.problems) != (chosen, served, problems):
            self._snapshot = new
            self._remember(new)
            get_logger().info("serving", releases={id_: s.release for id_, s in served.items()}, encoder=chosen.name)

    def _serve(
        self, project: Project, release: str | None, former: Served | None, encoder: Encoder, chosen: ChosenEncoder
    ) -> Served:
        if release is None and encoder.knows_words:
            name = zero_shot.release_name(encoder)
            if former and former.release == name and former.project == project:
                return former
            return Served(project, name, project.classes, zero_shot.head(encoder, project))
        if release is None:
            return Served(project)
        if former and former.release == release:
            return former if former.project == project else replace(former, project=project)
        ready = self._read(project.id, release, encoder, chosen)
        return Served(project, release, ready.classes, ready.head)

    def _read(self, project_id: str, release: str, encoder: Encoder, chosen: ChosenEncoder) -> artefact.Artefact:
        """A checked release: from disk, or from S3 and then kept on disk. Raises BadArtefact or StoreAway."""
        folder = self._folder / "releases" / project_id / release
        names = (artefact.WEIGHTS, artefact.CARD, artefact.MANIFEST)

        def check(files: dict[str, bytes]) -> artefact.Artefact:
            return artefact.unpack(files, project_id, CLASSIFIER, release, chosen.digest, encoder.dimension)

        with contextlib.suppress(BadArtefact, OSError):  # not there, or torn: the store has it
            return check({name: (folder / name).read_bytes() for name in names})
        if self._stores is None:
            raise StoreAway
        place, files = artefact.place(project_id, CLASSIFIER, release), {}
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # `check` says what is missing
                files[name] = self._stores.objects.get(f"{place}/{name}")
        ready = check(files)
        partial = folder.with_name(f".{release}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for name, data in files.items():
            (partial / name).write_bytes(data)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(partial, folder)
        return ready

    def _choose(self, stores: Stores) -> tuple[Encoder, ChosenEncoder]:
        """The first start of an installation: choose its encoder and record it."""
        encoder, reason = encoders.choose(self._setting)
        moment = self._clock()
        chosen = ChosenEncoder(
            encoder.name, encoder.digest, encoder.dimension, encoder.knows_words, reason, moment.isoformat()
        )
        with stores.db.write() as tx:
            installations.choose_encoder(tx, chosen, moment)
        get_logger().info("encoder chosen", encoder=chosen.name, reason=reason)
        return encoder, chosen

    def _load(self, chosen: ChosenEncoder) -> Encoder:
        encoder = encoders.load(chosen.name)
        if encoder.digest != chosen.digest:
            raise EncoderUnavailable(
                name=chosen.name,
                reason="its weights are not those that this installation was made with. Put the former file back, or "
                f"run `closedloop encoder use {chosen.name}` to retrain with the new ones.",
            )
        return encoder

    # The last known good

    def _remember(self, snapshot: Snapshot) -> None:
        former = self._recall()
        state = {
            "encoder": asdict(snapshot.chosen),
            "projects": {
                id_: {
                    "manifest": served.project.model_dump(mode="json"),
                    # Where nothing could be loaded, what was good before stays noted: it may be loadable again.
                    "release": served.release
                    or (former["projects"].get(id_, {}).get("release") if id_ in snapshot.problems else None),
                }
                for id_, served in snapshot.projects.items()
            },
        }
        partial = self._folder / "state.partial"
        partial.write_text(json.dumps(state), encoding="utf-8")
        os.replace(partial, self._folder / "state.json")

    def _recall(self) -> dict[str, Any]:
        """What was served last: `encoder` (None if nothing was), `projects` by id."""
        try:
            state = json.loads((self._folder / "state.json").read_text(encoding="utf-8"))
            return {"encoder": state["encoder"], "projects": dict(state["projects"])}
        except (OSError, ValueError, KeyError, TypeError):
            return {"encoder": None, "projects": {}}

    def _last_known(self, project: Project, encoder: Encoder, chosen: ChosenEncoder) -> Served:
        """The release that last answered for a project, if it still can; else nobody."""
        state = self._recall()
        release = state["projects"].get(project.id, {}).get("release")
        if not state["encoder"] or state["encoder"]["digest"] != chosen.digest or not release:
            return Served(project)
        try:
            known = None if release.startswith("zero-shot") else release
            return self._serve(project, known, None, encoder, chosen)
        except Exception as error:
            get_logger().error("last known release not served", project=project.id, reason=str(error))
            return Served(project)

    def _fall_back(self) -> None:
        """With the records away and nothing loaded yet, serve what was served last."""
        state = self._recall()
        if self._snapshot is not None or not state["encoder"]:
            return
        try:
            chosen = ChosenEncoder(**state["encoder"])
            encoder = self._load(chosen)
            every = [Project.model_validate(entry["manifest"]) for entry in state["projects"].values()]
        except Exception as error:
            get_logger().error("last known releases not served", reason=str(error))
            return
        served = {project.id: self._last_known(project, encoder, chosen) for project in every}
        self._snapshot = Snapshot(encoder, chosen, served)
        get_logger().warning("serving the last known releases", releases={i: s.release for i, s in served.items()})
