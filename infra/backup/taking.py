"""Taking a backup: databases first, then files, each encrypted; the manifest last."""

from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from infra.backup.databases import (
    digest_tables,
    dump_database,
    export_snapshot,
    get_database_name,
    open_connection,
)
from infra.backup.encryption import encrypt_file, parse_recipients
from infra.backup.retention import choose_kept
from infra.backup.settings import BackupSettings
from infra.backup.store import BackupStore, BackupStoreError, hash_file
from infra.backup.trees import TreeError, keep_tree, write_index

FORMAT = "mhras-backup-2"

Announce = Callable[[str], None]
#: Encrypts a file and stores it in the backup under a name; returns its entry of the manifest.
Keep = Callable[[Path, str], dict[str, Any]]


def take_backup(settings: BackupSettings, announce: Announce) -> datetime:
    """Take a backup of all that the settings name; return its moment.

    A backup that breaks off has no manifest, and so is none. Raises IncompleteBackupError before
    anything is read when the settings leave something out without saying so.
    """
    settings.check_complete()
    recipients = parse_recipients(settings.backup_recipients)
    store = BackupStore(settings.backup_url)
    moment = datetime.now(UTC).replace(microsecond=0)
    manifest: dict[str, Any] = {"format": FORMAT, "taken_at": moment.isoformat()}
    manifest |= {"databases": {}, "trees": {}, "without": sorted(settings.left_out)}

    def keep(plain: Path, name: str) -> dict[str, Any]:
        encrypted = plain.with_suffix(".age")
        encrypt_file(plain, encrypted, recipients)
        store.put(moment, name, encrypted)
        kept = {"file": name, "bytes": encrypted.stat().st_size}
        kept |= {"sha256": hash_file(encrypted), "plain_sha256": hash_file(plain)}
        plain.unlink()
        encrypted.unlink()
        announce(f"{name}: {kept['bytes']:,} bytes")
        return kept

    with TemporaryDirectory(prefix="mhras-backup-") as folder:
        plain = Path(folder) / "plain"
        for url in settings.database_urls:
            name = get_database_name(url)
            manifest["databases"][name] = _take_database(settings, url, name, plain, keep)
        encrypt = partial(encrypt_file, recipients=recipients)
        for name, url in settings.trees.items():
            tree = keep_tree(url, name, store, encrypt)
            if not tree.files:
                raise TreeError(f"{name} has no file: is its URL right? (BACKUP_WITHOUT={name})")
            announce(f"{name}: {len(tree.files)} files, {tree.added} new")
            write_index(tree.files, plain)
            objects = sorted({file.object for file in tree.files})
            manifest["trees"][name] = keep(plain, f"trees/{name}.index.age") | {
                "files": len(tree.files),
                "added_bytes": tree.added_bytes,
                "objects": objects,
            }
    _check_objects(store, list_needed_objects(manifest))
    store.write_manifest(moment, manifest)
    return moment


def _take_database(
    settings: BackupSettings, url: str, name: str, plain: Path, keep: Keep
) -> dict[str, Any]:
    with open_connection(url) as connection:
        # The dump and the hashes are of the same snapshot.
        dump_database(url, plain, export_snapshot(connection), settings.backup_postgres_bin)
        tables = {table: asdict(digest) for table, digest in digest_tables(connection).items()}
    return keep(plain, f"databases/{name}.dump.age") | {"tables": tables}


def _check_objects(store: BackupStore, needed: set[str]) -> None:
    """Raise BackupStoreError if an object went away while the backup was taken (by a pruning)."""
    if missing := needed - set(store.list_objects()):
        raise BackupStoreError(f"{len(missing)} objects were removed meanwhile: run it again")


def list_needed_objects(manifest: dict[str, Any]) -> set[str]:
    """Return the names of the objects without which a backup is not whole."""
    return {name for tree in manifest.get("trees", {}).values() for name in tree["objects"]}


def prune_backups(store: BackupStore) -> list[datetime]:
    """Remove what retention does not keep, and the objects only it needed; return what was."""
    moments = store.list_moments()
    kept = choose_kept(moments)
    removed = sorted(set(moments) - kept)
    for moment in removed:
        store.remove(moment)
    needed = set().union(*(list_needed_objects(store.read_manifest(moment)) for moment in kept))
    store.remove_objects(needed, datetime.now(UTC))
    return removed
