"""Labels of the terms of a contact attempt."""

from serving.database.review_terms import ContactChannel, ContactOutcome

CHANNELS = {
    ContactChannel.PHONE: "Phone",
    ContactChannel.TEXT_MESSAGE: "Text message",
    ContactChannel.EMAIL: "Email",
    ContactChannel.LETTER: "Letter",
    ContactChannel.VIDEO: "Video call",
    ContactChannel.IN_PERSON: "In person",
    ContactChannel.OTHER_SERVICE: "Through another service",
}
OUTCOMES = {
    ContactOutcome.SPOKE: "Reached: spoke with the person",
    ContactOutcome.APPOINTMENT_MADE: "Reached: appointment made",
    ContactOutcome.DECLINED_CONTACT: "Reached: declines contact",
    ContactOutcome.NO_ANSWER: "Not reached: no answer",
    ContactOutcome.MESSAGE_LEFT: "Not reached: message left",
    ContactOutcome.WRONG_DETAILS: "Not reached: contact details are wrong",
    ContactOutcome.WELFARE_CHECK_ASKED: "Not reached: welfare check requested",
}
