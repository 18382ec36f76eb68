"""Erasure: an individual leaves the database at once, and every other store by a flow.

What stays is what must: audit rows (by pseudonym), and the record of the erasure itself, which
keeps an old consent from coming back. The receipt is signed, so that it can be shown to be ours.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import delete, exists, func, select, update
from sqlalchemy.orm import Session

from serving.audit.signing import Signer
from serving.database.tables import (
    Base,
    Consent,
    ConsentChange,
    ConsentNotice,
    ContactAttempt,
    CrisisOverride,
    Erasure,
    ErasureStore,
    Prediction,
    PredictionLabel,
    ReviewEvent,
    ReviewItem,
)
from serving.errors import ConflictError

RECEIPT_KIND = "mhras-erasure-receipt"

QUEUED = "queued"
DONE = "done"

#: Rows about an individual; what hangs on a prediction goes with it. Consents come before their
#: history, which their removal adds to.
ERASED_TABLES: tuple[type[Base], ...] = (
    *(CrisisOverride, ContactAttempt, ReviewEvent, ReviewItem, PredictionLabel, Prediction),
    *(Consent, ConsentChange, ConsentNotice),
)
DATABASE = "database"
#: Stores that the erasure flow empties; it reports each by `report_store`.
FLOW_STORES = ("lake", "feature_store", "artifacts")


@dataclass(frozen=True)
class ErasureState:
    """An erasure with the state of each store by name."""

    erasure: Erasure
    stores: Mapping[str, ErasureStore]


def erase_individual(
    session: Session, anonymized_id: str, requested_by: str, signer: Signer
) -> ErasureState:
    """Remove an individual from the database and queue the rest; return the signed receipt.

    Repeated without new data since, it returns the earlier erasure.
    """
    _take_turns(session, anonymized_id)
    latest = find_latest(session, anonymized_id)
    if latest is not None and not _holds_anything(session, anonymized_id):
        return latest
    releases = _list_releases(session, anonymized_id)
    counts = {
        table.__tablename__: _remove(session, table, anonymized_id) for table in ERASED_TABLES
    }
    erasure = _make_erasure(anonymized_id, requested_by, releases, counts, signer)
    session.add(erasure)
    session.flush()
    stores = {DATABASE: DONE} | dict.fromkeys(FLOW_STORES, QUEUED)
    for store, state in stores.items():
        session.add(_make_store(erasure, store, state))
    session.flush()
    return _describe(session, erasure)


def find_latest(session: Session, anonymized_id: str) -> ErasureState | None:
    erasures = list_erasures(session, anonymized_id)
    return erasures[0] if erasures else None


def list_erasures(session: Session, anonymized_id: str) -> list[ErasureState]:
    """Return the erasures of an individual, latest first."""
    statement = select(Erasure).where(Erasure.anonymized_id == anonymized_id)
    rows = session.scalars(statement.order_by(Erasure.requested_at.desc()))
    return [_describe(session, row) for row in rows]


def list_queued(session: Session) -> Sequence[Erasure]:
    """Return the erasures some store has not carried out yet, oldest first: the flow's work."""
    waiting = exists().where(ErasureStore.erasure_id == Erasure.id, ErasureStore.state != DONE)
    return session.scalars(select(Erasure).where(waiting).order_by(Erasure.requested_at)).all()


def report_store(
    session: Session, erasure_id: uuid.UUID, store: str, state: str, details: Mapping[str, Any]
) -> None:
    """Set how far a store is; `details` holds counts and versions, nothing personal.

    Raises ConflictError for a store that the erasure does not name.
    """
    statement = (
        update(ErasureStore)
        .where(ErasureStore.erasure_id == erasure_id, ErasureStore.store == store)
        .values(state=state, changed_at=datetime.now(UTC), details=dict(details))
        .returning(ErasureStore.store)
    )
    if session.scalar(statement) is None:
        raise ConflictError(f"the erasure has no store {store}")


def remove_again(session: Session, anonymized_id: str) -> int:
    """Remove what came in since an erasure without a new consent; return the rows.

    A screening that was being answered when the individual was erased may have been recorded
    just afterwards. With a consent since then, the new rows stay.
    """
    _take_turns(session, anonymized_id)
    latest = find_latest(session, anonymized_id)
    since = select(exists().where(Consent.anonymized_id == anonymized_id))
    if latest is None or session.scalar(since):
        return 0
    return sum(_remove(session, table, anonymized_id) for table in ERASED_TABLES)


def _take_turns(session: Session, anonymized_id: str) -> None:
    """Let one erasure of an individual run at a time."""
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(anonymized_id, 0))))


def _holds_anything(session: Session, anonymized_id: str) -> bool:
    return any(
        session.scalar(select(exists().where(_individual(table) == anonymized_id)))
        for table in ERASED_TABLES
    )


def _remove(session: Session, table: type[Base], anonymized_id: str) -> int:
    removed = session.execute(
        delete(table)
        .where(_individual(table) == anonymized_id)
        .execution_options(synchronize_session=False)
    )
    return int(removed.rowcount)  # type: ignore[attr-defined]


def _individual(table: type[Base]) -> Any:
    return table.__table__.c.anonymized_id


def _list_releases(session: Session, anonymized_id: str) -> list[str]:
    statement = select(Prediction.release_version).where(
        Prediction.anonymized_id == anonymized_id, Prediction.release_version.is_not(None)
    )
    return sorted({str(version) for version in session.scalars(statement)})


def _make_erasure(
    anonymized_id: str,
    requested_by: str,
    releases: list[str],
    counts: Mapping[str, int],
    signer: Signer,
) -> Erasure:
    erasure_id, now = uuid.uuid4(), datetime.now(UTC)
    receipt = {
        "kind": RECEIPT_KIND,
        "erasure_id": str(erasure_id),
        "anonymized_id": anonymized_id,
        "requested_at": now.isoformat(),
        "requested_by": requested_by,
        "erased_rows": dict(counts),
        "queued_stores": list(FLOW_STORES),
        "scored_by_releases": releases,
        "kept": "audit rows and this record, by pseudonym",
    }
    return Erasure(
        id=erasure_id,
        anonymized_id=anonymized_id,
        requested_at=now,
        requested_by=requested_by,
        release_versions=releases,
        receipt=signer.sign(receipt),
    )


def _make_store(erasure: Erasure, store: str, state: str) -> ErasureStore:
    return ErasureStore(
        erasure_id=erasure.id,
        store=store,
        state=state,
        changed_at=erasure.requested_at,
        details={},
    )


def _describe(session: Session, erasure: Erasure) -> ErasureState:
    statement = select(ErasureStore).where(ErasureStore.erasure_id == erasure.id)
    return ErasureState(erasure, {row.store: row for row in session.scalars(statement)})
