"""PostgreSQL and MLflow go away in the middle of a flow and come back: run again, it completes."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from mlflow import MlflowClient
from sqlalchemy import create_engine

from flows.ingestion import ingest
from flows.lake.tables import locate_table
from flows.materialisation import materialise_features
from infra.local.ports import choose_port
from infra.local.postgres import PostgresServer, remove_root_state, start_postgres
from mlruns_config.manifest import MEMBER_MODELS, RELEASE_MODEL
from mlruns_config.registry.reconcile import compare_productions
from mlruns_config.registry.transitions import Registry, open_registry, read_ledger
from tests.fixtures.killed_flows import FlowProcess, start_flow
from tests.fixtures.lake_contents import count_versions, get_version, read_lake
from tests.fixtures.mlflow_server import run_mlflow_server
from tests.fixtures.trained_world import (
    SNAPSHOT,
    TABULAR_MEMBERS,
    enter_environment,
    forget_settings,
    import_libraries,
    make_variables,
    write_small_drop,
)

pytestmark = pytest.mark.nightly


TRAIN = f"""flows.training:train(members={TABULAR_MEMBERS!r}, actor="a test")"""


@dataclass
class Services:
    """A PostgreSQL and an MLflow server that may be stopped and started again."""

    folder: Path
    postgres: PostgresServer
    variables: dict[str, str]
    mlflow_port: int
    running: ExitStack = field(default_factory=ExitStack)

    def start_mlflow(self) -> None:
        self.running.enter_context(run_mlflow_server(self.folder, self.mlflow_port))

    def restart_mlflow(self) -> None:
        self.running.close()
        self.start_mlflow()

    def restart_postgres(self) -> None:
        self.postgres.stop()
        start_postgres(self.folder / "postgres", self.postgres.port, self.postgres.password)


@pytest.fixture(scope="module")
def services(prefect_server: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    import_libraries()
    folder = tmp_path_factory.mktemp("restarted")
    server = start_postgres(folder / "postgres", choose_port(15600), "test")
    variables = make_variables(server, folder)
    port = choose_port(16300)
    made = Services(folder, server, variables, port)
    made.start_mlflow()
    variables["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{port}"
    yield made
    made.running.close()
    made.postgres.stop()
    remove_root_state(folder / "postgres")


@pytest.fixture
def entered(services: Services, monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    enter_environment(monkeypatch, services.variables)
    yield services
    forget_settings()


def finish_or_run_again(running: FlowProcess, call: str, services: Services) -> None:
    """Let a disturbed flow end as it may; where it failed, the next run must not."""
    if running.process.wait(600) != 0:
        with start_flow(call, services.variables, services.folder / "again.log") as again:
            again.finish()


def test_an_ingestion_outlives_a_restart_of_postgresql(
    entered: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop = write_small_drop(entered.folder / "drop")
    # The table with the most rows: it lands in several commits.
    days = locate_table(entered.variables["LAKE_URL"], "wearable_days")
    call = f"flows.ingestion:ingest({str(drop)!r})"
    with start_flow(call, entered.variables, entered.folder / "ingestion.log") as running:
        running.wait_until(lambda: get_version(days) >= 1)
        entered.restart_postgres()
        finish_or_run_again(running, call, entered)
    landed = read_lake(entered.variables["LAKE_URL"])

    monkeypatch.setenv("LAKE_URL", str(entered.folder / "undisturbed"))
    forget_settings()
    ingest(str(drop))
    for name, rows in read_lake(str(entered.folder / "undisturbed")).items():
        assert rows.equals(landed[name]), name


@pytest.mark.parametrize("service", ["mlflow", "postgres"])
def test_a_training_outlives_a_restart_without_half_a_promotion(
    entered: Services, service: str
) -> None:
    if get_version(str(entered.folder / "lake" / "features" / "weekly_sequence")) < 0:
        materialise_features(SNAPSHOT)
    client = MlflowClient(entered.variables["MLFLOW_TRACKING_URI"])
    member = MEMBER_MODELS["lightgbm"]
    known, releases = count_versions(client, member), count_versions(client, RELEASE_MODEL)
    log = entered.folder / f"training-{service}.log"
    with start_flow(TRAIN, entered.variables, log) as running:
        running.wait_until(lambda: count_versions(client, member) > known)
        getattr(entered, f"restart_{service}")()
        finish_or_run_again(running, TRAIN, entered)

    registry = open_ours(entered)
    assert compare_productions(registry).agree
    assert count_versions(client, RELEASE_MODEL) == releases + 1  # one, not two, not none
    newest = [row for row in read_ledger(registry) if row.version == releases + 1]
    assert newest[0].to_stage == "Staging"
    registry.engine.dispose()


def open_ours(services: Services) -> Registry:
    return open_registry(
        services.variables["MLFLOW_TRACKING_URI"], create_engine(services.variables["DATABASE_URL"])
    )
