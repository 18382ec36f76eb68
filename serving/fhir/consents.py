"""A person's consents as FHIR R4 Consents, also those that ended.

Source: hl7.org/fhir/R4/consent.html. A Consent holds data types and purposes as codes of MHRAS,
because FHIR defines no code for them.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from feature_repo.consent_terms import SCREENING
from serving.database.rows import describe_row
from serving.database.tables import Consent
from serving.fhir.elements import Resource, make_code, make_id

CONSENT_SCOPE = "http://terminology.hl7.org/CodeSystem/consentscope"
PURPOSE_SYSTEM = "urn:mhras:purpose"
DATA_TYPE_SYSTEM = "urn:mhras:data-type"
#: LOINC's code of a patient's consent, which R4 asks for as the category.
PATIENT_CONSENT = make_code("http://loinc.org", "59284-0")


def list_consents(session: Session, anonymized_id: str) -> list[dict[str, Any]]:
    """Return the columns of a person's consents, oldest first."""
    statement = select(Consent).where(Consent.anonymized_id == anonymized_id)
    return [describe_row(row) for row in session.scalars(statement.order_by(Consent.granted_at))]


def make_consent(consent: Mapping[str, Any], subject: Resource, at: datetime) -> Resource:
    """Return a consent as it is at an instant: `inactive` once withdrawn or expired.

    `consent` holds the table's columns, instants as ISO 8601 text.
    """
    end = consent["withdrawn_at"] or consent["expires_at"]
    has_ended = consent["withdrawn_at"] is not None or datetime.fromisoformat(end) <= at
    return {
        "resourceType": "Consent",
        "id": make_id("consent", consent["anonymized_id"] + consent["granted_at"]),
        "status": "inactive" if has_ended else "active",
        "scope": {"coding": [make_code(CONSENT_SCOPE, choose_scope(consent["purposes"]))]},
        "category": [{"coding": [PATIENT_CONSENT]}],
        "patient": subject,
        "dateTime": consent["granted_at"],
        "policyRule": {"text": "Consent recorded by MHRAS"},
        "provision": {
            "type": "permit",
            "period": {"start": consent["granted_at"], "end": end},
            "purpose": [make_code(PURPOSE_SYSTEM, purpose) for purpose in consent["purposes"]],
            "class": [make_code(DATA_TYPE_SYSTEM, kind) for kind in consent["data_types"]],
        },
    }


def choose_scope(purposes: Sequence[str]) -> str:
    """Return the consent scope: use for screening is privacy consent, training alone research."""
    return "patient-privacy" if SCREENING in purposes else "research"
