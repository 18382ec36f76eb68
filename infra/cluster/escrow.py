"""Secrets of a cluster, kept where a lost cluster does not take them along.

    kubectl get secrets -A -l app=mhras -o yaml | python -m infra.cluster.escrow seal
    BACKUP_IDENTITY_FILE=key.txt python -m infra.cluster.escrow open | kubectl apply -f -

They lie beside the backups, in BACKUP_URL/escrow, encrypted to the backups' public key
(BACKUP_RECIPIENTS): the keys that read a backup read its secrets, and no other key does.
"""

import base64
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import fsspec.core
import pyrage
import typer
import yaml
from sqlalchemy import make_url

from infra.backup.encryption import EncryptionError, parse_recipients, read_identity
from infra.backup.store import name_moment

FOLDER = "escrow"
RESTORE_SECRET = "mhras-restore-secrets"
#: The owner's URL of each database, by Secret and key.
OWNER_URLS = (
    ("mhras-owner-secrets", "database_url"),
    ("mlflow-secrets", "database_url"),
    ("prefect-secrets", "database_url"),
    ("mhras-flow-secrets", "FEAST_REGISTRY_URL"),
)
#: Of the object store, for the time of a restore: writes models, lake and audit, reads backups.
RESTORE_KEYS = ("RESTORE_STORAGE_KEY_ID", "RESTORE_STORAGE_KEY")

Secret = dict[str, Any]

app = typer.Typer(
    help="Secrets of a cluster, encrypted and kept beside its backups.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)


class EscrowError(RuntimeError):
    """There is no escrow, or it lacks a Secret; the message names what is missing."""


def seal_secrets(secrets: Sequence[Secret], recipients: str) -> bytes:
    """Return the Secrets as YAML, encrypted; raises EncryptionError for what is no age key."""
    plain = yaml.safe_dump_all(secrets, sort_keys=False).encode()
    return pyrage.encrypt(plain, parse_recipients(recipients))


def open_sealed(sealed: bytes, identity_file: Path | None) -> list[Secret]:
    """Return the Secrets; raises EncryptionError when the key does not fit or it was changed."""
    try:
        plain = pyrage.decrypt(sealed, [read_identity(identity_file)])
    except pyrage.DecryptError as error:
        raise EncryptionError("escrow: wrong key, or it was changed") from error
    return list(yaml.safe_load_all(plain))


def keep_escrow(url: str, secrets: Sequence[Secret], recipients: str) -> str:
    """Write a new sealed copy below `url`/escrow; return its name. Older ones stay."""
    fs, root = fsspec.core.url_to_fs(f"{url.rstrip('/')}/{FOLDER}", use_listings_cache=False)
    name = f"{name_moment(datetime.now(UTC))}.age"
    fs.makedirs(root, exist_ok=True)
    fs.pipe_file(f"{root}/{name}", seal_secrets(secrets, recipients))
    return name


def open_escrow(url: str, identity_file: Path | None) -> list[Secret]:
    """Return the Secrets of the newest copy; raises EscrowError when there is none."""
    fs, root = fsspec.core.url_to_fs(f"{url.rstrip('/')}/{FOLDER}", use_listings_cache=False)
    kept = sorted(fs.glob(f"{root}/*.age"))
    if not kept:
        raise EscrowError(f"there is no escrow in BACKUP_URL/{FOLDER}: `escrow seal` makes one")
    return open_sealed(fs.cat_file(kept[-1]), identity_file)


def read_cluster_secrets(text: str) -> list[Secret]:
    """Return what `kubectl get secrets -o yaml` printed as Secrets that can be applied again.

    Raises EscrowError naming what is missing.
    """
    items = [
        item
        for document in yaml.safe_load_all(text)
        if document
        for item in (document["items"] if document["kind"].endswith("List") else [document])
    ]
    if not items:
        raise EscrowError("no Secret was given: kubectl get secrets -A -l app=mhras -o yaml")
    return [_make_applicable(item) for item in items]


def _make_applicable(item: Secret) -> Secret:
    values = {name: base64.b64decode(v).decode() for name, v in item.get("data", {}).items()}
    place = item["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": place["name"],
            "namespace": place["namespace"],
            "labels": place.get("labels", {}),
        },
        "type": item.get("type", "Opaque"),
        "stringData": values | item.get("stringData", {}),
    }


def get_value(secrets: Sequence[Secret], name: str, key: str) -> str:
    """Return a value; raises EscrowError naming the Secret and key that are missing."""
    for secret in secrets:
        if secret["metadata"]["name"] == name and key in secret["stringData"]:
            return str(secret["stringData"][key])
    raise EscrowError(f"the escrow has no {name}.{key}")


def list_owner_urls(secrets: Sequence[Secret]) -> list[str]:
    """Return the URL of each database under its owner's login, as libpq reads it."""
    return [_make_libpq_url(get_value(secrets, *place)) for place in OWNER_URLS]


def _make_libpq_url(url: str) -> str:
    parsed_url = make_url(url).set(drivername="postgresql")
    # asyncpg names the same thing differently.
    if mode := parsed_url.query.get("ssl"):
        parsed_url = parsed_url.difference_update_query(["ssl"]).update_query_dict(
            {"sslmode": str(mode)}
        )
    return parsed_url.render_as_string(hide_password=False)


def make_restore_secret(
    secrets: Sequence[Secret], identity_file: Path, given: Mapping[str, str]
) -> Secret:
    """Return what the restore Job needs beside the old Secrets; it is deleted after the restore.

    Raises EscrowError.
    """
    if missing := [name for name in RESTORE_KEYS if not given.get(name)]:
        raise EscrowError(f"{', '.join(missing)} not set: a key that may write every bucket")
    values = {
        "database_urls": ",".join(list_owner_urls(secrets)),
        "audit_signing_key": get_value(secrets, "mhras-secrets", "audit_signing_key"),
        "identity": identity_file.read_text(),
        "storage_key_id": given[RESTORE_KEYS[0]],
        "storage_key": given[RESTORE_KEYS[1]],
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": RESTORE_SECRET, "namespace": "mhras", "labels": {"app": "mhras"}},
        "type": "Opaque",
        "stringData": values,
    }


@app.command("seal")
def seal() -> None:
    """Read Secrets (YAML of kubectl) from standard input and keep an encrypted copy."""
    try:
        url, recipients = _read("BACKUP_URL"), _read("BACKUP_RECIPIENTS")
        secrets = read_cluster_secrets(sys.stdin.read())
        name = keep_escrow(url, secrets, recipients)
    except (EscrowError, EncryptionError) as error:
        _stop(str(error))
    sys.stderr.write(f"{len(secrets)} Secrets sealed as {FOLDER}/{name}\n")


@app.command("open")
def open_newest(
    for_restore: Annotated[
        bool, typer.Option("--for-restore", help="And the Secret of the restore Job.")
    ] = False,
) -> None:
    """Print the Secrets of the newest copy as YAML, to be piped to kubectl."""
    try:
        identity = Path(_read("BACKUP_IDENTITY_FILE"))
        secrets = open_escrow(_read("BACKUP_URL"), identity)
        if for_restore:
            secrets.append(make_restore_secret(secrets, identity, os.environ))
    except (EscrowError, EncryptionError) as error:
        _stop(str(error))
    sys.stdout.write(yaml.safe_dump_all(secrets, sort_keys=False))


def _read(name: str) -> str:
    if not os.environ.get(name):
        raise EscrowError(f"{name} is not set")
    return os.environ[name]


def _stop(reason: str) -> NoReturn:
    sys.stderr.write(f"{reason}\n")
    raise typer.Exit(2)


if __name__ == "__main__":
    app()
