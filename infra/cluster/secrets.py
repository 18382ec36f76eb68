"""Every Secret of a cluster as one manifest, values made or taken from the environment.

    python -m infra.cluster.secrets --environment staging --escrow s3://mhras-backups/mhras |
      kubectl apply -f -

Nothing readable is written anywhere: the escrow is encrypted to the backups' public key. Run it
once: run again it would make other passwords. What only others can give (EXTERNAL) is read from
variables of the same names.
"""

import base64
import os
import secrets
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
import yaml

from infra.backup.encryption import EncryptionError
from infra.cluster.databases import OWNERS, READERS
from infra.cluster.escrow import keep_escrow
from infra.cluster.hosts import HOSTS, Environment, Hosts, make_managed_hosts
from serving.audit.signing import Signer

ROLES = (*OWNERS, *READERS)
API_LOGIN = "mhras_api"
MLFLOW_ADMIN, MLFLOW_READER, MLFLOW_PROMOTER = "admin", "mhras-reader", "mhras-promoter"

#: What cannot be made here, with where it comes from. infra/storage/policies.json has what each key
#: of the object store may do.
EXTERNAL = {
    "MODEL_STORAGE_KEY_ID": "access key id of MLflow: the bucket of models, and no other",
    "MODEL_STORAGE_KEY": "its secret access key",
    "LAKE_STORAGE_KEY_ID": "access key id of the flows: the bucket of the lake, and no other",
    "LAKE_STORAGE_KEY": "its secret access key",
    "AUDIT_STORAGE_KEY_ID": "access key id of the API: may add to the audit bucket and read it",
    "AUDIT_STORAGE_KEY": "its secret access key",
    "BACKUP_STORAGE_KEY_ID": "access key id that reads all buckets and writes to that of backups",
    "BACKUP_STORAGE_KEY": "its secret access key",
    "BACKUP_RECIPIENTS": "public key printed by `python -m infra.backup keygen`",
    "ALERT_WEBHOOK_URL": "incoming webhook of Slack",
    "PAGERDUTY_KEY": "integration key of the operations service",
    "PAGERDUTY_CLINICAL_KEY": "integration key of the clinical service",
    "DEADMAN_URL": "address of a service that calls when alerts stop coming (healthchecks.io)",
    "SMTP_PASSWORD": "password of alerts@mhras.example.com",
    "OIDC_CLIENT_ID": "client id at the identity provider, for the sign-in at Prefect",
    "OIDC_CLIENT_SECRET": "its secret",
}
#: A cluster on one machine sends no alerts and has no object store.
IN_DEVELOPMENT = dict.fromkeys(EXTERNAL, "unset") | {
    "ALERT_WEBHOOK_URL": "http://localhost:9/",
    "DEADMAN_URL": "http://localhost:9/",
}
del IN_DEVELOPMENT["BACKUP_RECIPIENTS"]

Secret = dict[str, Any]


class MissingSecretError(ValueError):
    """Something that only the environment can give is absent; the message names all of it."""


def make_secrets(environment: Environment, given: Mapping[str, str], hosts: Hosts) -> list[Secret]:
    """Return every Secret; raises MissingSecretError naming what `given` lacks."""
    defaults = IN_DEVELOPMENT if environment is Environment.DEVELOPMENT else {}
    external = {name: given.get(name) or defaults.get(name, "") for name in EXTERNAL}
    if missing := [name for name, value in external.items() if not value]:
        lines = "\n".join(f"  {name}: {EXTERNAL[name]}" for name in missing)
        raise MissingSecretError(f"these variables are needed and not set:\n{lines}")
    passwords = {role: secrets.token_urlsafe(32) for role in (*ROLES, API_LOGIN, "superuser")}
    mlflow = {login: secrets.token_urlsafe(32) for login in ("admin", "reader", "promoter")}
    made = [
        *_make_application_secrets(external, passwords, mlflow, hosts),
        *_make_server_secrets(external, passwords, mlflow, hosts),
        *_make_monitoring_secrets(external, passwords),
    ]
    if environment is not Environment.DEVELOPMENT:
        made.append(_make_sign_in_secret(external))
    if hosts.by_operator:
        made += [_make_role_secret(role, passwords[role]) for role in ROLES]
    if hosts.ca:
        made += [
            _make_secret("mhras-postgres-ca", {"ca.crt": hosts.ca}, namespace)
            for namespace in ("mhras", "monitoring")
        ]
    return made


def _make_application_secrets(
    external: Mapping[str, str],
    passwords: Mapping[str, str],
    mlflow: Mapping[str, str],
    hosts: Hosts,
) -> list[Secret]:
    owner = _make_url("mhras", passwords, hosts)
    keys = {name: make_key() for name in ("jwt", "salt", "audit", "release")}
    release_key = Signer(keys["release"]).public_key
    application = {
        "app_database_url": (
            f"postgresql://{API_LOGIN}:{passwords[API_LOGIN]}@{hosts.api}:{hosts.port}/mhras{hosts.query}"
        ),
        "jwt_secret_key": keys["jwt"],
        "anonymization_salt": keys["salt"],
        "audit_signing_key": keys["audit"],
        "release_public_keys": release_key,
        "audit_storage_key_id": external["AUDIT_STORAGE_KEY_ID"],
        "audit_storage_key": external["AUDIT_STORAGE_KEY"],
        "alert_webhook_url": external["ALERT_WEBHOOK_URL"],
        "mlflow_reader_username": MLFLOW_READER,
        "mlflow_reader_password": mlflow["reader"],
        "mlflow_promoter_username": MLFLOW_PROMOTER,
        "mlflow_promoter_password": mlflow["promoter"],
        "feast_reader_username": "feast_reader",
        "feast_reader_password": passwords["feast_reader"],
    }
    flows = {
        "DATABASE_URL": owner,
        "JWT_SECRET_KEY": keys["jwt"],
        "ANONYMIZATION_SALT": keys["salt"],
        "AUDIT_SIGNING_KEY": keys["audit"],
        "RELEASE_SIGNING_KEY": keys["release"],
        "RELEASE_PUBLIC_KEYS": release_key,
        "ALERT_WEBHOOK_URL": external["ALERT_WEBHOOK_URL"],
        "MLFLOW_TRACKING_USERNAME": MLFLOW_ADMIN,
        "MLFLOW_TRACKING_PASSWORD": mlflow["admin"],
        "FEAST_REGISTRY_URL": _make_url("feast", passwords, hosts, "postgresql+psycopg2"),
        "FEAST_ONLINE_USER": "feast",
        "FEAST_ONLINE_PASSWORD": passwords["feast"],
        "AWS_ACCESS_KEY_ID": external["LAKE_STORAGE_KEY_ID"],
        "AWS_SECRET_ACCESS_KEY": external["LAKE_STORAGE_KEY"],
    }
    return [
        _make_secret("mhras-secrets", application),
        # Apart, so that a reader of the API's Secret does not own the tables.
        _make_secret("mhras-owner-secrets", {"database_url": owner}),
        _make_secret("mhras-flow-secrets", flows),
    ]


def _make_server_secrets(
    external: Mapping[str, str],
    passwords: Mapping[str, str],
    mlflow: Mapping[str, str],
    hosts: Hosts,
) -> list[Secret]:
    # asyncpg names the same thing differently.
    prefect = replace(hosts, query=hosts.query.replace("sslmode=", "ssl="))
    backed_up = [
        f"postgresql://mhras_backup:{passwords['mhras_backup']}"
        f"@{hosts.direct}:{hosts.port}/{name}{hosts.query}"
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
                "admin_username": MLFLOW_ADMIN,
                "admin_password": mlflow["admin"],
                "model_storage_key_id": external["MODEL_STORAGE_KEY_ID"],
                "model_storage_key": external["MODEL_STORAGE_KEY"],
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
        "deadman_url": external["DEADMAN_URL"],
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


def _make_sign_in_secret(external: Mapping[str, str]) -> Secret:
    values = {
        "client_id": external["OIDC_CLIENT_ID"],
        "client_secret": external["OIDC_CLIENT_SECRET"],
        # oauth2-proxy takes exactly 32 bytes, in URL-safe base64.
        "cookie_secret": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
    }
    return _make_secret("sign-in-secrets", values)


def _make_role_secret(role: str, password: str) -> Secret:
    """Return what CloudNativePG reads a role's password from."""
    name = f"postgres-role-{role.replace('_', '-')}"
    secret = _make_secret(name, {"username": role, "password": password})
    return secret | {"type": "kubernetes.io/basic-auth"}


def _make_url(
    role: str, passwords: Mapping[str, str], hosts: Hosts, driver: str = "postgresql"
) -> str:
    return f"{driver}://{role}:{passwords[role]}@{hosts.direct}:{hosts.port}/{role}{hosts.query}"


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
    database_ca: Annotated[
        Path | None, typer.Option(help="Certificate (PEM) of the authority of that server.")
    ] = None,
    escrow: Annotated[
        str | None, typer.Option(help="The backups' folder or s3:// prefix, for a sealed copy.")
    ] = None,
) -> None:
    """Print every Secret of the cluster as YAML, to be piped to kubectl or kubeseal."""
    hosts = HOSTS[environment]
    if (database_host is None) != (database_ca is None):
        _stop("--database-host and --database-ca belong together: verify-full needs the authority")
    if database_host is not None and database_ca is not None:
        hosts = make_managed_hosts(database_host, database_ca.read_text())
    try:
        made = make_secrets(environment, os.environ, hosts)
        if escrow is not None:
            keep_escrow(escrow, made, os.environ["BACKUP_RECIPIENTS"])
    except (MissingSecretError, EncryptionError) as error:
        _stop(str(error))
    sys.stdout.write(yaml.safe_dump_all(made, sort_keys=False))


def _stop(reason: str) -> NoReturn:
    sys.stderr.write(f"{reason}\n")
    raise typer.Exit(2)


if __name__ == "__main__":
    typer.run(run)
