"""Elements that FHIR R4 resources share: codings, identifiers, references, times."""

import uuid
from datetime import datetime
from typing import Any

Resource = dict[str, Any]

FHIR_JSON = "application/fhir+json"
PSEUDONYM_SYSTEM = "urn:mhras:pseudonym"
PREDICTION_SYSTEM = "urn:mhras:prediction"
PRIORITY_SYSTEM = "urn:mhras:review-priority"
OUTCOME_SYSTEM = "urn:mhras:outcome"
USER_SYSTEM = "urn:mhras:user"
UCUM = "http://unitsofmeasure.org"
NAMESPACE = uuid.UUID("6d687261-7300-5000-8000-000000000000")


def make_code(system: str, code: str, display: str | None = None) -> Resource:
    named = {} if display is None else {"display": display}
    return {"system": system, "code": code, **named}


def make_concept(system: str, code: str, text: str | None = None) -> Resource:
    named = {} if text is None else {"text": text}
    return {"coding": [make_code(system, code)], **named}


def make_id(kind: str, name: str) -> str:
    """Return the id of a resource, the same whenever it is built."""
    return str(uuid.uuid5(NAMESPACE, f"{kind}:{name}"))


def name_patient(anonymized_id: str) -> str:
    """Return the id of a person's Patient; the pseudonym itself is its identifier."""
    return make_id("patient", anonymized_id)


def make_patient(anonymized_id: str) -> Resource:
    return {
        "resourceType": "Patient",
        "id": name_patient(anonymized_id),
        "identifier": [{"system": PSEUDONYM_SYSTEM, "value": anonymized_id}],
    }


def make_subject(anonymized_id: str) -> Resource:
    """Return a logical reference: who resolves it must know the pseudonym."""
    identifier = {"system": PSEUDONYM_SYSTEM, "value": anonymized_id}
    return {"type": "Patient", "identifier": identifier}


def write_instant(moment: datetime | str) -> str:
    """Return an instant with its time zone, as FHIR's `instant` and `dateTime` want it."""
    return moment if isinstance(moment, str) else moment.isoformat()


def make_percentage(share: float) -> float:
    """Return a probability as FHIR R4 writes it: 13 % is 13, not 0.13."""
    return round(100 * share, 4)


def make_search_set(resources: list[Resource], public_url: str, kind: str) -> Resource:
    """Return a Bundle of type searchset; its address holds no identifier of a person."""
    links = [{"relation": "self", "url": f"{public_url}/fhir/{kind}"}]
    entries = [
        {
            "fullUrl": f"urn:uuid:{resource['id']}",
            "resource": resource,
            "search": {"mode": "match"},
        }
        for resource in resources
    ]
    bundle: Resource = {"resourceType": "Bundle", "type": "searchset", "link": links}
    return bundle | ({"entry": entries} if entries else {})
