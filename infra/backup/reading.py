"""Reading a backup back: verified in a scratch database, or restored for good."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg2
from sqlalchemy import create_engine, func, select

from infra.backup.databases import (
    DatabaseError,
    digest_tables,
    get_database_name,
    list_tables,
    make_scratch_database,
    open_connection,
    restore_database,
)
from infra.backup.encryption import decrypt_file, read_identity
from infra.backup.settings import CONFIGURATION, BackupSettings
from infra.backup.store import BackupStore, BackupStoreError, hash_file, name_moment
from infra.backup.taking import FORMAT
from infra.backup.trees import KeptFile, is_empty, open_object, put_tree, read_index
from serving.audit.checkpoints import CheckpointStore
from serving.audit.signing import KeyRing
from serving.audit.verification import verify_trail
from serving.database.privileges import make_role_statement
from serving.database.tables import AuditSeal
from serving.settings import normalise_database_url

#: The database that holds the audit trail.
RECORD = "mhras"
CHECKPOINTS = "checkpoints"

Announce = Callable[[str], None]


class VerificationError(RuntimeError):
    """A restore differs from the backup; the message names the difference."""


@dataclass(frozen=True)
class OpenedBackup:
    """A backup whose files are fetched, checked and decrypted one at a time."""

    store: BackupStore
    settings: BackupSettings
    moment: datetime
    manifest: dict[str, Any]

    @contextmanager
    def open_file(self, kept: dict[str, Any]) -> Iterator[Path]:
        """Return the decrypted file; raises when its hash or its encryption shows a change."""
        identity = read_identity(self.settings.backup_identity_file)
        with TemporaryDirectory(prefix="mhras-restore-") as folder:
            encrypted, plain = Path(folder) / "encrypted.age", Path(folder) / "plain"
            self.store.get(self.moment, kept["file"], encrypted, kept["sha256"])
            decrypt_file(encrypted, plain, identity)
            encrypted.unlink()
            if hash_file(plain) != kept["plain_sha256"]:
                raise VerificationError(f"{kept['file']} is another file than was backed up")
            yield plain

    def decrypt(self, source: Path, target: Path) -> None:
        decrypt_file(source, target, read_identity(self.settings.backup_identity_file))

    def read_tree(self, name: str) -> list[KeptFile]:
        """Return the files of a tree; raises VerificationError when some are missing."""
        kept = self.manifest["trees"][name]
        with self.open_file(kept) as index:
            files = read_index(index)
        if len(files) != kept["files"] or {file.object for file in files} != set(kept["objects"]):
            raise VerificationError(f"{name}: the manifest and the index name different files")
        return files


def open_backup(settings: BackupSettings, moment: datetime | None) -> OpenedBackup:
    """Open a backup, by default the newest; raises BackupStoreError when there is none."""
    store = BackupStore(settings.backup_url)
    moments = store.list_moments()
    chosen = moment or (moments[-1] if moments else None)
    if chosen is None or chosen not in moments:
        raise BackupStoreError("there is no such backup: `python -m infra.backup list`")
    manifest = store.read_manifest(chosen)
    if manifest.get("format") != FORMAT:
        raise BackupStoreError(f"{name_moment(chosen)} is of another version: {FORMAT} is read")
    return OpenedBackup(store, settings, chosen, manifest)


def verify_backup(
    backup: OpenedBackup, scratch_url: str, keys: KeyRing, announce: Announce
) -> None:
    """Restore everything into scratch places and compare it; raises VerificationError."""
    with TemporaryDirectory(prefix="mhras-trees-") as folder:
        for name in backup.manifest["trees"]:
            files = backup.read_tree(name)
            if name == CHECKPOINTS:
                put_tree(files, backup.store, backup.decrypt, str(Path(folder) / name))
            else:
                check_files(backup, files)
            announce(f"{name}: {len(files)} files")
        for name, kept in backup.manifest["databases"].items():
            with make_scratch_database(scratch_url) as url:
                with backup.open_file(kept) as dump:
                    restore_database(
                        url, dump, backup.settings.backup_postgres_bin, privileges=False
                    )
                rows = compare_tables(url, name, kept["tables"])
                announce(f"{name}: {len(kept['tables'])} tables, {rows:,} rows, hashes equal")
                if name == RECORD:
                    verify_record(url, Path(folder) / CHECKPOINTS, keys)
                    announce("audit trail intact")


def check_files(backup: OpenedBackup, files: list[KeptFile]) -> None:
    """Decrypt and hash each file, one at a time; raises TreeError for one that was changed."""
    for file in files:
        with open_object(file, backup.store, backup.decrypt):
            pass


def compare_tables(url: str, name: str, expected: dict[str, Any]) -> int:
    """Return the rows of all tables; raises VerificationError naming tables that differ."""
    with open_connection(url) as connection:
        actual = {table: asdict(digest) for table, digest in digest_tables(connection).items()}
    differing = {table for table in expected | actual if expected.get(table) != actual.get(table)}
    if differing:
        raise VerificationError(f"database {name}: {', '.join(sorted(differing))} differ")
    return sum(int(table["rows"]) for table in actual.values())


def verify_record(url: str, checkpoints: Path, keys: KeyRing) -> None:
    """Verify the restored audit trail; raises VerificationError when it is not intact."""
    checkpoints.mkdir(parents=True, exist_ok=True)
    engine = create_engine(normalise_database_url(url), hide_parameters=True)
    try:
        with engine.connect() as connection:
            newest = connection.scalar(select(func.max(AuditSeal.position))) or 0
        # Written while the backup ran, about rows that are not in it.
        for path in checkpoints.glob("checkpoint-*.json"):
            if int(path.stem.partition("-")[2]) > newest:
                path.unlink()
        verification = verify_trail(engine, CheckpointStore(str(checkpoints)), keys)
    finally:
        engine.dispose()
    if not verification.intact:
        kinds = ", ".join(sorted({finding.kind for finding in verification.findings}))
        raise VerificationError(f"the audit trail is not intact: {kinds}")


def restore_backup(backup: OpenedBackup, announce: Announce) -> None:
    """Restore databases and trees to where the settings say; all of these must be empty.

    Raises DatabaseError before anything is written if one is not.
    """
    targets = {get_database_name(url): url for url in backup.settings.database_urls}
    check_targets(backup, targets)
    for name, kept in backup.manifest["databases"].items():
        if name == RECORD:
            # Its owner may create roles; owners of the other databases may not.
            ensure_application_role(targets[name])
        with backup.open_file(kept) as dump:
            restore_database(targets[name], dump, backup.settings.backup_postgres_bin)
        rows = compare_tables(targets[name], name, kept["tables"])
        announce(f"{name}: {rows:,} rows restored")
    for name, url in backup.settings.trees.items():
        if name not in backup.manifest["trees"] or name == CONFIGURATION:
            continue
        files = backup.read_tree(name)
        put_tree(files, backup.store, backup.decrypt, url)
        announce(f"{name}: {len(files)} files restored")


def check_targets(backup: OpenedBackup, targets: dict[str, str]) -> None:
    """Raise DatabaseError where a database to restore into does not exist or is not empty."""
    missing = sorted(set(backup.manifest["databases"]) - set(targets))
    if missing:
        raise DatabaseError(f"BACKUP_DATABASE_URLS names no database {', '.join(missing)}")
    full = [name for name in backup.manifest["databases"] if list_tables(targets[name])]
    full += [
        name
        for name, url in backup.settings.trees.items()
        if name in ("models", "lake") and not is_empty(url)
    ]
    if full:
        raise DatabaseError(f"{', '.join(full)} not empty: a restore never overwrites")


def ensure_application_role(url: str) -> None:
    """Create the role that the dump grants to, where the cluster is a new one."""
    connection = psycopg2.connect(normalise_database_url(url).replace("+psycopg2", "", 1))
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(make_role_statement())
    finally:
        connection.close()
