"""Taking a backup: databases first, then files, each encrypted; the manifest last."""

from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
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
from infra.backup.store import BackupStore, hash_file
from infra.backup.trees import pack_tree

FORMAT = "mhras-backup-1"

Announce = Callable[[str], None]


def take_backup(settings: BackupSettings, announce: Announce) -> datetime:
    """Take a backup of all that the settings name; return its moment.

    A backup that breaks off has no manifest, and so is none.
    """
    recipients = parse_recipients(settings.backup_recipients)
    store = BackupStore(settings.backup_url)
    moment = datetime.now(UTC).replace(microsecond=0)
    manifest: dict[str, Any] = {"format": FORMAT, "taken_at": moment.isoformat()}
    manifest |= {"databases": {}, "trees": {}}

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
            with open_connection(url) as connection:
                # The dump and the hashes are of the same snapshot.
                dump_database(url, plain, export_snapshot(connection), settings.backup_postgres_bin)
                tables = {
                    table: asdict(found) for table, found in digest_tables(connection).items()
                }
            kept = keep(plain, f"databases/{name}.dump.age")
            manifest["databases"][name] = kept | {"tables": tables}
        for name, url in settings.trees.items():
            count = pack_tree(url, plain)
            manifest["trees"][name] = keep(plain, f"trees/{name}.tar.age") | {"files": count}
    store.write_manifest(moment, manifest)
    return moment


def prune_backups(store: BackupStore) -> list[datetime]:
    """Remove what retention does not keep; return what was removed."""
    moments = store.list_moments()
    removed = sorted(set(moments) - choose_kept(moments))
    for moment in removed:
        store.remove(moment)
    return removed
