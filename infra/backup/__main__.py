"""``python -m infra.backup run|list|verify|restore|keygen``; settings.py names the variables."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from datetime import time as dt_time
from pathlib import Path
from typing import Annotated

import psycopg2
import typer
from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings
from sqlalchemy import create_engine

from infra.backup.databases import DatabaseError, get_database_name, wait_for_database
from infra.backup.encryption import EncryptionError, make_key_pair
from infra.backup.erasures import ForgedReceiptError, reapply_erasures
from infra.backup.reading import (
    RECORD,
    VerificationError,
    open_backup,
    restore_backup,
    verify_backup,
)
from infra.backup.settings import BackupSettings, IncompleteBackupError
from infra.backup.store import BackupStore, BackupStoreError, name_moment, parse_stamp
from infra.backup.taking import prune_backups, take_backup
from infra.backup.trees import TreeError
from serving.audit.signing import KeyRing, Signer
from serving.settings import normalise_database_url, split_keys

REFUSALS = (
    *(DatabaseError, EncryptionError, ForgedReceiptError, VerificationError, BackupStoreError),
    *(TreeError,),
    psycopg2.Error,
)

AGE_METRIC = "mhras_backup_last_success_timestamp_seconds"

app = typer.Typer(
    help="Encrypted backups and their restore.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
Which = Annotated[str | None, typer.Option(help="Backup by name (default: the newest).")]


class SigningSettings(BaseSettings):
    """The keys under which checkpoints and receipts were signed."""

    audit_signing_key: SecretStr
    audit_retired_keys: str = ""

    def make_key_ring(self) -> KeyRing:
        current = Signer(self.audit_signing_key.get_secret_value()).public_key
        return KeyRing([current, *split_keys(self.audit_retired_keys)])


@app.command("run")
def run(
    textfile: Annotated[
        Path | None, typer.Option(help="File for the node exporter: when the last backup ended.")
    ] = None,
) -> None:
    """Take a backup, then remove those that retention (7 daily, 4 weekly, 12 monthly) drops."""
    with _explain_failures():
        settings = BackupSettings()  # type: ignore[call-arg] # filled from the environment
        begun = time.monotonic()
        moment = take_backup(settings, _announce)
        removed = prune_backups(BackupStore(settings.backup_url))
        seconds = time.monotonic() - begun
        if textfile is not None:
            write_metric(textfile, time.time())
        _announce(f"backup {name_moment(moment)} in {seconds:.0f} s; {len(removed)} removed")


@app.command("schedule")
def schedule(
    at: Annotated[str, typer.Option(help="Time of day (UTC, HH:MM) of each backup.")] = "02:00",
    textfile: Annotated[
        Path | None, typer.Option(help="File for the node exporter: when the last backup ended.")
    ] = None,
) -> None:
    """Take a backup every day, for machines without a scheduler of their own. Ends at a signal."""
    try:
        moment = datetime.strptime(at, "%H:%M").time()
    except ValueError:
        sys.stderr.write(f"--at {at}: a time of day as HH:MM\n")
        raise typer.Exit(2) from None
    with _explain_failures():
        BackupSettings().check_complete()  # type: ignore[call-arg]
    while True:
        due = find_next(moment, datetime.now(UTC))
        _announce(f"next backup at {due:%Y-%m-%d %H:%M} UTC")
        time.sleep((due - datetime.now(UTC)).total_seconds())
        try:
            run(textfile)
        except typer.Exit:
            # Said already; BackupMissing fires when the moment in the file grows old.
            _announce("no backup today: the next one is tried tomorrow")


def find_next(at: dt_time, now: datetime) -> datetime:
    """Return the next moment of a time of day, strictly after `now` (UTC)."""
    today = datetime.combine(now.date(), at, tzinfo=UTC)
    return today if today > now else today + timedelta(days=1)


def write_metric(path: Path, ended_at: float) -> None:
    """Write when a backup ended, in Prometheus' text format, in one move."""
    scratch = path.with_suffix(".part")
    scratch.write_text(
        f"# HELP {AGE_METRIC} When the last whole backup ended.\n"
        f"# TYPE {AGE_METRIC} gauge\n{AGE_METRIC} {ended_at:.0f}\n"
    )
    scratch.chmod(0o644)
    scratch.replace(path)


@app.command("list")
def list_backups() -> None:
    """Print the backups there are, oldest first."""
    with _explain_failures():
        settings = BackupSettings()  # type: ignore[call-arg] # filled from the environment
        for moment in BackupStore(settings.backup_url).list_moments():
            _announce(name_moment(moment))


@app.command("verify")
def verify(
    scratch_url: Annotated[
        str, typer.Option(help="PostgreSQL URL of a login that may create databases.")
    ],
    backup: Which = None,
) -> None:
    """Restore into scratch databases; compare rows, hashes, audit chain. Exit code 1: not whole."""
    with _explain_failures():
        settings = BackupSettings()  # type: ignore[call-arg] # filled from the environment
        keys = SigningSettings().make_key_ring()  # type: ignore[call-arg]
        opened = open_backup(settings, parse_stamp(backup) if backup else None)
        verify_backup(opened, scratch_url, keys, _announce)
        _announce(f"backup {name_moment(opened.moment)} is whole")


@app.command("restore")
def restore(
    yes: Annotated[bool, typer.Option("--yes", help="Yes, into the places that are set.")] = False,
    backup: Which = None,
    erasures: Annotated[
        Path | None, typer.Option(help="Receipts of erasures after the backup (JSON list).")
    ] = None,
    patience: Annotated[
        float, typer.Option(help="Seconds to wait for databases that are being made.", min=0)
    ] = 0,
) -> None:
    """Restore databases and files into empty places; erased individuals are erased again."""
    with _explain_failures():
        settings = BackupSettings()  # type: ignore[call-arg] # filled from the environment
        keys = SigningSettings().make_key_ring()  # type: ignore[call-arg]
        opened = open_backup(settings, parse_stamp(backup) if backup else None)
        if not yes:
            raise DatabaseError(f"this would restore {name_moment(opened.moment)}: say --yes")
        receipts = json.loads(erasures.read_text()) if erasures else []
        for url in settings.database_urls:
            wait_for_database(url, patience)
        restore_backup(opened, _announce)
        urls = {get_database_name(url): url for url in settings.database_urls}
        if RECORD in urls:
            engine = create_engine(normalise_database_url(urls[RECORD]), hide_parameters=True)
            new, queued = reapply_erasures(engine, receipts, keys)
            engine.dispose()
            _announce(f"erasures: {new} carried out, {queued} stores queued for the erasure flow")


@app.command("keygen")
def make_keys() -> None:
    """Print a key pair: the public key goes to the cluster, the private one to a safe place."""
    public, private = make_key_pair()
    _announce(f"# public key (BACKUP_RECIPIENTS): {public}\n{private}")


@contextmanager
def _explain_failures() -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        # Without the values, which may be secrets.
        for flaw in error.errors(include_input=False, include_url=False):
            sys.stderr.write(f"{str(flaw['loc'][0]).upper()}: {flaw['msg']}\n")
        raise typer.Exit(2) from None
    except IncompleteBackupError as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(2) from None
    except REFUSALS as error:
        sys.stderr.write(f"{str(error).strip().partition(chr(10))[0]}\n")
        raise typer.Exit(1) from None


def _announce(text: str) -> None:
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    app()
