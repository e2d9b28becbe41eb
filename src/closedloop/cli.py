"""The command line. Each command parses, makes one call, prints; `--json` prints one JSON object instead."""

import datetime as dt
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from closedloop.errors import ClosedloopError
from closedloop.estimates import Estimate
from closedloop.logs import configure_logs
from closedloop.project import CLASSIFIER
from closedloop.settings import Settings, check_secrets, load_settings
from closedloop.storage import Stores, open_stores

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
project_app = typer.Typer(no_args_is_help=True, help="Projects.")
encoder_app = typer.Typer(help="The encoder of this installation.")
app.add_typer(project_app, name="project")
app.add_typer(encoder_app, name="encoder")

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
TRAINING_PATIENCE = 600.0  # s that `train` waits for the trainer, should it be at the same project
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def now() -> dt.datetime:
    """This moment, in UTC."""
    return dt.datetime.now(dt.UTC)


@contextmanager
def _faults(as_json: bool) -> Iterator[None]:
    """Say an error in one line (or one JSON object) and end with status 1."""
    try:
        yield
    except ClosedloopError as error:
        if as_json:
            out.print_json(json.dumps(error.as_json()))
        else:
            err.print(f"✗ {error.explained()}", style="red", markup=False)
        raise typer.Exit(1) from None


def _opened() -> tuple[Settings, Stores]:
    settings = load_settings()
    configure_logs("cli", "WARNING", sys.stderr)
    stores = open_stores(settings)
    stores.db.check()
    return settings, stores


def _print(as_json: bool, body: dict[str, Any], text: str) -> None:
    if as_json:
        out.print_json(json.dumps({"ok": True, **body}))
    else:
        out.print(text, markup=False)


@contextmanager
def _bar(as_json: bool, title: str) -> Iterator[Any]:
    """A progress bar on stderr; yields a function (done, of)."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=as_json) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@app.command()
def run() -> None:
    """Start every part on this machine and print the table of addresses (what `make run` calls)."""
    from closedloop.local.run import run as run_local

    with _faults(False):
        raise typer.Exit(run_local(load_settings()))


@app.command()
def migrate(as_json: AsJson = False) -> None:
    """Bring the records to the revision that this program needs."""
    with _faults(as_json):
        stores = open_stores(load_settings())
        stores.db.migrate()
        revision = stores.db.revision()[0]
        _print(as_json, {"revision": revision}, f"✓ The records are at revision {revision}.")


@app.command()
def setup(as_json: AsJson = False) -> None:
    """Bring the records up to date and make the default project, if there is none yet. Safe to repeat."""
    from closedloop import project

    with _faults(as_json):
        settings = load_settings()
        stores = open_stores(settings)
        stores.db.migrate()
        made = project.make_first(stores, settings.closedloop_default_project, now())
        text = f"✓ The records are ready; {f'made the project {made}' if made else 'no project was made'}."
        _print(as_json, {"revision": stores.db.revision()[0], "project": made}, text)


@app.command("check-secrets")
def check_the_secrets(as_json: AsJson = False) -> None:
    """Name the server's secrets that are missing, too short or known to everyone."""
    with _faults(as_json):
        check_secrets(load_settings())
        _print(as_json, {}, "✓ Every secret will do.")


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Look at every part and say what is wrong and what to do."""
    from closedloop.doctor import examine

    with _faults(as_json):
        findings = examine(load_settings(), now())
    well = all(finding.ok for finding in findings)
    if as_json:
        out.print_json(json.dumps({"ok": well, "findings": [finding.as_json() for finding in findings]}))
    else:
        for finding in findings:
            out.print(f"{'✓' if finding.ok else '✗'} {finding.part}: {finding.seen}", markup=False)
    raise typer.Exit(0 if well else 1)


@project_app.command("add")
def project_add(file: Path, as_json: AsJson = False) -> None:
    """Check a manifest and make (or change) its project, with its Label Studio projects."""
    from closedloop import project, sync
    from closedloop.label_studio import LabelStudio

    with _faults(as_json):
        settings, stores = _opened()
        added = project.add_file(stores, file, now())
        numbers: dict[str, int] = {}
        later = ""
        try:
            studio = LabelStudio.from_settings(settings)
            numbers = {queue: sync.provision_alone(stores, studio, added, queue, now) for queue in added.queues}
        except ClosedloopError as error:
            later = f" Its Label Studio projects follow at the next sync ({error})"
        text = f"✓ {added.id}: {len(added.classes)} classes, {len(added.queues)} queues.{later}"
        _print(as_json, {"project": added.id, "label_studio_projects": numbers}, text)


@project_app.command("list")
def project_list(as_json: AsJson = False) -> None:
    """The projects of this installation."""
    from closedloop import project

    with _faults(as_json):
        _, stores = _opened()
        found = project.all_projects(stores)
        text = "\n".join(f"{p.id}: {p.title} ({', '.join(p.classes)})" for p in found) or "No project yet."
        _print(as_json, {"projects": [p.model_dump(mode="json") for p in found]}, text)


@app.command("import")
def import_folder(project: str, folder: Path, as_json: AsJson = False) -> None:
    """Import a folder with one sub-folder per class: pictures with answers. Can be stopped and run again."""
    from closedloop import importing
    from closedloop import project as projects

    with _faults(as_json), _bar(as_json, "importing") as progress:
        _, stores = _opened()
        done = importing.run(stores, projects.get(stores, project), folder, now, progress)
    skipped = "".join(f"\n  skipped {entry}" for entry in done.skipped)
    others = f"\n  no class: {', '.join(done.not_classes)}" if done.not_classes else ""
    body = {
        "project": project,
        "added": done.added,
        "known": done.known,
        "skipped": done.skipped,
        "not_classes": done.not_classes,
    }
    _print(as_json, body, f"✓ {done.added} pictures added, {done.known} were there already.{skipped}{others}")


@app.command()
def sample(project: str, as_json: AsJson = False) -> None:
    """Draw the random sample of the pictures that came since the last one, now."""
    from closedloop import project as projects
    from closedloop import sampling

    with _faults(as_json):
        _, stores = _opened()
        drawn = sampling.draw_sample(stores, projects.get(stores, project), now())
        body = {"project": project, "frame": drawn.frame, "drawn": drawn.drawn, "probability": drawn.probability}
        _print(
            as_json,
            body,
            f"✓ {drawn.drawn} of {drawn.frame} pictures drawn, each with probability {drawn.probability:.3g}.",
        )


@app.command()
def sync(as_json: AsJson = False) -> None:
    """Deliver tasks, sync Label Studio and collect annotations, now."""
    from closedloop import outbox
    from closedloop import sync as rounds
    from closedloop.inference import Inference
    from closedloop.label_studio import LabelStudio

    with _faults(as_json):
        settings, stores = _opened()
        delivered = 0
        while worked := outbox.work(stores, Inference(settings.inference_url, 30), now):
            delivered += worked
        done = rounds.run(stores, LabelStudio.from_settings(settings), now, patience=rounds.PATIENCE)
        body = {
            "outbox": delivered,
            "tasks_read": done.tasks_read,
            "answers": done.answers_collected + done.answers_reconciled,
            "quarantined": done.quarantined,
            "faults": done.faults,
        }
        lines = [f"✓ {body['outbox']} delivered, {done.tasks_read} tasks read, {body['answers']} answers collected."]
        lines += [f"  quarantined {entry}" for entry in done.quarantined] + [f"  {fault}" for fault in done.faults]
        _print(as_json, body, "\n".join(lines))


@app.command()
def train(
    project: str, head: Annotated[str, typer.Option(help="Which head.")] = CLASSIFIER, as_json: AsJson = False
) -> None:
    """Train a candidate on every settled answer, judge it, and release it if it passes the gate."""
    from closedloop import project as projects
    from closedloop import training
    from closedloop.errors import BadRequest

    with _faults(as_json), _bar(as_json, "embedding") as progress:
        _, stores = _opened()
        if head != CLASSIFIER:
            raise BadRequest(reason=f'a project of this kind has one head, "{CLASSIFIER}"')
        made = training.train(stores, projects.get(stores, project), now, progress, patience=TRAINING_PATIENCE)
    metrics = made.card["metrics"]
    low, high = metrics["accuracy_95"]
    text = (
        f"{'✓ live' if made.passed else '✗ refused'}: {made.release}, {made.reason}\n"
        f"  accuracy {metrics['accuracy']:.3f} (95 %: {low:.3f} to {high:.3f}) "
        f"on {metrics['answers']} answers, cross-fitted"
    )
    body = {"release": made.release, "released": made.passed, "reason": made.reason, "metrics": metrics}
    _print(as_json, body, text)


@app.command()
def releases(project: str, as_json: AsJson = False) -> None:
    """The releases of a project, oldest first."""
    from closedloop import project as projects
    from closedloop import releases as registry

    with _faults(as_json):
        _, stores = _opened()
        rows = registry.listing(stores, projects.get(stores, project).id)
        lines = [
            f"{row['release']}  {row['state']:<8} {row['accuracy']:.3f} "
            f"({row['accuracy_95'][0]:.3f}-{row['accuracy_95'][1]:.3f}) of {row['answers']} answers  {row['reason']}"
            for row in rows
        ]
        _print(as_json, {"project": project, "releases": rows}, "\n".join(lines) or "No release yet.")


@app.command()
def accuracy(
    project: str, days: Annotated[int, typer.Option(help="How far back.", min=1)] = 30, as_json: AsJson = False
) -> None:
    """How often the model was right on what visitors sent, by release, from what annotators said."""
    from closedloop import production
    from closedloop import project as projects

    with _faults(as_json):
        _, stores = _opened()
        record = production.record(stores, projects.get(stores, project), now() - dt.timedelta(days=days))
        by_release = {"all": record.standing()} | {
            release: record.standing(lambda cell, release=release: cell.release == release)
            for release in sorted({cell.release for cell in record.pictures})
        }
        lines = [f"{project}, the last {days} days. {production.METHOD}"]
        for name, standing in by_release.items():
            lines.append(f"{name}: {standing.pictures} pictures answered")
            lines.append(f"  random sample  {_estimate(standing.sample)}")
            lines.append(f"  weighted       {_estimate(standing.weighted)}")
        body = {"project": project, "days": days, "method": production.METHOD}
        standings = {name: asdict(standing) for name, standing in by_release.items()}
        _print(as_json, {**body, "accuracy": standings}, "\n".join(lines))


def _estimate(of: Estimate | None) -> str:
    if of is None:
        return "not known yet: annotators have answered too little"
    return f"{of.share:.3f} ({of.low:.3f}-{of.high:.3f}), {of.answers} answers"


@app.command()
def rollback(
    project: str, head: Annotated[str, typer.Option(help="Which head.")] = CLASSIFIER, as_json: AsJson = False
) -> None:
    """Put the release that was live before back."""
    from closedloop import project as projects
    from closedloop import releases as registry

    with _faults(as_json):
        _, stores = _opened()
        gone, back = registry.rollback(stores, projects.get(stores, project).id, head, now())
        _print(as_json, {"retired": gone, "live": back}, f"✓ {back} is live again; {gone} is retired.")


@encoder_app.callback(invoke_without_command=True)
def encoder(context: typer.Context, as_json: AsJson = False) -> None:
    """Show the encoder of this installation."""
    if context.invoked_subcommand:
        return
    from closedloop import installations

    with _faults(as_json):
        _, stores = _opened()
        chosen = installations.encoder(stores)
        _print(as_json, {"encoder": chosen.as_json()}, f"{chosen.name} ({chosen.digest[:12]}): {chosen.reason}")


@encoder_app.command("use")
def encoder_use(name: str, as_json: AsJson = False) -> None:
    """Re-embed, retrain and gate with another encoder; switch only if no project gets worse."""
    from closedloop import encoder_switch

    with _faults(as_json), _bar(as_json, "embedding") as progress:
        _, stores = _opened()
        chosen = encoder_switch.use(stores, name, now, progress)
    _print(as_json, {"encoder": chosen.as_json()}, f"✓ {chosen.name} is used from now on.")


if __name__ == "__main__":
    app()
