"""The one settings class: every environment variable of MHRAS, read once.

Names and defaults are those of the deployment guide. A missing secret stops start-up
with a hint instead of a default that would be the same everywhere.
"""

import base64
import binascii
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

SECRET_HINTS = {
    "database_url": "postgresql+psycopg2://user:password@host:5432/mhras",
    "jwt_secret_key": "openssl rand -base64 32",
    "anonymization_salt": "openssl rand -base64 32",
    "audit_signing_key": "openssl rand -base64 32",
}

#: What stands in manifests where a secret has to be filled in.
PLACEHOLDER = "CHANGE_ME"

#: 256 bit, as the deployment guide asks.
MINIMUM_SECRET_BYTES = 32

#: Hosts whose traffic leaves no machine, so that http:// is no risk.
LOOPBACK_HOSTS = ("127.0.0.1", "::1", "localhost")

#: OpenID Connect Core 5.7: of all claims, only `sub` with `iss` stays with one person.
REASSIGNABLE_CLAIMS = ("email", "preferred_username", "name", "nickname", "phone_number", "upn")

#: An Ed25519 key, private seed or public.
KEY_BYTES = 32


class MissingSettingError(RuntimeError):
    """A required setting is absent or unusable; the message says how to make one."""


class UnusableKeyError(ValueError):
    """A key that is not 32 bytes in base64; the message never quotes it."""


class Settings(BaseSettings):
    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    env: Annotated[
        Literal["development", "staging", "production"], Field(validation_alias="MHRAS_ENV")
    ] = "production"
    #: Set where every person in this state is simulated; each page of the console then says so.
    simulated_data: Annotated[bool, Field(validation_alias="MHRAS_SIMULATED_DATA")] = False
    #: Time zone of dates that name none, and of times on pages.
    timezone: Annotated[str, Field(validation_alias="MHRAS_TIMEZONE")] = "UTC"
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"], Field(validation_alias="MHRAS_LOG_LEVEL")
    ] = "INFO"
    log_format: Annotated[Literal["json", "text"], Field(validation_alias="MHRAS_LOG_FORMAT")] = (
        "json"
    )

    database_url: SecretStr
    jwt_secret_key: SecretStr
    anonymization_salt: SecretStr
    #: Whether ids of people that differ in upper and lower case name one person. Another value
    #: gives other pseudonyms: set it before the first drop and the first screening.
    person_id_case: Literal["kept", "folded"] = "kept"
    #: Ed25519 seed in base64; signs audit checkpoints and receipts of erasures.
    audit_signing_key: SecretStr
    #: Public keys (base64, comma-separated) whose earlier signatures still count.
    audit_retired_keys: str = ""
    #: Folder or s3:// prefix, outside the database, of the audit chain's checkpoints.
    audit_checkpoint_url: str = ".mhras/audit"
    #: Ed25519 seed in base64 that signs releases: the flows that register them hold it, no other.
    release_signing_key: SecretStr | None = None
    #: Public keys (base64, comma-separated) whose releases are served.
    release_public_keys: str = ""
    audit_seal_seconds: Annotated[float, Field(gt=0, le=60)] = 1
    audit_checkpoint_seconds: Annotated[float, Field(gt=0)] = 300

    #: Set where an identity provider issues tokens (RS256, ES256); HS256 is refused then.
    jwt_jwks_url: str | None = None
    jwt_issuer: str = "mhras"
    jwt_audience: str = "mhras"
    jwt_role_claim: str = "role"
    #: The address under which EHRs call this service: tokens of theirs name it as audience.
    public_url: str = "http://127.0.0.1:8000"
    #: JSON file of the registered EHR clients; without it the EHR endpoints are switched off.
    ehr_clients_file: str | None = None
    #: How long a console session lives without a request, and in all.
    console_idle_minutes: Annotated[int, Field(ge=1, le=240)] = 30
    console_session_hours: Annotated[int, Field(ge=1, le=24)] = 10
    #: The address people open the console under; an identity provider sends them back there.
    console_url: str | None = None
    #: An OpenID Connect provider at which people sign in to the console, and this client of it.
    oidc_issuer: str | None = None
    oidc_client_id: str | None = None
    oidc_client_secret: SecretStr | None = None
    oidc_role_claim: str = "role"
    #: The claim of the user id that audit rows hold; the same as `sub` of API tokens.
    oidc_user_claim: str = "sub"
    #: Accepted values of `acr`, comma-separated: how strongly the provider must have checked a
    #: person. Empty leaves it to the provider's policy.
    oidc_acr_values: str = ""
    #: The institution's own text for crises, and the line that people escalate to; the text is
    #: in every answer and on every page about a crisis.
    crisis_guidance: Annotated[str, Field(min_length=20, max_length=1000)] | None = None
    crisis_escalation_line: Annotated[str, Field(max_length=100)] | None = None
    #: Whether clinicians may force the top band. PHQ-9 item 9 forces it either way.
    enable_crisis_override: bool = True

    mlflow_tracking_uri: str = "http://127.0.0.1:5000"
    #: Addresses under which people open MLflow (by default the tracking address), Prefect, and
    #: the source repository: the links of a passport.
    mlflow_ui_url: str | None = None
    prefect_ui_url: str | None = None
    source_url: str | None = None
    #: A login that may read, where the MLflow server asks for one.
    mlflow_tracking_username: str | None = None
    mlflow_tracking_password: SecretStr | None = None
    #: A login that may also change the registry: for the admin's rollouts and rollbacks.
    mlflow_promoter_username: str | None = None
    mlflow_promoter_password: SecretStr | None = None
    #: Folder or s3:// URL of the Delta tables.
    lake_url: str = ".mhras/lake"
    #: Folders and URL prefixes, comma-separated, in which drops may lie.
    drop_locations: str = "/,s3://"
    #: Days after which the retention flow removes predictions, and landed rows; kept without.
    retention_prediction_days: Annotated[int, Field(ge=90)] | None = None
    retention_lake_days: Annotated[int, Field(ge=90)] | None = None
    #: Where the flows' work by bucket runs: a Dask scheduler (tcp://host:8786), else threads here.
    dask_scheduler_address: str | None = None
    #: Buckets worked on at once by threads; memory grows with each.
    bucket_workers: Annotated[int, Field(ge=1, le=64)] = 2

    risk_threshold_low: Annotated[float, Field(ge=0, le=100)] = 25
    risk_threshold_moderate: Annotated[float, Field(ge=0, le=100)] = 50
    risk_threshold_high: Annotated[float, Field(ge=0, le=100)] = 75
    human_review_threshold: Annotated[float, Field(ge=0, le=100)] = 75
    #: Seconds between two looks at the registry's Production release.
    release_poll_seconds: Annotated[float, Field(gt=0, le=30)] = 10
    #: Releases kept in memory, so that going back to one needs no download.
    model_cache_size: Annotated[int, Field(ge=1, le=100)] = 5
    #: Seconds after which any request is answered with an error.
    request_timeout: Annotated[float, Field(gt=0)] = 10
    #: Seconds after which a screening that has no answer yet is given up.
    screening_timeout: Annotated[float, Field(gt=0)] = 5
    #: Screenings a worker takes on at once; beyond it only crisis answers are let in.
    max_concurrent_screenings: Annotated[int, Field(ge=1)] = 64

    #: Port of /metrics alone; without it the API's own port serves them to all who reach it.
    metrics_port: Annotated[int, Field(ge=1, le=65535)] | None = None

    #: Requests of one caller in any 60 seconds, and in one second (twice that at once).
    rate_limit_per_minute: Annotated[int, Field(ge=1, le=10_000)] = 100
    rate_limit_per_second: Annotated[int, Field(ge=1, le=1_000)] = 10

    #: Drift score from which on the drift flow acts.
    drift_threshold: Annotated[float, Field(gt=0, le=1)] = 0.3
    #: Whether the drift flow compares, and /metrics tells what it found.
    enable_drift_monitoring: bool = True
    #: Where flows report to people, and the API sends notices of crises; nothing without it.
    alert_webhook_url: SecretStr | None = None

    enable_shap_explanations: bool = True
    enable_counterfactuals: bool = True
    enable_rule_extraction: bool = False
    #: Whether scores and abstentions queue a review. What the crisis rule finds always does.
    enable_human_review_queue: bool = True

    @property
    def mlflow_login(self) -> tuple[str, str] | None:
        if self.mlflow_tracking_username is None or self.mlflow_tracking_password is None:
            return None
        return self.mlflow_tracking_username, self.mlflow_tracking_password.get_secret_value()

    @property
    def folds_case_of_ids(self) -> bool:
        return self.person_id_case == "folded"

    @property
    def is_development(self) -> bool:
        return self.env == "development"

    @model_validator(mode="after")
    def _complete_the_provider(self) -> Self:
        needed = {"OIDC_CLIENT_ID": self.oidc_client_id, "CONSOLE_URL": self.console_url}
        missing = [name for name, value in needed.items() if value is None]
        if self.oidc_issuer is not None and missing:
            raise ValueError(f"OIDC_ISSUER needs {' and '.join(missing)} too")
        return self

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)

    @field_validator("timezone")
    @classmethod
    def _validate_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("names no time zone (for example: Europe/London)") from None
        return name

    @field_validator("database_url")
    @classmethod
    def _name_the_driver(cls, url: SecretStr) -> SecretStr:
        return SecretStr(normalise_database_url(url.get_secret_value()))

    @field_validator("jwt_jwks_url")
    @classmethod
    def _refuse_unprotected_keys(cls, url: str | None) -> str | None:
        parts = urlsplit(url or "https:")
        is_local = parts.scheme == "http" and parts.hostname in LOOPBACK_HOSTS
        if parts.scheme != "https" and not is_local:
            raise ValueError("must be an https:// URL (http:// to this machine only)")
        return url

    @field_validator("oidc_user_claim")
    @classmethod
    def _refuse_reassignable_claims(cls, claim: str) -> str:
        if claim in REASSIGNABLE_CLAIMS:
            raise ValueError("names a claim that may pass to another person; use sub or oid")
        return claim

    @field_validator("audit_signing_key", "release_signing_key")
    @classmethod
    def _validate_signing_key(cls, seed: SecretStr | None) -> SecretStr | None:
        if seed is not None:
            decode_key(seed.get_secret_value())
        return seed

    @field_validator("audit_retired_keys", "release_public_keys")
    @classmethod
    def _validate_public_keys(cls, keys: str) -> str:
        for key in split_keys(keys):
            decode_key(key)
        return keys

    @field_validator("jwt_secret_key", "anonymization_salt")
    @classmethod
    def _refuse_short_secrets(cls, secret: SecretStr) -> SecretStr:
        if len(secret.get_secret_value().encode()) < MINIMUM_SECRET_BYTES:
            raise ValueError(f"needs at least {MINIMUM_SECRET_BYTES} bytes")
        return secret

    @field_validator("database_url", "jwt_secret_key", "anonymization_salt")
    @classmethod
    def _refuse_placeholders(cls, secret: SecretStr, info: ValidationInfo) -> SecretStr:
        # A manifest that was applied before anybody filled it in; harmless on a laptop only.
        if info.data.get("env") != "development" and PLACEHOLDER in secret.get_secret_value():
            raise ValueError(f"still says {PLACEHOLDER}")
        return secret


def decode_key(text: str) -> bytes:
    """Return the 32 bytes of a key in base64, or raise UnusableKeyError."""
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise UnusableKeyError("not base64") from None
    if len(raw) != KEY_BYTES:
        raise UnusableKeyError(f"needs {KEY_BYTES} bytes in base64")
    return raw


def split_keys(keys: str) -> list[str]:
    return [key.strip() for key in keys.split(",") if key.strip()]


def normalise_database_url(url: str) -> str:
    """Return the URL with the driver named, or raise ValueError without quoting it.

    SQLAlchemy 2.1 reads a bare postgresql:// as psycopg 3, which MLflow cannot use.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.split("+")[0] not in ("postgresql", "postgres"):
        raise ValueError("DATABASE_URL must start with postgresql://")
    return f"postgresql+psycopg2://{rest}"


def load_settings(variables: Mapping[str, str] | None = None) -> Settings:
    """Read the environment, or raise MissingSettingError naming each variable and its remedy.

    `variables` come before those of this process: what another process is going to get.
    """
    # A field is given by its own name, or by its alias where it has one.
    given: dict[str, Any] = {
        key: value
        for name, value in (variables or {}).items()
        if value
        for key in (name, name.lower())
    }
    try:
        return Settings(**given)
    except ValidationError as error:
        raise MissingSettingError(_describe_problems(error)) from None


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    return load_settings()


def _describe_problems(error: ValidationError) -> str:
    lines = []
    # include_input=False: the value may be a secret.
    for problem in error.errors(include_input=False, include_url=False):
        name = str(problem["loc"][0]) if problem["loc"] else "settings"
        hint = SECRET_HINTS.get(name.lower())
        lines.append(
            f"{name.upper()}: {problem['msg']}" + (f" (for example: {hint})" if hint else "")
        )
    return "settings are incomplete:\n  " + "\n  ".join(lines)
