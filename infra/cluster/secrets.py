"""Every Secret of a cluster as one manifest, values made or taken from the environment.

    python -m infra.cluster.secrets --environment staging | kubectl apply -f -

Nothing is written to a file. Run it once: run again it would make other passwords. What only
others can give (EXTERNAL) is read from variables of the same names.
"""

import base64
import os
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

import typer
import yaml

#: Owners of databases, and the logins that read beside them.
OWNERS = ("mhras", "mlflow", "prefect", "feast")
ROLES = (*OWNERS, "feast_reader", "mhras_backup", "mhras_exporter")
API_LOGIN = "mhras_api"
MLFLOW_ADMIN, MLFLOW_READER = "admin", "mhras-reader"

#: What cannot be made here, with where it comes from.
EXTERNAL = {
    "MODEL_STORAGE_KEY_ID": "access key id of the object store",
    "MODEL_STORAGE_KEY": "secret access key of the object store",
    "BACKUP_STORAGE_KEY_ID": "access key id that may write to the backup bucket",
    "BACKUP_STORAGE_KEY": "its secret access key",
    "BACKUP_RECIPIENTS": "public key printed by `python -m infra.backup keygen`",
    "ALERT_WEBHOOK_URL": "incoming webhook of Slack",
    "PAGERDUTY_KEY": "integration key of the operations service",
    "PAGERDUTY_CLINICAL_KEY": "integration key of the clinical service",
    "SMTP_PASSWORD": "password of alerts@mhras.example.com",
}
#: A cluster on one machine alerts nobody and has no object store.
IN_DEVELOPMENT = dict.fromkeys(EXTERNAL, "unset") | {"ALERT_WEBHOOK_URL": "http://localhost:9/"}
del IN_DEVELOPMENT["BACKUP_RECIPIENTS"]

Secret = dict[str, Any]


class Environment(StrEnum):
    DEVELOPMENT = "development"
    STAGING = "staging"
    PRODUCTION = "production"


class MissingSecretError(ValueError):
    """Something that only the environment can give is absent; the message names all of it."""


@dataclass(frozen=True)
class Hosts:
    """Where PostgreSQL is reached: directly, and by the API (through the pooler, if any)."""

    direct: str
    api: str
    query: str = ""


HOSTS = {
    Environment.DEVELOPMENT: Hosts("postgres", "postgres"),
    Environment.STAGING: Hosts("postgres", "postgres"),
    Environment.PRODUCTION: Hosts(
        "mhras-postgres-rw", "mhras-postgres-pooler-rw", "?sslmode=verify-ca"
    ),
}


def make_secrets(environment: Environment, given: Mapping[str, str], hosts: Hosts) -> list[Secret]:
    """Return every Secret; raises MissingSecretError naming what `given` lacks."""
    known = IN_DEVELOPMENT if environment is Environment.DEVELOPMENT else {}
    external = {name: given.get(name) or known.get(name, "") for name in EXTERNAL}
    if missing := [name for name, value in external.items() if not value]:
        lines = "\n".join(f"  {name}: {EXTERNAL[name]}" for name in missing)
        raise MissingSecretError(f"these variables are needed and not set:\n{lines}")
    passwords = {role: secrets.token_urlsafe(32) for role in (*ROLES, API_LOGIN, "superuser")}
    made = [
        *_make_application_secrets(external, passwords, hosts),
        *_make_server_secrets(external, passwords, hosts),
        *_make_monitoring_secrets(external, passwords),
    ]
    if environment is Environment.PRODUCTION:
        made += [_make_role_secret(role, passwords[role]) for role in ROLES]
    return made


def _make_application_secrets(
    external: Mapping[str, str], passwords: Mapping[str, str], hosts: Hosts
) -> list[Secret]:
    owner = _make_url("mhras", passwords, hosts)
    keys = {name: make_key() for name in ("jwt", "salt", "audit")}
    admin, reader = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    application = {
        "database_url": owner,
        "app_database_url": (
            f"postgresql://{API_LOGIN}:{passwords[API_LOGIN]}@{hosts.api}:5432/mhras{hosts.query}"
        ),
        "jwt_secret_key": keys["jwt"],
        "anonymization_salt": keys["salt"],
        "audit_signing_key": keys["audit"],
        "model_storage_key_id": external["MODEL_STORAGE_KEY_ID"],
        "model_storage_key": external["MODEL_STORAGE_KEY"],
        "alert_webhook_url": external["ALERT_WEBHOOK_URL"],
        "mlflow_admin_username": MLFLOW_ADMIN,
        "mlflow_admin_password": admin,
        "mlflow_reader_username": MLFLOW_READER,
        "mlflow_reader_password": reader,
        "feast_reader_username": "feast_reader",
        "feast_reader_password": passwords["feast_reader"],
    }
    flows = {
        "DATABASE_URL": owner,
        "JWT_SECRET_KEY": keys["jwt"],
        "ANONYMIZATION_SALT": keys["salt"],
        "AUDIT_SIGNING_KEY": keys["audit"],
        "MLFLOW_TRACKING_USERNAME": MLFLOW_ADMIN,
        "MLFLOW_TRACKING_PASSWORD": admin,
        "FEAST_REGISTRY_URL": _make_url("feast", passwords, hosts, "postgresql+psycopg2"),
        "FEAST_ONLINE_USER": "feast",
        "FEAST_ONLINE_PASSWORD": passwords["feast"],
        "AWS_ACCESS_KEY_ID": external["MODEL_STORAGE_KEY_ID"],
        "AWS_SECRET_ACCESS_KEY": external["MODEL_STORAGE_KEY"],
    }
    return [_make_secret("mhras-secrets", application), _make_secret("mhras-flow-secrets", flows)]


def _make_server_secrets(
    external: Mapping[str, str], passwords: Mapping[str, str], hosts: Hosts
) -> list[Secret]:
    # asyncpg names the same thing differently.
    prefect = Hosts(hosts.direct, hosts.api, hosts.query.replace("sslmode=", "ssl="))
    backed_up = [
        f"postgresql://mhras_backup:{passwords['mhras_backup']}"
        f"@{hosts.direct}:5432/{name}{hosts.query}"
        for name in OWNERS
    ]
    return [
        _make_secret(
            "prefect-secrets",
            {
                "database_url": _make_url("prefect", passwords, prefect, "postgresql+asyncpg"),
                "api_auth_string": f"mhras:{secrets.token_urlsafe(32)}",
            },
        ),
        _make_secret(
            "mlflow-secrets",
            {
                "database_url": _make_url("mlflow", passwords, hosts),
                "flask_secret_key": secrets.token_urlsafe(32),
            },
        ),
        _make_secret(
            "postgres-secrets",
            {f"{role}_password": passwords[role] for role in (*ROLES, "superuser")},
        ),
        _make_secret(
            "mhras-backup-secrets",
            {
                "recipients": external["BACKUP_RECIPIENTS"],
                "database_urls": ",".join(backed_up),
                "storage_key_id": external["BACKUP_STORAGE_KEY_ID"],
                "storage_key": external["BACKUP_STORAGE_KEY"],
            },
        ),
    ]


def _make_monitoring_secrets(
    external: Mapping[str, str], passwords: Mapping[str, str]
) -> list[Secret]:
    alertmanager = {
        "slack_webhook_url": external["ALERT_WEBHOOK_URL"],
        "pagerduty_key": external["PAGERDUTY_KEY"],
        "pagerduty_clinical_key": external["PAGERDUTY_CLINICAL_KEY"],
        "smtp_password": external["SMTP_PASSWORD"],
    }
    return [
        _make_secret("alertmanager-secrets", alertmanager, "monitoring"),
        _make_secret(
            "grafana-secrets", {"admin_password": secrets.token_urlsafe(24)}, "monitoring"
        ),
        _make_secret(
            "postgres-exporter-secrets", {"password": passwords["mhras_exporter"]}, "monitoring"
        ),
    ]


def _make_role_secret(role: str, password: str) -> Secret:
    """Return what CloudNativePG reads a role's password from."""
    name = f"postgres-role-{role.replace('_', '-')}"
    secret = _make_secret(name, {"username": role, "password": password})
    return secret | {"type": "kubernetes.io/basic-auth"}


def _make_url(
    role: str, passwords: Mapping[str, str], hosts: Hosts, driver: str = "postgresql"
) -> str:
    return f"{driver}://{role}:{passwords[role]}@{hosts.direct}:5432/{role}{hosts.query}"


def make_key() -> str:
    """Return 256 random bits in base64, as `openssl rand -base64 32` does."""
    return base64.b64encode(secrets.token_bytes(32)).decode()


def _make_secret(name: str, values: Mapping[str, str], namespace: str = "mhras") -> Secret:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": "mhras"}},
        "type": "Opaque",
        "stringData": dict(values),
    }


def run(
    environment: Annotated[Environment, typer.Option(help="Which overlay it is for.")],
    database_host: Annotated[
        str | None, typer.Option(help="A managed PostgreSQL server, instead of the cluster's own.")
    ] = None,
) -> None:
    """Print every Secret of the cluster as YAML, to be piped to kubectl or kubeseal."""
    hosts = HOSTS[environment]
    if database_host is not None:
        hosts = Hosts(database_host, database_host, "?sslmode=verify-full")
    try:
        made = make_secrets(environment, os.environ, hosts)
    except MissingSecretError as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(2) from None
    sys.stdout.write(yaml.safe_dump_all(made, sort_keys=False))


if __name__ == "__main__":
    typer.run(run)
