"""The sealer: chains committed audit rows and signs checkpoints, in one worker at a time."""

import threading
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import structlog
from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.dialects.postgresql import insert

from monitoring.logging import describe_error
from monitoring.metrics import AUDIT_EVENTS, AUDIT_SEALING_FAILURES
from serving.audit.chain import GENESIS, Row, hash_row
from serving.audit.checkpoints import CheckpointStore
from serving.audit.signing import Signer
from serving.database.tables import AuditCheckpoint, AuditRow, AuditSeal

log = structlog.get_logger("serving.audit")

#: Any number that is the same in every worker: two must not chain at once.
SEALING_LOCK = 0x6D687262

ROWS_PER_TRANSACTION = 1_000
#: How far below the newest sealed row a row may still be on its way: ids are given out before
#: the commit, and the transactions of a few seconds hold far fewer.
ROWS_ON_THEIR_WAY = 20_000

CHECKPOINT_KIND = "mhras-audit-checkpoint"


class ChainTamperedError(Exception):
    """The chain contradicts the newest checkpoint of the store."""


def seal_rows(engine: Engine) -> int:
    """Chain all committed rows that are not chained yet; return how many.

    Does nothing while another worker is sealing.
    """
    total = 0
    while sealed := _seal_some(engine):
        total += sealed
        if sealed < ROWS_PER_TRANSACTION:
            break
    return total


def sign_checkpoint(engine: Engine, store: CheckpointStore, signer: Signer) -> int | None:
    """Sign the head of the chain, if it moved, and keep it in the store and the database.

    Returns its position. Raises CheckpointStoreError, and ChainTamperedError rather than sign
    what contradicts an earlier checkpoint.
    """
    with engine.begin() as connection:
        if not _take_lock(connection):
            return None
        head = _read_head(connection)
        # The store decides what is signed: the API's login can write checkpoints to the database.
        last = max(store.list_positions(), default=0)
        if last and not _is_kept(connection, last):
            _adopt(connection, last, store.read(last))
        if head is None or last >= head["position"]:
            return None
        signed_at = datetime.now(UTC)
        document = signer.sign(describe_head(head, last or None, signed_at))
        # The store comes first: a checkpoint that only the database has would read as one
        # removed from the store.
        store.write(head["position"], document)
        _keep(connection, head["position"], document)
        position: int = head["position"]
        return position


def _adopt(connection: Connection, position: int, document: dict[str, Any] | None) -> None:
    """Take up a checkpoint that was stored just before a crash, if the chain agrees with it."""
    statement = select(AuditSeal.row_hash).where(AuditSeal.position == position)
    link = connection.scalar(statement)
    if link is None or document is None or document.get("row_hash") != link.hex():
        raise ChainTamperedError(f"the chain contradicts the checkpoint at {position}")
    _keep(connection, position, document)


def _keep(connection: Connection, position: int, document: dict[str, Any]) -> None:
    signed_at = datetime.fromisoformat(document["signed_at"])
    statement = insert(AuditCheckpoint).on_conflict_do_nothing()
    connection.execute(statement.values(position=position, signed_at=signed_at, document=document))


def describe_head(head: Row, previous_position: int | None, signed_at: datetime) -> dict[str, Any]:
    """Return the contents of a checkpoint: the head of the chain at this time."""
    return {
        "kind": CHECKPOINT_KIND,
        "position": head["position"],
        "audit_id": head["audit_id"],
        "row_hash": head["row_hash"].hex(),
        "previous_position": previous_position,
        "signed_at": signed_at.isoformat(),
    }


def _seal_some(engine: Engine) -> int:
    with engine.begin() as connection:
        if not _take_lock(connection):
            return 0
        head = _read_head(connection)
        rows = _read_unsealed(connection)
        if rows:
            connection.execute(insert(AuditSeal), make_links(head, rows, datetime.now(UTC)))
    for (event_type, result), count in Counter(
        (row["event_type"], row["result"]) for row in rows
    ).items():
        AUDIT_EVENTS.labels(event_type, result).inc(count)
    return len(rows)


def make_links(head: Row | None, rows: Sequence[Row], sealed_at: datetime) -> list[dict[str, Any]]:
    """Return the links of rows that follow the link `head` (None: the chain begins)."""
    position, previous = (head["position"], head["row_hash"]) if head else (0, GENESIS)
    links = []
    for row in rows:
        position, link = position + 1, hash_row(previous, row)
        links.append(
            {
                "position": position,
                "audit_id": row["id"],
                "previous_hash": previous,
                "row_hash": link,
                "sealed_at": sealed_at,
            }
        )
        previous = link
    return links


def _take_lock(connection: Connection) -> bool:
    return bool(connection.scalar(select(func.pg_try_advisory_xact_lock(SEALING_LOCK))))


def _read_head(connection: Connection) -> Row | None:
    columns = (AuditSeal.position, AuditSeal.audit_id, AuditSeal.row_hash)
    statement = select(*columns).order_by(AuditSeal.position.desc()).limit(1)
    return connection.execute(statement).mappings().first()


def _is_kept(connection: Connection, position: int) -> bool:
    kept = select(AuditCheckpoint.position).where(AuditCheckpoint.position == position)
    return connection.scalar(kept) is not None


def _read_unsealed(connection: Connection) -> Sequence[Row]:
    newest = select(func.coalesce(func.max(AuditSeal.audit_id), 0)).scalar_subquery()
    statement = (
        select(AuditRow.__table__)
        .where(
            AuditRow.id > newest - ROWS_ON_THEIR_WAY,
            ~select(AuditSeal.audit_id).where(AuditSeal.audit_id == AuditRow.id).exists(),
        )
        .order_by(AuditRow.id)
        .limit(ROWS_PER_TRANSACTION)
    )
    return connection.execute(statement).mappings().all()


class Sealer:
    """Seals every `seal_seconds` and signs every `checkpoint_seconds`, from its own thread."""

    def __init__(
        self,
        engine: Engine,
        store: CheckpointStore,
        signer: Signer,
        seal_seconds: float,
        checkpoint_seconds: float,
    ) -> None:
        self._engine, self._store, self._signer = engine, store, signer
        self._seal_seconds, self._checkpoint_seconds = seal_seconds, checkpoint_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audit-sealer", daemon=True)
        self._signed_at = time.monotonic()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Seal and sign what is there, then end: a stopped service leaves no open tail."""
        self._stop.set()
        self._thread.join()
        self._work(sign=True)

    def _run(self) -> None:
        while not self._stop.wait(self._seal_seconds):
            self._work(sign=time.monotonic() - self._signed_at >= self._checkpoint_seconds)

    def _work(self, sign: bool) -> None:
        try:
            seal_rows(self._engine)
            if sign:
                sign_checkpoint(self._engine, self._store, self._signer)
                self._signed_at = time.monotonic()
        # The thread must outlive an outage of the database or of the store; rows wait meanwhile.
        except Exception as error:
            AUDIT_SEALING_FAILURES.inc()
            log.error("audit rows not sealed", error=describe_error(error))
