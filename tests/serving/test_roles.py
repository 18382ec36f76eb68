"""Every operation of the OpenAPI document, for every role. An unlisted operation fails."""

import uuid

import pytest

from serving.roles import Role
from tests.fixtures.api import make_headers

ADMIN, CLINICIAN = Role.ADMIN, Role.CLINICIAN
DATA_SCIENTIST, AUDITOR = Role.DATA_SCIENTIST, Role.AUDITOR
EVERYBODY = frozenset(Role)
#: Anybody, without a token.
PUBLIC = frozenset[Role]()
#: Registered EHR clients alone, whose tokens have tests of their own; off without any.
CLIENTS = frozenset[Role]()

#: Who may do what; the deployment guide's table, one line for each operation.
ALLOWED: dict[tuple[str, str], frozenset[Role]] = {
    ("get", "/"): EVERYBODY,
    ("get", "/health"): PUBLIC,
    ("get", "/health/ready"): PUBLIC,
    ("get", "/metrics"): PUBLIC,
    ("get", "/intended-use"): PUBLIC,
    ("get", "/cds-services"): PUBLIC,
    ("get", "/fhir/metadata"): PUBLIC,
    ("post", "/cds-services/mhras-review"): CLIENTS,
    ("post", "/cds-services/mhras-review/feedback"): CLIENTS,
    ("post", "/fhir"): frozenset({ADMIN, CLINICIAN}),
    ("post", "/fhir/QuestionnaireResponse"): frozenset({ADMIN, CLINICIAN}),
    ("get", "/fhir/RiskAssessment"): frozenset({ADMIN, CLINICIAN, DATA_SCIENTIST}),
    ("post", "/fhir/RiskAssessment/_search"): frozenset({ADMIN, CLINICIAN, DATA_SCIENTIST}),
    ("get", "/fhir/RiskAssessment/{prediction_id}"): frozenset({ADMIN, CLINICIAN, DATA_SCIENTIST}),
    ("get", "/fhir/AuditEvent"): frozenset({ADMIN, AUDITOR}),
    ("get", "/fhir/Consent"): frozenset({ADMIN, CLINICIAN}),
    ("get", "/fhir/Provenance"): frozenset({ADMIN, CLINICIAN, DATA_SCIENTIST}),
    # clinician: "Screen individuals, view risk scores, access review queue"
    ("post", "/screen"): frozenset({ADMIN, CLINICIAN}),
    ("post", "/screen/batch"): frozenset({ADMIN, CLINICIAN}),
    ("post", "/screen/{prediction_id}/crisis-override"): frozenset({ADMIN, CLINICIAN}),
    ("get", "/reviews"): frozenset({ADMIN, CLINICIAN}),
    ("get", "/reviews/{review_id}"): frozenset({ADMIN, CLINICIAN}),
    ("post", "/reviews/{review_id}/claim"): frozenset({ADMIN, CLINICIAN}),
    ("delete", "/reviews/{review_id}/claim"): frozenset({ADMIN, CLINICIAN}),
    ("post", "/reviews/{review_id}/decision"): frozenset({ADMIN, CLINICIAN}),
    ("post", "/reviews/{review_id}/notes"): frozenset({ADMIN, CLINICIAN}),
    ("post", "/reviews/{review_id}/contacts"): frozenset({ADMIN, CLINICIAN}),
    ("post", "/reviews/search"): frozenset({ADMIN, CLINICIAN}),
    ("post", "/consents/lookup"): frozenset({ADMIN, CLINICIAN}),
    ("post", "/consents/withdraw"): frozenset({ADMIN, CLINICIAN}),
    ("get", "/consents"): frozenset({ADMIN, CLINICIAN}),
    ("post", "/consents"): frozenset({ADMIN, CLINICIAN}),
    ("post", "/individuals/lookup"): frozenset({ADMIN, CLINICIAN}),
    ("get", "/consents/{anonymized_id}"): frozenset({ADMIN, CLINICIAN}),
    ("put", "/consents/{anonymized_id}"): frozenset({ADMIN, CLINICIAN}),
    ("delete", "/consents/{anonymized_id}"): frozenset({ADMIN, CLINICIAN}),
    # data_scientist: "View predictions, access explanations, monitor drift"
    ("get", "/individuals/{anonymized_id}/predictions"): frozenset(
        {ADMIN, CLINICIAN, DATA_SCIENTIST}
    ),
    ("post", "/individuals/predictions"): frozenset({ADMIN, CLINICIAN, DATA_SCIENTIST}),
    ("get", "/predictions/{prediction_id}"): frozenset({ADMIN, CLINICIAN, DATA_SCIENTIST}),
    ("get", "/predictions/{prediction_id}/passport"): EVERYBODY,
    ("get", "/models"): frozenset({ADMIN, DATA_SCIENTIST}),
    ("get", "/drift"): frozenset({ADMIN, DATA_SCIENTIST}),
    # auditor: "Read-only access to audit logs and compliance reports"
    ("get", "/audit"): frozenset({ADMIN, AUDITOR}),
    ("get", "/audit/verify"): frozenset({ADMIN, AUDITOR}),
    ("get", "/audit/verify/{job_id}"): frozenset({ADMIN, AUDITOR}),
    ("get", "/audit/export"): frozenset({ADMIN, AUDITOR}),
    ("get", "/compliance/report"): frozenset({ADMIN, AUDITOR}),
    ("get", "/individuals/{anonymized_id}/access-history"): frozenset({ADMIN, AUDITOR}),
    ("get", "/individuals/{anonymized_id}/erasures"): frozenset({ADMIN, AUDITOR}),
    # admin: "Full access to all endpoints and configuration"
    ("get", "/individuals/{anonymized_id}/export"): frozenset({ADMIN}),
    ("delete", "/individuals/{anonymized_id}"): frozenset({ADMIN}),
    ("post", "/tokens/revoke"): frozenset({ADMIN}),
    ("post", "/models/rollout"): frozenset({ADMIN}),
    ("post", "/models/rollback"): frozenset({ADMIN}),
    ("get", "/config"): frozenset({ADMIN}),
}
READS = ("get", "head", "options")


@pytest.fixture(scope="module")
def operations(client):
    paths = client.get("/openapi.json").json()["paths"]
    return {(method, path) for path, methods in paths.items() for method in methods}


def call(client, method, path, role):
    filled = path.replace("{anonymized_id}", uuid.uuid4().hex)
    for name in ("review_id", "prediction_id", "job_id"):
        filled = filled.replace(f"{{{name}}}", str(uuid.uuid4()))
    headers = make_headers(role) if role else {}
    return client.request(method, filled, headers=headers)


def is_refused_for_its_role(response):
    if response.headers["Content-Type"] == "application/fhir+json":
        return response.status_code == 403 and "Your role" in response.text
    is_problem = response.headers["Content-Type"] == "application/problem+json"
    return is_problem and response.json()["type"] == "urn:mhras:problem:role-not-allowed"


def test_every_operation_is_listed_and_every_listed_one_exists(operations):
    assert operations == set(ALLOWED)


@pytest.mark.parametrize("operation", ALLOWED, ids=" ".join)
def test_an_operation_is_open_to_exactly_the_roles_listed(client, operation):
    allowed = ALLOWED[operation]
    for role in Role:
        response = call(client, *operation, role)
        assert is_refused_for_its_role(response) == (allowed != PUBLIC and role not in allowed), (
            role,
            response.text,
        )


@pytest.mark.parametrize("operation", ALLOWED, ids=" ".join)
def test_an_operation_that_is_not_public_refuses_anonymous_callers(client, operation):
    is_refused = call(client, *operation, None).status_code == 401

    assert is_refused == (ALLOWED[operation] != PUBLIC)


def test_an_auditor_changes_nothing(operations):
    changing = [one for one in operations if one[0] not in READS and AUDITOR in ALLOWED[one]]

    assert changing == []


def test_an_admin_may_do_everything():
    assert [one for one, roles in ALLOWED.items() if roles and ADMIN not in roles] == []


def test_every_operation_says_what_it_may_answer(client, operations):
    """Every private operation documents 401 and 403, and every one with a body or a path 422."""
    paths = client.get("/openapi.json").json()["paths"]
    for method, path in operations:
        documented = paths[path][method]["responses"]
        expected = {"401"} if ALLOWED[method, path] else set()
        if ALLOWED[method, path] not in (PUBLIC, EVERYBODY):
            expected |= {"403"}
        assert expected <= set(documented), (method, path)
