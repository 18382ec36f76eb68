"""Tickets that open one browser session: a local link, or a visit to the identity provider.

A ticket is used by deleting its row, so it works once, also when two requests race for it.
"""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete
from sqlalchemy.orm import Session

from serving.auth.browser_sessions import SECRET_BYTES, hash_secret
from serving.auth.tokens import USER_PATTERN
from serving.database.sessions import create_database_engine, open_session
from serving.database.tables import SignInTicket
from serving.errors import Principal
from serving.roles import Role
from serving.settings import Settings

LINK_LIVES = timedelta(hours=1)
VISIT_LIVES = timedelta(minutes=10)
SIGN_IN_PATH = "/console/sign-in"


class LinksDisabledError(ValueError):
    """Local sign-in links exist in development only."""


@dataclass(frozen=True)
class ProviderVisit:
    """What the provider's answer must match, and the page to show after it."""

    nonce: str
    code_verifier: str
    destination: str


def issue_sign_in_link(session: Session, settings: Settings, user: str, role: Role) -> str:
    """Return the path of a link that signs a user in once; development only.

    Raises LinksDisabledError elsewhere, and ValueError for an unusable user id.
    """
    if not settings.is_development:
        raise LinksDisabledError("local sign-in links exist only where MHRAS_ENV=development")
    if not USER_PATTERN.fullmatch(user):
        raise ValueError("the user id may hold letters, digits and _ . @ + - only")
    token = _store(session, LINK_LIVES, user_id=user, role=role.value)
    return f"{SIGN_IN_PATH}?link={token}"


def make_sign_in_link(settings: Settings, user: str, role: Role) -> str:
    """Issue a link by a connection of its own, as an operator does; raises as that does."""
    engine = create_database_engine(settings.database_url.get_secret_value(), 10)
    try:
        with open_session(engine) as session:
            return issue_sign_in_link(session, settings, user, role)
    finally:
        engine.dispose()


def redeem_link(session: Session, settings: Settings, token: str) -> Principal | None:
    """Return who signs in by a link, which is used up; None for one that opens nothing."""
    row = _take(session, token) if settings.is_development else None
    if row is None or row.user_id is None or row.role not in list(Role):
        return None
    return Principal(row.user_id, Role(row.role))


def begin_visit(session: Session, destination: str) -> tuple[str, ProviderVisit]:
    """Store a visit to the provider; return its state and what the answer must match."""
    visit = ProviderVisit(
        nonce=secrets.token_urlsafe(SECRET_BYTES),
        code_verifier=secrets.token_urlsafe(48),
        destination=destination,
    )
    state = _store(
        session,
        VISIT_LIVES,
        nonce=visit.nonce,
        code_verifier=visit.code_verifier,
        destination=destination,
    )
    return state, visit


def end_visit(session: Session, state: str) -> ProviderVisit | None:
    """Return the visit of a state, which is used up; None for one that is unknown or late."""
    row = _take(session, state)
    if row is None or row.nonce is None or row.code_verifier is None:
        return None
    return ProviderVisit(row.nonce, row.code_verifier, row.destination or "")


def _store(session: Session, lives: timedelta, **values: str) -> str:
    token, now = secrets.token_urlsafe(SECRET_BYTES), datetime.now(UTC)
    session.execute(delete(SignInTicket).where(SignInTicket.expires_at < now))
    session.add(SignInTicket(token_hash=hash_secret(token), expires_at=now + lives, **values))
    session.flush()
    return token


def _take(session: Session, token: str) -> SignInTicket | None:
    statement = (
        delete(SignInTicket)
        .where(SignInTicket.token_hash == hash_secret(token))
        .returning(SignInTicket)
    )
    row = session.scalars(statement).first()
    return row if row is not None and row.expires_at > datetime.now(UTC) else None
