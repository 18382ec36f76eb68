"""Verification of the audit trail: against its own chain, and the chain against checkpoints.

Read-only. What it can show: a row changed, removed, put elsewhere in the order, slipped in
before a checkpoint; a tail cut off; a history written anew. What it cannot: a row altered in
the second before it is sealed, or a tail cut off that no checkpoint covers yet.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, Engine, RowMapping, func, select

from serving.audit.chain import GENESIS, ROW_COLUMNS, is_link_of, list_unreadable
from serving.audit.checkpoints import NEWEST, CheckpointStore, CheckpointStoreError
from serving.audit.sealer import CHECKPOINT_KIND
from serving.audit.signing import Document, KeyRing
from serving.database.tables import AuditCheckpoint, AuditRow, AuditSeal

#: Findings that are listed; all are counted.
LISTED_FINDINGS = 100
ROWS_PER_FETCH = 5_000
#: How long a row may wait for its seal, and how much clocks of workers may differ.
TOLERANCE = timedelta(minutes=5)


#: When a link was made is not part of the chain.
LINK_COLUMNS = (
    AuditSeal.position,
    AuditSeal.audit_id,
    AuditSeal.previous_hash,
    AuditSeal.row_hash,
)


@dataclass(frozen=True)
class Finding:
    """One trace of tampering: what, and where in the chain or in the trail."""

    kind: str
    position: int | None = None
    audit_id: int | None = None


@dataclass
class Verification:
    """What a verification saw; `intact` only when it found nothing."""

    rows: int = 0
    checkpoints: int = 0
    head: str | None = None
    newest_checkpoint: int | None = None
    finding_count: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def intact(self) -> bool:
        return self.finding_count == 0

    def report(self, kind: str, position: int | None = None, audit_id: int | None = None) -> None:
        self.finding_count += 1
        if len(self.findings) < LISTED_FINDINGS:
            self.findings.append(Finding(kind, position, audit_id))


def verify_trail(engine: Engine, store: CheckpointStore, keys: KeyRing) -> Verification:
    """Verify the whole trail; never raises for tampering, only when the database is away."""
    verification = Verification()
    # One snapshot: rows sealed while we read belong to the next verification.
    snapshot = engine.execution_options(isolation_level="REPEATABLE READ")
    with snapshot.connect() as connection:
        kept = _read_database_checkpoints(connection)
        outside = _read_outside_checkpoints(store, verification)
        documents = _check_documents(kept, outside, keys, verification)
        _verify_links(connection, documents, verification)
        _find_unsealed(connection, verification)
    return verification


def _verify_links(
    connection: Connection, documents: dict[int, Document], verification: Verification
) -> None:
    walk = _Walk(documents, verification)
    for row in _stream_links(connection):
        walk.take(row)
    walk.end()


@dataclass
class _Walk:
    """The walk along the chain; after a broken link it goes on from what is stored."""

    documents: dict[int, Document]
    verification: Verification
    position: int = 0
    previous: bytes = GENESIS
    covered_until: datetime | None = None

    def take(self, row: RowMapping) -> None:
        """Verify the next link and its row."""
        if row["position"] != self.position + 1:
            self.verification.report("link_removed", self.position + 1)
        self.position = row["position"]
        if row["previous_hash"] != self.previous:
            self.verification.report("chain_broken", self.position, row["audit_id"])
        _verify_row(row, self.verification)
        if _is_backdated(row, self.covered_until):
            self.verification.report("row_backdated", self.position, row["audit_id"])
        self.previous = row["row_hash"]
        self._compare_checkpoint(row)
        self.verification.rows += 1

    def _compare_checkpoint(self, row: RowMapping) -> None:
        document = self.documents.pop(self.position, None)
        if document is None:
            return
        self.covered_until = datetime.fromisoformat(document["signed_at"])
        if document["row_hash"] != self.previous.hex():
            self.verification.report("history_rewritten", self.position, row["audit_id"])

    def end(self) -> None:
        """Report the checkpoints whose links did not come."""
        self.verification.head = self.previous.hex() if self.position else None
        for missing in sorted(self.documents):
            kind = "tail_removed" if missing > self.position else "link_removed"
            self.verification.report(kind, missing)


def _is_backdated(row: RowMapping, covered_until: datetime | None) -> bool:
    """Return True if a row claims a time before a checkpoint that sealed all rows of that time."""
    if covered_until is None or not isinstance(row["created_at"], datetime):
        return False
    return row["created_at"] < covered_until - TOLERANCE


def _verify_row(row: RowMapping, verification: Verification) -> None:
    place = row["position"], row["audit_id"]
    if row["id"] is None:
        verification.report("row_removed", *place)
        return
    values = {name: row[name] for name in ROW_COLUMNS}
    if list_unreadable(values):
        verification.report("rows_unreadable", *place)
    if not is_link_of(row["row_hash"], row["previous_hash"], values):
        verification.report("row_changed", *place)


def _stream_links(connection: Connection) -> Iterator[RowMapping]:
    statement = (
        select(*LINK_COLUMNS, AuditRow.__table__)
        .select_from(AuditSeal)
        .outerjoin(AuditRow, AuditRow.id == AuditSeal.audit_id)
        .order_by(AuditSeal.position)
        .execution_options(yield_per=ROWS_PER_FETCH)
    )
    yield from connection.execute(statement).mappings()


def _find_unsealed(connection: Connection, verification: Verification) -> None:
    """Report rows that the sealer passed by: slipped in, or waiting far too long."""
    statement = (
        select(AuditRow.id)
        .where(
            AuditRow.created_at < datetime.now(UTC) - TOLERANCE,
            ~select(AuditSeal.audit_id).where(AuditSeal.audit_id == AuditRow.id).exists(),
        )
        .order_by(AuditRow.id)
    )
    for audit_id in connection.scalars(statement):
        verification.report("row_not_sealed", audit_id=audit_id)


def _read_database_checkpoints(connection: Connection) -> dict[int, Document]:
    statement = select(AuditCheckpoint.position, AuditCheckpoint.document)
    return {row.position: row.document for row in connection.execute(statement)}


def _read_outside_checkpoints(
    store: CheckpointStore, verification: Verification
) -> dict[int, Document | None] | None:
    """Return the newest documents and the bare positions of older ones; None: store away."""
    try:
        positions = store.list_positions()
        read = {position: store.read(position) for position in positions[-NEWEST:]}
    except CheckpointStoreError:
        verification.report("checkpoint_store_unreadable")
        return None
    return dict.fromkeys(positions[:-NEWEST]) | read


def _check_documents(
    kept: dict[int, Document],
    outside: dict[int, Document | None] | None,
    keys: KeyRing,
    verification: Verification,
) -> dict[int, Document]:
    """Return the checkpoints that count, by position; report those that are not what they were."""
    for position in sorted(set(kept) - set(outside if outside is not None else kept)):
        verification.report("checkpoint_removed_outside", position)
    newest_outside = sorted(outside or {})[-NEWEST:]
    stored = {position: (outside or {})[position] for position in newest_outside}
    good: dict[int, Document] = {}
    for position, document in [*kept.items(), *stored.items()]:
        if document is None or not _is_genuine(document, position, keys):
            verification.report("checkpoint_forged", position)
            continue
        first = good.setdefault(position, document)
        if first["row_hash"] != document["row_hash"]:
            verification.report("checkpoint_forged", position)
    verification.checkpoints = len(good)
    verification.newest_checkpoint = max(good, default=None)
    return good


def _is_genuine(document: Document | None, position: int, keys: KeyRing) -> bool:
    if not isinstance(document, dict):
        return False
    names_itself = document.get("kind") == CHECKPOINT_KIND and document.get("position") == position
    return names_itself and keys.holds(document)


def count_unsealed(connection: Connection) -> int:
    """Return how many rows wait for their seal, from the newest backwards."""
    newest = select(func.coalesce(func.max(AuditSeal.audit_id), 0)).scalar_subquery()
    statement = select(func.count()).select_from(AuditRow).where(AuditRow.id > newest)
    return connection.scalar(statement) or 0
