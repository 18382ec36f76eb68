"""Tokens of the embedded default from the command line: ``python -m serving.tokens --help``.

Revocation works here too, for when the API itself is out of reach.
"""

import sys
from datetime import timedelta
from typing import Annotated

import typer
from sqlalchemy.exc import SQLAlchemyError

from serving.audit import Event
from serving.audit.trail import TOKENS_REVOKED, make_row
from serving.auth import revocations
from serving.auth.sign_in_tickets import make_sign_in_link
from serving.auth.tokens import TOKEN_ID_PATTERN, USER_PATTERN, issue_token
from serving.database.sessions import create_database_engine, open_session
from serving.roles import Role
from serving.settings import MissingSettingError, Settings, load_settings

app = typer.Typer(add_completion=False, help="Tokens of the embedded default.")


class UnusableTargetError(ValueError):
    """The choice of what to revoke is missing or ambiguous, or the database is unreachable."""


def revoke_by_command(
    settings: Settings,
    by: str,
    reason: str,
    token_id: str | None,
    user: str | None,
    everyone: bool,
) -> str:
    """Revoke, audit, and return one line with the result. Raises UnusableTargetError."""
    if [token_id is not None, user is not None, everyone].count(True) != 1:
        raise UnusableTargetError("name one of --token-id, --user, --everyone")
    for value, pattern in ((token_id, TOKEN_ID_PATTERN), (user, USER_PATTERN), (by, USER_PATTERN)):
        if value is not None and not pattern.fullmatch(value):
            raise UnusableTargetError("an id holds letters, digits and _ . @ + - only")
    engine = create_database_engine(settings.database_url.get_secret_value(), 10)
    event = Event(TOKENS_REVOKED, "revoke_tokens", details={"scope": _name(token_id, user)})
    try:
        with open_session(engine) as session:
            revocations.revoke(session, by, reason, token_id, user)
            session.add(make_row(by, "operator", "success", None, event))
    except SQLAlchemyError as error:
        raise UnusableTargetError(f"the database refused: {type(error).__name__}") from None
    finally:
        engine.dispose()
    return f"revoked: {_name(token_id, user)}\n"


def _name(token_id: str | None, user: str | None) -> str:
    return "one token" if token_id else "every token of a user" if user else "every token"


@app.command()
def issue(
    user: Annotated[str, typer.Option(help="User id of the token.")],
    role: Annotated[Role, typer.Option(help="What the bearer may do.")],
    minutes: Annotated[int, typer.Option(min=1, max=60, help="Until it expires.")] = 30,
) -> None:
    """Print a token signed with JWT_SECRET_KEY."""
    try:
        settings = load_settings()
        if settings.jwt_jwks_url is not None:
            raise ValueError("JWT_JWKS_URL is set: the identity provider there issues tokens")
        token = issue_for(settings, user, role, timedelta(minutes=minutes))
    except (MissingSettingError, ValueError) as error:
        _fail("no token issued", error)
    sys.stdout.write(token + "\n")


def issue_for(settings: Settings, user: str, role: Role, lifetime: timedelta) -> str:
    secret = settings.jwt_secret_key.get_secret_value()
    return issue_token(secret, user, role, lifetime, settings.jwt_audience, settings.jwt_issuer)


@app.command()
def link(
    user: Annotated[str, typer.Option(help="Who signs in by the link.")],
    role: Annotated[Role, typer.Option(help="What the person may do.")],
    base: Annotated[str, typer.Option(help="Address of the API.")] = "http://127.0.0.1:8000",
) -> None:
    """Print a link that signs a person in to the console once; development only."""
    try:
        sys.stdout.write(f"{base}{make_sign_in_link(load_settings(), user, role)}\n")
    except (MissingSettingError, ValueError, SQLAlchemyError) as error:
        _fail("no link issued", error)


@app.command()
def revoke(
    reason: Annotated[str, typer.Option(help="Why, in one sentence.")],
    by: Annotated[str, typer.Option(help="Who revokes.")],
    token_id: Annotated[str | None, typer.Option(help="The jti of one token.")] = None,
    user: Annotated[str | None, typer.Option(help="Every token of a user until now.")] = None,
    everyone: Annotated[bool, typer.Option(help="Every token issued until now.")] = False,
) -> None:
    """Make tokens invalid in every worker within a second."""
    try:
        sys.stdout.write(revoke_by_command(load_settings(), by, reason, token_id, user, everyone))
    except (MissingSettingError, UnusableTargetError) as error:
        _fail("nothing revoked", error)


def _fail(what: str, error: Exception) -> None:
    sys.stderr.write(f"{what}: {error}\n")
    raise typer.Exit(1) from None


if __name__ == "__main__":
    app()
