"""What a backup of a million predictions costs: seconds and size, taken, verified, restored."""

import tempfile
from pathlib import Path
from time import perf_counter

from pydantic import SecretStr
from sqlalchemy import create_engine, text

from infra.backup.encryption import make_key_pair
from infra.backup.reading import open_backup, restore_backup, verify_backup
from infra.backup.settings import BackupSettings
from infra.backup.taking import take_backup
from infra.local.ports import choose_port
from infra.local.postgres import PostgresServer, remove_root_state, start_postgres
from serving.audit.signing import KeyRing, Signer
from serving.database.migrate import upgrade

PREDICTIONS = 1_000_000
SIGNING_KEY = "c2lnbmluZy1rZXktb2YtdGVzdHMtMzItYnl0ZXMhISE="
#: An answer and its inputs take some 3.5 KB of the table, as those of a screening do.
FILL = r"""
INSERT INTO predictions (id, anonymized_id, created_at, user_id, risk_score, probability,
    risk_band, confidence, needs_review, review_reasons, release_version, arm, answer, inputs)
SELECT gen_random_uuid(), md5(n\:\:text), now() - n * interval '1 second', 'dr.' || n % 50,
    n % 101, (n % 1000) / 1000.0, 'low', 0.8, false, '{}', '3', 'production',
    jsonb_build_object('reasons',
        (SELECT jsonb_agg(md5(n\:\:text || k)) FROM generate_series(1, 60) k)),
    jsonb_build_object('values',
        (SELECT jsonb_agg((n * k % 997) / 7.0) FROM generate_series(1, 160) k))
FROM generate_series(1, :rows) n
"""


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="mhras-bench-") as name:
        folder = Path(name)
        server = start_postgres(folder / "postgres", choose_port(15632), "bench")
        try:
            run(server, folder)
        finally:
            server.stop()
            remove_root_state(folder / "postgres")


def run(server: PostgresServer, folder: Path) -> None:
    server.create_databases(["mhras"])
    url = server.url("mhras")
    upgrade(url)
    fill(url)
    public, private = make_key_pair()
    (folder / "key.txt").write_text(private)
    settings = BackupSettings(
        backup_url=str(folder / "backups"),
        backup_database_urls=SecretStr(url),
        backup_without="mlflow,prefect,feast,models,lake,checkpoints,configuration",
        backup_recipients=public,
        backup_identity_file=folder / "key.txt",
    )
    keys = KeyRing([Signer(SIGNING_KEY).public_key])
    taken = measure(lambda: take_backup(settings, be_quiet))
    size = sum(path.stat().st_size for path in (folder / "backups").rglob("*.age"))
    opened = open_backup(settings, None)
    verified = measure(lambda: verify_backup(opened, server.url("postgres"), keys, be_quiet))
    engine = create_engine(server.url("postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("DROP DATABASE mhras"))
        connection.execute(text("CREATE DATABASE mhras"))
    engine.dispose()
    restored = measure(lambda: restore_backup(opened, be_quiet))
    print(f"backup of {PREDICTIONS:,} predictions: {size / 1e6:.0f} MB encrypted")
    print(f"  taken {taken:.0f} s, verified {verified:.0f} s, restored {restored:.0f} s")


def fill(url: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text(FILL), {"rows": PREDICTIONS})
    engine.dispose()


def measure(act) -> float:
    begun = perf_counter()
    act()
    return perf_counter() - begun


def be_quiet(_text: str) -> None:
    """Announcements are for people."""


if __name__ == "__main__":
    main()
