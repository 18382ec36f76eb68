"""The volume of the write-ahead log is full: nothing is acknowledged, and nothing was lost."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from infra.local.postgres import PostgresServer, start_postgres
from tests.fixtures.api import mlflow_url, production_version, releases
from tests.fixtures.attack_load import check_books, keep_screening, verify_chain
from tests.fixtures.attacked_stack import AttackedStack, run_attacked_stack

__all__ = ["mlflow_url", "production_version", "releases"]

pytestmark = pytest.mark.nightly

VOLUME_BYTES = 128 * 1024 * 1024
FULL_SECONDS = 15


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """A small volume in memory."""
    folder = Path("/mnt") / f"mhras-wal-{os.getpid()}"
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={VOLUME_BYTES}", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        folder.rmdir()
        pytest.skip(f"a volume cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
    folder.rmdir()


@pytest.fixture
def stack(
    tmp_path: Path, mlflow_url: str, production_version: int, volume: Path
) -> Iterator[AttackedStack]:
    with run_attacked_stack(tmp_path, mlflow_url) as stack:
        stack.stop_api()
        with stack.owner.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("ALTER SYSTEM SET min_wal_size = '32MB'"))
            connection.execute(text("ALTER SYSTEM SET max_wal_size = '48MB'"))
        move_log_to(volume / "pg_wal", stack.postgres)
        start_postgres(stack.folder / "postgres", stack.postgres.port, stack.postgres.password)
        stack.start_api()
        yield stack


def move_log_to(place: Path, postgres: PostgresServer) -> None:
    """Move the write-ahead log of a server that is stopped, with its owner and permissions."""
    postgres.stop()
    log = postgres.data_dir / "pg_wal"
    owner = log.stat()
    shutil.move(log, place)
    for path in (place.parent, place, *place.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)
    log.symlink_to(place)


def fill(volume: Path) -> Path:
    filler = volume / "filler"
    with filler.open("wb") as file:
        while shutil.disk_usage(volume).free > 0:
            file.write(b"\0" * min(1024 * 1024, shutil.disk_usage(volume).free))
            file.flush()
    return filler


def test_a_full_volume_of_the_log_acknowledges_and_loses_nothing(
    stack: AttackedStack, volume: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with keep_screening(stack.url, stack.grant(50_000)) as load:
        time.sleep(3)
        filler = fill(volume)
        until = time.monotonic() + FULL_SECONDS
        while time.monotonic() < until:
            write_log(stack)
        refused = [one for one in load.attempts[-20:] if one.status != 200]
        filler.unlink()
        stack.restart_postgres()
        stack.wait_until_ready()
        done = len(load.acknowledged)
        time.sleep(5)
    counts = check_books(stack.owner, load)
    found = verify_chain(stack.url)
    with capsys.disabled():
        print(f"\nlog volume full for {FULL_SECONDS} s: {load.count()}, {counts}")  # noqa: T201

    assert len(refused) == 20, "the volume was not full"
    assert {one.status for one in load.attempts} <= {200, 409, 503, 504}
    assert len(load.acknowledged) > done
    assert found["intact"], found["findings"]


def write_log(stack: AttackedStack) -> None:
    """Use up what is left of the log's segments; the server refuses it when none is."""
    try:
        with stack.owner.begin() as connection:
            written = "SELECT pg_logical_emit_message(true, 'x', repeat('x', 4194304))"
            connection.execute(text(written))
    except DBAPIError:
        time.sleep(0.5)
