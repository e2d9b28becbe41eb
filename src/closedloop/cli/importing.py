"""Commands that bring earlier work in: answered pictures, sets, picks and crops."""

from pathlib import Path
from typing import Annotated, Any

import typer

from closedloop.cli.said import AsJson, bar, faults, now, opened, say
from closedloop.errors import BadRequest

app = typer.Typer()
Words = Annotated[list[str], typer.Argument(metavar="[PROJECT] FILE", help="The project, the table.")]
Root = Annotated[Path, typer.Option(help="The folder in which the paths of the table begin.")]
Manifests = Annotated[Path | None, typer.Option(help="Instead of PROJECT: a folder of manifests (*.json) of many.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would happen and write nothing.")]
RefusedFile = Annotated[Path | None, typer.Option("--refused", help="Write every refused row with its reason here.")]


@app.command("import")
def import_folder(project: str, folder: Path, as_json: AsJson = False) -> None:
    """Import a folder with one sub-folder per class: pictures with answers. Can be stopped and run again."""
    from closedloop import importing
    from closedloop import project as projects

    with faults(as_json), bar(as_json, "importing") as progress:
        _, stores = opened()
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
    say(as_json, body, f"✓ {done.added} pictures added, {done.known} were there already.{skipped}{others}")


@app.command("import-sets")
def import_sets(
    project: str, folder: Path, dry_run: DryRun = False, refused: RefusedFile = None, as_json: AsJson = False
) -> None:
    """Import a folder with one sub-folder per set, 2 to 12 pictures in each. Can be stopped and run again."""
    from closedloop import project as projects
    from closedloop.importing import report, sets

    with faults(as_json), bar(as_json, "importing") as progress:
        _, stores = opened()
        of = projects.get(stores, project)
        done = sets.run(stores, of, folder, now, dry=dry_run, refused=refused, progress=progress)
    say(as_json, report.as_json(done), report.text(done, "set"))


@app.command("import-selections")
def import_selections(
    words: Words,
    root: Root,
    manifests: Manifests = None,
    dry_run: DryRun = False,
    refused: RefusedFile = None,
    as_json: AsJson = False,
) -> None:
    """Import which picture of a set was chosen: session_id,set_id,chosen_path,neg_paths,timestamp."""
    from closedloop.importing import selections

    _import_table(selections, "pick", words, root, manifests, dry_run, refused, as_json)


@app.command("import-crops")
def import_crops(
    words: Words,
    root: Root,
    manifests: Manifests = None,
    dry_run: DryRun = False,
    refused: RefusedFile = None,
    as_json: AsJson = False,
) -> None:
    """Import which part of a picture was kept: session_id,path,x1,y1,x2,y2,timestamp (fractions of width, height)."""
    from closedloop.importing import crops

    _import_table(crops, "crop", words, root, manifests, dry_run, refused, as_json)


def _import_table(
    room: Any,
    what: str,
    words: list[str],
    root: Path,
    folder: Path | None,
    dry: bool,
    refused: Path | None,
    as_json: bool,
) -> None:
    """What both tables have in common: `room` has COLUMNS and run."""
    from closedloop import project as projects
    from closedloop.importing import manifests, report
    from closedloop.importing.assignment import OneProject
    from closedloop.importing.paths import Root as Files
    from closedloop.importing.table import Table

    reading = None
    with faults(as_json), bar(as_json, "importing") as progress:
        if len(words) != (1 if folder else 2):
            raise BadRequest(reason="name a project and a file, or --manifests FOLDER and a file")
        _, stores = opened()
        file = Path(words[-1])
        Table.open(file, room.COLUMNS)  # before any project is made
        Files(root)
        if folder:
            reading = manifests.read(stores, folder)
            of = reading.assignment
            if not dry:
                manifests.keep(stores, reading, now())
        else:
            of = OneProject.of(stores, projects.get(stores, words[0]))
        done = room.run(stores, of, file, root, now, dry=dry, refused=refused, progress=progress)
    say(as_json, report.as_json(done, reading), report.text(done, what, reading))
