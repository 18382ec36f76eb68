"""What is done with an individual's record, each with its audit row: for routes and pages alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from serving.audit.signing import Signer
from serving.audit.trail import (
    AUDIT_ACCESS,
    INDIVIDUAL_ERASURE,
    INDIVIDUAL_EXPORT,
    INDIVIDUAL_LOOKUP,
    PREDICTION_VIEW,
    Event,
    EventTrail,
)
from serving.database.tables import AuditRow, Prediction
from serving.individuals.erasure import ErasureState, erase_individual, list_erasures
from serving.individuals.rights import (
    collect_everything,
    list_accesses,
    list_overridden,
    list_predictions,
)


@dataclass(frozen=True)
class ListedPredictions:
    """A page of predictions, latest first; `overridden` are those put into the top band."""

    predictions: list[Prediction]
    overridden: set[UUID]
    has_more: bool


def record_lookup(trail: EventTrail, anonymized_id: str) -> None:
    trail.record(Event(INDIVIDUAL_LOOKUP, "look_up_individual", anonymized_id))


def view_predictions(
    session: Session,
    trail: EventTrail,
    anonymized_id: str,
    before: Sequence[Any] | None,
    limit: int,
) -> ListedPredictions:
    predictions = list(list_predictions(session, anonymized_id, before, limit + 1))
    shown = predictions[:limit]
    trail.record(Event(PREDICTION_VIEW, "view_predictions", anonymized_id, ["prediction"]))
    return ListedPredictions(shown, list_overridden(session, shown), len(predictions) > limit)


def view_accesses(
    session: Session, trail: EventTrail, anonymized_id: str, before: int | None, limit: int
) -> tuple[list[AuditRow], bool]:
    """Return who saw or changed what, latest first, and whether there is more."""
    rows = list(list_accesses(session, anonymized_id, before, limit + 1))
    trail.record(Event(AUDIT_ACCESS, "view_access_history", anonymized_id, ["audit"]))
    return rows[:limit], len(rows) > limit


def export(session: Session, trail: EventTrail, anonymized_id: str, form: str) -> dict[str, Any]:
    """Return every row about an individual, by kind; `form` is what it is written as."""
    held = collect_everything(session, anonymized_id)
    details, data_types = {"format": form}, ["consent", "prediction", "review"]
    event = Event(INDIVIDUAL_EXPORT, "export_individual", anonymized_id, data_types, details)
    trail.record(event)
    return held


def view_erasures(session: Session, trail: EventTrail, anonymized_id: str) -> list[ErasureState]:
    trail.record(Event(AUDIT_ACCESS, "view_erasures", anonymized_id, ["erasure"]))
    return list_erasures(session, anonymized_id)


def erase(
    session: Session, trail: EventTrail, anonymized_id: str, requested_by: str, signer: Signer
) -> ErasureState:
    state = erase_individual(session, anonymized_id, requested_by, signer)
    details, data_types = {"erasure_id": str(state.erasure.id)}, ["consent", "prediction"]
    event = Event(INDIVIDUAL_ERASURE, "erase_individual", anonymized_id, data_types, details)
    trail.record(event)
    return state
