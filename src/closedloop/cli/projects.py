"""Commands about projects."""

from pathlib import Path

import typer

from closedloop.cli.said import AsJson, faults, now, opened, say
from closedloop.errors import ClosedloopError
from closedloop.project import Project

app = typer.Typer(no_args_is_help=True, help="Projects.")


@app.command("add")
def project_add(file: Path, as_json: AsJson = False) -> None:
    """Check a manifest and make (or change) its project, with its Label Studio projects."""
    from closedloop import project, sync
    from closedloop.label_studio import LabelStudio

    with faults(as_json):
        settings, stores = opened()
        added = project.add_file(stores, file, now())
        numbers: dict[str, int] = {}
        later = ""
        try:
            studio = LabelStudio.from_settings(settings)
            numbers = {queue: sync.provision_alone(stores, studio, added, queue, now) for queue in added.queues}
        except ClosedloopError as error:
            later = f" Its Label Studio projects follow at the next sync ({error})"
        text = f"✓ {added.id}: {_what(added)}, {len(added.queues)} queues.{later}"
        say(as_json, {"project": added.id, "label_studio_projects": numbers}, text)


@app.command("list")
def project_list(as_json: AsJson = False) -> None:
    """The projects of this installation."""
    from closedloop import project

    with faults(as_json):
        _, stores = opened()
        found = project.all_projects(stores)
        text = "\n".join(f"{p.id}: {p.title} ({', '.join(p.classes) or p.kind})" for p in found) or "No project yet."
        say(as_json, {"projects": [p.model_dump(mode="json") for p in found]}, text)


def _what(project: Project) -> str:
    return f"{len(project.classes)} classes" if project.classes else f"a {project.kind}"
