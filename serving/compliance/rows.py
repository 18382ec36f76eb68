"""The compliance report as labelled rows: what its page, its print and its CSV show."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from serving.compliance.report import AS_OF_NOW, ComplianceReport


@dataclass(frozen=True)
class ReportRow:
    """One number; `item` names a part of the row, empty where the row has none."""

    section: str
    label: str
    item: str
    value: str
    as_of_now: bool


#: Sections with the fields of the report and their labels, in the order that a reader follows.
SECTIONS: dict[str, dict[str, str]] = {
    "Screenings": {
        "screenings": "Screenings answered",
        "screenings_by_band": "Screenings still held, by priority",
        "releases_in_use": "Screenings still held, by release version",
        "consent_failures": "Screenings refused because consent was missing",
    },
    "Crises": {
        "crises": "Crises queued",
        "crisis_overrides": "Crises raised by a clinician",
        "crisis_notices": "Crisis notices, by state",
    },
    "Reviews": {
        "review_times": "Items queued in the period, by priority",
        "review_decisions": "Decisions",
        "override_reasons": "Reasons for another priority",
        "contact_attempts": "Contact attempts, by outcome",
        "open_reviews_by_priority": "Open items, by priority",
        "overdue_reviews": "Open items past their due time",
    },
    "Consent": {
        "consent_changes": "Consent changes",
        "consents_expiring_in_7_days": "Consents that end within 7 days",
    },
    "Releases and drift": {"governance": "Releases and drift"},
    "Rights of individuals": {
        "erasures": "Erasures requested",
        "erasures_waiting_by_store": "Erasures not finished, by store",
    },
    "Access": {
        "active_users_by_role": "People who did something, by role",
        "refusals_by_reason": "Refusals, by reason",
        "unauthenticated_requests": "Requests without a valid token or session",
        "token_revocations": "Revocations of tokens",
        "events": "Rows of the audit trail, by type",
        "audit_trail": "Audit trail",
    },
}


def list_rows(report: ComplianceReport) -> list[ReportRow]:
    """Return every number of a report as a row, in the order of SECTIONS."""
    values = report.model_dump(mode="json")
    return [
        ReportRow(section, label, item, value, name in AS_OF_NOW)
        for section, fields in SECTIONS.items()
        for name, label in fields.items()
        for item, value in split_value(values[name])
    ]


def split_value(value: Any) -> Iterator[tuple[str, str]]:
    """Yield (item, number) of a value; one that has no items yields one with an empty name."""
    if not isinstance(value, dict):
        yield "", show(value)
    elif not value:
        yield "", "none"
    else:
        for name, part in value.items():
            if isinstance(part, dict):
                yield from (
                    (f"{plain(name)}: {plain(key)}", show(number)) for key, number in part.items()
                )
            else:
                yield plain(name), show(part)


def plain(name: str) -> str:
    return name.replace("_", " ")


def show(value: Any) -> str:
    return "not known" if value is None else str(value)


def write_csv(report: ComplianceReport) -> str:
    """Return the report as CSV with a header; the period is in its first rows."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["section", "what", "item", "value", "moment"])
    for name, at in (("First moment", report.since), ("Moment after the last", report.until)):
        writer.writerow(["Period", name, "", at.isoformat(), ""])
    for row in list_rows(report):
        moment = "as of now" if row.as_of_now else "in the period"
        writer.writerow([row.section, row.label, row.item, row.value, moment])
    return text.getvalue()
