"""Tokens of the embedded default: HS256 under JWT_SECRET_KEY, at most an hour long.

`python -m serving.tokens issue --user dr.who --role clinician` prints one.
"""

import re
import sys
import uuid
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import jwt
import typer

from serving.errors import Principal, UnauthenticatedError
from serving.roles import Role
from serving.settings import MissingSettingError, load_settings

ALGORITHM = "HS256"
AUDIENCE = "mhras"
ISSUER = "mhras"
#: An explicit type keeps tokens made for other uses of the same key out.
TOKEN_TYPE = "mhras+jwt"
MAX_LIFETIME = timedelta(minutes=60)
REQUIRED_CLAIMS = ("exp", "nbf", "iat", "aud", "iss", "sub", "jti", "role")

#: User ids reach logs and audit rows, so they are one plain word.
USER_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@+-]{0,127}")


def issue_token(secret: str, user: str, role: Role, lifetime: timedelta) -> str:
    """Return a signed token; raises ValueError for an unusable user id or lifetime."""
    if not USER_PATTERN.fullmatch(user):
        raise ValueError("the user id may hold letters, digits and _ . @ + - only")
    if not timedelta(0) < lifetime <= MAX_LIFETIME:
        raise ValueError("a token lives from 1 to 60 minutes")
    now = datetime.now(UTC)
    claims = {"sub": user, "role": role.value, "aud": AUDIENCE, "iss": ISSUER}
    claims |= {"jti": uuid.uuid4().hex}
    times = {"iat": now, "nbf": now, "exp": now + lifetime}
    return jwt.encode(claims | times, secret, ALGORITHM, headers={"typ": TOKEN_TYPE})


def read_token(token: str, secret: str) -> Principal:
    """Return who a token speaks for, or raise UnauthenticatedError saying what is wrong."""
    try:
        decoded = jwt.decode_complete(
            token,
            secret,
            algorithms=[ALGORITHM],
            audience=AUDIENCE,
            issuer=ISSUER,
            options={"require": list(REQUIRED_CLAIMS)},
        )
    except jwt.ExpiredSignatureError:
        raise UnauthenticatedError("the token has expired") from None
    except jwt.InvalidTokenError:
        raise UnauthenticatedError("the token is not valid") from None
    if decoded["header"].get("typ") != TOKEN_TYPE:
        raise UnauthenticatedError(f"the token is not of type {TOKEN_TYPE}")
    return _read_claims(decoded["payload"])


def _read_claims(claims: dict[str, Any]) -> Principal:
    if int(claims["exp"]) - int(claims["iat"]) > MAX_LIFETIME.total_seconds():
        raise UnauthenticatedError("the token was issued for longer than 60 minutes")
    if claims["role"] not in list(Role):
        raise UnauthenticatedError("the token names an unknown role")
    if not USER_PATTERN.fullmatch(claims["sub"]):
        raise UnauthenticatedError("the token names no usable user id")
    return Principal(user_id=claims["sub"], role=Role(claims["role"]))


app = typer.Typer(add_completion=False, help="Tokens of the embedded default.")


@app.callback()
def _keep_commands_named() -> None:
    # With a single command typer would drop its name from the command line.
    pass


@app.command()
def issue(
    user: Annotated[str, typer.Option(help="Who the token speaks for.")],
    role: Annotated[Role, typer.Option(help="What the bearer may do.")],
    minutes: Annotated[int, typer.Option(min=1, max=60, help="Until it expires.")] = 30,
) -> None:
    """Print a token signed with JWT_SECRET_KEY."""
    try:
        secret = load_settings().jwt_secret_key.get_secret_value()
        token = issue_token(secret, user, role, timedelta(minutes=minutes))
    except (MissingSettingError, ValueError) as error:
        sys.stderr.write(f"no token issued: {error}\n")
        raise typer.Exit(1) from None
    sys.stdout.write(token + "\n")


if __name__ == "__main__":
    app()
