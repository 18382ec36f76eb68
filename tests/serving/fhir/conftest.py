"""The API with registered EHR clients."""

import pytest

from feature_repo.pseudonyms import pseudonymise
from tests.fixtures.api import SALT, make_headers, make_settings, run_app
from tests.fixtures.ehr import PUBLIC_URL, write_clients


@pytest.fixture(scope="module")
def settings(application_url, mlflow_url, tmp_path_factory):
    clients = write_clients(tmp_path_factory.mktemp("ehr") / "clients.json")
    return make_settings(
        application_url, mlflow_url, ehr_clients_file=str(clients), public_url=PUBLIC_URL
    )


@pytest.fixture(scope="module")
def client(settings, production_version, reader):
    with run_app(settings, reader) as client:
        yield client


@pytest.fixture
def consent(client):
    """Record a consent for a patient of a registered client, by the id that the client has."""

    def record(patient, tenant="a"):
        body = {
            "patient_id": f"{tenant}|{patient}" if tenant else patient,
            "grants": [
                {
                    "data_types": ["survey", "wearable", "emr"],
                    "purposes": ["screening"],
                    "expires_at": "2099-01-01T00:00:00Z",
                }
            ],
        }
        response = client.post("/consents", json=body, headers=make_headers())
        assert response.status_code == 200, response.text
        return pseudonymise(body["patient_id"], SALT)

    return record
