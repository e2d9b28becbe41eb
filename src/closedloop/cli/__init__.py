"""The command line. Each command parses, makes one call, prints; `--json` prints one JSON object instead."""

import typer

from closedloop.cli import accounts, encoder, importing, loop, machine, projects, releases

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
app.add_typer(machine.app)
app.add_typer(projects.app, name="project")
app.add_typer(importing.app)
app.add_typer(loop.app)
app.add_typer(releases.app)
app.add_typer(encoder.app, name="encoder")
app.add_typer(accounts.app, name="account")
