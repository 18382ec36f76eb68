"""Query parameters: one given twice is refused; FHIR's spans are not."""

import uuid

import pytest

from serving.roles import Role
from tests.fixtures.api import make_headers


@pytest.mark.parametrize(
    "address", ["/reviews?limit=1&limit=2", "/audit?limit=1&since=2026-01-01&limit=1"]
)
def test_a_query_parameter_given_twice_is_refused(client, address):
    answer = client.get(address, headers=make_headers(Role.ADMIN))

    assert answer.status_code == 422
    assert "repeats an earlier one" in answer.json()["detail"]


def test_a_name_in_a_repeated_parameter_is_not_shown(client):
    answer = client.get("/reviews?jane=1&jane=2", headers=make_headers(Role.ADMIN))

    assert answer.status_code == 422
    assert "jane" not in answer.text


def test_a_page_is_refused_for_a_repeated_parameter_too(client):
    assert client.get("/console/sign-in?next=/console&next=/console/queue").status_code == 422


def test_the_two_ends_of_a_span_in_fhir_are_no_repetition(client):
    span = f"subject={uuid.uuid4()}&date=ge2026-01-01&date=le2026-02-01"
    answer = client.get(f"/fhir/RiskAssessment?{span}", headers=make_headers(Role.CLINICIAN))

    assert answer.status_code == 200
