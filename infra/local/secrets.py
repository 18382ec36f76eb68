"""Development secrets: made once, kept in a file only its owner may read."""

import os
import secrets
from base64 import b64encode
from pathlib import Path

SECRET_NAMES = (
    *("JWT_SECRET_KEY", "ANONYMIZATION_SALT", "AUDIT_SIGNING_KEY", "RELEASE_SIGNING_KEY"),
    *("POSTGRES_PASSWORD", "APP_DATABASE_PASSWORD", "PREFECT_PASSWORD"),
    *("MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_REVIEWER_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY"),
)


def load_or_make_secrets(state: Path) -> dict[str, str]:
    """Return the secrets of `state`/secrets.env, making those that are missing."""
    path = state / "secrets.env"
    stored = read_env_file(path) if path.exists() else {}
    missing = {name: b64encode(secrets.token_bytes(32)).decode() for name in SECRET_NAMES}
    complete = missing | stored
    if complete != stored:
        write_env_file(path, complete)
    return {name: complete[name] for name in SECRET_NAMES}


def write_env_file(path: Path, variables: dict[str, str]) -> None:
    """Write NAME='value' lines, readable by the owner only, to be sourced by a shell."""
    write_private_file(path, "".join(f"{name}='{value}'\n" for name, value in variables.items()))


def write_private_file(path: Path, content: str) -> None:
    """Write a file that only its owner may read, also where it was open to others before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(descriptor, 0o600)
        file.write(content)


def read_env_file(path: Path) -> dict[str, str]:
    """Read what write_env_file wrote."""
    pairs = (line.partition("=") for line in path.read_text().splitlines() if "=" in line)
    return {name: value.strip("'") for name, _, value in pairs}
