"""An individual's data as a FHIR R4 Bundle (type collection), as plain dictionaries.

Patient (the pseudonym alone), Consent, RiskAssessment with Provenance for predictions, Task for
reviews.
"""

import uuid
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from serving.fhir.consents import make_consent
from serving.fhir.elements import Resource, make_patient, name_patient
from serving.fhir.provenance import describe_amendments, make_provenances, refer_to_assessment
from serving.fhir.risk_assessments import make_risk_assessment

_TASK_STATUS = {"pending": "requested", "claimed": "in-progress", "decided": "completed"}
_TASK_PRIORITY = {"critical": "stat", "high": "asap", "moderate": "urgent", "low": "routine"}


def make_bundle(anonymized_id: str, held: Mapping[str, Any], at: datetime) -> Resource:
    """Return the Bundle of what `serving.individuals.rights.collect_everything` found."""
    resources = list(_make_resources(anonymized_id, held, at))
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


def _make_resources(
    anonymized_id: str, held: Mapping[str, Any], at: datetime
) -> Iterator[Resource]:
    subject = {"reference": f"urn:uuid:{name_patient(anonymized_id)}"}
    yield make_patient(anonymized_id)
    for consent in held["consents"]:
        yield make_consent(consent, subject, at)
    for prediction in held["predictions"]:
        number = prediction["id"]
        amendments = _find_amendments(number, held)
        yield make_risk_assessment(prediction, subject, bool(amendments))
        target = refer_to_assessment(number, f"urn:uuid:{number}")
        yield from make_provenances(prediction, amendments, target)
    for review in held["reviews"]:
        yield _make_task(review, subject)


def _find_amendments(number: str, held: Mapping[str, Any]) -> list[Resource]:
    overrides, reviews = (
        (row for row in held[kind] if row["prediction_id"] == number)
        for kind in ("crisis_overrides", "reviews")
    )
    return describe_amendments(overrides, reviews)


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
