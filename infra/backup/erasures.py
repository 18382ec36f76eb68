"""Erased individuals stay erased when a backup from before their erasure is restored."""

import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine, delete, update

from serving.audit.signing import KeyRing
from serving.database.sessions import open_session
from serving.database.tables import Erasure, ErasureStore
from serving.individuals.erasure import (
    DATABASE,
    DONE,
    ERASED_TABLES,
    FLOW_STORES,
    QUEUED,
    RECEIPT_KIND,
)

Receipt = Mapping[str, Any]


class ForgedReceiptError(ValueError):
    """A receipt is not signed by a known key; the message gives its place."""


def reapply_erasures(engine: Engine, receipts: Iterable[Receipt], keys: KeyRing) -> tuple[int, int]:
    """Carry out erasures again after a restore; return how many were new, and how many queued.

    `receipts` are those given out after the backup, which the restored database knows nothing of.
    Whatever lake, feature store and artifacts came back with, the erasure flow cleans: every
    erasure ever made is queued for it again. All or nothing. Raises ForgedReceiptError.
    """
    checked = list(receipts)
    for place, receipt in enumerate(checked, 1):
        if receipt.get("kind") != RECEIPT_KIND or not keys.holds(dict(receipt)):
            raise ForgedReceiptError(
                f"receipt {place} is not signed by a known key, or was changed"
            )
    with open_session(engine) as session:
        new = 0
        for receipt in checked:
            erasure_id = uuid.UUID(receipt["erasure_id"])
            if session.get(Erasure, erasure_id) is not None:
                continue
            new += 1
            for table in ERASED_TABLES:
                individual = table.__table__.c.anonymized_id
                session.execute(delete(table).where(individual == receipt["anonymized_id"]))
            _record(session, erasure_id, receipt)
        requeued = session.execute(
            update(ErasureStore)
            .where(ErasureStore.store.in_(FLOW_STORES))
            .values(state=QUEUED, changed_at=datetime.now(UTC))
        )
        return new, int(requeued.rowcount)  # type: ignore[attr-defined]


def _record(session: Any, erasure_id: uuid.UUID, receipt: Receipt) -> None:
    requested_at = datetime.fromisoformat(receipt["requested_at"])
    session.add(
        Erasure(
            id=erasure_id,
            anonymized_id=receipt["anonymized_id"],
            requested_at=requested_at,
            requested_by=receipt["requested_by"],
            release_versions=list(receipt["scored_by_releases"]),
            receipt=dict(receipt),
        )
    )
    session.flush()
    for store in (DATABASE, *FLOW_STORES):
        state = DONE if store == DATABASE else QUEUED
        session.add(
            ErasureStore(
                erasure_id=erasure_id,
                store=store,
                state=state,
                changed_at=requested_at,
                details={},
            )
        )
    session.flush()
