"""How the MLflow server is started, locally and in a cluster: ``python -m mlruns_config.server``.

Everything comes from the environment (`ServerSettings`); nothing secret stands on a command
line. Users other than administrators may only read (`server_login.py`).
"""

import configparser
import os
import sys
from pathlib import Path
from tempfile import mkdtemp
from typing import Annotated, NoReturn, Self

import typer
from pydantic import (
    AliasChoices,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import make_url

from mlruns_config.server_login import PASSWORD_LENGTH

LOOPBACK = ("localhost", "127.0.0.1")
#: A password is hashed for 0.4 s (measured); this long a login that was right is remembered.
LOGIN_SECONDS = 60

#: The deployment guide's names, and those of MLflow and AWS.
DESTINATION = AliasChoices("model_storage_url", "mlflow_artifacts_destination")
KEY_ID = AliasChoices("model_storage_key_id", "aws_access_key_id")


class ServerSettings(BaseSettings):
    """Settings of the MLflow server, each an environment variable of the same name."""

    model_config = SettingsConfigDict(extra="ignore", populate_by_name=True)

    #: PostgreSQL URL of MLflow's own database: runs, registry, and logins.
    mlflow_backend_store_uri: SecretStr
    #: Folder or s3:// prefix of the artifacts, which go through the server: clients need no key.
    mlflow_artifacts_destination: Annotated[str, Field(validation_alias=DESTINATION)]
    #: Access key id and secret access key of that bucket; without them boto3's own ways to find
    #: some. Where the storage is not AWS, MLFLOW_S3_ENDPOINT_URL says where it is.
    model_storage_key_id: Annotated[str | None, Field(validation_alias=KEY_ID)] = None
    model_storage_key: SecretStr | None = None
    mlflow_auth_admin_username: str = "admin"
    mlflow_auth_admin_password: SecretStr
    #: Signs sessions and forms of the UI.
    mlflow_flask_server_secret_key: SecretStr
    #: Names (comma-separated) under which the server is reached, besides loopback.
    mlflow_server_names: str = ""
    #: Origins (comma-separated) of pages that may call it, besides its own.
    mlflow_server_cors_origins: str = ""
    #: More than one worker costs 700 MB each (measured) and buys reviewers nothing.
    mlflow_server_workers: Annotated[int, Field(ge=1, le=16)] = 1

    @field_validator("mlflow_backend_store_uri")
    @classmethod
    def _name_the_driver(cls, url: SecretStr) -> SecretStr:
        # SQLAlchemy 2.1 reads a bare postgresql:// as psycopg 3, on which transitions fail.
        parsed_url = make_url(url.get_secret_value())
        if parsed_url.get_backend_name() == "postgresql":
            parsed_url = parsed_url.set(drivername="postgresql+psycopg2")
        return SecretStr(parsed_url.render_as_string(hide_password=False))

    @model_validator(mode="after")
    def _have_a_whole_key(self) -> Self:
        if self.model_storage_key is not None and not self.model_storage_key_id:
            raise ValueError("MODEL_STORAGE_KEY needs MODEL_STORAGE_KEY_ID, its access key id")
        return self

    @field_validator("mlflow_auth_admin_password", "mlflow_flask_server_secret_key")
    @classmethod
    def _refuse_short_secrets(cls, secret: SecretStr) -> SecretStr:
        if len(secret.get_secret_value()) < PASSWORD_LENGTH:
            raise ValueError(f"must have at least {PASSWORD_LENGTH} characters")
        return secret


def make_command(settings: ServerSettings, host: str, port: int) -> list[str]:
    """Return the command line of the server."""
    command = [sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth"]
    command += ["--host", host, "--port", str(port)]
    command += ["--workers", str(settings.mlflow_server_workers)]
    command += ["--allowed-hosts", ",".join(list_hosts(settings, port))]
    if settings.mlflow_server_cors_origins:
        command += ["--cors-allowed-origins", settings.mlflow_server_cors_origins]
    return command


def list_hosts(settings: ServerSettings, port: int) -> list[str]:
    """Return the Host headers that are answered: MLflow wants each with and without port."""
    names = [*LOOPBACK, *filter(None, settings.mlflow_server_names.split(","))]
    return [host for name in names for host in (name.strip(), f"{name.strip()}:{port}")]


def make_environment(settings: ServerSettings, login_file: Path) -> dict[str, str]:
    """Return the variables the server needs besides those it is started with."""
    return {
        "MLFLOW_BACKEND_STORE_URI": settings.mlflow_backend_store_uri.get_secret_value(),
        "MLFLOW_ARTIFACTS_DESTINATION": settings.mlflow_artifacts_destination,
        "MLFLOW_AUTH_CONFIG_PATH": str(login_file),
        "MLFLOW_AUTH_ADMIN_USERNAME": settings.mlflow_auth_admin_username,
        "MLFLOW_AUTH_ADMIN_PASSWORD": settings.mlflow_auth_admin_password.get_secret_value(),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": (
            settings.mlflow_flask_server_secret_key.get_secret_value()
        ),
        # The job runner is for evaluations we do not run: 2 GB and seven processes (measured).
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        **make_storage_login(settings),
    }


def make_storage_login(settings: ServerSettings) -> dict[str, str]:
    """Return the variables by which boto3 logs in to the artifacts' bucket."""
    if settings.model_storage_key is None or settings.model_storage_key_id is None:
        return {}
    return {
        "AWS_ACCESS_KEY_ID": settings.model_storage_key_id,
        "AWS_SECRET_ACCESS_KEY": settings.model_storage_key.get_secret_value(),
    }


def write_login_file(settings: ServerSettings, folder: Path) -> Path:
    """Write MLflow's file of how to log in, readable by its owner only."""
    parser = configparser.ConfigParser(interpolation=None)
    url = settings.mlflow_backend_store_uri.get_secret_value()
    parser["mlflow"] = {
        "default_permission": "READ",
        # MLflow reads the file with interpolation.
        "database_uri": url.replace("%", "%%"),
        "authorization_function": "mlruns_config.server_login:authorise",
        "auth_cache_ttl_seconds": str(LOGIN_SECONDS),
    }
    path = folder / "login.ini"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        parser.write(file)
    return path


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 5000,
) -> None:
    """Start the MLflow server in place of this process."""
    try:
        settings = ServerSettings()  # type: ignore[call-arg] # filled from the environment
    except ValidationError as error:
        _stop(error)
    login_file = write_login_file(settings, Path(mkdtemp(prefix="mlflow-login-")))
    environment = os.environ | make_environment(settings, login_file)
    os.execve(sys.executable, make_command(settings, host, port), environment)


def _stop(error: ValidationError) -> NoReturn:
    # Without the values, which are secrets.
    for flaw in error.errors(include_input=False, include_url=False):
        where = f"{str(flaw['loc'][0]).upper()}: " if flaw["loc"] else ""
        typer.echo(f"{where}{flaw['msg']}", err=True)
    raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(serve)
