"""``python -m infra.drill``: restore the newest backup on this machine and see the API answer.

Needs BACKUP_URL, BACKUP_IDENTITY_FILE and the object store's variables; PostgreSQL, MLflow and the
API are started here and stopped again. Prints the time of each step; exit code 1: not restored.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Annotated, TypeVar

import psycopg2
import typer
from pydantic import ValidationError

from infra.backup.databases import DatabaseError
from infra.backup.encryption import EncryptionError
from infra.backup.erasures import ForgedReceiptError
from infra.backup.reading import VerificationError
from infra.backup.settings import BackupSettings
from infra.backup.store import BackupStoreError
from infra.backup.trees import TreeError
from infra.cluster.databases import SetUpError
from infra.cluster.escrow import EscrowError, open_escrow
from infra.drill import steps
from infra.drill.places import Places, choose_ports
from infra.local.ports import choose_port
from infra.local.postgres import PostgresStartError, remove_root_state, start_postgres
from infra.local.processes import ManagedProcess, ServiceFailedError

#: The deployment guide's objective for the whole recovery.
RTO_SECONDS = 4 * 3600
STORE_VARIABLES = (
    *("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"),
)
FAILURES = (
    *(DatabaseError, EncryptionError, ForgedReceiptError, VerificationError, BackupStoreError),
    *(TreeError, SetUpError, EscrowError, PostgresStartError, ServiceFailedError),
    *(steps.DrillFailedError, psycopg2.Error),
)
Result = TypeVar("Result")


def run(
    store: Annotated[
        str | None, typer.Option(help="Empty folder or s3:// prefix to restore files to.")
    ] = None,
    erasures: Annotated[
        Path | None, typer.Option(help="Receipts of erasures after the backup (JSON list).")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave what was restored behind.")] = False,
) -> None:
    """Restore the newest backup into empty places on this machine and start the API on it."""
    try:
        settings = BackupSettings()  # type: ignore[call-arg] # filled from the environment
    except ValidationError:
        _stop("BACKUP_URL is not set: the folder or s3:// prefix of the backups", 2)
    begun = time.monotonic()
    receipts = json.loads(erasures.read_text()) if erasures else []
    variables = {name: os.environ[name] for name in STORE_VARIABLES if os.environ.get(name)}
    try:
        with _open_places(store) as places:
            _restore(settings, places, receipts, variables)
        if keep:
            _announce(f"left in {places.state}")
        else:
            # Only after a success: the logs of a failure are needed.
            remove_root_state(places.state / "postgres")
            shutil.rmtree(places.state)
    except FAILURES as error:
        _stop(f"not restored: {error}", 1)
    seconds = time.monotonic() - begun
    _announce(f"restored in {seconds:.0f} s; the objective for all of it is {RTO_SECONDS} s")


def _restore(
    settings: BackupSettings,
    places: Places,
    receipts: list[dict[str, object]],
    variables: dict[str, str],
) -> None:
    running: list[ManagedProcess] = []
    try:
        secrets = _time("secrets from escrow", _open_secrets(settings))
        _time("roles and databases", lambda: steps.make_databases(places, secrets))
        erased = _time(
            "databases and files", lambda: steps.restore(settings, places, secrets, receipts)
        )
        _announce(f"  {erased}")
        _time("migration", lambda: steps.migrate(places, secrets))
        running.append(_time("MLflow", lambda: steps.start_mlflow(places, secrets, variables)))
        _time("erasure flow", lambda: steps.run_erasure_flow(places, secrets, variables))
        running.append(_time("API", lambda: steps.start_api(places, secrets, variables)))
        _announce(f"  the API is healthy and answers with {steps.check_answers(places)}")
        count = _time("erased people", lambda: steps.check_erased(places, secrets))
        _announce(f"  all {count} who were ever erased still are")
    finally:
        while running:
            running.pop().stop()


def _open_secrets(settings: BackupSettings) -> Callable[[], list[dict[str, object]]]:
    return lambda: open_escrow(settings.backup_url, settings.backup_identity_file)


@contextmanager
def _open_places(store: str | None) -> Iterator[Places]:
    """Start an empty PostgreSQL server, and stop it at the end."""
    state = Path(mkdtemp(prefix="mhras-drill-"))
    port = choose_port(15600)
    postgres = start_postgres(state / "postgres", port, os.urandom(16).hex())
    try:
        mlflow_port, api_port = choose_ports()
        yield Places(state, postgres, store or str(state / "store"), mlflow_port, api_port)
    finally:
        postgres.stop()


def _time(name: str, step: Callable[[], Result]) -> Result:
    begun = time.monotonic()
    result = step()
    _announce(f"{name:22}{time.monotonic() - begun:6.1f} s")
    return result


def _announce(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _stop(reason: str, code: int) -> None:
    sys.stderr.write(f"{reason}\n")
    raise typer.Exit(code)


if __name__ == "__main__":
    typer.run(run)
