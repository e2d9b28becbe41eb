"""Commands about releases: which there are, which one answers, where each comes from."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from closedloop.cli.said import AsJson, bars, faults, now, opened, say
from closedloop.project import COMMAND_LINE

app = typer.Typer()
Head = Annotated[str | None, typer.Option(help="Which head, where a project has several: ranker or cropper.")]
FEW = 10  # names that a line of text gives; --json gives all


@app.command()
def releases(project: str, as_json: AsJson = False) -> None:
    """The releases of a project, oldest first."""
    from closedloop import project as projects
    from closedloop import releases as registry

    with faults(as_json):
        _, stores = opened()
        rows = registry.listing(stores, projects.get(stores, project).id)
        text = "\n".join(_line(row) for row in rows) or "No release yet."
        say(as_json, {"project": project, "releases": rows}, text)


def _line(row: dict[str, Any]) -> str:
    low, high = row["value_95"]
    gate = row["gate"]
    return (
        f"{row['head']}  {row['release']}  {'pinned' if row['pinned'] else row['state']:<9} "
        f"{row['measure']} {row['value']:.3f} ({low:.3f}-{high:.3f}) on {row['answers']} answers  "
        f"P(better than {gate['against']}) {gate['probability_better']:.3f}  {row['reason']}"
    )


@app.command()
def rollback(project: str, head: Head = None, as_json: AsJson = False) -> None:
    """Put the release that was live before back."""
    from closedloop import project as projects
    from closedloop import releases as registry

    with faults(as_json):
        _, stores = opened()
        of = projects.get(stores, project)
        gone, back = registry.rollback(stores, of.id, of.check_head(head), now())
        say(as_json, {"retired": gone, "live": back}, f"✓ {back} is live again; {gone} is retired.")


@app.command()
def pin(project: str, release: str, head: Head = None, as_json: AsJson = False) -> None:
    """Keep a release live, whatever candidates come, until it is unpinned; one that is not live is put back."""
    from closedloop import project as projects
    from closedloop import releases as registry

    with faults(as_json):
        _, stores = opened()
        of = projects.get(stores, project)
        gone = registry.pin(stores, of.id, of.check_head(head), release, COMMAND_LINE, now())
        retired = f"; {gone} is retired" if gone else ""
        say(as_json, {"pinned": release, "retired": gone}, f"✓ {release} is live and stays so{retired}.")


@app.command()
def unpin(project: str, head: Head = None, as_json: AsJson = False) -> None:
    """Let candidates that pass the gate take the place of the live release again."""
    from closedloop import project as projects
    from closedloop import releases as registry

    with faults(as_json):
        _, stores = opened()
        of = projects.get(stores, project)
        chosen = of.check_head(head)
        registry.unpin(stores, of.id, chosen)
        say(as_json, {"project": project, "head": chosen}, "✓ The next candidate that passes the gate goes live.")


@app.command()
def reproduce(release: str, as_json: AsJson = False) -> None:
    """Train a release again from its frozen dataset and compare the weights byte by byte; nothing is changed.

    RELEASE is its name (r0001-...), or PROJECT/HEAD/NAME where more than one have it. Ends with status 1 where the
    weights differ.
    """
    from closedloop import reproduction

    with faults(as_json), bars(as_json) as stages:
        _, stores = opened()
        made = reproduction.run(stores, release, now, stages)
    if made.same:
        text = f"✓ {made.release} was trained again from its dataset: the same weights, byte by byte."
    else:
        text = f"✗ {made.release} was trained again from its dataset, and its weights differ:"
        for name, by in made.differences.items():
            text += f"\n  {name}: " + ("another shape" if by is None else f"by {by:.3g} at most")
    others = ", ".join(f"{library} {now} instead of {was}" for library, (was, now) in made.made_with.items())
    say(as_json, asdict(made), text + (f"\n  made with {others}" if others else ""))
    if not made.same:
        raise typer.Exit(1)


@app.command()
def lineage(name: str, as_json: AsJson = False) -> None:
    """Where a picture, an annotation or a release comes from, and who learnt from it.

    NAME is a picture's id (32 characters 0-9 a-f), the number of an annotation in Label Studio, or a release.
    """
    from closedloop import lineage as lines

    with faults(as_json):
        _, stores = opened()
        found = lines.of(stores, name)
        say(as_json, {"lineage": found}, "\n\n".join("\n".join(_told(entry)) for entry in found))


def _told(entry: dict[str, Any]) -> list[str]:
    """An entry of a lineage in lines: its facts, then what it is linked to."""
    lines = []
    for name, value in entry.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {of}" for key, of in value.items()) or "none"
        if not isinstance(value, list):
            lines.append(f"{name}: {'–' if value is None else value}")
        elif value and isinstance(value[0], dict):
            lines.append(f"{name}:")
            lines += [f"  {'  '.join(_short(of) for of in one.values())}" for one in value]
        else:
            more = f" and {len(value) - FEW} more (--json gives all)" if len(value) > FEW else ""
            lines.append(f"{name}: {', '.join(value[:FEW]) or 'none'}{more}")
    return lines


def _short(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(" ".join(map(str, one.values())) for one in value) or "no release"
    return "–" if value is None else str(value)
