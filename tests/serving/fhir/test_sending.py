"""Questionnaires that an EHR sends are read as ingestion reads them, and screened once."""

import uuid

import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from feature_repo.instruments import PHQ9, WHO5
from serving.database.tables import AuditRow, Prediction, ReviewItem
from serving.roles import Role
from tests.fixtures.api import HIGH_ANSWERS, LOW_ANSWERS, make_headers, read_rows
from tests.fixtures.ehr import CLINIC, OTHER, READER, make_response
from tests.fixtures.fhir_r4 import fhir_judge

__all__ = ["fhir_judge"]

SENT = "/fhir/QuestionnaireResponse"
CRISIS = [*LOW_ANSWERS[:8], 3]


@pytest.fixture
def patient():
    return f"pat-{uuid.uuid4().hex[:10]}"


@pytest.fixture
def send(client):
    def send_as(resource, caller=CLINIC, path=SENT):
        return client.post(path, json=resource, headers=caller.authorise(path))

    return send_as


def make_item_observation(patient, number, points, at):
    return {
        "resourceType": "Observation",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": PHQ9.item_loincs[number - 1]}]},
        "subject": {"reference": f"Patient/{patient}"},
        "effectiveDateTime": at,
        "valueInteger": points,
    }


def make_transaction(patient, *resources):
    own = {"fullUrl": "urn:uuid:1", "resource": {"resourceType": "Patient", "id": patient}}
    entries = [own, *({"resource": one} for one in resources)]
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries}


# Refusals


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"resourceType": "Observation"}, "resourceType"),
        ({"authored": None}, "authored"),
        ({"authored": "2026"}, "authored"),
        ({"subject": {"reference": "Group/1"}}, "subject"),
        ({"item": []}, "item"),
        ({"status": "in-progress"}, "item"),
    ],
)
def test_a_response_that_cannot_be_used_names_the_element(send, patient, fhir_judge, change, named):
    response = send(make_response(patient, HIGH_ANSWERS) | change)

    assert response.status_code == 422
    assert named in response.text
    assert fhir_judge.find_problems(response.json()) == []


def test_an_unreadable_item_9_is_refused_with_guidance(send, patient, consent):
    consent(patient)
    resource = make_response(patient, HIGH_ANSWERS)
    resource["item"][8]["answer"] = [{"valueString": "yes"}]
    response = send(resource)

    assert response.status_code == 422
    assert "item_9" in response.text
    assert "emergency number" in response.text


def test_without_consent_nothing_is_recorded_and_the_guidance_is_sent(send, patient, fhir_judge):
    response = send(make_response(patient, CRISIS))

    assert response.status_code == 403
    assert "emergency number" in response.text
    assert fhir_judge.find_problems(response.json()) == []


def test_a_client_that_may_only_read_sends_nothing(send, patient):
    assert send(make_response(patient, HIGH_ANSWERS), READER).status_code == 403


def test_an_auditor_sends_nothing(client, patient):
    headers = make_headers(Role.AUDITOR)
    assert client.post(SENT, json=make_response(patient), headers=headers).status_code == 403


def test_one_client_does_not_read_what_another_sent(client, send, patient, consent):
    consent(patient)
    path = send(make_response(patient, HIGH_ANSWERS)).headers["Location"].partition("testserver")[2]
    person = f"/fhir/RiskAssessment?patient={patient}"

    assert client.get(path, headers=CLINIC.authorise(path)).status_code == 200
    assert client.get(path, headers=OTHER.authorise(path)).status_code == 404
    found = client.get(person, headers=OTHER.authorise("/fhir/RiskAssessment")).json()
    assert "entry" not in found


@pytest.mark.parametrize(
    "change",
    [
        {"type": "batch"},
        {"entry": []},
        {"entry": [{"resource": {"resourceType": "Encounter"}}]},
        {"entry": [{"request": {"method": "DELETE"}}]},
    ],
    ids=["batch", "empty", "another kind", "delete"],
)
def test_a_bundle_that_is_no_such_transaction_is_refused(send, patient, change):
    bundle = make_transaction(patient, make_response(patient, HIGH_ANSWERS))
    assert send(bundle | change, path="/fhir").status_code == 422


def test_a_transaction_about_two_people_is_refused(send, patient, consent, engine):
    person = consent(patient)
    bundle = make_transaction(patient, make_response(patient, LOW_ANSWERS), make_response("other"))

    assert send(bundle, path="/fhir").status_code == 422
    assert read_rows(engine, Prediction, person) == []


# What it does


def test_a_response_is_screened_and_answered_with_a_risk_assessment(
    client, send, patient, consent, engine, fhir_judge
):
    person = consent(patient)
    response = send(make_response(patient, CRISIS))

    assert response.status_code == 201, response.text
    created = response.json()
    assert fhir_judge.find_problems(created) == []
    assert created["subject"] == {"reference": f"Patient/{patient}"}
    assert created["basis"] == [{"reference": "QuestionnaireResponse/qr1"}]
    (item,) = read_rows(engine, ReviewItem, person)
    assert (item.priority, item.crisis_level) == ("critical", 3)
    path = response.headers["Location"].partition("testserver")[2]
    assert client.get(path, headers=CLINIC.authorise(path)).json()["id"] == created["id"]


def test_a_clinicians_own_token_sends_by_the_organisations_own_id(client, consent, patient):
    consent(patient, tenant=None)
    response = client.post(SENT, json=make_response(patient), headers=make_headers())

    assert response.status_code == 201


def test_the_same_identifier_is_screened_once_and_another_body_under_it_refused(
    send, patient, consent, engine
):
    person = consent(patient)
    identifier = {"system": "urn:ehr", "value": uuid.uuid4().hex}
    resource = make_response(patient, HIGH_ANSWERS, identifier=identifier)
    first, second = send(resource), send(resource)

    assert first.json()["id"] == second.json()["id"]
    assert len(read_rows(engine, Prediction, person)) == 1
    changed = make_response(patient, CRISIS, resource["authored"], identifier=identifier)
    refused = send(changed)
    assert refused.status_code == 422
    assert "emergency number" in refused.text


def test_a_transaction_of_single_items_is_one_questionnaire(
    send, patient, consent, engine, fhir_judge
):
    person = consent(patient)
    items = [
        make_item_observation(patient, number, points, f"2026-11-28T09:00:{number:02}Z")
        for number, points in enumerate(HIGH_ANSWERS, 1)
    ]
    for item in items:
        item["subject"] = {"reference": "urn:uuid:1"}
    response = send(make_transaction(patient, *items), path="/fhir")

    assert response.status_code == 200, response.text
    bundle = response.json()
    assert fhir_judge.find_problems(bundle) == []
    assert bundle["type"] == "transaction-response"
    (prediction,) = read_rows(engine, Prediction, person)
    sent = prediction.inputs["request"]
    assert [sent[f"answered_phq9_{n}"] for n in range(1, 10)] == HIGH_ANSWERS


def test_the_newest_questionnaire_counts(send, patient, consent, engine):
    person = consent(patient)
    old = make_response(patient, CRISIS, "2026-10-01T09:00:00Z")
    new = make_response(patient, LOW_ANSWERS, "2026-11-20T09:00:00Z")

    assert send(make_transaction(patient, new, old), path="/fhir").status_code == 200
    (prediction,) = read_rows(engine, Prediction, person)
    assert prediction.inputs["request"]["answered_phq9_9"] == 0


def test_a_who5_alone_is_read_and_screened_on_what_is_stored(send, patient, consent, engine):
    person = consent(patient)
    items = [
        {"linkId": f"who5-{number}", "answer": [{"valueInteger": 1}]} for number in range(1, 6)
    ]
    form = {
        "resourceType": "Questionnaire",
        "id": "who5",
        "status": "active",
        "code": [{"system": "http://loinc.org", "code": WHO5.panel_codes[0][1]}],
        "item": [{"linkId": f"who5-{number}", "type": "integer"} for number in range(1, 6)],
    }
    resource = make_response(patient, questionnaire="#who5", contained=[form], item=items)
    response = send(resource)

    assert response.status_code == 201, response.text
    assert len(read_rows(engine, Prediction, person)) == 1


ENCODINGS = {
    "plain": lambda word: word,
    "upper case": str.upper,
    "with a mark": lambda word: f"\ufeff{word}",
    "escaped": lambda word: word.encode("unicode_escape").decode(),
}


def test_names_identifiers_and_narrative_reach_no_table_and_no_log(send, consent, engine, capsys):
    canaries = [f"canary{uuid.uuid4().hex[:12]}" for _ in range(6)]
    patient = canaries[0]
    consent(patient)
    resource = make_response(
        patient,
        HIGH_ANSWERS,
        text={"status": "generated", "div": f"<div>{canaries[1]}</div>"},
        author={"display": canaries[2]},
        identifier={"system": f"urn:{canaries[3]}", "value": canaries[4]},
        source={"display": canaries[5]},
    )
    assert send(resource).status_code == 201
    assert send(resource | {"authored": canaries[5]}).status_code == 422

    printed = "".join(capsys.readouterr())
    with engine.connect() as connection:
        tables = connection.scalars(
            text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        ).all()
        held = "".join(
            str(connection.execute(text(f"SELECT * FROM {table}")).all()) for table in tables
        )
    for canary in canaries:
        for name, encode in ENCODINGS.items():
            assert encode(canary) not in held + printed, name


def test_every_call_of_a_client_is_audited_under_its_name(send, patient, consent, engine):
    person = consent(patient)
    send(make_response(patient, HIGH_ANSWERS))
    with Session(engine) as session:
        rows = session.scalars(select(AuditRow).where(AuditRow.anonymized_id == person)).all()

    assert ("ehr:clinic-a", "generate_risk_score") in [(row.user_id, row.action) for row in rows]
