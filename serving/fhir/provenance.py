"""Where a RiskAssessment comes from, and who amended it, as FHIR R4 Provenance.

Source: hl7.org/fhir/R4/provenance.html. The first Provenance names the release that computed the
assessment and the caller who requested it; each later one names a clinician who amended it.
"""

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from serving.database.rows import describe_row
from serving.database.tables import CrisisOverride, ReviewItem
from serving.fhir.elements import (
    PREDICTION_SYSTEM,
    USER_SYSTEM,
    Resource,
    make_code,
    make_concept,
    make_id,
)
from serving.fhir.override_reasons import OUR_SYSTEM

OPERATION = "http://terminology.hl7.org/CodeSystem/v3-DataOperation"
PARTICIPANT = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"
RELEASE_SYSTEM = "urn:mhras:release"
WITHOUT_RELEASE = "rules without a release"

Row = Mapping[str, Any]


def make_provenances(
    prediction: Row, amendments: list[Resource], target: Resource
) -> list[Resource]:
    """Return the Provenance of a prediction's creation, then one of each amendment.

    `prediction` holds columns as `describe_row` gives them; `amendments` are those of
    `describe_amendments`; `target` is the reference of `refer_to_assessment`.
    """
    created = _make_creation(prediction, target)
    return [created, *(_make_amendment(amendment, target) for amendment in amendments)]


def refer_to_assessment(prediction_id: str, reference: str) -> Resource:
    identifier = {"system": PREDICTION_SYSTEM, "value": prediction_id}
    return {"reference": reference, "type": "RiskAssessment", "identifier": identifier}


def list_amendments(session: Session, prediction_id: UUID) -> list[Resource]:
    """Return what clinicians changed about a prediction, oldest first."""
    overrides = select(CrisisOverride).where(CrisisOverride.prediction_id == prediction_id)
    reviews = select(ReviewItem).where(ReviewItem.prediction_id == prediction_id)
    return describe_amendments(
        map(describe_row, session.scalars(overrides)), map(describe_row, session.scalars(reviews))
    )


def describe_amendments(overrides: Iterable[Row], reviews: Iterable[Row]) -> list[Resource]:
    """Return crisis overrides and reviews with a new band, oldest first, from their columns."""
    amendments = [
        *map(_describe_override, overrides),
        *(_describe_decision(review) for review in reviews if review["new_band"] is not None),
    ]
    return sorted(amendments, key=lambda amendment: amendment["recorded"])


def _describe_override(row: Row) -> Resource:
    return {
        "id": row["id"],
        "recorded": row["created_at"],
        "user_id": row["user_id"],
        "reason": "crisis-override",
        "text": "Crisis override",
    }


def _describe_decision(row: Row) -> Resource:
    return {
        "id": row["id"],
        "recorded": row["decided_at"],
        "user_id": row["decided_by"],
        "reason": row["reason_code"],
        "text": f"Review decision; new band {row['new_band']}",
    }


def _make_creation(prediction: Row, target: Resource) -> Resource:
    release = str(prediction["release_version"] or WITHOUT_RELEASE)
    source = {"identifier": {"system": RELEASE_SYSTEM, "value": release}}
    moment = prediction["created_at"]
    return {
        "resourceType": "Provenance",
        "id": make_id("provenance", prediction["id"]),
        "target": [target],
        "occurredDateTime": moment,
        "recorded": moment,
        "activity": make_concept(OPERATION, "CREATE"),
        "agent": [
            _make_agent("assembler", {"display": f"MHRAS, {release}"}),
            _make_agent("enterer", _name_user(prediction["user_id"])),
        ],
        "entity": [{"role": "source", "what": source}],
    }


def _make_amendment(amendment: Resource, target: Resource) -> Resource:
    reason = amendment["reason"]
    return {
        "resourceType": "Provenance",
        "id": make_id("provenance", amendment["id"]),
        "target": [target],
        "occurredDateTime": amendment["recorded"],
        "recorded": amendment["recorded"],
        "activity": {"coding": [make_code(OPERATION, "UPDATE")], "text": amendment["text"]},
        **({"reason": [make_concept(OUR_SYSTEM, reason)]} if reason else {}),
        "agent": [_make_agent("author", _name_user(amendment["user_id"]))],
        "entity": [{"role": "revision", "what": {"identifier": target["identifier"]}}],
    }


def _make_agent(kind: str, who: Resource) -> Resource:
    return {"type": make_concept(PARTICIPANT, kind), "who": who}


def _name_user(user_id: str) -> Resource:
    return {"identifier": {"system": USER_SYSTEM, "value": user_id}}
