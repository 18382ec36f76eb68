"""Terms of the review queue: states, decisions, reasons, and the time until a review is due."""

from datetime import datetime, timedelta
from enum import StrEnum


class ReviewStatus(StrEnum):
    PENDING = "pending"
    CLAIMED = "claimed"
    DECIDED = "decided"


class Decision(StrEnum):
    """What a clinician makes of a screening."""

    AGREE = "agree"
    OVERRIDE = "override"
    REFER = "refer"


class OverrideReason(StrEnum):
    """Why a clinician puts a person into another band than the release did."""

    CLINICAL_ASSESSMENT = "clinical_assessment"
    DATA_WRONG_OR_OLD = "data_wrong_or_old"
    ALREADY_IN_CARE = "already_in_care"
    CIRCUMSTANCES_NOT_IN_DATA = "circumstances_not_in_data"
    ANSWERS_MISUNDERSTOOD = "answers_misunderstood"
    OTHER = "other"


class ContactChannel(StrEnum):
    PHONE = "phone"
    TEXT_MESSAGE = "text_message"
    EMAIL = "email"
    LETTER = "letter"
    VIDEO = "video"
    IN_PERSON = "in_person"
    OTHER_SERVICE = "other_service"


class ContactOutcome(StrEnum):
    """Result of a contact attempt; with the first three the person was reached."""

    SPOKE = "spoke"
    APPOINTMENT_MADE = "appointment_made"
    DECLINED_CONTACT = "declined_contact"
    NO_ANSWER = "no_answer"
    MESSAGE_LEFT = "message_left"
    WRONG_DETAILS = "wrong_details"
    WELFARE_CHECK_ASKED = "welfare_check_asked"

    @property
    def reached(self) -> bool:
        return self in (
            ContactOutcome.SPOKE,
            ContactOutcome.APPOINTMENT_MADE,
            ContactOutcome.DECLINED_CONTACT,
        )


#: Review reasons of a crisis; a decided review with one of them closes a stored crisis.
CRISIS_REASONS = (
    "crisis_item",
    "stored_crisis_item",
    "unreadable_crisis_item",
    "clinician_override",
)

#: Most urgent first, by band of the screening. A local agreement, not a clinical standard.
REVIEW_WITHIN = {
    "critical": timedelta(hours=1),
    "high": timedelta(hours=24),
    "moderate": timedelta(hours=72),
    "low": timedelta(days=7),
}


def find_due_time(created_at: datetime, band: str) -> datetime:
    """Return until when a clinician must have seen an item of a band."""
    return created_at + REVIEW_WITHIN[band]


#: A claim this old no longer keeps others from the item: its owner went home with it.
CLAIM_LAPSES_AFTER = timedelta(hours=4)
