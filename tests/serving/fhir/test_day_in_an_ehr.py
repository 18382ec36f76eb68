"""A day in an EHR: discovery, hook, consent, card, suggestion, feedback, decision, passport."""

import uuid

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from serving.database.tables import AuditRow, Prediction, ReviewEvent, ReviewItem
from serving.fhir.override_reasons import OUR_SYSTEM
from serving.reviews.labels import read_review_labels
from serving.roles import Role
from tests.fixtures.api import LOW_ANSWERS, make_headers, read_rows
from tests.fixtures.ehr import CLINIC, FEEDBACK, HOOK, OTHER, make_hook, make_response

SEVERE = [3, 3, 3, 3, 2, 3, 3, 2, 0]
CRISIS = [*LOW_ANSWERS[:8], 2]
NOW = "2026-11-28T10:05:31Z"


@pytest.fixture
def patient():
    return f"pat-{uuid.uuid4().hex[:10]}"


@pytest.fixture
def call_hook(client):
    def call(patient, *resources, caller=CLINIC, **changes):
        body = make_hook(patient, *resources, **changes)
        return client.post(HOOK, json=body, headers=caller.authorise(HOOK))

    return call


@pytest.fixture
def give_feedback(client):
    def give(*entries):
        headers = CLINIC.authorise(FEEDBACK)
        return client.post(FEEDBACK, json={"feedback": list(entries)}, headers=headers)

    return give


def read_cards(response):
    assert response.status_code == 200, response.text
    return response.json()["cards"]


def list_actions(engine, person):
    with Session(engine) as session:
        rows = session.scalars(select(AuditRow).where(AuditRow.anonymized_id == person))
        return [(row.user_id, row.action, row.result) for row in rows]


# Refusals


@pytest.mark.parametrize("name", ["patient", "phq9", "gad7", "responses"])
def test_a_missing_prefetch_is_named(call_hook, patient, name):
    prefetch = make_hook(patient)["prefetch"]
    del prefetch[name]
    response = call_hook(patient, prefetch=prefetch)

    assert response.status_code == 412
    assert name in response.json()["issue"][0]["diagnostics"]


def test_another_hook_is_refused(call_hook, patient):
    assert call_hook(patient, hook="order-sign").status_code == 422


def test_answers_of_another_person_are_refused(call_hook, patient, consent):
    consent(patient)
    response = call_hook(patient, make_response("someone-else", SEVERE))

    assert response.status_code == 422
    assert "someone-else" not in response.text


def test_without_consent_a_card_says_so_and_nothing_is_estimated(
    call_hook, patient, consent, engine
):
    person = consent(uuid.uuid4().hex)
    (card,) = read_cards(call_hook(patient, make_response(patient, CRISIS)))

    assert card["indicator"] == "info"
    assert "no active consent" in card["summary"]
    assert "emergency number" in card["detail"]
    assert card["links"][0]["url"].endswith("/consents")
    assert read_rows(engine, Prediction, person) == []


def test_the_dead_are_not_screened(call_hook, patient, consent, engine):
    person = consent(patient)
    prefetch = make_hook(patient, make_response(patient, SEVERE))["prefetch"]
    prefetch["patient"] |= {"deceasedBoolean": True}

    assert read_cards(call_hook(patient, prefetch=prefetch)) == []
    assert read_rows(engine, Prediction, person) == []
    assert list_actions(engine, person)[-1][1] == "view_no_card"


def test_an_unreadable_answer_is_a_warning_with_guidance(call_hook, patient, consent):
    consent(patient)
    response = make_response(patient, SEVERE)
    response["item"][8]["answer"] = [{"valueString": "yes, often"}]
    (card,) = read_cards(call_hook(patient, response))

    assert card["indicator"] == "warning"
    assert "item_9" in card["detail"]
    assert "emergency number" in card["detail"]
    assert "often" not in str(card)


# What it does


def test_the_day(client, call_hook, give_feedback, patient, consent, engine):
    (service,) = client.get("/cds-services").json()["services"]
    assert (service["hook"], service["id"]) == ("patient-view", "mhras-review")
    assert set(service["prefetch"]) == set(make_hook(patient)["prefetch"])

    severe = make_response(patient, SEVERE)
    (refused,) = read_cards(call_hook(patient, severe))
    assert "no active consent" in refused["summary"]

    person = consent(patient)
    (card,) = read_cards(call_hook(patient, severe))
    assert card["indicator"] == "warning"
    (prediction,) = read_rows(engine, Prediction, person)
    assert card["uuid"] == str(prediction.id)
    assert prediction.risk_band in ("high", "critical")
    assert prediction.needs_review
    (item,) = read_rows(engine, ReviewItem, person)
    assert card["links"][0]["url"].endswith(f"/console/cases/{item.id}")
    (suggestion,) = card["suggestions"]
    created = suggestion["actions"][0]["resource"]
    assert created["subject"] == {"reference": f"Patient/{patient}"}

    # Viewing again makes no second screening.
    assert read_cards(call_hook(patient, severe))[0]["uuid"] == card["uuid"]
    assert len(read_rows(engine, Prediction, person)) == 1

    accepted = {
        "card": card["uuid"],
        "outcome": "accepted",
        "acceptedSuggestions": [{"id": suggestion["uuid"]}],
        "outcomeTimestamp": NOW,
    }
    assert give_feedback(accepted).json() == {"recorded": 1, "unknown": 0}
    (decided,) = read_rows(engine, ReviewItem, person)
    assert (decided.status, decided.decision, decided.decided_by) == (
        "decided",
        "agree",
        "ehr:clinic-a",
    )
    with Session(engine) as session:
        labels = list(read_review_labels(session, prediction.created_at))
    assert [one.reviewed_band for one in labels if one.prediction_id == prediction.id] == [
        prediction.risk_band
    ]

    path = f"/predictions/{prediction.id}/passport"
    passport = client.get(path, headers=make_headers(Role.CLINICIAN)).json()
    assert passport["requested_by"] == "ehr:clinic-a"
    assert passport["review"]["decision"] == "agree"
    assert {one["action"] for one in passport["viewed"]} >= {"view_card"}


def test_a_crisis_is_critical_and_stays_open_whatever_the_ehr_reports(
    call_hook, give_feedback, patient, consent, engine
):
    person = consent(patient)
    (card,) = read_cards(call_hook(patient, make_response(patient, CRISIS)))
    assert card["indicator"] == "critical"
    assert "emergency number" in card["detail"]

    comment = "Spoke to them at noon."
    feedback = {
        "card": card["uuid"],
        "outcome": "overridden",
        "overrideReason": {"userComment": comment},
        "outcomeTimestamp": NOW,
    }
    assert give_feedback(feedback).status_code == 200
    (item,) = read_rows(engine, ReviewItem, person)
    assert item.status == "pending"
    notes = [event.note for event in read_rows(engine, ReviewEvent, person)]
    assert notes == [f"In the EHR: {comment}"]


@pytest.mark.parametrize(
    ("coding", "reason"),
    [
        ({"system": OUR_SYSTEM, "code": "already_in_care"}, "already_in_care"),
        (
            {
                "system": "http://terminology.hl7.org/CodeSystem/non-adherence-reason-codes",
                "code": "cds-not-applicable",
            },
            "circumstances_not_in_data",
        ),
        ({"system": "http://example.org", "code": "x"}, "other"),
    ],
    ids=["ours", "HL7", "unknown"],
)
def test_an_overridden_card_is_a_decision_with_its_reason(
    call_hook, give_feedback, patient, consent, engine, coding, reason
):
    person = consent(patient)
    (card,) = read_cards(call_hook(patient, make_response(patient, SEVERE)))
    overridden = {
        "card": card["uuid"],
        "outcome": "overridden",
        "overrideReason": {"reason": coding, "userComment": "Seen yesterday."},
        "outcomeTimestamp": NOW,
    }
    unknown = overridden | {"card": str(uuid.uuid4())}
    again = overridden | {"overrideReason": {"userComment": "And again."}}

    assert give_feedback(overridden, unknown, again).json() == {"recorded": 2, "unknown": 1}
    (item,) = read_rows(engine, ReviewItem, person)
    assert (item.decision, item.reason_code, item.new_band) == ("override", reason, "moderate")
    assert item.comment == "In the EHR: Seen yesterday."
    assert "In the EHR: And again." in [one.note for one in read_rows(engine, ReviewEvent, person)]


def test_feedback_on_unknown_cards_alone_is_not_found(give_feedback):
    entry = {
        "card": "no-card",
        "outcome": "accepted",
        "acceptedSuggestions": [{"id": "x"}],
        "outcomeTimestamp": NOW,
    }
    assert give_feedback(entry).status_code == 404


@pytest.mark.parametrize(
    "change",
    [
        {"acceptedSuggestions": []},
        {"overrideReason": {"userComment": "x"}},
        {"outcome": "overridden", "overrideReason": {}},
        {"outcomeTimestamp": "yesterday"},
        {"outcomeTimestamp": "2026-11-28T10:05:31"},
        {"outcome": "ignored"},
    ],
)
def test_feedback_that_breaks_an_invariant_is_refused(give_feedback, change):
    entry = {
        "card": str(uuid.uuid4()),
        "outcome": "accepted",
        "acceptedSuggestions": [{"id": "x"}],
        "outcomeTimestamp": NOW,
    }
    assert give_feedback(entry | change).status_code == 422


def test_low_answers_leave_no_card_and_an_audit_row(call_hook, patient, consent, engine):
    person = consent(patient)

    assert read_cards(call_hook(patient, make_response(patient, [0] * 9))) == []
    (prediction,) = read_rows(engine, Prediction, person)
    assert prediction.needs_review is False
    assert ("ehr:clinic-a", "view_no_card", "success") in list_actions(engine, person)


def test_without_new_answers_the_latest_priority_is_shown(client, call_hook, patient, consent):
    person = consent(patient)
    body = {"anonymized_id": person, "survey_data": {"phq9": SEVERE}}
    stored = client.post("/screen", json=body, headers=make_headers()).json()
    (card,) = read_cards(call_hook(patient))

    assert card["uuid"] == stored["prediction_id"]


def test_equal_ids_of_two_clinics_are_two_people(call_hook, patient, consent, engine):
    first, second = consent(patient, "a"), consent(patient, "b")
    read_cards(call_hook(patient, make_response(patient, SEVERE)))
    (card,) = read_cards(call_hook(patient, make_response(patient, CRISIS), caller=OTHER))

    assert first != second
    assert card["indicator"] == "critical"
    assert len(read_rows(engine, Prediction, first)) == 1
