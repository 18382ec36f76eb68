"""Settings come from the environment; what is missing or unusable stops the start, unquoted."""

import pytest

from serving.settings import MissingSettingError, load_settings
from tests.fixtures.api import JWT_SECRET, SALT, SIGNING_KEY

SECRETS = {
    "DATABASE_URL": "postgresql://mhras:hidden@db:5432/mhras",
    "JWT_SECRET_KEY": JWT_SECRET,
    "ANONYMIZATION_SALT": SALT,
    "AUDIT_SIGNING_KEY": SIGNING_KEY,
}


@pytest.fixture
def load(monkeypatch):
    def load_with(**changes):
        for name, value in (SECRETS | changes).items():
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)
        return load_settings()

    return load_with


@pytest.mark.parametrize("name", SECRETS)
def test_a_missing_secret_stops_the_start_and_is_named(load, name):
    with pytest.raises(MissingSettingError, match=name):
        load(**{name: None})


@pytest.mark.parametrize("name", ["JWT_SECRET_KEY", "ANONYMIZATION_SALT"])
def test_a_short_secret_is_refused_without_being_quoted(load, name):
    with pytest.raises(MissingSettingError, match="32 bytes") as refused:
        load(**{name: "too-short"})
    assert "too-short" not in str(refused.value)


@pytest.mark.parametrize("environment", ["staging", "production"])
@pytest.mark.parametrize("name", ["DATABASE_URL", "JWT_SECRET_KEY", "ANONYMIZATION_SALT"])
def test_a_placeholder_that_nobody_filled_in_is_refused_outside_of_development(
    load, environment, name
):
    placeholder = {name: SECRETS[name].replace(SECRETS[name][-8:], "CHANGE_ME" * 2)}

    with pytest.raises(MissingSettingError, match=f"{name}: .*CHANGE_ME"):
        load(MHRAS_ENV=environment, **placeholder)
    assert load(MHRAS_ENV="development", **placeholder).env == "development"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MHRAS_ENV", "prod"),
        ("MHRAS_LOG_LEVEL", "LOUD"),
        ("MHRAS_LOG_FORMAT", "xml"),
        ("RISK_THRESHOLD_HIGH", "101"),
        ("HUMAN_REVIEW_THRESHOLD", "-1"),
        ("MODEL_CACHE_SIZE", "0"),
        ("REQUEST_TIMEOUT", "0"),
        ("SCREENING_TIMEOUT", "soon"),
        ("ENABLE_COUNTERFACTUALS", "perhaps"),
    ],
)
def test_an_impossible_value_stops_the_start(load, name, value):
    with pytest.raises(MissingSettingError, match=name.removeprefix("MHRAS_")):
        load(**{name: value})


def test_the_guides_defaults_hold_where_nothing_is_said(load):
    settings = load()

    assert (settings.env, settings.log_level, settings.log_format) == ("production", "INFO", "json")
    assert (settings.risk_threshold_low, settings.risk_threshold_moderate) == (25, 50)
    assert (settings.risk_threshold_high, settings.human_review_threshold) == (75, 75)
    assert (settings.model_cache_size, settings.request_timeout) == (5, 10)
    assert settings.screening_timeout == 5
    assert settings.enable_shap_explanations
    assert settings.enable_counterfactuals
    assert not settings.enable_rule_extraction
    assert settings.enable_human_review_queue
    assert settings.enable_crisis_override


@pytest.mark.parametrize("url", ["file:///etc/keys.json", "http://idp.example/jwks", "jwks.json"])
def test_keys_of_an_identity_provider_come_over_https_only(load, url):
    with pytest.raises(MissingSettingError, match="JWT_JWKS_URL"):
        load(JWT_JWKS_URL=url)


def test_the_variables_of_another_process_come_before_those_of_this_one(monkeypatch):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    other = {"MHRAS_ENV": "development", "DATABASE_URL": "postgresql://other@db/mhras"}
    settings = load_settings(other | {"MHRAS_TIMEZONE": ""})

    assert settings.is_development
    assert settings.database_url.get_secret_value().endswith("://other@db/mhras")
    assert settings.timezone == "UTC"
    assert not load_settings().is_development
