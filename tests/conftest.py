"""Real services for tests: PostgreSQL once a session, a migrated database per module."""

import os
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path

# Read by the libraries at import, so set before any of them is imported.
os.environ.update(
    DO_NOT_TRACK="true",
    MLFLOW_DISABLE_TELEMETRY="true",
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS="180",
    GX_ANALYTICS_ENABLED="false",
    FEAST_USAGE="False",
    MLFLOW_ALLOW_PICKLE_DESERIALIZATION="false",
)
if "PYTEST_XDIST_WORKER" in os.environ:
    # A worker for each core: a second thread of BLAS or of Polars would wait for the other
    # worker's core, and BLAS waits busily. A small training takes a fifth less processor time.
    os.environ.update(OMP_NUM_THREADS="1", POLARS_MAX_THREADS="1")

import pytest

# Before Feast, as in a worker: importing Feast switches prometheus_client to shared files.
import monitoring.metrics  # noqa: F401
from infra.local.ports import choose_port
from infra.local.postgres import PostgresServer, remove_root_state, start_postgres
from tests.fixtures.api import mlflow_url, releases
from tests.fixtures.empty_stores import create_migrated_database
from tests.fixtures.postgres_options import FAST_AND_LOOSE
from tests.fixtures.trained_world import in_trained_world, trained_world
from tests.fixtures.world_server import world_server

# Fixtures of the session. A module that imports one instead makes one of its own.
__all__ = ["in_trained_world", "mlflow_url", "releases", "trained_world", "world_server"]

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


#: Fixtures of the session that take minutes: the tests that use one share a worker.
SHARED_WORLDS = ("trained_world", "in_trained_world", "served_world", "world_server")


# First, because pytest-xdist reads the groups in the same hook.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each worker whole files, and all the tests of a shared world to one worker."""
    for item in items:
        used = getattr(item, "fixturenames", ())
        file = item.nodeid.partition("::")[0]
        group = "trained world" if set(used) & set(SHARED_WORLDS) else file
        item.add_marker(pytest.mark.xdist_group(group))


def pytest_xdist_auto_num_workers() -> int:
    """Return one worker more than there are cores: a fifth of the time waits for a service."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """An embedded PostgreSQL server of this test session."""
    state = tmp_path_factory.mktemp("postgres")
    server = start_postgres(state, choose_port(15432), "test", FAST_AND_LOOSE)
    yield server
    server.stop()
    remove_root_state(state)


@pytest.fixture(scope="module")
def database_url(postgres: PostgresServer) -> str:
    """The URL of a fresh, migrated MHRAS database."""
    return create_migrated_database(postgres, f"mhras_{uuid.uuid4().hex[:8]}")


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """A Prefect server of this test session, without the heartbeat's second per flow.

    It serves flow runs, their events and artifacts as ever. It stores no history of tasks and asks
    no automation what it makes of an event: no test of this server reads them, and half of its
    processor time was theirs.
    """
    from prefect.settings import (
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_ENABLED,
        PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED,
        temporary_settings,
    )
    from prefect.testing.utilities import prefect_test_harness

    services = (
        PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_ENABLED,
        PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED,
    )
    with (
        temporary_settings(dict.fromkeys(services, False)),
        prefect_test_harness(server_startup_timeout=180),
        temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
    ):
        yield


@pytest.fixture(scope="session")
def evidently() -> None:
    """Evidently, imported once: what it does at its import is deprecated in several ways."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")

        import evidently.metrics  # noqa: F401


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real public data beside the project, or a skip that says so."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the public data sets are not at {SHARED_DATA}")
    return SHARED_DATA
