"""Keeps what is served up with the records: a release goes live, is rolled back, a project comes, the encoder changes.

With storage and database away, what was served last is served.
"""

import datetime as dt
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from closedloop import installations
from closedloop import project as projects
from closedloop.errors import StoreAway
from closedloop.installations import ChosenEncoder
from closedloop.logs import get_logger
from closedloop.models import artefact, zero_shot
from closedloop.models.converted import Choice, Converted
from closedloop.models.encoder import Encoder
from closedloop.project import CLASSIFIER, Project
from closedloop.storage import Stores, registry
from inference_api.last_known import LastKnown
from inference_api.serving import Served, Serving, Snapshot
from inference_api.watching import Watcher


class Follower(Watcher):
    """Swaps the snapshot of `serving` where the records differ from it."""

    def __init__(
        self,
        serving: Serving,
        stores: Callable[[], Stores],
        converted: Converted,
        folder: Path,
        clock: Callable[[], dt.datetime],
    ) -> None:
        super().__init__("releases", stores)
        self._serving = serving
        self._converted = converted
        self._last = LastKnown(folder)
        self._clock = clock
        self._unsaved: Snapshot | None = None  # served, but not yet kept on disk

    def looked(self, why: str | None) -> None:
        """Say whether the records are away; with nothing loaded yet, serve what was served last."""
        super().looked(why)
        self._serving.away = why
        if why and self._serving.current is None:
            self._fall_back()

    def look(self, stores: Stores) -> None:
        """Compare the records with what is served, and swap if they differ."""
        stores.db.check()
        chosen = installations.chosen_encoder(stores)
        now = self._serving.current
        if chosen is None:
            encoder, backend, chosen = self._choose(stores)
        elif now is not None and now.chosen.digest == chosen.digest:
            encoder, backend = now.encoder, now.backend
        else:
            encoder, backend = self._converted.open(chosen.name, chosen.digest)
        with stores.db.read() as tx:
            live = {(row["project_id"], row["head"]): row["id"] for row in registry.live_releases(tx)}
        known = now.projects if now and now.chosen.digest == chosen.digest else {}
        served, problems = {}, {}
        for project in projects.all_projects(stores):
            heads = served[project.id] = {}
            for head in project.heads:
                former = known.get(project.id, {}).get(head)
                try:
                    heads[head] = self._serve(project, head, live.get((project.id, head)), former, encoder, chosen)
                except Exception as error:
                    # A release that cannot be used never serves: who answered until now goes on, over a restart too.
                    problems[project.id, head] = str(error)
                    if not now or now.problems.get((project.id, head)) != str(error):
                        get_logger().error("release not served", project=project.id, head=head, reason=str(error))
                    heads[head] = former or self._served_last(project, head, encoder, chosen)
        if now is None or (now.chosen, now.projects, now.problems) != (chosen, served, problems):
            self._serving.current = self._unsaved = Snapshot(encoder, chosen, backend, served, problems)
            get_logger().info("serving", releases=_named(self._unsaved), encoder=chosen.name, backend=backend.backend)
        if self._unsaved:
            self._last.remember(self._unsaved)  # a full disk is said, and tried again at the next look
            self._unsaved = None

    def _serve(
        self,
        project: Project,
        head: str,
        release: str | None,
        former: Served | None,
        encoder: Encoder,
        chosen: ChosenEncoder,
    ) -> Served:
        if release is None and head == CLASSIFIER and encoder.knows_words:
            name = zero_shot.release_name(encoder)
            if former and former.release == name and former.project == project:
                return former
            return Served(project, name, project.classes, zero_shot.head(encoder, project))
        if release is None:
            return Served(project)
        if former and former.release == release:
            return former if former.project == project else replace(former, project=project)
        ready = self._read(project, head, release, encoder, chosen)
        return Served(project, release, ready.classes, ready.head)

    def _read(
        self, project: Project, head: str, release: str, encoder: Encoder, chosen: ChosenEncoder
    ) -> artefact.Artefact:
        """A checked release, from disk or S3. Raises BadArtefact or StoreAway."""

        def check(files: dict[str, bytes]) -> artefact.Artefact:
            return artefact.unpack(files, project, head, release, chosen.digest, encoder.inputs[head])

        def fetch(name: str) -> bytes:
            if self._stores is None:
                raise StoreAway
            return self._stores.objects.get(f"{artefact.place(project.id, head, release)}/{name}")

        return self._last.read_release(project.id, head, release, check, fetch)

    def _choose(self, stores: Stores) -> tuple[Encoder, Choice, ChosenEncoder]:
        """The first start of an installation: choose its encoder and record it."""
        encoder, backend, reason = self._converted.choose(self._serving.setting)
        moment = self._clock()
        chosen = ChosenEncoder(
            encoder.name, encoder.digest, encoder.dimension, encoder.knows_words, reason, moment.isoformat()
        )
        with stores.db.write() as tx:
            installations.choose_encoder(tx, chosen, moment)
        get_logger().info("encoder chosen", encoder=chosen.name, reason=reason)
        return encoder, backend, chosen

    def _served_last(self, project: Project, head: str, encoder: Encoder, chosen: ChosenEncoder) -> Served:
        """The release that last answered for a head, if it still can; else nobody."""
        release, last = self._last.release_of(project.id, head), self._last.encoder
        if not last or last.digest != chosen.digest or not release:
            return Served(project)
        try:
            return self._serve(project, head, None if zero_shot.is_release(release) else release, None, encoder, chosen)
        except Exception as error:
            get_logger().error("last known release not served", project=project.id, head=head, reason=str(error))
            return Served(project)

    def _fall_back(self) -> None:
        """With the records away and nothing loaded yet, serve what was served last."""
        try:
            chosen = self._last.encoder
            if chosen is None:
                return
            encoder, backend = self._converted.open(chosen.name, chosen.digest)
            served = {
                project.id: {head: self._served_last(project, head, encoder, chosen) for head in project.heads}
                for project in self._last.projects()
            }
        except Exception as error:
            get_logger().error("last known releases not served", reason=str(error))
            return
        self._serving.current = Snapshot(encoder, chosen, backend, served)
        get_logger().warning("serving the last known releases", releases=_named(self._serving.current))


def _named(snapshot: Snapshot) -> dict[str, str | None]:
    """For the log."""
    return {f"{id_}/{head}": release for (id_, head), release in snapshot.releases.items()}
