from serving.roles import Role
from tests.fixtures.api import JWT_SECRET, SALT, make_headers

#: The deployment guide's variables that configure the API.
GUIDE = {
    *("MHRAS_ENV", "MHRAS_LOG_LEVEL", "MHRAS_LOG_FORMAT", "RISK_THRESHOLD_LOW"),
    *("RISK_THRESHOLD_MODERATE", "RISK_THRESHOLD_HIGH", "HUMAN_REVIEW_THRESHOLD"),
    *("MODEL_CACHE_SIZE", "REQUEST_TIMEOUT", "SCREENING_TIMEOUT", "ENABLE_SHAP_EXPLANATIONS"),
    *("ENABLE_COUNTERFACTUALS", "ENABLE_RULE_EXTRACTION", "ENABLE_HUMAN_REVIEW_QUEUE"),
    "ENABLE_CRISIS_OVERRIDE",
}


def test_an_admin_sees_the_configuration_and_no_secret(client, database_url):
    response = client.get("/config", headers=make_headers(Role.ADMIN))
    found = response.json()

    assert set(found["settings"]) >= GUIDE
    assert found["settings"]["HUMAN_REVIEW_THRESHOLD"] == 75
    assert found["secrets"]["DATABASE_URL"] is True
    assert found["secrets"]["JWT_SECRET_KEY"] is True
    for secret in (JWT_SECRET, SALT, database_url, "postgres:"):
        assert secret not in response.text
