"""Revocation from the command line, for when the API itself is out of reach."""

from sqlalchemy.exc import SQLAlchemyError

from serving.audit import Event
from serving.audit.trail import TOKENS_REVOKED, make_row
from serving.database.sessions import create_database_engine, open_session
from serving.settings import Settings
from serving.token_revocations import revoke
from serving.tokens import TOKEN_ID_PATTERN, USER_PATTERN


class UnusableTargetError(ValueError):
    """What to revoke is not said, or not said once; or the database cannot be reached."""


def revoke_by_command(
    settings: Settings,
    by: str,
    reason: str,
    token_id: str | None,
    user: str | None,
    everyone: bool,
) -> str:
    """Revoke, audit, and return one line that says what was done."""
    if [token_id is not None, user is not None, everyone].count(True) != 1:
        raise UnusableTargetError("name one of --token-id, --user, --everyone")
    for value, pattern in ((token_id, TOKEN_ID_PATTERN), (user, USER_PATTERN), (by, USER_PATTERN)):
        if value is not None and not pattern.fullmatch(value):
            raise UnusableTargetError("an id holds letters, digits and _ . @ + - only")
    engine = create_database_engine(settings.database_url.get_secret_value(), 10)
    event = Event(TOKENS_REVOKED, "revoke_tokens", details={"scope": _name(token_id, user)})
    try:
        with open_session(engine) as session:
            revoke(session, by, reason, token_id, user)
            session.add(make_row(by, "operator", "success", None, event))
    except SQLAlchemyError as error:
        raise UnusableTargetError(f"the database refused: {type(error).__name__}") from None
    finally:
        engine.dispose()
    return f"revoked: {_name(token_id, user)}\n"


def _name(token_id: str | None, user: str | None) -> str:
    return "one token" if token_id else "every token of a user" if user else "every token"
