"""`python -m trainer`: trains a project when its schedule says so and enough is new."""

import datetime as dt
import itertools

from prometheus_client import CollectorRegistry, Counter, Gauge

from closedloop import datasets, gauges, health, schedule
from closedloop import project as projects
from closedloop.errors import DatabaseAway, LeaseLost, LeaseTaken, LiveChanged, PictureRemoved, TooFewAnswers
from closedloop.logs import configure_logs, get_logger
from closedloop.settings import Settings, load_settings
from closedloop.storage import open_stores
from closedloop.storage.objects import MODELS, PRODUCTION

FAILED, RELEASED, REFUSED = "failed", "released", "refused"  # outcomes of a training run


def now() -> dt.datetime:
    """This moment, in UTC."""
    return dt.datetime.now(dt.UTC)


class Trainer:
    """The trainer's job on one installation."""

    def __init__(self, settings: Settings, registry: CollectorRegistry) -> None:
        self.stores = open_stores(settings)
        self.runs = Counter(
            "closedloop_training_runs_total", "Training runs.", ["project", "head", "outcome"], registry=registry
        )
        self.new = Gauge(
            "closedloop_new_answers", "Answers that no release knows.", ["project", "head"], registry=registry
        )

    def train(self) -> None:
        """Train each project that is due and has enough new answers."""
        for project in projects.all_projects(self.stores):
            for head, outcome in itertools.product(project.heads, (FAILED, RELEASED, REFUSED)):
                self.runs.labels(project.id, head, outcome)  # 0, or Prometheus would not see the first as new
            with schedule.turn(self.stores, f"train:{project.id}", project.train.cron, now) as mine:
                if mine:
                    for head in project.heads:
                        self._train_if_enough(project, head)

    def _train_if_enough(self, project: projects.Project, head: str) -> None:
        try:
            new = datasets.count_new(self.stores, project, head)
            self.new.labels(project.id, head).set(new)
            if new >= project.train.at_least_new:
                self._train(project, head)
        except DatabaseAway:
            raise
        except Exception:  # one head's fault is no other's
            get_logger().exception("training failed", project=project.id, head=head)
            self.runs.labels(project.id, head, FAILED).inc()

    def _train(self, project: projects.Project, head: str) -> None:
        # torch is loaded with the first training, not with the process: the start of the machine is busy enough.
        from closedloop import training

        try:
            outcome = training.train(self.stores, project, now, head=head)
        except (LeaseTaken, LiveChanged, PictureRemoved, TooFewAnswers) as error:
            get_logger().info("not trained", project=project.id, head=head, reason=str(error))
            return
        except LeaseLost as error:  # it was paused, and another trainer has done it
            get_logger().warning("lease lost", project=project.id, head=head, reason=str(error))
            return
        self.runs.labels(project.id, head, RELEASED if outcome.passed else REFUSED).inc()
        get_logger().info("trained", project=project.id, head=head, release=outcome.release, reason=outcome.reason)


def main() -> None:
    """Look every second until the process is told to stop."""
    settings = load_settings()
    configure_logs("trainer", settings.closedloop_log_level)
    registry = CollectorRegistry()
    trainer = Trainer(settings, registry)
    checks = {"database": trainer.stores.db.check, "store": lambda: trainer.stores.objects.check(PRODUCTION, MODELS)}
    ready = health.Readiness(checks)
    registry.register(gauges.Ready(ready))
    health.serve(settings.closedloop_bind, settings.closedloop_trainer_port, registry, ready)
    schedule.run_jobs({trainer.train: 1}, now)


if __name__ == "__main__":
    main()
