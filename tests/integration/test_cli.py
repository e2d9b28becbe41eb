"""The command line about accounts, as an owner types it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from closedloop import accounts, first_start
from closedloop.cli import app
from closedloop.project import add as add_project
from closedloop.project import parse_manifest
from closedloop.settings import Settings
from closedloop.storage import open_stores
from tests.conftest import START

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A command with `--json`, on an installation with one project and one owner; `typed` goes through a pipe."""
    monkeypatch.chdir(tmp_path)
    env = {
        "CLOSEDLOOP_HOME": str(tmp_path),
        "S3_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "CLOSEDLOOP_OWNER_PASSWORD": "a long test password",
        "CLOSEDLOOP_DEFAULT_PROJECT": "none",
    }
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    settings = Settings()  # type: ignore[call-arg]
    stores = open_stores(settings)
    first_start.prepare(stores, settings, START)
    add_project(stores, parse_manifest("{id: pets, title: Pets, kind: classification, classes: [cat, dog]}"), START)

    def command(*words: str, typed: str = "") -> dict[str, Any]:
        done = CliRunner().invoke(app, [*words, "--json"], input=typed)
        said = json.loads(done.stdout)
        assert said["ok"] == (done.exit_code == 0)
        return said

    yield command
    stores.db.close()


def test_accounts_are_made_listed_changed_and_removed(run: Run) -> None:
    assert run("account", "list")["accounts"][0]["everywhere"]
    made = run("account", "add", "Ann@example.org", "--project", "pets", typed="correct horse battery\n")
    assert made["email"] == "ann@example.org"
    (ann,) = [one for one in run("account", "list")["accounts"] if not one["everywhere"]]
    assert ann["roles"] == {"pets": "viewer"}
    boss = run("account", "add", "boss@example.org", typed="correct horse battery\n")
    assert boss["project"] is None
    assert run("account", "password", "ann@example.org", typed="another long password\n")["ok"]
    stores = open_stores(Settings())  # type: ignore[call-arg]
    assert accounts.sign_in(stores, "ann@example.org", "another long password", START)
    token = run("account", "token", "ann@example.org", "script")["token"]
    assert accounts.by_token(stores, token).email == "ann@example.org"  # type: ignore[union-attr]
    assert run("account", "remove", "ann@example.org")["ok"]
    assert accounts.by_token(stores, token) is None
    stores.db.close()


@pytest.mark.parametrize(
    ("words", "typed", "code"),
    [
        (("account", "add", "ann", "--project", "pets"), "correct horse battery\n", "unusable_email"),
        (("account", "add", "ann@example.org"), "short\n", "weak_password"),
        (("account", "add", "ann@example.org"), "", "weak_password"),
        (("account", "add", "ann@example.org", "--project", "birds"), "correct horse battery\n", "unknown_project"),
        (("account", "add", "ann@example.org", "--role", "king"), "correct horse battery\n", "bad_request"),
        (("account", "add", "owner@closedloop.local"), "correct horse battery\n", "account_exists"),
        (("account", "password", "nobody@example.org"), "correct horse battery\n", "no_such_account"),
        (("account", "remove", "nobody@example.org"), "", "no_such_account"),
        (("account", "token", "nobody@example.org", "x"), "", "no_such_account"),
    ],
)
def test_what_cannot_be_done_is_said_and_changes_nothing(
    run: Run, words: tuple[str, ...], typed: str, code: str
) -> None:
    before = run("account", "list")
    assert run(*words, typed=typed)["code"] == code
    assert run("account", "list") == before
