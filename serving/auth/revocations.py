"""Which tokens no longer count although they are signed and in time.

One token by its `jti`, or every token issued before an instant: of one user, or of all. Rows
are never removed; each matters for as long as a token may live.
"""

import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Self

import structlog
from sqlalchemy import Engine, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from serving.auth.browser_sessions import revoke_browser_sessions
from serving.database.changes import ChangeListener
from serving.database.sessions import open_session
from serving.database.tables import TokenRevocation

log = structlog.get_logger("serving.auth")

#: A token lives an hour; the rest covers clocks that differ.
MATTERS_FOR = timedelta(minutes=75)


@dataclass(frozen=True)
class RevocationList:
    """What is revoked, as of one reading; times are seconds since 1970."""

    token_ids: frozenset[str] = frozenset()
    not_before_by_user: dict[str, float] = field(default_factory=dict)
    not_before: float = 0.0

    @classmethod
    def read(cls, session: Session) -> Self:
        since = datetime.now(UTC) - MATTERS_FOR
        rows = session.scalars(
            select(TokenRevocation)
            .where(TokenRevocation.created_at >= since)
            .order_by(TokenRevocation.not_before)
        ).all()
        before = [row for row in rows if row.not_before is not None]
        return cls(
            token_ids=frozenset(row.jti for row in rows if row.jti is not None),
            not_before_by_user={
                row.user_id: row.not_before.timestamp()
                for row in before
                if row.user_id is not None and row.not_before is not None
            },
            not_before=max(
                (
                    row.not_before.timestamp()
                    for row in before
                    if row.user_id is None and row.not_before is not None
                ),
                default=0.0,
            ),
        )

    def revokes(self, token_id: str, user_id: str, issued_at: float) -> bool:
        """Return True if a token is revoked; the later of the user's and the general limit binds.

        Tokens carry whole seconds, so one issued in the very second of the limit is revoked too.
        """
        limit = max(self.not_before, self.not_before_by_user.get(user_id, 0.0))
        return token_id in self.token_ids or issued_at < limit


class Revocations:
    """A worker's copy of the list, read again after a notification of the database."""

    def __init__(self, engine: Engine, listener: ChangeListener) -> None:
        self._engine, self._listener = engine, listener
        self._lock = threading.Lock()
        self._known: RevocationList | None = None
        listener.subscribe(self._receive)

    def get_known(self) -> RevocationList | None:
        """Return the list as of less than a second ago; None if it must be read first."""
        revocations = self._known
        return revocations if self._listener.is_fresh else None

    def read(self) -> RevocationList:
        """Return the list from the database; raises SQLAlchemyError when it cannot be read."""
        with self._lock, open_session(self._engine) as session:
            self._known = RevocationList.read(session)
            return self._known

    def _receive(self, notice: str) -> None:
        if notice not in ("tokens", ChangeListener.RESET):
            return
        self._known = None
        try:
            self.read()
        except SQLAlchemyError as error:
            # `_known` stays None: each request reads the database.
            log.warning("revocations not read", cause=type(error).__name__)


def revoke(
    session: Session,
    revoked_by: str,
    reason: str,
    token_id: str | None = None,
    user_id: str | None = None,
) -> TokenRevocation:
    """Revoke one token, or with `user_id` all of a user's, or with neither all tokens.

    All of a user's are the browser sessions too.
    """
    now = datetime.now(UTC)
    revocation = TokenRevocation(
        created_at=now,
        revoked_by=revoked_by,
        reason=reason,
        jti=token_id,
        user_id=None if token_id else user_id,
        not_before=None if token_id else now,
    )
    session.add(revocation)
    if token_id is None:
        revoke_browser_sessions(session, user_id)
    session.flush()
    return revocation
