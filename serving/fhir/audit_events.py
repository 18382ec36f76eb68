"""Audit rows as FHIR AuditEvents: IHE Basic Audit Log Patterns 1.1.3.

Source: profiles.ihe.net/ITI/BALP. In a read the caller is the destination of the data, in a create
or query the source of the request.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from serving.audit import trail
from serving.database.lenient_types import Unreadable
from serving.database.tables import AuditRow
from serving.fhir.elements import (
    PREDICTION_SYSTEM,
    PSEUDONYM_SYSTEM,
    USER_SYSTEM,
    Resource,
    make_code,
    make_concept,
    make_id,
)

DICOM = "http://dicom.nema.org/resources/ontology/DCM"
EVENT_TYPE = "http://terminology.hl7.org/CodeSystem/audit-event-type"
INTERACTION = "http://hl7.org/fhir/restful-interaction"
LIFECYCLE = "http://terminology.hl7.org/CodeSystem/iso-21089-lifecycle"
ENTITY_TYPE = "http://terminology.hl7.org/CodeSystem/audit-entity-type"
OBJECT_ROLE = "http://terminology.hl7.org/CodeSystem/object-role"
BALP_ENTITY_TYPE = "https://profiles.ihe.net/ITI/BALP/CodeSystem/BasicAuditEntityType"
PARTICIPATION = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
ACT_REASON = "http://terminology.hl7.org/CodeSystem/v3-ActReason"
DATA_ABSENT = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"
SOURCE, DESTINATION = "110153", "110152"

#: Purpose of use by role (v3-ActReason): treatment, audit, operations, administration.
PURPOSES = {
    "clinician": "TREAT",
    "auditor": "HCOMPL",
    "data_scientist": "HOPERAT",
    "admin": "HSYSADMIN",
    "flow": "HOPERAT",
}
#: Kind of a network address (http://hl7.org/fhir/network-type).
IP_ADDRESS = "2"
SUCCESS, MINOR_FAILURE = "0", "4"


@dataclass(frozen=True)
class Pattern:
    """A pattern of BALP: the event's type, its subtype, its action, and who holds the data."""

    type: Resource
    subtype: Resource
    action: str
    caller_is_source: bool


REST = make_code(EVENT_TYPE, "rest", "RESTful Operation")
READ = Pattern(REST, make_code(INTERACTION, "read"), "R", False)
CREATE = Pattern(REST, make_code(INTERACTION, "create"), "C", True)
UPDATE = Pattern(REST, make_code(INTERACTION, "update"), "U", True)
DELETE = Pattern(REST, make_code(INTERACTION, "delete"), "D", True)
QUERY = Pattern(REST, make_code(INTERACTION, "search"), "E", True)
DISCLOSURE = Pattern(
    make_code(DICOM, "110106", "Export"), make_code(LIFECYCLE, "disclose"), "R", False
)
CONSENT = Pattern(
    make_code(DICOM, "110113", "Security Alert"), make_code(INTERACTION, "update"), "U", True
)

PATTERNS = {
    trail.SCREENING_REQUEST: CREATE,
    trail.CRISIS_OVERRIDE: CREATE,
    trail.REVIEW_LIST: QUERY,
    trail.AUDIT_ACCESS: QUERY,
    trail.COMPLIANCE_ACCESS: QUERY,
    trail.INDIVIDUAL_LOOKUP: QUERY,
    trail.REVIEW_CHANGE: UPDATE,
    trail.MODEL_CHANGE: UPDATE,
    trail.TOKENS_REVOKED: UPDATE,
    trail.CONSENT_CHANGE: CONSENT,
    trail.CONSENT_NOTICE: CONSENT,
    trail.INDIVIDUAL_EXPORT: DISCLOSURE,
    trail.INDIVIDUAL_ERASURE: DELETE,
}


def make_audit_event(row: AuditRow, individual: str | None = None) -> Resource:
    """Return the AuditEvent of a row; `individual` is who it is shown for, of those it lists."""
    pattern = PATTERNS.get(row.event_type, READ)
    return {
        "resourceType": "AuditEvent",
        "id": make_id("audit", str(row.id)),
        "type": pattern.type,
        "subtype": [pattern.subtype],
        "action": pattern.action,
        **_show_time(row.created_at),
        "outcome": SUCCESS if row.result == "success" else MINOR_FAILURE,
        "outcomeDesc": row.action,
        "agent": _make_agents(row, pattern),
        "source": {
            "observer": {"display": "MHRAS"},
            "type": [make_code("http://terminology.hl7.org/CodeSystem/security-source-type", "4")],
        },
        "entity": list(_make_entities(row, individual or row.anonymized_id)),
    }


def _show_time(moment: datetime | Unreadable) -> Resource:
    if isinstance(moment, Unreadable):
        return {"_recorded": {"extension": [{"url": DATA_ABSENT, "valueCode": "error"}]}}
    return {"recorded": moment.isoformat()}


def _make_agents(row: AuditRow, pattern: Pattern) -> list[Resource]:
    caller, service = (SOURCE, DESTINATION) if pattern.caller_is_source else (DESTINATION, SOURCE)
    purpose = PURPOSES.get(row.user_role, "HOPERAT")
    return [
        {
            "type": make_concept(DICOM, caller),
            "who": {"display": "client of the caller"},
            "requestor": False,
            **({"network": {"address": row.network, "type": IP_ADDRESS}} if row.network else {}),
        },
        {
            "type": make_concept(DICOM, service),
            "who": {"display": "MHRAS"},
            "requestor": False,
        },
        {
            "type": make_concept(PARTICIPATION, "AUT" if pattern is CREATE else "IRCP"),
            "who": {"identifier": {"system": USER_SYSTEM, "value": row.user_id}},
            "requestor": True,
            "role": [{"text": row.user_role}],
            "purposeOfUse": [make_concept(ACT_REASON, purpose)],
        },
    ]


def _make_entities(row: AuditRow, individual: str | None) -> list[Resource]:
    entities = []
    if row.request_id is not None:
        transaction = {"identifier": {"system": "urn:mhras:request", "value": row.request_id}}
        kind = make_code(BALP_ENTITY_TYPE, "XrequestId")
        entities.append({"what": transaction, "type": kind})
    if individual is not None:
        what = {"type": "Patient", "identifier": {"system": PSEUDONYM_SYSTEM, "value": individual}}
        entities.append(
            {
                "what": what,
                "type": make_code(ENTITY_TYPE, "1", "Person"),
                "role": make_code(OBJECT_ROLE, "1", "Patient"),
            }
        )
    return [*entities, *_make_data(row.details)]


def _make_data(details: dict[str, Any] | Unreadable) -> list[Resource]:
    if isinstance(details, Unreadable) or (number := details.get("prediction_id")) is None:
        return []
    what = {
        "type": "RiskAssessment",
        "identifier": {"system": PREDICTION_SYSTEM, "value": str(number)},
    }
    return [
        {
            "what": what,
            "type": make_code(ENTITY_TYPE, "2", "System Object"),
            "role": make_code(OBJECT_ROLE, "4", "Domain Resource"),
        }
    ]
