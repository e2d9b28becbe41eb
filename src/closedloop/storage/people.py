"""Records of people: accounts, what they may do, their sessions and tokens, invitations, and how often they ask."""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from closedloop.storage.database import insert_new
from closedloop.storage.tables import accounts, api_tokens, invitations, memberships, rates, sessions


def add_account(tx: sa.Connection, row: Mapping[str, Any]) -> bool:
    """Make an account; False where the address has one."""
    return bool(insert_new(tx, accounts, row))


def any_account(tx: sa.Connection) -> bool:
    """Whether there is an account at all."""
    return tx.execute(sa.select(accounts.c.id).limit(1)).first() is not None


def account(tx: sa.Connection, account_id: str) -> sa.RowMapping | None:
    """One account by its id."""
    return tx.execute(sa.select(accounts).where(accounts.c.id == account_id)).mappings().first()


def account_of(tx: sa.Connection, email: str) -> sa.RowMapping | None:
    """The account of an address in lower case."""
    return tx.execute(sa.select(accounts).where(accounts.c.email == email)).mappings().first()


def all_accounts(tx: sa.Connection) -> Sequence[sa.RowMapping]:
    """Every account, by address."""
    return tx.execute(sa.select(accounts).order_by(accounts.c.email)).mappings().all()


def set_password(tx: sa.Connection, account_id: str, password: str) -> None:
    """Replace a password's hash."""
    tx.execute(accounts.update().where(accounts.c.id == account_id).values(password=password))


def remove_account(tx: sa.Connection, account_id: str) -> None:
    """Remove an account with its memberships, sessions and tokens."""
    mine = sa.select(accounts.c.email).where(accounts.c.id == account_id).scalar_subquery()
    tx.execute(invitations.delete().where(invitations.c.by == mine))
    for table in (memberships, sessions, api_tokens):
        tx.execute(table.delete().where(table.c.account_id == account_id))
    tx.execute(accounts.delete().where(accounts.c.id == account_id))


def roles_of(tx: sa.Connection, account_id: str) -> dict[str, str]:
    """Project -> role of an account."""
    query = sa.select(memberships.c.project_id, memberships.c.role).where(memberships.c.account_id == account_id)
    return {row.project_id: row.role for row in tx.execute(query)}


def members(tx: sa.Connection, project_id: str) -> Sequence[sa.RowMapping]:
    """Who belongs to a project: `account_id, email, role, everywhere`, those who own everything first."""
    role = sa.case((accounts.c.everywhere, "owner"), else_=memberships.c.role)
    of_project = (memberships.c.account_id == accounts.c.id) & (memberships.c.project_id == project_id)
    query = (
        sa.select(accounts.c.id.label("account_id"), accounts.c.email, role.label("role"), accounts.c.everywhere)
        .outerjoin(memberships, of_project)
        .where(sa.or_(accounts.c.everywhere, memberships.c.role.is_not(None)))
        .order_by(accounts.c.everywhere.desc(), accounts.c.email)
    )
    return tx.execute(query).mappings().all()


def set_role(tx: sa.Connection, project_id: str, account_id: str, role: str | None, now: dt.datetime) -> None:
    """Give an account a role in a project; None takes it away."""
    own = (memberships.c.project_id == project_id) & (memberships.c.account_id == account_id)
    tx.execute(memberships.delete().where(own))
    if role != "owner":  # nor does what he gave away lead back
        mine = sa.select(accounts.c.email).where(accounts.c.id == account_id).scalar_subquery()
        tx.execute(invitations.delete().where(invitations.c.project_id == project_id, invitations.c.by == mine))
    if role is not None:
        tx.execute(memberships.insert().values(project_id=project_id, account_id=account_id, role=role, at=now))


def add_session(tx: sa.Connection, digest: str, account_id: str, now: dt.datetime, until: dt.datetime) -> None:
    """Keep that somebody signed in; sessions that have ended are forgotten."""
    tx.execute(sessions.delete().where(sessions.c.expires_at <= now))
    tx.execute(sessions.insert().values(digest=digest, account_id=account_id, created_at=now, expires_at=until))


def account_of_session(tx: sa.Connection, digest: str, now: dt.datetime) -> sa.RowMapping | None:
    """The account that is signed in, None where the session has ended."""
    query = sa.select(accounts).join(sessions, sessions.c.account_id == accounts.c.id)
    return tx.execute(query.where(sessions.c.digest == digest, sessions.c.expires_at > now)).mappings().first()


def end_session(tx: sa.Connection, digest: str) -> None:
    """Sign out."""
    tx.execute(sessions.delete().where(sessions.c.digest == digest))


def end_sessions(tx: sa.Connection, account_id: str) -> None:
    """Sign an account out everywhere."""
    tx.execute(sessions.delete().where(sessions.c.account_id == account_id))


def add_token(tx: sa.Connection, row: Mapping[str, Any]) -> None:
    """Keep a token's digest."""
    tx.execute(api_tokens.insert().values(**row))


def tokens_of(tx: sa.Connection, account_id: str) -> Sequence[sa.RowMapping]:
    """The tokens of an account, oldest first."""
    query = sa.select(api_tokens).where(api_tokens.c.account_id == account_id)
    return tx.execute(query.order_by(api_tokens.c.created_at)).mappings().all()


def account_of_token(tx: sa.Connection, digest: str) -> sa.RowMapping | None:
    """The account that a token belongs to."""
    query = sa.select(accounts).join(api_tokens, api_tokens.c.account_id == accounts.c.id)
    return tx.execute(query.where(api_tokens.c.digest == digest)).mappings().first()


def remove_token(tx: sa.Connection, account_id: str, digest: str) -> None:
    """Make one of an account's tokens worthless."""
    tx.execute(api_tokens.delete().where(api_tokens.c.account_id == account_id, api_tokens.c.digest == digest))


def add_invitation(tx: sa.Connection, row: Mapping[str, Any]) -> None:
    """Keep an invitation's digest."""
    tx.execute(invitations.insert().values(**row))


def invitation(tx: sa.Connection, digest: str, now: dt.datetime) -> sa.RowMapping | None:
    """An invitation that still holds."""
    query = sa.select(invitations).where(invitations.c.digest == digest, invitations.c.expires_at > now)
    return tx.execute(query).mappings().first()


def invitations_of(tx: sa.Connection, project_id: str, now: dt.datetime) -> Sequence[sa.RowMapping]:
    """The invitations into a project that still hold, oldest first."""
    query = sa.select(invitations).where(invitations.c.project_id == project_id, invitations.c.expires_at > now)
    return tx.execute(query.order_by(invitations.c.created_at)).mappings().all()


def remove_invitation(tx: sa.Connection, project_id: str, digest: str) -> bool:
    """Take an invitation back, or use it up; False where there is none."""
    own = (invitations.c.project_id == project_id) & (invitations.c.digest == digest)
    return bool(tx.execute(invitations.delete().where(own)).rowcount)


def count(tx: sa.Connection, key: str, starts_at: dt.datetime, more: int) -> int:
    """Count so many more in a window; returns how many there are in it now."""
    insert_new(tx, rates, {"key": key, "starts_at": starts_at, "count": 0})
    own = (rates.c.key == key) & (rates.c.starts_at == starts_at)
    counted = rates.update().where(own).values(count=rates.c.count + more)
    return tx.execute(counted.returning(rates.c.count)).scalar_one()


def counted(tx: sa.Connection, key: str, starts_at: dt.datetime) -> int:
    """How many were counted in a window."""
    query = sa.select(rates.c.count).where(rates.c.key == key, rates.c.starts_at == starts_at)
    return tx.execute(query).scalar() or 0


def forget_counts(tx: sa.Connection, before: dt.datetime) -> None:
    """Drop the windows that began before a moment."""
    tx.execute(rates.delete().where(rates.c.starts_at < before))
