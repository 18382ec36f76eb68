"""An individual's data as a FHIR R4 Bundle (type collection), as plain dictionaries.

Patient (the pseudonym alone), Consent, RiskAssessment for predictions, Task for reviews. Tests
validate it with the R4B models of `fhir.resources`, which serving itself does not load.
"""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from feature_repo.consent_terms import SCREENING
from feature_repo.outcomes import HORIZON_DAYS, OUTCOMES

Resource = dict[str, Any]

CONSENT_SCOPE = "http://terminology.hl7.org/CodeSystem/consentscope"
PSEUDONYM_SYSTEM = "urn:mhras:pseudonym"
NAMESPACE = uuid.UUID("6d687261-7300-5000-8000-000000000000")
PRIORITY_SYSTEM = "urn:mhras:review-priority"
TEXTS = {outcome.key: outcome.text for outcome in OUTCOMES}

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
    patient = _make_id("patient", anonymized_id)
    subject = {"reference": f"urn:uuid:{patient}"}
    yield {
        "resourceType": "Patient",
        "id": patient,
        "identifier": [{"system": PSEUDONYM_SYSTEM, "value": anonymized_id}],
    }
    for consent in held["consents"]:
        yield _make_consent(consent, subject)
    for prediction in held["predictions"]:
        yield _make_risk_assessment(prediction, subject)
    for review in held["reviews"]:
        yield _make_task(review, subject)


def _make_consent(consent: Mapping[str, Any], subject: Resource) -> Resource:
    withdrawn = consent["withdrawn_at"] is not None
    return {
        "resourceType": "Consent",
        "id": _make_id("consent", consent["anonymized_id"] + consent["granted_at"]),
        "status": "inactive" if withdrawn else "active",
        "scope": {"coding": [_code(CONSENT_SCOPE, _choose_scope(consent["purposes"]))]},
        "category": [{"coding": [_code("http://loinc.org", "59284-0")]}],
        "patient": subject,
        "dateTime": consent["granted_at"],
        "policyRule": {"text": "Consent recorded by MHRAS"},
        "provision": {
            "type": "permit",
            "period": {
                "start": consent["granted_at"],
                "end": consent["withdrawn_at"] or consent["expires_at"],
            },
            "purpose": [_code("urn:mhras:purpose", purpose) for purpose in consent["purposes"]],
            "class": [_code("urn:mhras:data-type", kind) for kind in consent["data_types"]],
        },
    }


def _choose_scope(purposes: Sequence[str]) -> str:
    """Return the consent scope: use for screening is privacy consent, training alone research."""
    return "patient-privacy" if SCREENING in purposes else "research"


def _make_risk_assessment(prediction: Mapping[str, Any], subject: Resource) -> Resource:
    outcome: Resource = {
        "outcome": {"text": TEXTS.get(prediction["outcome"], prediction["outcome"])},
        "qualitativeRisk": {
            "coding": [_code("urn:mhras:review-priority", prediction["risk_band"])]
        },
        # Without a period the risk would apply over the subject's lifespan (FHIR R4).
        "whenPeriod": _make_horizon(prediction["created_at"]),
    }
    if prediction["probability"] is not None:
        # A percentage: FHIR R4 writes 13 % as 13, not as 0.13.
        outcome["probabilityDecimal"] = round(100 * prediction["probability"], 4)
    return {
        "resourceType": "RiskAssessment",
        "id": prediction["id"],
        "status": "final",
        "subject": subject,
        "occurrenceDateTime": prediction["created_at"],
        "method": {"text": f"mhras-risk release {prediction['release_version'] or 'none'}"},
        "prediction": [outcome],
        "mitigation": "Review priority for a clinician; not a diagnosis.",
        "note": [{"text": str(prediction["answer"].get("summary") or "no summary")}],
    }


def _make_horizon(begin: str) -> Resource:
    end = datetime.fromisoformat(begin) + timedelta(days=HORIZON_DAYS)
    return {"start": begin, "end": end.isoformat()}


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


def _code(system: str, code: str) -> Resource:
    return {"system": system, "code": code}


def _make_id(kind: str, name: str) -> str:
    return str(uuid.uuid5(NAMESPACE, f"{kind}:{name}"))
