"""`python -m sampler`: the clock of the loop. Each job is a function of a moment; SQL says when it last ran."""

import contextlib
import datetime as dt
from typing import Any

from prometheus_client import CollectorRegistry, Counter

from closedloop import gauges, health, leases, outbox, rates, sampling, schedule, selections, survey, sync, tracking
from closedloop import project as projects
from closedloop.errors import InferenceAway, LabelStudioAway, LeaseTaken
from closedloop.inference import Inference
from closedloop.label_studio import LabelStudio
from closedloop.logs import configure_logs, get_logger
from closedloop.project import CLASSIFICATION, SELECTION, Project
from closedloop.settings import Settings, load_settings
from closedloop.storage import Stores, asking, installation, open_stores
from closedloop.storage.objects import LABEL_STUDIO, PRODUCTION, TRACKING

REPAIR_EVERY = dt.timedelta(minutes=5)  # so often it looks whether Label Studio still has its projects and storages


def now() -> dt.datetime:
    """This moment, in UTC."""
    return dt.datetime.now(dt.UTC)


class Sampler:
    """The sampler's jobs on one installation."""

    def __init__(self, settings: Settings, registry: CollectorRegistry) -> None:
        self.stores: Stores = open_stores(settings)
        self.inference = Inference(settings.inference_url, budget=30)
        self.label_studio = LabelStudio.from_settings(settings)
        self.provisioned = False
        self.repaired_at: dt.datetime | None = None
        self.delivered = Counter("closedloop_outbox_done_total", "Outbox entries done.", registry=registry)
        self.collected = Counter("closedloop_annotations_total", "Annotations collected.", registry=registry)
        registry.register(gauges.Loop(self.stores, now))
        registry.register(gauges.Disk(settings.home))

    def work_outbox(self) -> None:
        """Do what transactions promised."""
        self.delivered.inc(outbox.work(self.stores, self.inference, now))

    def draw_samples(self) -> None:
        """Draw the random sample of each project whose hour has come."""
        for project in projects.all_projects(self.stores):
            if project.kind != CLASSIFICATION:
                continue

            def last(tx: Any, id_: str = project.id) -> dt.datetime | None:
                return asking.last_window_end(tx, id_) or installation.project_since(tx, id_)

            with schedule.turn(self.stores, f"sample:{project.id}", project.random_sample.cron, now, last) as mine:
                if mine:
                    drawn = sampling.draw_sample(self.stores, project, now())
                    get_logger().info("sample drawn", project=project.id, frame=drawn.frame, drawn=drawn.drawn)

    def ask_about_sets(self) -> None:
        """Ask about the sets of which a project's ranker is least sure, and have old suggestions renewed."""
        for project in projects.all_projects(self.stores):
            if project.kind == SELECTION:
                with contextlib.suppress(InferenceAway):  # then what it would say can wait
                    selections.renew(self.stores, self.inference, project, now())
                if asked := selections.ask_least_sure(self.stores, project, now()):
                    get_logger().info("least sure sets asked about", project=project.id, sets=asked)

    def sync(self) -> None:
        """Do a round with Label Studio for each project that is due; for all at the start."""
        if not self._due_for_sync():
            self.provisioned = self.provisioned or not projects.all_projects(self.stores)  # nothing to set up
            return
        with (
            contextlib.suppress(LeaseTaken),
            leases.held(self.stores, "job:sync", now),
        ):  # else another sampler is at it
            if due := self._due_for_sync():  # and may have done it since
                self._sync(due)

    def _due_for_sync(self) -> list[Project]:
        due = []
        for project in projects.all_projects(self.stores):
            with self.stores.db.read() as tx:
                last = installation.last_run(tx, f"sync:{project.id}")
            if not self.provisioned or schedule.is_due(project.sync.cron, last, now()):
                due.append(project)
        return due

    def _sync(self, due: list[Project]) -> None:
        repair = self.repaired_at is None or now() - self.repaired_at > REPAIR_EVERY
        done = sync.run(self.stores, self.label_studio, now, due, repair)
        if repair and len(due) == len(projects.all_projects(self.stores)):
            self.repaired_at = now()
        if done.faults:
            self.repaired_at = None  # something may be missing: look at the next round
        self.provisioned = True
        self.collected.inc(done.answers_collected + done.answers_reconciled)
        with self.stores.db.write() as tx:
            for project in due:
                installation.note_run(tx, f"sync:{project.id}", now())

    def survey(self) -> None:
        """Count for the dashboards what has become old."""
        rates.forget(self.stores, now())
        for project in projects.all_projects(self.stores):
            if survey.is_due(self.stores, project.id, now()):
                survey.take(self.stores, project, now())

    def close_days(self) -> None:
        """Write the tracking files of days that are over, and forget who did what nobody does any more."""
        leases.forget(self.stores, now())
        for project in projects.all_projects(self.stores):
            tracking.close_days(self.stores, project, now())

    def check_provisioned(self) -> None:
        """Raise unless Label Studio was set up since this process started."""
        self.label_studio.check()
        if not self.provisioned:
            raise LabelStudioAway(url=self.label_studio.url, reason="its projects are still being set up")


def main() -> None:
    """Run the jobs until the process is told to stop."""
    settings = load_settings()
    configure_logs("sampler", settings.closedloop_log_level)
    registry = CollectorRegistry()
    sampler = Sampler(settings, registry)
    checks = {
        "database": sampler.stores.db.check,
        "store": lambda: sampler.stores.objects.check(PRODUCTION, LABEL_STUDIO, TRACKING),
        "label_studio": sampler.check_provisioned,
    }
    ready = health.Readiness(checks)
    registry.register(gauges.Ready(ready))
    health.serve(settings.closedloop_bind, settings.closedloop_sampler_port, registry, ready)
    often = {sampler.work_outbox: 1, sampler.draw_samples: 1, sampler.sync: 1}
    schedule.run_jobs({**often, sampler.ask_about_sets: 5, sampler.survey: 5, sampler.close_days: 600}, now)


if __name__ == "__main__":
    main()
