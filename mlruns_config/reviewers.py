"""Logins of reviewers at the MLflow server: ``python -m mlruns_config.reviewers add jane``.

Needs MLFLOW_TRACKING_URI and an administrator's MLFLOW_TRACKING_USERNAME and
MLFLOW_TRACKING_PASSWORD. A reviewer reads runs, artifacts and models and changes nothing.
"""

import os
import secrets
from collections.abc import Iterable
from typing import Annotated, NoReturn

import httpx
import typer

NEEDED = ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
#: A password is hashed for half a second, on a busy machine for longer.
TIMEOUT_SECONDS = 60

app = typer.Typer(
    help="Logins of reviewers at the MLflow server.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
Name = Annotated[str, typer.Argument(help="The reviewer's login.")]


class LoginError(RuntimeError):
    """The server refused a change of logins; the message gives the reason."""


def add_reviewer(url: str, admin: tuple[str, str], name: str, password: str) -> bool:
    """Create a login that may read; return False where it exists already.

    Raises LoginError when the server is away or refuses.
    """
    body = {"username": name, "password": password}
    answer = _ask("POST", f"{url}/api/2.0/mlflow/users/create", admin, body)
    if answer.is_success:
        return True
    if "RESOURCE_ALREADY_EXISTS" in answer.text:
        return False
    raise LoginError(_describe(answer))


def let_promote(url: str, admin: tuple[str, str], name: str, models: Iterable[str]) -> None:
    """Let a login move versions of `models`, which need not exist yet, and change nothing else.

    Raises LoginError when the server is away or refuses.
    """
    for model in models:
        # MLflow asks for MANAGE where an alias is removed; what else MANAGE would allow is refused
        # before MLflow sees it (server_login.py).
        body = {"username": name, "permission": "MANAGE"}
        body |= {"resource_type": "registered_model", "resource_id": model}
        answer = _ask("POST", f"{url}/api/3.0/mlflow/users/permissions/grant", admin, body)
        if not answer.is_success and "already exists" not in answer.text:
            raise LoginError(_describe(answer))


def remove_reviewer(url: str, admin: tuple[str, str], name: str) -> None:
    """Delete a login; raises LoginError when there is none, or it may not be deleted."""
    answer = _ask("DELETE", f"{url}/api/2.0/mlflow/users/delete", admin, {"username": name})
    if not answer.is_success:
        raise LoginError(_describe(answer))


def _ask(method: str, url: str, admin: tuple[str, str], body: dict[str, str]) -> httpx.Response:
    try:
        # trust_env: the server is inside; no proxy may come between.
        with httpx.Client(auth=admin, timeout=TIMEOUT_SECONDS, trust_env=False) as client:
            return client.request(method, url, json=body)
    except httpx.TransportError as error:
        raise LoginError(f"the MLflow server is unreachable: {error}") from error


def _describe(answer: httpx.Response) -> str:
    try:
        return f"MLflow refused: {answer.json()['message']}"
    except (ValueError, KeyError):
        return f"MLflow refused with status {answer.status_code}"


@app.command("add")
def add(name: Name) -> None:
    """Create a reviewer's login and print its password, once."""
    url, *admin = _read_environment()
    password = secrets.token_urlsafe(18)
    try:
        created = add_reviewer(url, (admin[0], admin[1]), name, password)
    except LoginError as error:
        _stop(str(error))
    if not created:
        _stop(f"there is a login {name} already; remove it first to give it a new password")
    typer.echo(f"{name} may read at {url} with the password {password}")


@app.command("remove")
def remove(name: Name) -> None:
    """Delete a reviewer's login."""
    url, *admin = _read_environment()
    try:
        remove_reviewer(url, (admin[0], admin[1]), name)
    except LoginError as error:
        _stop(str(error))
    typer.echo(f"{name} may no longer read at {url}")


def _read_environment() -> list[str]:
    missing = [name for name in NEEDED if not os.environ.get(name)]
    if missing:
        _stop(f"{', '.join(missing)} not set: the server's address and an administrator's login")
    return [os.environ[name] for name in NEEDED]


def _stop(why: str) -> NoReturn:
    typer.echo(why, err=True)
    raise typer.Exit(1)


if __name__ == "__main__":
    app()
