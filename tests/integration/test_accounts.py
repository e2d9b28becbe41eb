"""Accounts, sessions, tokens, invitations and limits, on SQLite and Postgres."""

import datetime as dt
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from closedloop import accounts, first_start, rates
from closedloop.accounts import OWNER, VIEWER, VISITOR
from closedloop.errors import (
    AccountExists,
    InvitationOver,
    MissingSetting,
    NoSuchAccount,
    TooManyRequests,
    UnusableEmail,
    WeakPassword,
    WrongPassword,
    WrongSignIn,
)
from closedloop.project import Project
from closedloop.rates import Limit
from closedloop.settings import Settings
from closedloop.storage import Stores, tables
from closedloop.storage.database import Database
from tests.conftest import START, Clock

PASSWORD = "correct horse battery"


@pytest.fixture
def stores(database: Database) -> Stores:
    """Records alone: no account has an object."""
    return Stores(database, None)  # type: ignore[arg-type]


@pytest.fixture
def ann(stores: Stores) -> accounts.Account:
    return accounts.make(stores, " Ann@Example.org ", PASSWORD, START)


def test_signing_in_begins_a_session_that_ends(stores: Stores, ann: accounts.Account, clock: Clock) -> None:
    assert ann.email == "ann@example.org"
    session = accounts.sign_in(stores, "ANN@example.org", PASSWORD, clock())
    assert accounts.signed_in(stores, session, clock()) == ann
    assert accounts.signed_in(stores, session + "x", clock()) is None
    clock.forward(hours=12, seconds=-1)
    assert accounts.signed_in(stores, session, clock()) == ann
    clock.forward(seconds=1)
    assert accounts.signed_in(stores, session, clock()) is None


@pytest.mark.parametrize(
    ("email", "password"),
    [
        ("ann@example.org", PASSWORD + "x"),
        ("ann@example.org", ""),
        ("ann@example.org", "x" * 10_000),
        ("bob@example.org", PASSWORD),
        ("", PASSWORD),
        ("ann@example.org\0", PASSWORD),
    ],
)
def test_a_wrong_sign_in_does_not_say_what_was_wrong(
    stores: Stores, ann: accounts.Account, email: str, password: str
) -> None:
    with pytest.raises(WrongSignIn) as error:
        accounts.sign_in(stores, email, password, START)
    assert str(error.value) == "The address or the password is wrong."


def test_signing_out_ends_the_session_and_a_new_password_all_of_them(stores: Stores, ann: accounts.Account) -> None:
    one, two, three = (accounts.sign_in(stores, ann.email, PASSWORD, START) for _ in range(3))
    accounts.sign_out(stores, one)
    assert [accounts.signed_in(stores, s, START) is not None for s in (one, two, three)] == [False, True, True]
    with pytest.raises(WrongPassword):
        accounts.change_password(stores, ann, "wrong", "a new long password")
    assert accounts.signed_in(stores, two, START)
    accounts.change_password(stores, ann, PASSWORD, "a new long password")
    assert not accounts.signed_in(stores, two, START)
    with pytest.raises(WrongSignIn):
        accounts.sign_in(stores, ann.email, PASSWORD, START)
    accounts.sign_in(stores, ann.email, "a new long password", START)


def test_nothing_that_opens_a_door_lies_in_the_records(stores: Stores, project: Project, ann: accounts.Account) -> None:
    session = accounts.sign_in(stores, ann.email, PASSWORD, START)
    token = accounts.make_token(stores, ann, "script", START)
    link = accounts.invite(stores, project.id, VIEWER, ann.email, START)
    with stores.db.read() as tx:
        kept = repr([tx.execute(sa.select(table)).all() for table in tables.metadata.sorted_tables])
    for secret in (PASSWORD, session, token, token.removeprefix("cl_"), link):
        assert secret not in kept
    assert "$argon2id$" in kept


@pytest.mark.parametrize(
    "email", ["", "ann", "ann@", "@example.org", "a b@example.org", "a@b\n", "x" * 250 + "@ex.org"]
)
def test_what_is_no_address_has_no_account(stores: Stores, email: str) -> None:
    if email == "a@b\n":
        assert accounts.make(stores, email, PASSWORD, START).email == "a@b"  # typed with a line's end
        return
    with pytest.raises(UnusableEmail):
        accounts.make(stores, email, PASSWORD, START)


@pytest.mark.parametrize("password", ["", "short", "x" * 11, "x" * 201])
def test_a_password_has_twelve_characters(stores: Stores, password: str) -> None:
    with pytest.raises(WeakPassword):
        accounts.make(stores, "ann@example.org", password, START)


def test_an_address_has_one_account(stores: Stores, ann: accounts.Account) -> None:
    with pytest.raises(AccountExists):
        accounts.make(stores, "ANN@example.org", "another password", START)
    with pytest.raises(NoSuchAccount):
        accounts.find(stores, "bob@example.org")


def test_roles_count_in_their_project_alone(stores: Stores, project: Project, ann: accounts.Account) -> None:
    assert not ann.may_see(project.id)
    for role, sees, changes in ((VIEWER, True, False), (OWNER, True, True), (None, False, False)):
        accounts.set_role(stores, ann, project.id, role, START)
        found = accounts.find(stores, ann.email)
        assert (found.may_see(project.id), found.may_change(project.id)) == (sees, changes)
        assert not found.may_see("birds")
    boss = accounts.make(stores, "boss@example.org", PASSWORD, START, everywhere=True)
    assert boss.may_change("a project that is still to come")


def test_a_token_is_worth_what_its_account_is_until_it_is_removed(stores: Stores, ann: accounts.Account) -> None:
    token = accounts.make_token(stores, ann, "script", START)
    assert token.startswith("cl_")
    assert accounts.by_token(stores, token) == ann
    assert accounts.by_token(stores, token[:-1]) is None
    (kept,) = accounts.tokens(stores, ann)
    bob = accounts.make(stores, "bob@example.org", PASSWORD, START)
    accounts.remove_token(stores, bob, kept.digest)  # not his
    assert accounts.by_token(stores, token) == ann
    accounts.remove_token(stores, ann, kept.digest)
    assert accounts.by_token(stores, token) is None
    token = accounts.make_token(stores, ann, "script", START)
    accounts.remove(stores, ann)
    assert accounts.by_token(stores, token) is None


def test_an_invitation_is_used_once_and_ends(
    stores: Stores, project: Project, ann: accounts.Account, clock: Clock
) -> None:
    link = accounts.invite(stores, project.id, VIEWER, ann.email, clock())
    bob = accounts.make(stores, "bob@example.org", PASSWORD, clock())
    accounts.join(stores, bob, link, clock())
    assert accounts.find(stores, bob.email).roles == {project.id: VIEWER}
    with pytest.raises(InvitationOver):
        accounts.join(stores, ann, link, clock())
    old = accounts.invite(stores, project.id, VISITOR, ann.email, clock())
    accounts.invitation(stores, old, clock())
    clock.forward(days=14)
    with pytest.raises(InvitationOver):
        accounts.invitation(stores, old, clock())
    taken_back = accounts.invite(stores, project.id, OWNER, ann.email, clock())
    (open_one,) = accounts.invitations(stores, project.id, clock())
    accounts.uninvite(stores, project.id, open_one.digest)
    with pytest.raises(InvitationOver):
        accounts.join(stores, ann, taken_back, clock())


def test_of_two_who_follow_one_invitation_at_once_one_joins(
    stores: Stores, project: Project, ann: accounts.Account
) -> None:
    link = accounts.invite(stores, project.id, VIEWER, ann.email, START)
    guests = [accounts.make(stores, f"guest{n}@example.org", PASSWORD, START) for n in range(4)]
    gate = threading.Barrier(len(guests))

    def join(guest: accounts.Account) -> bool:
        gate.wait()
        try:
            accounts.join(stores, guest, link, START)
        except InvitationOver:
            return False
        return True

    with ThreadPoolExecutor(len(guests)) as pool:
        assert sum(pool.map(join, guests)) == 1
    assert len([m for m in accounts.members(stores, project.id) if m.email.startswith("guest")]) == 1


def test_an_owner_who_follows_a_viewers_invitation_stays_an_owner(
    stores: Stores, project: Project, ann: accounts.Account
) -> None:
    accounts.set_role(stores, ann, project.id, OWNER, START)
    accounts.join(stores, ann, accounts.invite(stores, project.id, VIEWER, ann.email, START), START)
    assert accounts.find(stores, ann.email).may_change(project.id)


def test_the_first_owner_is_made_once_from_the_secrets(stores: Stores) -> None:
    settings = Settings(closedloop_default_project="none", closedloop_owner_password=PASSWORD)  # type: ignore[arg-type]
    with pytest.raises(MissingSetting, match="CLOSEDLOOP_OWNER_PASSWORD"):
        first_start.prepare(stores, Settings(closedloop_default_project="none"), START)
    for _ in range(2):
        first_start.prepare(stores, settings, START)
    (owner,) = accounts.everyone(stores)
    assert owner.everywhere
    assert accounts.sign_in(stores, "owner@closedloop.local", PASSWORD, START)
    changed = settings.model_copy(update={"closedloop_owner_email": "other@example.org"})
    first_start.prepare(stores, changed, START)
    assert accounts.everyone(stores) == [owner]  # the secrets make the first one, and change none


def test_a_limit_lets_so_many_through_in_any_window(stores: Stores, clock: Clock) -> None:
    limit = Limit(5, 60)
    passed: list[dt.datetime] = []
    waits: list[int] = []
    for _ in range(200):
        clock.forward(seconds=3)
        try:
            rates.take(stores, "me", limit, clock())
            passed.append(clock())
        except TooManyRequests as error:
            waits.append(error.details["seconds"])
    assert passed
    assert all(1 <= seconds <= 60 for seconds in waits)
    # The counter before counts as if it were spread evenly: never more than twice the limit in any 60 s.
    for moment in passed:
        assert sum(moment <= other < moment + dt.timedelta(seconds=60) for other in passed) <= 2 * limit.times
    rates.take(stores, "somebody else", limit, clock())


def test_whoever_waits_is_let_through_again(stores: Stores, clock: Clock) -> None:
    limit = Limit(2, 60)
    for _ in range(2):
        rates.take(stores, "me", limit, clock())
    with pytest.raises(TooManyRequests):
        rates.take(stores, "me", limit, clock())
    clock.forward(seconds=180)
    rates.take(stores, "me", limit, clock())


def test_all_workers_count_together(stores: Stores) -> None:
    def take(_: int) -> bool:
        try:
            rates.take(stores, "me", Limit(10, 60), START)
        except TooManyRequests:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(take, range(40))) == 10


def test_old_counters_are_forgotten(stores: Stores, clock: Clock) -> None:
    rates.take(stores, "me", Limit(1, 60), clock())
    clock.forward(hours=3)
    rates.forget(stores, clock())
    with stores.db.read() as tx:
        assert tx.execute(sa.select(tables.rates)).all() == []
