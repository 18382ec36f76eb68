"""Every setting that code reads reaches the pods that read it, or is named here with a reason."""

import ast

import pytest
from pydantic import AliasChoices

from serving.settings import Settings
from tests.infra.cluster_objects import (
    DEPLOYMENTS,
    PROJECT,
    find,
    find_job,
    make_flow_run,
    resolve_environment,
)

each_deployment = pytest.mark.parametrize("deployment", DEPLOYMENTS)
#: Rooms whose code runs in the pods of the API and of flow runs.
API_ROOMS = ("serving", "feature_repo", "monitoring")
FLOW_ROOMS = ("flows", "feature_repo", "monitoring", "mlruns_config")
#: Read where set, and right when not.
OPTIONAL = {
    "JWT_JWKS_URL": "a site with an identity provider of its own sets it",
    "JWT_ISSUER": "goes with JWT_JWKS_URL",
    "JWT_AUDIENCE": "goes with JWT_JWKS_URL",
    "JWT_ROLE_CLAIM": "goes with JWT_JWKS_URL",
    "CONSOLE_IDLE_MINUTES": "its default is what the security policy names",
    "CONSOLE_SESSION_HOURS": "its default is what the security policy names",
    "MLFLOW_UI_URL": "a site names the addresses that its people open",
    "PREFECT_UI_URL": "a site names the addresses that its people open",
    "SOURCE_URL": "a site names the addresses that its people open",
    "CONSOLE_URL": "goes with OIDC_ISSUER",
    "OIDC_ISSUER": "a site whose people use the console sets it",
    "OIDC_CLIENT_ID": "goes with OIDC_ISSUER",
    "OIDC_CLIENT_SECRET": "goes with OIDC_ISSUER",
    "OIDC_ROLE_CLAIM": "goes with OIDC_ISSUER",
    "OIDC_USER_CLAIM": "goes with OIDC_ISSUER",
    "OIDC_ACR_VALUES": "goes with OIDC_ISSUER",
    "CRISIS_GUIDANCE": "a site with a crisis text of its own sets it",
    "CRISIS_ESCALATION_LINE": "a site with an escalation line sets it",
    "MHRAS_SIMULATED_DATA": "set where every person is simulated",
    "MHRAS_TIMEZONE": "UTC is right where a site sets none",
    "AUDIT_SEAL_SECONDS": "its default is what the runbooks name",
    "AUDIT_CHECKPOINT_SECONDS": "its default is what the runbooks name",
    "RELEASE_POLL_SECONDS": "its default is what the runbooks name",
    "MAX_CONCURRENT_SCREENINGS": "its default was measured with the pod's resources",
    "DASK_SCHEDULER_ADDRESS": "a site with a Dask cluster sets it",
    "BUCKET_WORKERS": "its default was measured with the pod's resources",
    "PERSON_ID_CASE": "a site whose ids differ in case without meaning sets it",
    "DROP_LOCATIONS": "a site that takes drops from fewer places sets it",
    "RETENTION_PREDICTION_DAYS": "a site that removes predictions by age sets it",
    "RETENTION_LAKE_DAYS": "a site that removes landed data by age sets it",
    "PUBLIC_URL": "a site that registers EHR clients sets it",
    "EHR_CLIENTS_FILE": "a site that registers EHR clients mounts and sets it",
    "AWS_ENDPOINT_URL": "a site whose object store is not AWS sets it (runbook: deploy)",
    "GIT_COMMIT": "the image has it",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "set, not read",
    "APP_DATABASE_URL": "read by the migration",
}
#: Read by every process, and only these pods act on it.
ONLY_IN = {
    "MLFLOW_PROMOTER_USERNAME": {"api"},
    "MLFLOW_PROMOTER_PASSWORD": {"api"},
    "FEAST_REGISTRY_URL": {"flow"},
    # The API must not be able to sign a release.
    "RELEASE_SIGNING_KEY": {"flow"},
}


def list_declared() -> set[str]:
    """Return the variables of the one settings class."""
    found = set()
    for name, field in Settings.model_fields.items():
        alias = field.validation_alias
        assert not isinstance(alias, AliasChoices)
        found.add(str(alias or name).upper())
    return found


def list_read(room: str) -> set[str]:
    """Return the names that code of a room takes from the environment by their text."""
    return {
        name
        for path in (PROJECT / room).rglob("*.py")
        for name in find_environment_names(ast.parse(path.read_text()))
    }


def find_environment_names(tree: ast.AST) -> set[str]:
    keys = [_find_key(node) for node in ast.walk(tree)]
    return {
        key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)
    }


def _find_key(node: ast.AST) -> ast.expr | None:
    """Return what os.environ[...], os.environ.get(...) or os.getenv(...) is asked for."""
    if isinstance(node, ast.Subscript) and _is_environ(node.value):
        return node.slice
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        named = node.func.attr
        if named == "getenv" or (named == "get" and _is_environ(node.func.value)):
            return node.args[0]
    return None


def _is_environ(node: ast.expr) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "environ"


def test_a_name_read_from_the_environment_is_found_however_it_is_read() -> None:
    tree = ast.parse(
        "import os\nos.environ['A']\nos.environ.get('B', '')\nos.getenv('C')\nother['D']"
    )
    assert find_environment_names(tree) == {"A", "B", "C"}


def list_needed(pod: str, rooms: tuple[str, ...]) -> set[str]:
    read = list_declared().union(*(list_read(room) for room in rooms))
    return {name for name in read - set(OPTIONAL) if pod in ONLY_IN.get(name, {pod})}


@each_deployment
def test_the_api_is_given_every_setting_it_reads(deployment: str) -> None:
    (api,) = find(deployment, "Deployment", "mhras-api")
    given = resolve_environment(deployment, api)
    assert list_needed("api", API_ROOMS) - set(given) == set()


@each_deployment
def test_a_flow_run_is_given_every_setting_it_reads(deployment: str) -> None:
    given = resolve_environment(deployment, make_flow_run(deployment))
    assert list_needed("flow", FLOW_ROOMS) - set(given) == set()
    assert given["ALERT_WEBHOOK_URL"]


@each_deployment
def test_the_registration_is_given_every_variable_it_reads(deployment: str) -> None:
    tree = ast.parse((PROJECT / "infra" / "cluster" / "registration.py").read_text())
    read = {
        node.slice.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript)
        and isinstance(node.value, ast.Name)
        and node.value.id == "environment"
        and isinstance(node.slice, ast.Constant)
    }
    given = resolve_environment(deployment, find_job(deployment, "mhras-registration"))
    assert "MLFLOW_PROMOTER_USERNAME" in read
    assert read - set(given) == set()


def test_no_exception_is_kept_for_a_setting_that_nothing_reads() -> None:
    rooms = {*API_ROOMS, *FLOW_ROOMS}
    read = list_declared().union(*(list_read(room) for room in rooms))
    read |= list_read("infra") | {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"}
    assert set(OPTIONAL) - read == set()
