"""An individual's data as a FHIR R4 Bundle (type collection), as plain dictionaries.

Patient (the pseudonym alone), Consent, RiskAssessment for predictions, Task for reviews.
"""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from feature_repo.consent_terms import SCREENING
from serving.fhir.elements import (
    Resource,
    make_code,
    make_id,
    make_patient,
    name_patient,
)
from serving.fhir.risk_assessments import make_risk_assessment

CONSENT_SCOPE = "http://terminology.hl7.org/CodeSystem/consentscope"

_TASK_STATUS = {"pending": "requested", "claimed": "in-progress", "decided": "completed"}
_TASK_PRIORITY = {"critical": "stat", "high": "asap", "moderate": "urgent", "low": "routine"}


def make_bundle(anonymized_id: str, held: Mapping[str, Any], at: datetime) -> Resource:
    """Return the Bundle of what `serving.individuals.rights.collect_everything` found."""
    resources = list(_make_resources(anonymized_id, held))
    return {
        "resourceType": "Bundle",
        "id": str(uuid.uuid4()),
        "type": "collection",
        "timestamp": at.isoformat(),
        "entry": [
            {"fullUrl": f"urn:uuid:{resource['id']}", "resource": resource}
            for resource in resources
        ],
    }


def _make_resources(anonymized_id: str, held: Mapping[str, Any]) -> Iterator[Resource]:
    subject = {"reference": f"urn:uuid:{name_patient(anonymized_id)}"}
    yield make_patient(anonymized_id)
    for consent in held["consents"]:
        yield _make_consent(consent, subject)
    overridden = _list_overridden(held)
    for prediction in held["predictions"]:
        yield make_risk_assessment(prediction, subject, prediction["id"] in overridden)
    for review in held["reviews"]:
        yield _make_task(review, subject)


def _list_overridden(held: Mapping[str, Any]) -> set[str]:
    """Return the ids of predictions that a clinician has put into another band."""
    decided = [review for review in held["reviews"] if review["new_band"] is not None]
    return {decision["prediction_id"] for decision in (*held["crisis_overrides"], *decided)}


def _make_consent(consent: Mapping[str, Any], subject: Resource) -> Resource:
    withdrawn = consent["withdrawn_at"] is not None
    return {
        "resourceType": "Consent",
        "id": make_id("consent", consent["anonymized_id"] + consent["granted_at"]),
        "status": "inactive" if withdrawn else "active",
        "scope": {"coding": [make_code(CONSENT_SCOPE, _choose_scope(consent["purposes"]))]},
        "category": [{"coding": [make_code("http://loinc.org", "59284-0")]}],
        "patient": subject,
        "dateTime": consent["granted_at"],
        "policyRule": {"text": "Consent recorded by MHRAS"},
        "provision": {
            "type": "permit",
            "period": {
                "start": consent["granted_at"],
                "end": consent["withdrawn_at"] or consent["expires_at"],
            },
            "purpose": [make_code("urn:mhras:purpose", purpose) for purpose in consent["purposes"]],
            "class": [make_code("urn:mhras:data-type", kind) for kind in consent["data_types"]],
        },
    }


def _choose_scope(purposes: Sequence[str]) -> str:
    """Return the consent scope: use for screening is privacy consent, training alone research."""
    return "patient-privacy" if SCREENING in purposes else "research"


def _make_task(review: Mapping[str, Any], subject: Resource) -> Resource:
    task: Resource = {
        "resourceType": "Task",
        "id": review["id"],
        "status": _TASK_STATUS[review["status"]],
        "intent": "order",
        "priority": _TASK_PRIORITY.get(review["priority"], "stat"),
        "code": {"text": "Review of a screening"},
        "for": subject,
        "focus": {"reference": f"urn:uuid:{review['prediction_id']}"},
        "authoredOn": review["created_at"],
        "restriction": {"period": {"end": review["due_at"]}},
    }
    if review["decision"] is not None:
        task["businessStatus"] = {"text": review["decision"]}
    if review["comment"]:
        task["note"] = [{"text": review["comment"]}]
    return task
