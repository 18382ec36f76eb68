"""A clinic's own id in place of a pseudonym: hashed on arrival, wherever a person is named."""

import uuid

import pytest
from sqlalchemy import Text, cast, func, select
from sqlalchemy.orm import Session

from feature_repo.pseudonyms import pseudonymise
from serving.database.tables import AuditRow
from tests.fixtures.api import CLINICIAN, HIGH_ANSWERS, SALT


@pytest.fixture
def own_id(grant, screen):
    name = f"own-{uuid.uuid4().hex[:10]}"
    person = grant("survey", "wearable", anonymized_id=pseudonymise(name, SALT))
    screen(person, HIGH_ANSWERS).raise_for_status()
    return name


def ask(client, path, **body):
    return client.post(path, json=body, headers=CLINICIAN())


def test_predictions_are_listed_by_own_id(client, own_id):
    (found,) = ask(client, "/individuals/predictions", patient_id=own_id).json()["items"]

    assert found["risk_band"] == "critical"


def test_reviews_are_searched_by_own_id_and_by_pseudonym(client, own_id):
    person = pseudonymise(own_id, SALT)
    (by_id,) = ask(client, "/reviews/search", patient_id=own_id).json()["items"]
    (by_pseudonym,) = ask(client, "/reviews/search", anonymized_id=person).json()["items"]

    assert by_id["id"] == by_pseudonym["id"]
    assert ask(client, "/reviews/search", patient_id=own_id, status="decided").json()["items"] == []


def test_consent_is_seen_and_narrowed_by_own_id(client, own_id):
    state = ask(client, "/consents/lookup", patient_id=own_id).json()
    narrowed = ask(client, "/consents/withdraw", patient_id=own_id, data_type="wearable").json()

    assert state["allowed"]["screening"] == ["survey", "wearable"]
    assert narrowed["allowed"]["screening"] == ["survey"]


@pytest.mark.parametrize(
    "path",
    ["/individuals/predictions", "/reviews/search", "/consents/lookup", "/consents/withdraw"],
)
@pytest.mark.parametrize("body", [{}, {"patient_id": "1", "anonymized_id": "a" * 32}])
def test_one_name_of_a_person_is_needed(client, path, body):
    assert ask(client, path, **body).status_code == 422


def test_no_own_id_reaches_the_audit_trail(client, engine, own_id):
    for path in ("/individuals/predictions", "/reviews/search", "/consents/lookup"):
        ask(client, path, patient_id=own_id).raise_for_status()
    with Session(engine) as session:
        held = select(func.count()).where(cast(AuditRow.details, Text).contains(own_id))
        assert session.scalar(held) == 0
