"""What this FHIR server can do: its CapabilityStatement."""

from datetime import date

from serving.fhir.clients import SCOPES
from serving.fhir.elements import FHIR_JSON, Resource
from serving.screening.answers import INTENDED_USE

FHIR_SCOPES = [scope for scope in SCOPES if scope.startswith("system/")]
FHIR_VERSION = "4.0.1"
SEARCH_PARAMETERS = {
    "RiskAssessment": {"subject": "reference", "patient": "reference", "date": "date"},
    "AuditEvent": {"patient": "reference", "date": "date"},
    "Consent": {"patient": "reference"},
    "Provenance": {"target": "reference"},
}


def make_capability_statement(version: str, public_url: str, at: date) -> Resource:
    """Return the answer of `GET /fhir/metadata`."""
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": at.isoformat(),
        "publisher": "The operator of this MHRAS installation",
        "kind": "instance",
        "description": INTENDED_USE,
        "software": {"name": "MHRAS", "version": version},
        "implementation": {"description": "MHRAS", "url": f"{public_url}/fhir"},
        "fhirVersion": FHIR_VERSION,
        "format": [FHIR_JSON],
        "rest": [
            {
                "mode": "server",
                "security": {
                    "description": "Bearer tokens: a clinician's own, or the signed JWT of a "
                    f"registered client with the scopes {', '.join(FHIR_SCOPES)}."
                },
                "resource": [
                    *map(_describe_searched, SEARCH_PARAMETERS),
                    {"type": "QuestionnaireResponse", "interaction": [{"code": "create"}]},
                ],
                "interaction": [{"code": "transaction"}],
            }
        ],
    }


def _describe_searched(kind: str) -> Resource:
    codes = ("read", "search-type") if kind == "RiskAssessment" else ("search-type",)
    return {
        "type": kind,
        "interaction": [{"code": code} for code in codes],
        "searchParam": [
            {"name": name, "type": sort} for name, sort in SEARCH_PARAMETERS[kind].items()
        ],
    }
