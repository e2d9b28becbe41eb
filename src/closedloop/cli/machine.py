"""Commands about the installation: start it, set it up, look at it."""

import json

import typer

from closedloop.cli.said import AsJson, faults, now, out, say
from closedloop.settings import check_secrets, load_settings
from closedloop.storage import open_stores

app = typer.Typer()


@app.command()
def run() -> None:
    """Start every part on this machine and print the table of addresses (what `make run` calls)."""
    from closedloop.local.run import run as run_local

    with faults(False):
        raise typer.Exit(run_local(load_settings()))


@app.command()
def migrate(as_json: AsJson = False) -> None:
    """Bring the records to the revision that this program needs."""
    with faults(as_json):
        stores = open_stores(load_settings())
        stores.db.migrate()
        revision = stores.db.revision()[0]
        say(as_json, {"revision": revision}, f"✓ The records are at revision {revision}.")


@app.command()
def setup(as_json: AsJson = False) -> None:
    """Bring the records up to date; make the first owner and the default project, if there are none yet.

    Safe to repeat.
    """
    from closedloop import first_start

    with faults(as_json):
        settings = load_settings()
        stores = open_stores(settings)
        made = first_start.prepare(stores, settings, now())
        text = f"✓ The records are ready; {f'made the project {made}' if made else 'no project was made'}."
        say(as_json, {"revision": stores.db.revision()[0], "project": made}, text)


@app.command("check-secrets")
def check_the_secrets(as_json: AsJson = False) -> None:
    """Name the server's secrets that are missing, too short or known to everyone."""
    with faults(as_json):
        check_secrets(load_settings())
        say(as_json, {}, "✓ Every secret will do.")


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Look at every part and say what is wrong and what to do."""
    from closedloop.doctor import examine

    with faults(as_json):
        findings = examine(load_settings(), now())
    well = all(finding.ok for finding in findings)
    if as_json:
        out.print_json(json.dumps({"ok": well, "findings": [finding.as_json() for finding in findings]}))
    else:
        for finding in findings:
            out.print(f"{'✓' if finding.ok else '✗'} {finding.part}: {finding.seen}", markup=False)
    raise typer.Exit(0 if well else 1)
