"""The API on real PostgreSQL and real MLflow, with a feature store that tests fill."""

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, create_engine, select, text
from sqlalchemy.orm import Session

from feature_repo.online_store import FeatureStoreUnavailableError
from feature_repo.stored_views import StoredRow, StoredView
from infra.local.ports import choose_port
from infra.local.postgres import PostgresServer
from serving.app import create_app
from serving.auth.tokens import issue_token
from serving.database.access import ensure_application_login
from serving.database.tables import AuditRow, Base, Consent
from serving.roles import Role
from serving.settings import Settings
from tests.serving.mlflow_fixture import run_mlflow_server
from tests.serving.release_fixture import ReleaseFactory

JWT_SECRET = "a-secret-of-tests-that-is-long-enough"
SALT = "a-salt-of-tests-that-is-long-enough-too"
SIGNING_KEY = "c2lnbmluZy1rZXktb2YtdGVzdHMtMzItYnl0ZXMhISE="
LOW_ANSWERS = [0, 1, 0, 0, 1, 0, 0, 0, 0]
HIGH_ANSWERS = [3, 3, 3, 3, 2, 3, 3, 3, 0]
AT_INSERT = (
    "CREATE TRIGGER broken BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION break_write()"
)
AT_COMMIT = (
    "CREATE CONSTRAINT TRIGGER broken AFTER INSERT ON {table} DEFERRABLE INITIALLY DEFERRED "
    "FOR EACH ROW EXECUTE FUNCTION break_write()"
)


@dataclass
class MemoryReader:
    """An online store in memory: the same interface as Feast's, values by pseudonym."""

    stored: dict[str, dict[str, float]] = field(default_factory=dict)
    is_up: bool = True

    def fetch(
        self, views: Sequence[StoredView], individuals: Sequence[str]
    ) -> dict[str, StoredRow]:
        if not self.is_up:
            raise FeatureStoreUnavailableError("switched off by a test")
        return {one: self._find(views, self.stored.get(one, {})) for one in individuals}

    def _find(self, views: Sequence[StoredView], values: dict[str, float]) -> StoredRow:
        now = datetime.now(UTC)
        held = [view.name for view in views if any(one.name in values for one in view.features)]
        return StoredRow(dict(values), dict.fromkeys(held, now))

    def close(self) -> None:
        pass


@pytest.fixture(scope="session")
def mlflow_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with run_mlflow_server(tmp_path_factory.mktemp("mlflow"), choose_port(15000)) as url:
        yield url


@pytest.fixture(scope="session")
def releases(mlflow_url: str, tmp_path_factory: pytest.TempPathFactory) -> ReleaseFactory:
    """Members trained and registered once; each test publishes the release it needs."""
    return ReleaseFactory(mlflow_url, tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="module")
def production_version(releases: ReleaseFactory) -> int:
    return releases.publish()


@pytest.fixture(scope="module")
def application_url(postgres: PostgresServer, database_url: str) -> str:
    """The database as the API reaches it: under a login that owns nothing."""
    url = postgres.url_of("mhras_api", "test", database_url.rpartition("/")[2])
    ensure_application_login(database_url, url)
    return url


@pytest.fixture(scope="module")
def settings(application_url: str, mlflow_url: str) -> Settings:
    return make_settings(application_url, mlflow_url)


def make_settings(database_url: str, mlflow_url: str, **changes: Any) -> Settings:
    values = {
        "database_url": database_url,
        "jwt_secret_key": JWT_SECRET,
        "anonymization_salt": SALT,
        "audit_signing_key": SIGNING_KEY,
        "audit_checkpoint_url": f"memory://audit/{database_url.rpartition('/')[2]}",
        "mlflow_tracking_uri": mlflow_url,
        "release_poll_seconds": 0.2,
        # Tests ask more than a clinician does.
        "rate_limit_per_minute": 10_000,
        "rate_limit_per_second": 1_000,
    }
    return Settings(**(values | changes))


@pytest.fixture(scope="module")
def reader() -> MemoryReader:
    return MemoryReader()


@pytest.fixture(scope="module")
def client(
    settings: Settings, production_version: int, reader: MemoryReader
) -> Iterator[TestClient]:
    """The running application with a loaded Production release."""
    with run_app(settings, reader) as client:
        yield client


def run_app(settings: Settings, reader: MemoryReader | None) -> TestClient:
    return TestClient(create_app(settings, reader or MemoryReader()), raise_server_exceptions=False)


@pytest.fixture(scope="module")
def engine(database_url: str) -> Iterator[Engine]:
    engine = create_engine(database_url)
    yield engine
    engine.dispose()


def make_token(role: Role = Role.CLINICIAN, user: str = "clinician_001") -> str:
    # Some modules make their headers once, long before their tests have their turn.
    return issue_token(JWT_SECRET, user, role, timedelta(minutes=60))


def make_headers(role: Role = Role.CLINICIAN, user: str = "clinician_001") -> dict[str, str]:
    return {"Authorization": f"Bearer {make_token(role, user)}"}


CLINICIAN = make_headers


@pytest.fixture
def grant(engine: Engine) -> Callable[..., str]:
    """Record a consent and return the pseudonym of a new individual."""

    def grant_consent(
        *data_types: str, purposes: tuple[str, ...] = ("screening",), **changes: Any
    ) -> str:
        now = datetime.now(UTC)
        values: dict[str, Any] = {
            "anonymized_id": uuid.uuid4().hex,
            "granted_at": now - timedelta(days=30),
            "expires_at": now + timedelta(days=300),
            "data_types": list(data_types or ("survey", "wearable", "emr")),
            "purposes": list(purposes),
            "key_id": "00000000",
        }
        with Session(engine) as session, session.begin():
            consent = Consent(**(values | changes))
            session.add(consent)
            return consent.anonymized_id

    return grant_consent


@pytest.fixture
def screen(client: TestClient) -> Callable[..., Any]:
    """POST /screen as a clinician."""

    def post(anonymized_id: str, phq9: list[int | None] | None = None, **body: Any) -> Any:
        survey = {} if phq9 is None else {"survey_data": {"phq9": phq9}}
        request = {"anonymized_id": anonymized_id} | survey | body
        return client.post("/screen", json=request, headers=make_headers())

    return post


@pytest.fixture
def breaking_trigger(engine: Engine) -> Iterator[Callable[[str, str], None]]:
    """Create a trigger that makes the database refuse a row, and drop it afterwards."""
    created: list[str] = []

    def create(table: str, timing: str) -> None:
        with engine.begin() as connection:
            connection.execute(
                text(
                    "CREATE OR REPLACE FUNCTION break_write() RETURNS trigger LANGUAGE plpgsql AS "
                    "$$ BEGIN RAISE EXCEPTION 'broken by a test'; END $$"
                )
            )
            connection.execute(text(timing.format(table=table)))
        created.append(table)

    yield create
    with engine.begin() as connection:
        for table in created:
            connection.execute(text(f"DROP TRIGGER broken ON {table}"))


def read_rows(engine: Engine, table: type[Base], anonymized_id: str) -> list[Any]:
    column = table.anonymized_id  # type: ignore[attr-defined]
    with Session(engine) as session:
        return list(session.scalars(select(table).where(column == anonymized_id)))


def read_audit(engine: Engine, anonymized_id: str) -> list[AuditRow]:
    return read_rows(engine, AuditRow, anonymized_id)
