"""Commands about accounts: who may sign in to the pages, and as what."""

import sys
from typing import Annotated

import typer

from closedloop import accounts
from closedloop.cli.said import AsJson, faults, now, opened, say
from closedloop.errors import BadRequest

app = typer.Typer(no_args_is_help=True, help="Accounts of the pages. Passwords are asked for, or read from a pipe.")

Project = Annotated[str, typer.Option(help="The project in which the role counts.")]
Role = Annotated[str, typer.Option(help="owner or viewer.")]


def _password() -> str:
    if sys.stdin.isatty():
        return typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    return sys.stdin.readline().rstrip("\n")


@app.command("add")
def add(email: str, project: Project = "", role: Role = accounts.VIEWER, as_json: AsJson = False) -> None:
    """Make an account: of one project in a role, or without --project the owner of everything."""
    from closedloop import project as projects

    with faults(as_json):
        _, stores = opened()
        if role not in accounts.ROLES:
            raise BadRequest(reason=f"a role is {' or '.join(accounts.ROLES)}")
        of = projects.get(stores, project).id if project else None
        account = accounts.make(stores, email, _password(), now(), everywhere=of is None)
        if of:
            accounts.set_role(stores, account, of, role, now())
        where = f"{role} of {of}" if of else "owner of everything"
        say(as_json, {"email": account.email, "project": of}, f"✓ {account.email} may sign in: {where}.")


@app.command("list")
def show(as_json: AsJson = False) -> None:
    """Every account and what it may do."""
    with faults(as_json):
        _, stores = opened()
        found = accounts.everyone(stores)
        rows = [{"email": one.email, "everywhere": one.everywhere, "roles": dict(one.roles)} for one in found]
        lines = [
            f"{one.email}: "
            + ("owner of everything" if one.everywhere else ", ".join(f"{r} of {p}" for p, r in one.roles.items()))
            for one in found
        ]
        say(as_json, {"accounts": rows}, "\n".join(lines) or "No account yet.")


@app.command("password")
def password(email: str, as_json: AsJson = False) -> None:
    """Give an account a new password; it is signed out everywhere."""
    with faults(as_json):
        _, stores = opened()
        account = accounts.find(stores, email)
        accounts.set_password(stores, account, _password())
        say(as_json, {"email": account.email}, f"✓ {account.email} has a new password.")


@app.command("token")
def token(email: str, name: str, as_json: AsJson = False) -> None:
    """Make a token with which a script may do what an account may; it is shown this once."""
    with faults(as_json):
        _, stores = opened()
        made = accounts.make_token(stores, accounts.find(stores, email), name, now())
        say(as_json, {"token": made}, made)


@app.command("remove")
def remove(email: str, as_json: AsJson = False) -> None:
    """Remove an account, its sessions and its tokens."""
    with faults(as_json):
        _, stores = opened()
        account = accounts.find(stores, email)
        accounts.remove(stores, account)
        say(as_json, {"email": account.email}, f"✓ {account.email} is gone.")
