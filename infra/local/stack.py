"""The services of the local stack: what they are, in which order they start, how they stop."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from infra.local.ehr_client import register_demo_client
from infra.local.ports import choose_port
from infra.local.postgres import PostgresServer, start_postgres
from infra.local.prefect_api import (
    POOL_TEMPLATE,
    PREFECT_USER,
    make_server_settings,
    request_prefect,
)
from infra.local.processes import (
    ManagedProcess,
    clean_up_after_crash,
    start_process,
    wait_until_healthy,
)
from infra.local.secrets import load_or_make_secrets, write_env_file
from mlruns_config.reviewers import add_reviewer
from serving.audit.signing import Signer

PROJECT = Path(__file__).resolve().parents[2]
DATABASES = ("mhras", "mlflow", "prefect", "feast")
USUAL_PORTS = {"postgres": 5432, "mlflow": 5000, "prefect": 4200, "api": 8000}
WORK_POOL = "local"
#: Files that tell whose data the lake of a state holds.
SIMULATED, DROPPED = "holds-simulated-people", "holds-people-of-a-drop"
#: The API's own login: it may add to records, and neither change nor remove them.
API_LOGIN = "mhras_api"

#: MLflow's logins: of flows and operators, and the one that may only read.
MLFLOW_ADMIN = "admin"
MLFLOW_REVIEWER = "reviewer"

#: How often the worker looks for flow runs. Prefect's own 10 s suit a cluster; here a person waits.
SECONDS_BETWEEN_LOOKS = "1"

#: Every library's own reporting home, off.
NO_TELEMETRY = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "GX_ANALYTICS_ENABLED": "false",
    "FEAST_USAGE": "False",
}

#: Threads of a flow share the memory that others have freed, and each call of a library keeps to
#: its thread, as in the image (ADR 88 and 89).
FLOW_THREADS = {"MALLOC_ARENA_MAX": "2", "OMP_NUM_THREADS": "1"}

Announce = Callable[[str, str], None]


@dataclass
class LocalStack:
    """The running stack; `environment` is what every process of it gets."""

    state: Path
    ports: dict[str, int]
    environment: dict[str, str]
    postgres: PostgresServer
    api_database_url: str
    mlflow_server: dict[str, str]
    mlflow_reviewer: dict[str, str]
    #: Made by this start: nothing was in it before.
    is_new: bool
    services: list[ManagedProcess] = field(default_factory=list)

    def url(self, service: str) -> str:
        return f"http://127.0.0.1:{self.ports[service]}"

    def make_api_environment(self) -> dict[str, str]:
        """Return what the API gets instead of, or beyond, what every process gets.

        It reads as an application and a reviewer; what an admin changes goes by another login.
        """
        admin = self.environment
        return {
            "DATABASE_URL": self.api_database_url,
            **self.mlflow_reviewer,
            # The API verifies releases; it cannot sign one.
            "RELEASE_SIGNING_KEY": "",
            "MLFLOW_PROMOTER_USERNAME": admin["MLFLOW_TRACKING_USERNAME"],
            "MLFLOW_PROMOTER_PASSWORD": admin["MLFLOW_TRACKING_PASSWORD"],
        }

    def check_alive(self) -> None:
        """Raise ServiceFailedError if a service has ended."""
        for service in self.services:
            service.check_alive()

    def start(self, name: str, command: list[str], **changes: str) -> ManagedProcess:
        service = start_process(name, command, self.environment | changes, self.state)
        self.services.append(service)
        return service

    def stop(self) -> None:
        """Stop everything, last started first."""
        while self.services:
            self.services.pop().stop()
        self.postgres.stop()


def is_new_state(state: Path) -> bool:
    """Return True while no stack was ever started with this state."""
    return not (state / "postgres").exists()


def start_stack(state: Path, announce: Announce) -> LocalStack:
    """Start PostgreSQL, MLflow, Prefect with a worker, and the API; raise if one fails.

    `announce` gets (service, what happened) once for each.
    """
    for name in clean_up_after_crash(state):
        announce(name, "was left running by a crash and is stopped")
    is_new = is_new_state(state)
    ports = _choose_ports()
    secrets = load_or_make_secrets(state)
    postgres = start_postgres(
        state / "postgres", ports["postgres"], secrets.pop("POSTGRES_PASSWORD")
    )
    postgres.create_databases(DATABASES)
    api_database_url = postgres.url_of(API_LOGIN, secrets.pop("APP_DATABASE_PASSWORD"), "mhras")
    server, reviewer = _take_mlflow_secrets(secrets, postgres.url("mlflow"), state)
    environment = _make_environment(state, ports, postgres, secrets)
    environment_of_all = os.environ | environment
    stack = LocalStack(
        state, ports, environment_of_all, postgres, api_database_url, server, reviewer, is_new
    )
    announce("postgres", f"ready on port {ports['postgres']}")
    try:
        _start_services(stack, announce)
    except BaseException:
        stack.stop()
        raise
    return stack


def _start_services(stack: LocalStack, announce: Announce) -> None:
    mlflow, prefect = _start_mlflow(stack), _start_prefect(stack)
    migrate = [sys.executable, "-m", "serving.database.migrate"]
    _run_to_end(stack, "migrations", migrate, APP_DATABASE_URL=stack.api_database_url)
    announce("database", "migrated")
    serve = [sys.executable, "-m", "serving", "--port", str(stack.ports["api"])]
    api = stack.start("api", serve, **stack.make_api_environment())
    for service, path in ((mlflow, "/health"), (api, "/health"), (prefect, "/api/health")):
        seconds = wait_until_healthy(service, f"{stack.url(service.name)}{path}")
        announce(service.name, f"ready after {seconds:.0f} s: {stack.url(service.name)}")
    admin = (MLFLOW_ADMIN, stack.mlflow_server["MLFLOW_AUTH_ADMIN_PASSWORD"])
    password = stack.mlflow_reviewer["MLFLOW_TRACKING_PASSWORD"]
    add_reviewer(stack.url("mlflow"), admin, MLFLOW_REVIEWER, password)
    _create_work_pool(stack)
    _reconcile(stack, announce)
    work = [_find_program("prefect"), "worker", "start", "--pool", WORK_POOL]
    stack.start("worker", work, PREFECT_WORKER_QUERY_SECONDS=SECONDS_BETWEEN_LOOKS)
    _register_deployments(stack)  # meanwhile the worker imports Prefect
    announce("worker", f"takes flow runs of work pool {WORK_POOL}")


def _register_deployments(stack: LocalStack) -> None:
    """Deploy every flow of prefect.yaml, unless that was done with the same file before."""
    deployed = stack.state / "deployed.yaml"
    declared = (PROJECT / "prefect.yaml").read_text()
    if deployed.exists() and deployed.read_text() == declared:
        return
    _run_to_end(stack, "deployments", [_find_program("prefect"), "--no-prompt", "deploy", "--all"])
    deployed.write_text(declared)


def _reconcile(stack: LocalStack, announce: Announce) -> None:
    """Mark runs abandoned by the last worker, before the next one starts."""
    unfinished = {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING"]}}
    body = {"flow_runs": {"state": unfinished}}
    response = request_prefect(stack.environment, "POST", "flow_runs/count", body)
    response.raise_for_status()
    if response.json():
        _run_to_end(stack, "reconciliation", [sys.executable, "-m", "flows.reconciliation"])
        announce("prefect", f"{response.json()} runs of a killed worker are marked as crashed")


def _start_mlflow(stack: LocalStack) -> ManagedProcess:
    port = str(stack.ports["mlflow"])
    command = [sys.executable, "-m", "mlruns_config.server", "--port", port]
    return stack.start("mlflow", command, **stack.mlflow_server)


def _take_mlflow_secrets(
    secrets: dict[str, str], database_url: str, state: Path
) -> tuple[dict[str, str], dict[str, str]]:
    """Move MLflow's secrets out of what every process gets.

    Return the variables of its server, and those of readers.
    """
    server = {
        "MLFLOW_BACKEND_STORE_URI": database_url,
        "MLFLOW_ARTIFACTS_DESTINATION": (state / "artifacts").as_uri(),
        "MLFLOW_AUTH_ADMIN_USERNAME": MLFLOW_ADMIN,
        "MLFLOW_AUTH_ADMIN_PASSWORD": secrets.pop("MLFLOW_AUTH_ADMIN_PASSWORD"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.pop("MLFLOW_FLASK_SERVER_SECRET_KEY"),
    }
    reviewer = {
        "MLFLOW_TRACKING_USERNAME": MLFLOW_REVIEWER,
        "MLFLOW_TRACKING_PASSWORD": secrets.pop("MLFLOW_REVIEWER_PASSWORD"),
    }
    # Flows write: the worker, and an operator's shell, log in as the administrator.
    secrets["MLFLOW_TRACKING_USERNAME"] = MLFLOW_ADMIN
    secrets["MLFLOW_TRACKING_PASSWORD"] = server["MLFLOW_AUTH_ADMIN_PASSWORD"]
    return server, reviewer


def _start_prefect(stack: LocalStack) -> ManagedProcess:
    port = str(stack.ports["prefect"])
    command = [_find_program("prefect"), "server", "start", "--host", "127.0.0.1", "--port", port]
    auth_string = stack.environment["PREFECT_API_AUTH_STRING"]
    return stack.start(
        "prefect", command, **make_server_settings(auth_string, stack.url("prefect"))
    )


def _create_work_pool(stack: LocalStack) -> None:
    """Create the pool, or give an earlier one the template that takes no commands."""
    pool = {"name": WORK_POOL, "type": "process", "base_job_template": POOL_TEMPLATE}
    response = request_prefect(stack.environment, "POST", "work_pools/", pool)
    if response.status_code == httpx.codes.CONFLICT:
        change = {"base_job_template": POOL_TEMPLATE}
        response = request_prefect(stack.environment, "PATCH", f"work_pools/{WORK_POOL}", change)
    response.raise_for_status()


def _run_to_end(stack: LocalStack, name: str, command: list[str], **changes: str) -> None:
    service = start_process(name, command, stack.environment | changes, stack.state)
    if service.process.wait():
        service.check_alive()
    service.record.unlink()


def _find_program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def _choose_ports() -> dict[str, int]:
    chosen: dict[str, int] = {}
    for service, usual in USUAL_PORTS.items():
        chosen[service] = choose_port(usual, frozenset(chosen.values()))
    return chosen


def _make_environment(
    state: Path, ports: dict[str, int], postgres: PostgresServer, secrets: dict[str, str]
) -> dict[str, str]:
    """Return the variables of every process, and keep them in `state`/env for a shell."""
    prefect = f"http://127.0.0.1:{ports['prefect']}/api"
    scratch = state / "tmp"
    scratch.mkdir(parents=True, exist_ok=True)
    login = f"{PREFECT_USER}:{secrets.pop('PREFECT_PASSWORD')}"
    variables = {
        **secrets,
        "RELEASE_PUBLIC_KEYS": Signer(secrets["RELEASE_SIGNING_KEY"]).public_key,
        "MHRAS_ENV": "development",
        "EHR_CLIENTS_FILE": str(register_demo_client(state)),
        "PUBLIC_URL": f"http://127.0.0.1:{ports['api']}",
        # A drop may hold real people; without one all people are simulated.
        "MHRAS_SIMULATED_DATA": str(not (state / DROPPED).exists()),
        "PREFECT_UI_URL": f"http://127.0.0.1:{ports['prefect']}",
        "DATABASE_URL": postgres.url("mhras"),
        "LAKE_URL": str(state / "lake"),
        "AUDIT_CHECKPOINT_URL": str(state / "audit"),
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{ports['mlflow']}",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "PREFECT_API_URL": prefect,
        "PREFECT_API_AUTH_STRING": login,
        "PREFECT_HOME": str(state / "prefect"),
        # Prefect keeps what it runs in a folder of one name for all users of a machine.
        "TMPDIR": str(scratch),
        "PREFECT_API_DATABASE_CONNECTION_URL": postgres.url("prefect", "postgresql+asyncpg"),
        "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
        "FEAST_REGISTRY_URL": postgres.url("feast"),
        "FEAST_ONLINE_HOST": "127.0.0.1",
        "FEAST_ONLINE_PORT": str(ports["postgres"]),
        "FEAST_ONLINE_DATABASE": "feast",
        "FEAST_ONLINE_USER": "postgres",
        "FEAST_ONLINE_PASSWORD": postgres.password,
        "FEAST_ONLINE_SSLMODE": "disable",
        **NO_TELEMETRY,
        **FLOW_THREADS,
    }
    write_env_file(state / "env", variables)
    return variables
