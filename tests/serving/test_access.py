"""Every route is guarded, or named here as public."""

import pytest

PUBLIC = {"/health", "/health/ready", "/metrics", "/intended-use", "/fhir/metadata"}
#: Registered EHR clients alone; off without any, and then not found (tests/serving/fhir).
EHR = {
    *("/cds-services", "/cds-services/mhras-review"),
    "/cds-services/mhras-review/feedback",
}


def list_operations(client):
    paths = client.get("/openapi.json").json()["paths"]
    return {(path, method) for path, methods in paths.items() for method in methods}


def test_every_route_that_is_not_public_refuses_anonymous_callers(client):
    listed = list_operations(client)
    private = {(path, method) for path, method in listed if path not in PUBLIC | EHR}

    assert ("/screen", "post") in private
    for path, method in private:
        assert client.request(method, path).status_code == 401, (method, path)


def test_the_routes_of_ehr_clients_are_off_without_a_client(client):
    for path, method in list_operations(client):
        if path in EHR:
            response = client.request(method, path, json={})
            assert response.status_code in (404, 422), (method, path)


def test_every_public_route_exists(client):
    assert {path for path, _ in list_operations(client)} >= PUBLIC


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/no", 404), ("PUT", "/", 405)])
def test_an_unknown_route_is_answered_as_a_problem(client, method, path, status):
    response = client.request(method, path)

    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/problem+json"


KNOWN_ID = "0f8fad5b-d9cb-469f-a165-70867728950e"


def test_every_answer_carries_its_request_id_and_is_not_cached(client):
    response = client.get("/health", headers={"X-Request-ID": KNOWN_ID})

    assert response.headers["X-Request-ID"] == KNOWN_ID
    assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("given", ["x y", "ward-7", "Jane-Doe", "a" * 32 + "g"])
def test_a_request_id_that_could_hold_a_name_is_replaced(client, given):
    response = client.get("/health", headers={"X-Request-ID": given})

    assert response.headers["X-Request-ID"].startswith("req_")
