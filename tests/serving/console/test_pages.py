"""What clinicians do on the pages: the same functions, permissions and audit rows as the API."""

import threading
import uuid
from html import escape

import pytest
from sqlalchemy import Text, cast, func, select
from sqlalchemy.orm import Session

from feature_repo.instruments import GAD7, PHQ9
from feature_repo.pseudonyms import pseudonymise
from serving.console.known_ids import KNOWN_IDS
from serving.console.questions import QUESTIONS
from serving.database.tables import AuditRow, Consent, ContactAttempt, Prediction, ReviewItem
from serving.roles import Role
from tests.fixtures.api import HIGH_ANSWERS, LOW_ANSWERS, SALT, read_audit, read_rows
from tests.fixtures.console import read_text

CRISIS_ANSWERS = [1, 1, 1, 1, 1, 1, 1, 1, 2]
MARKUP = "<script>alert(1)</script><img src=x onerror=alert(2)>"


def fill_form(own_id, phq9=None, gad7=None):
    fields = {"patient_id": own_id, "request_key": uuid.uuid4().hex}
    for name, answers in (("phq9", phq9 or []), ("gad7", gad7 or [])):
        fields |= {
            f"{name}_{n}": "none" if one is None else one for n, one in enumerate(answers, 1)
        }
    return fields


@pytest.fixture
def own_id(grant):
    """The clinic's id of a person who consents to everything."""
    name = f"nhs-{uuid.uuid4().hex[:10]}"
    grant("survey", "wearable", "emr", anonymized_id=pseudonymise(name, SALT))
    return name


@pytest.fixture
def queued(screen, grant):
    """The review item of a person whose PHQ-9 is a crisis."""

    def queue(answers=CRISIS_ANSWERS):
        person = grant("survey")
        answer = screen(person, answers).json()
        return person, answer["prediction_id"]

    return queue


def find_item_of(engine, person):
    (item,) = read_rows(engine, ReviewItem, person)
    return item


def list_actions(engine, person):
    return [row.action for row in read_audit(engine, person)]


def test_the_questions_are_as_many_as_the_instruments_have_items():
    assert {name: len(asked) for name, asked in QUESTIONS.items()} == {
        one.name: one.item_count for one in (PHQ9, GAD7)
    }


@pytest.mark.parametrize(
    ("role", "path"),
    [
        (Role.AUDITOR, "/console/queue"),
        (Role.DATA_SCIENTIST, "/console/queue"),
        (Role.AUDITOR, "/console/screen"),
        (Role.CLINICIAN, f"/console/individuals/{'a' * 32}/export"),
        (Role.CLINICIAN, f"/console/individuals/{'a' * 32}/access-history"),
        (Role.AUDITOR, f"/console/individuals/{'a' * 32}/consents"),
    ],
)
def test_a_page_refuses_a_role_without_the_permission_and_audits_it(visit, engine, role, path):
    user = f"curious.{uuid.uuid4().hex[:6]}"
    answer = visit().sign_in(role, user).get(path)

    assert answer.status_code == 403
    assert "may not" in read_text(answer)
    with Session(engine) as session:
        rows = session.scalars(select(AuditRow).where(AuditRow.user_id == user)).all()
    assert [row.result for row in rows] == ["success", "failure"]


def test_an_auditor_posts_nothing(visit, engine, queued):
    person, _ = queued()
    item = find_item_of(engine, person)
    auditor = visit().sign_in(Role.AUDITOR)
    token = auditor.read_token("/console/individuals/" + person)
    for action in ("claim", "release", "decision", "notes", "contacts"):
        path = f"/console/cases/{item.id}/{action}"
        answer = auditor.post_raw(path, {"form_token": token, "note": "x", "decision": "agree"})
        assert answer.status_code == 403, action

    assert find_item_of(engine, person).status == "pending"


def test_a_crisis_is_worked_from_the_queue_to_the_decision(visit, engine, queued):
    person, _ = queued()
    item = find_item_of(engine, person)
    visitor, page = visit().sign_in(user="dr.first"), f"/console/cases/{item.id}"
    assert "What to do now" in read_text(visitor.get(page))
    assert visitor.post(page, f"{page}/claim").status_code == 303
    contact = {"channel": "phone", "outcome": "message_left", "next_contact": "2099-01-02 09:30"}
    assert visitor.post(page, f"{page}/contacts", contact).status_code == 303
    decision = {"decision": "refer", "comment": "To the crisis team, by phone."}
    assert visitor.post(page, f"{page}/decision", decision).status_code == 303
    shown = read_text(visitor.get(page))

    assert "dr.first referred on" in shown
    assert "message left; next attempt 2 Jan 2099, 09:30 UTC" in shown
    assert find_item_of(engine, person).decision == "refer"
    (attempt,) = read_rows(engine, ContactAttempt, person)
    assert (attempt.user_id, attempt.reached) == ("dr.first", False)
    changes = ["claim_review", "record_contact", "decide_review"]
    assert [one for one in list_actions(engine, person) if one in changes] == changes


def test_of_two_clinicians_who_claim_at_once_one_wins_and_both_are_audited(visit, engine, queued):
    person, _ = queued()
    path = f"/console/cases/{find_item_of(engine, person).id}"
    rivals, statuses = [visit().sign_in(user=f"rival.{n}") for n in (1, 2)], {}
    tokens = [rival.read_token(path) for rival in rivals]

    def claim(number):
        answer = rivals[number].post_raw(f"{path}/claim", {"form_token": tokens[number]})
        statuses[number] = answer

    threads = [threading.Thread(target=claim, args=(n,)) for n in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    loser = next(one for one in statuses.values() if one.status_code != 303)
    rows = [row for row in read_audit(engine, person) if row.action == "claim_review"]

    assert sorted(one.status_code for one in statuses.values()) == [303, 409]
    assert "claimed by another clinician" in read_text(loser)
    assert sorted(row.result for row in rows) == ["failure", "success"]
    assert len({row.user_id for row in rows}) == 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "Choose agree, set another priority, or refer"),
        ({"decision": "override"}, "Choose the priority that you find right"),
        ({"decision": "override", "new_band": "low"}, "Choose why the priority is another"),
        ({"decision": "refer"}, "Name the service you refer to, and the reason"),
    ],
)
def test_an_incomplete_decision_is_explained_beside_its_field(
    visit, engine, queued, fields, message
):
    person, _ = queued()
    page = f"/console/cases/{find_item_of(engine, person).id}"
    answer = visit().sign_in().post(page, f"{page}/decision", fields)

    assert answer.status_code == 422
    assert read_text(answer).count(message) == 2
    assert "<title>Error:" in answer.text
    assert find_item_of(engine, person).status == "pending"


def test_an_override_keeps_reason_band_and_comment(visit, engine, queued):
    person, _ = queued()
    page = f"/console/cases/{find_item_of(engine, person).id}"
    fields = {
        "decision": "override",
        "new_band": "high",
        "reason_code": "already_in_care",
        "comment": "Seen yesterday.",
    }
    assert visit().sign_in().post(page, f"{page}/decision", fields).status_code == 303
    item = find_item_of(engine, person)

    assert (item.new_band, item.reason_code, item.comment) == (
        "high",
        "already_in_care",
        "Seen yesterday.",
    )


def test_fields_of_an_override_do_not_spoil_an_agreement(visit, engine, queued):
    person, _ = queued()
    page = f"/console/cases/{find_item_of(engine, person).id}"
    fields = {"decision": "agree", "new_band": "low", "reason_code": "", "comment": ""}

    assert visit().sign_in().post(page, f"{page}/decision", fields).status_code == 303


def test_markup_in_notes_reasons_and_names_arrives_as_text(visit, engine, queued):
    person, prediction_id = queued()
    with Session(engine) as session, session.begin():
        prediction = session.get_one(Prediction, uuid.UUID(prediction_id))
        reasons = [{"code": "x", "text": MARKUP}]
        reason = {"direction": "raises", "text": MARKUP}
        prediction.answer = prediction.answer | {
            "summary": MARKUP,
            "review_reasons": reasons,
            "reasons": [reason],
        }
        item = session.scalars(select(ReviewItem).where(ReviewItem.anonymized_id == person)).one()
        item.claimed_by, item.status = MARKUP, "claimed"
        page = f"/console/cases/{item.id}"
    visitor = visit().sign_in()
    visitor.post(page, f"{page}/notes", {"note": MARKUP})
    for path in (page, f"/console/predictions/{prediction_id}", f"/console/individuals/{person}"):
        shown = visitor.get(path).text
        assert escape(MARKUP, quote=False) in shown, path
        assert "<script" not in shown
        assert "<img" not in shown


def test_a_note_that_is_empty_is_not_kept(visit, engine, queued):
    person, _ = queued()
    page = f"/console/cases/{find_item_of(engine, person).id}"

    assert visit().sign_in().post(page, f"{page}/notes", {"note": "  "}).status_code == 422


def test_a_clinician_s_word_raises_a_crisis(visit, engine, screen, grant):
    person = grant("survey")
    prediction_id = screen(person, LOW_ANSWERS).json()["prediction_id"]
    page = f"/console/predictions/{prediction_id}"
    visitor = visit().sign_in()
    empty = visitor.post(page, f"{page}/crisis", {"crisis_comment": ""})
    raised = visitor.post(page, f"{page}/crisis", {"crisis_comment": "Spoke of a plan."})

    assert (empty.status_code, raised.status_code) == (422, 303)
    assert find_item_of(engine, person).priority == "critical"
    assert raised.headers["Location"] == f"/console/cases/{find_item_of(engine, person).id}"


def test_a_screening_that_is_not_queued_says_why_not(visit, screen, grant):
    prediction_id = screen(grant("survey"), LOW_ANSWERS).json()["prediction_id"]
    shown = read_text(visit().sign_in().get(f"/console/predictions/{prediction_id}"))

    assert "Why this person is not in the queue" in shown
    assert "Low priority is not low risk" in shown


def test_a_person_is_screened_by_the_clinic_s_own_id(visit, engine, own_id):
    visitor = visit().sign_in()
    fields = fill_form(own_id, HIGH_ANSWERS, [2] * 7)
    answer = visitor.post("/console/screen", "/console/screen", fields)
    shown = read_text(visitor.get(answer.headers["Location"]))

    assert answer.status_code == 303
    assert f"Person {own_id}" in shown
    assert "Next step" in shown
    assert "PHQ-9: 23 of 27, severe" in shown
    (prediction,) = read_rows(engine, Prediction, pseudonymise(own_id, SALT))
    assert prediction.user_id == "dr.who"
    with Session(engine) as session:
        held = session.scalar(
            select(func.count()).where(cast(AuditRow.details, Text).contains(own_id))
        )
    assert held == 0


def test_a_form_that_is_sent_twice_screens_once(visit, engine, own_id):
    visitor = visit().sign_in()
    fields = fill_form(own_id, LOW_ANSWERS)
    first = visitor.post("/console/screen", "/console/screen", fields)
    second = visitor.post("/console/screen", "/console/screen", fields)

    assert first.headers["Location"] == second.headers["Location"]
    assert len(read_rows(engine, Prediction, pseudonymise(own_id, SALT))) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patient_id": ""}, "Type the id that your clinic uses"),
        ({"phq9_4": ""}, "PHQ-9 item 4: choose an answer"),
        ({"phq9_9": "4"}, "PHQ-9 item 9: choose an answer"),
        ({"gad7_1": "2"}, "GAD-7 item 7: choose an answer"),
        ({f"phq9_{n}": "" for n in range(1, 10)}, "Answer PHQ-9 or GAD-7, or both"),
    ],
)
def test_a_form_with_gaps_is_explained_beside_its_fields(visit, own_id, changes, message):
    fields = fill_form(own_id, LOW_ANSWERS) | changes
    answer = visit().sign_in().post("/console/screen", "/console/screen", fields)

    assert answer.status_code == 422
    assert message in read_text(answer)


def test_an_item_9_that_was_not_answered_goes_to_the_queue(visit, engine, own_id):
    fields = fill_form(own_id, [*LOW_ANSWERS[:8], None])
    visit().sign_in().post("/console/screen", "/console/screen", fields)

    assert find_item_of(engine, pseudonymise(own_id, SALT)).priority == "critical"


def test_a_screening_without_consent_leads_to_the_consent_and_keeps_nothing(visit, engine):
    own_id = f"unknown-{uuid.uuid4().hex[:8]}"
    person, visitor = pseudonymise(own_id, SALT), visit().sign_in()
    fields = fill_form(own_id, LOW_ANSWERS)
    refused = visitor.post("/console/screen", "/console/screen", fields)
    consents = f"/console/individuals/{person}/consents"
    assert refused.status_code == 403
    assert f'href="{consents}"' in refused.text
    assert "What to do now" in read_text(refused)
    granted = {
        "data_types": ["survey"],
        "purposes": ["screening"],
        "expires_on": "2099-01-01",
    }
    assert visitor.post(consents, consents, granted).status_code == 303
    assert own_id in read_text(visitor.get(consents))
    fields["request_key"] = uuid.uuid4().hex
    assert visitor.post("/console/screen", "/console/screen", fields).status_code == 303
    withdrawn = visitor.post(consents, f"{consents}/withdrawal", {"what": "survey"})
    assert withdrawn.status_code == 303
    fields["request_key"] = uuid.uuid4().hex
    assert visitor.post("/console/screen", "/console/screen", fields).status_code == 403
    assert len(read_rows(engine, Prediction, person)) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data_types": []}, "Choose at least one kind of data"),
        ({"purposes": []}, "Choose at least one purpose"),
        ({"expires_on": "2001-01-01"}, "The day must lie in the future"),
        ({"expires_on": "soon"}, "Write the day until which the consent holds"),
    ],
)
def test_an_unusable_consent_is_explained_and_not_recorded(visit, engine, changes, message):
    person = uuid.uuid4().hex
    page = f"/console/individuals/{person}/consents"
    good = {"data_types": ["survey"], "purposes": ["screening"], "expires_on": "2099-01-01"}
    answer = visit().sign_in().post(page, page, good | changes)

    assert answer.status_code == 422
    assert message in read_text(answer)
    assert read_rows(engine, Consent, person) == []


def test_an_own_id_is_kept_in_the_browser_alone_and_ends_with_the_session(visit, own_id):
    visitor, page = visit().sign_in(), "/console/individuals"
    found = visitor.post(page, page, {"patient_id": own_id})

    assert found.headers["Location"] == f"{page}/{pseudonymise(own_id, SALT)}"
    assert own_id in read_text(visitor.get(page))
    assert own_id not in read_text(visit().sign_in().get(page))
    visitor.post(page, "/console/sign-out")
    assert KNOWN_IDS not in visitor.client.cookies


def test_a_spoilt_cookie_of_known_ids_shows_none(visit):
    visitor = visit().sign_in()
    visitor.client.cookies.set(KNOWN_IDS, "not-base64!")

    assert visitor.get("/console/queue").status_code == 200


def test_the_queue_shows_the_most_urgent_first_and_pages_through_all(visit, engine, queued):
    people = {queued(HIGH_ANSWERS)[0] for _ in range(22)}
    visitor, path, seen = visit().sign_in(), "/console/queue?order=newest", []
    while path:
        page = visitor.get(path).text
        seen += [part.partition('"')[0] for part in page.split('href="/console/cases/')[1:]]
        before, found, _ = page.partition('">Next items</a>')
        path = before.rpartition('href="')[2].replace("&amp;", "&") if found else ""
    with Session(engine) as session:
        open_items = session.scalars(select(ReviewItem).where(ReviewItem.status != "decided"))
        expected = {str(item.id): item.anonymized_id for item in open_items}

    assert len(seen) == len(set(seen)) == len(expected)
    assert people <= {expected[one] for one in seen}


def test_the_queue_is_filtered_by_band_owner_and_due_time(visit, engine, queued):
    person, _ = queued()
    item = find_item_of(engine, person)
    visitor = visit().sign_in(user="owner.of.one")
    page = f"/console/cases/{item.id}"
    visitor.post(page, f"{page}/claim")

    assert page in visitor.get("/console/queue?owner=mine&band=critical").text
    assert page not in visitor.get("/console/queue?owner=unclaimed").text
    assert page not in visitor.get("/console/queue?owner=mine&band=low").text
    assert page not in visitor.get("/console/queue?owner=mine&overdue=yes").text
    assert visitor.get("/console/queue?band=extreme").status_code == 422


def test_an_erased_person_leaves_a_receipt_and_nothing_else(visit, engine, queued):
    person, _ = queued()
    item = find_item_of(engine, person)
    visitor, page = visit().sign_in(Role.ADMIN, "boss"), f"/console/individuals/{person}/erasure"
    slip = visitor.post(page, page, {"confirmation": "yes"})
    assert (slip.status_code, len(read_rows(engine, ReviewItem, person))) == (422, 1)
    assert visitor.post(page, page, {"confirmation": "Erase"}).status_code == 303

    assert "Signed receipt" in read_text(visitor.get(page))
    assert read_rows(engine, ReviewItem, person) == read_rows(engine, Prediction, person) == []
    assert visitor.get(f"/console/cases/{item.id}").status_code == 404


def test_an_export_is_a_file_with_all_that_is_held(visit, queued):
    person, _ = queued()
    visitor = visit().sign_in(Role.ADMIN, "boss")
    answer = visitor.get(f"/console/individuals/{person}/export")

    assert answer.headers["Content-Disposition"].startswith("attachment")
    assert len(answer.json()["predictions"]) == 1
    bundle = visitor.get(f"/console/individuals/{person}/export?format=fhir").json()
    assert bundle["resourceType"] == "Bundle"


def test_the_access_history_names_who_opened_the_case(visit, engine, queued):
    person, _ = queued()
    item = find_item_of(engine, person)
    visit().sign_in(user="dr.seen").get(f"/console/cases/{item.id}")
    shown = read_text(
        visit().sign_in(Role.AUDITOR).get(f"/console/individuals/{person}/access-history")
    )

    assert "dr.seen (clinician)" in shown
