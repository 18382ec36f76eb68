"""Sessions of people who work in a browser: opened at sign-in, ended by time or by a person.

The browser holds a secret in a cookie, the database its SHA-256: a copy of the table opens
nothing. The form token is derived from the secret, so it needs no column.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

from sqlalchemy import ColumnElement, delete, select, true, update
from sqlalchemy.orm import Session

from serving.database.tables import BrowserSession
from serving.errors import Principal, RefusedError
from serving.roles import Role
from serving.settings import Settings

SECRET_BYTES = 32
#: `last_seen_at` is written no more often than this, so that reading pages writes little.
SEEN_EVERY = timedelta(minutes=1)
#: Ended sessions are kept this long, then removed at a sign-in.
KEPT_AFTER_END = timedelta(days=1)


class SessionEndedError(RefusedError):
    """The session was revoked, or its time is over."""

    status = 401
    kind = "session-ended"
    title = "Your session has ended"


@dataclass(frozen=True)
class Limits:
    """How long a session lives without a request, and in all."""

    idle: timedelta
    absolute: timedelta

    @classmethod
    def read(cls, settings: Settings) -> Self:
        return cls(
            timedelta(minutes=settings.console_idle_minutes),
            timedelta(hours=settings.console_session_hours),
        )


@dataclass(frozen=True)
class SignedIn:
    """A person with a live session; every form contains `form_token`."""

    principal: Principal
    form_token: str
    expires_at: datetime


@dataclass(frozen=True)
class OwnSession:
    """A live session as its person sees it; `name` ends it and opens nothing."""

    name: str
    created_at: datetime
    last_seen_at: datetime
    expires_at: datetime
    is_present: bool


def open_browser_session(session: Session, principal: Principal, limits: Limits) -> str:
    """Store a new session and return the secret for the cookie; remove what ended long ago."""
    secret, now = secrets.token_urlsafe(SECRET_BYTES), datetime.now(UTC)
    session.execute(delete(BrowserSession).where(BrowserSession.expires_at < now - KEPT_AFTER_END))
    session.add(
        BrowserSession(
            token_hash=hash_secret(secret),
            user_id=principal.user_id,
            role=principal.role.value,
            created_at=now,
            last_seen_at=now,
            expires_at=now + limits.absolute,
        )
    )
    session.flush()
    return secret


def find_browser_session(session: Session, secret: str, limits: Limits) -> SignedIn | None:
    """Return who is signed in by a cookie's secret; None for one that was never issued.

    Raises SessionEndedError, which is audited under the person's name.
    """
    now = datetime.now(UTC)
    row = session.get(BrowserSession, hash_secret(secret))
    if row is None or row.role not in list(Role):
        return None
    principal = Principal(row.user_id, Role(row.role))
    if has_ended(row, now, limits):
        raise SessionEndedError("your session has ended; sign in again", principal, "open_page")
    if now >= row.last_seen_at + SEEN_EVERY:
        row.last_seen_at = now
    return SignedIn(principal, derive_form_token(secret), row.expires_at)


def list_own_sessions(
    session: Session, user_id: str, present: str, limits: Limits
) -> list[OwnSession]:
    """Return a user's live sessions, newest first; `present` is the secret of the asking one."""
    now = datetime.now(UTC)
    own = select(BrowserSession).where(BrowserSession.user_id == user_id)
    rows = session.scalars(own.order_by(BrowserSession.created_at.desc()))
    return [
        OwnSession(
            name=name_session(row.token_hash),
            created_at=row.created_at,
            last_seen_at=row.last_seen_at,
            expires_at=row.expires_at,
            is_present=row.token_hash == hash_secret(present),
        )
        for row in rows
        if not has_ended(row, now, limits)
    ]


def end_own_sessions(session: Session, user_id: str, present: str, name: str | None) -> int:
    """Revoke a user's session of that name, without one all but the present; return how many."""
    rows = session.scalars(
        select(BrowserSession.token_hash).where(BrowserSession.user_id == user_id)
    )
    ended = [
        token_hash
        for token_hash in rows
        if token_hash != hash_secret(present) and name in (None, name_session(token_hash))
    ]
    return _revoke(session, BrowserSession.token_hash.in_(ended))


def end_browser_session(session: Session, secret: str) -> None:
    """Revoke the session of a cookie's secret."""
    _revoke(session, BrowserSession.token_hash == hash_secret(secret))


def revoke_browser_sessions(session: Session, user_id: str | None) -> int:
    """Revoke every session of a user, or with None of everyone; return how many were live."""
    everyone = user_id is None
    return _revoke(session, true() if everyone else BrowserSession.user_id == user_id)


def _revoke(session: Session, condition: ColumnElement[bool]) -> int:
    statement = (
        update(BrowserSession)
        .where(BrowserSession.revoked_at.is_(None), condition)
        .values(revoked_at=datetime.now(UTC))
        .returning(BrowserSession.user_id)
    )
    return len(session.scalars(statement).all())


def has_ended(row: BrowserSession, now: datetime, limits: Limits) -> bool:
    """Return True for a session that was revoked, has expired, or was idle for too long."""
    return row.revoked_at is not None or now >= min(row.expires_at, row.last_seen_at + limits.idle)


def name_session(token_hash: bytes) -> str:
    """Return a name of a session that reveals neither its secret nor what is stored of it."""
    return hashlib.sha256(b"session name" + token_hash).hexdigest()[:32]


def hash_secret(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def derive_form_token(secret: str) -> str:
    """Return the token that a form carries back: known to who holds the cookie's secret."""
    return hmac.new(secret.encode(), b"form token", hashlib.sha256).hexdigest()
