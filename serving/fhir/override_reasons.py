"""Why a clinician overrides: our codes and those of CDS Hooks, in both directions.

Source of the HL7 codes: value set non-adherence-reason-clinical of CDS Hooks. Ours come first on a
card; HL7's are understood in feedback.
"""

from serving.database.review_terms import OverrideReason
from serving.fhir.elements import Resource, make_code

OUR_SYSTEM = "urn:mhras:override-reason"
HL7_SYSTEM = "http://terminology.hl7.org/CodeSystem/non-adherence-reason-codes"

DISPLAYS = {
    OverrideReason.CLINICAL_ASSESSMENT: "My clinical assessment differs",
    OverrideReason.ALREADY_IN_CARE: "The person is already in care for this",
    OverrideReason.DATA_WRONG_OR_OLD: "The data are wrong or old",
    OverrideReason.CIRCUMSTANCES_NOT_IN_DATA: "Circumstances that the data do not hold",
    OverrideReason.ANSWERS_MISUNDERSTOOD: "The questionnaire was misunderstood",
    OverrideReason.OTHER: "Another reason (see comment)",
}
FROM_HL7 = {
    "recipient-disagrees-evidence": OverrideReason.CLINICAL_ASSESSMENT,
    "recipient-concerns-outcomes": OverrideReason.CLINICAL_ASSESSMENT,
    "recipient-does-not-trust": OverrideReason.CLINICAL_ASSESSMENT,
    "action-completed": OverrideReason.ALREADY_IN_CARE,
    "need-more-info": OverrideReason.DATA_WRONG_OR_OLD,
    "cds-not-applicable": OverrideReason.CIRCUMSTANCES_NOT_IN_DATA,
    "cds-suboptimal-context": OverrideReason.CIRCUMSTANCES_NOT_IN_DATA,
    "recipient-does-not-understand": OverrideReason.ANSWERS_MISUNDERSTOOD,
}


def list_override_reasons() -> list[Resource]:
    """Return the codings that a card offers, each with a display (cds-resp-4)."""
    return [make_code(OUR_SYSTEM, reason, display) for reason, display in DISPLAYS.items()]


def read_override_reason(system: str | None, code: str | None) -> OverrideReason:
    """Return our reason for a coding; an unknown or missing one is `other`."""
    if system == OUR_SYSTEM and code in [reason.value for reason in OverrideReason]:
        return OverrideReason(str(code))
    if system == HL7_SYSTEM:
        return FROM_HL7.get(str(code), OverrideReason.OTHER)
    return OverrideReason.OTHER
