"""Consents, Provenance and AuditEvents of a person, as an EHR or an auditor reads them."""

import uuid

import pytest
from sqlalchemy import func, update

from serving.database.tables import Consent
from serving.roles import Role
from tests.fixtures.api import HIGH_ANSWERS, make_headers, read_audit
from tests.fixtures.ehr import CLINIC, OTHER, READER, make_response
from tests.fixtures.fhir_r4 import fhir_judge

__all__ = ["fhir_judge"]

CONSENTS, PROVENANCE, AUDIT = "/fhir/Consent", "/fhir/Provenance", "/fhir/AuditEvent"
SENT = "/fhir/QuestionnaireResponse"


@pytest.fixture
def patient(consent):
    """A patient of clinic-a, with a consent in force."""
    name = f"pat-{uuid.uuid4().hex[:10]}"
    consent(name)
    return name


@pytest.fixture
def assessment(client, patient):
    response = client.post(
        SENT, json=make_response(patient, HIGH_ANSWERS), headers=CLINIC.authorise(SENT)
    )
    assert response.status_code == 201, response.text
    return response.json()


def read(client, path, caller=CLINIC, **params):
    return client.get(path, params=params, headers=caller.authorise(path))


def list_entries(response):
    assert response.status_code == 200, response.text
    return [entry["resource"] for entry in response.json().get("entry", [])]


# Refusals


def test_a_client_without_the_scope_reads_neither(client, patient, assessment):
    target = f"RiskAssessment/{assessment['id']}"

    assert read(client, CONSENTS, READER, patient=patient).status_code == 403
    assert read(client, PROVENANCE, READER, target=target).status_code == 403


def test_another_client_finds_neither(client, patient, assessment):
    target = f"RiskAssessment/{assessment['id']}"

    assert list_entries(read(client, CONSENTS, OTHER, patient=patient)) == []
    assert read(client, PROVENANCE, OTHER, target=target).status_code == 404


@pytest.mark.parametrize("target", ["", "17", "Patient/17", "RiskAssessment/17"])
def test_a_target_that_is_no_risk_assessment_is_an_operation_outcome(client, fhir_judge, target):
    response = read(client, PROVENANCE, target=target)

    assert response.status_code == 422
    assert fhir_judge.find_problems(response.json()) == []


@pytest.mark.parametrize("params", [{}, {"patient": "Group/1"}, {"patient": "urn:x|y"}])
def test_a_search_for_consents_without_a_person_is_refused(client, fhir_judge, params):
    response = read(client, CONSENTS, **params)

    assert response.status_code == 422
    assert fhir_judge.find_problems(response.json()) == []


# Consents


def test_a_consent_in_force_is_active_and_for_screening(client, patient, fhir_judge):
    response = read(client, CONSENTS, patient=f"Patient/{patient}")
    (consent,) = list_entries(response)

    assert fhir_judge.find_problems(response.json()) == []
    assert consent["status"] == "active"
    assert consent["scope"]["coding"][0]["code"] == "patient-privacy"
    kinds = {coding["code"] for coding in consent["provision"]["class"]}
    assert kinds == {"survey", "wearable", "emr"}
    assert patient not in response.text


def test_a_withdrawn_consent_is_inactive_and_ends_when_it_was_withdrawn(client, patient):
    body = {"patient_id": f"a|{patient}"}
    client.post("/consents/withdraw", json=body, headers=make_headers()).raise_for_status()
    (consent,) = list_entries(read(client, CONSENTS, patient=patient))

    assert consent["status"] == "inactive"
    assert consent["provision"]["period"]["end"] < "2099"


def test_an_expired_consent_is_inactive(client, consent, engine):
    name = f"pat-{uuid.uuid4().hex[:10]}"
    person = consent(name)
    with engine.begin() as connection:
        connection.execute(
            update(Consent).where(Consent.anonymized_id == person).values(expires_at=func.now())
        )
    (found,) = list_entries(read(client, CONSENTS, patient=name))

    assert found["status"] == "inactive"


def test_reading_consents_is_audited(client, patient, engine, consent):
    person = consent(patient)
    read(client, CONSENTS, patient=patient)

    readers = [row.user_id for row in read_audit(engine, person) if row.action == "search_consents"]
    assert readers == ["ehr:clinic-a"]


# Provenance


def test_provenance_names_the_release_and_who_asked(client, assessment, fhir_judge):
    response = read(client, PROVENANCE, target=f"RiskAssessment/{assessment['id']}")
    (created,) = list_entries(response)

    assert fhir_judge.find_problems(response.json()) == []
    assert created["activity"]["coding"][0]["code"] == "CREATE"
    kinds = [agent["type"]["coding"][0]["code"] for agent in created["agent"]]
    assert kinds == ["assembler", "enterer"]
    assert created["agent"][1]["who"]["identifier"]["value"] == "ehr:clinic-a"
    assert created["target"][0]["reference"] == f"RiskAssessment/{assessment['id']}"
    release = assessment["contained"][0]["version"][0]["value"]
    assert created["entity"][0]["what"]["identifier"]["value"] == release


def test_provenance_names_each_clinician_who_amended_it(client, assessment, fhir_judge):
    number = assessment["id"]
    headers = make_headers(Role.CLINICIAN, "dr_amend")
    path = f"/screen/{number}/crisis-override"
    client.post(path, json={"comment": "seen in person"}, headers=headers).raise_for_status()
    response = read(client, PROVENANCE, target=f"RiskAssessment/{number}")
    (_, amended) = list_entries(response)

    assert fhir_judge.find_problems(response.json()) == []
    assert amended["activity"]["coding"][0]["code"] == "UPDATE"
    assert amended["agent"][0]["who"]["identifier"]["value"] == "dr_amend"
    assert amended["reason"][0]["coding"][0]["code"] == "crisis-override"
    assert "seen in person" not in response.text


# AuditEvents


@pytest.mark.parametrize(("date", "is_empty"), [("ge2020-01-01", False), ("lt2020-01-01", True)])
def test_audit_events_are_narrowed_by_date(client, consent, date, is_empty):
    person = consent(f"pat-{uuid.uuid4().hex[:10]}")
    headers = make_headers(Role.AUDITOR)
    response = client.get(AUDIT, params={"patient": person, "date": date}, headers=headers)

    assert (list_entries(response) == []) is is_empty
