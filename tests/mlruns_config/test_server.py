"""The MLflow server as `make run` starts it: who logs in, who may look, who may change."""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import mlflow
import pytest
import requests
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from typer.testing import CliRunner

from infra.local.ports import choose_port
from infra.local.postgres import PostgresServer
from mlruns_config.reviewers import LoginError, add_reviewer, app, let_promote, remove_reviewer
from mlruns_config.server import ServerSettings, list_hosts, make_command, write_login_file
from mlruns_config.server_login import MAX_WRONG_LOGINS, is_reading
from serving.releases.registry import NoProductionVersionError, Registry
from tests.fixtures.mlflow_server import wait_until_healthy
from tests.fixtures.object_store import KEY_ID, SECRET, run_object_store

ADMIN = ("admin", "a password for tests % of it")
REVIEWER = ("jane", "another password for tests")


@dataclass(frozen=True)
class Served:
    url: str
    run_id: str


@pytest.fixture(scope="module")
def served(postgres: PostgresServer, tmp_path_factory) -> Iterator[Served]:
    """The real server on PostgreSQL with one run, one model and one reviewer."""
    with run_server(postgres, tmp_path_factory.mktemp("server")) as url:
        assert add_reviewer(url, ADMIN, *REVIEWER)
        with pytest.MonkeyPatch.context() as patch:
            yield Served(url, fill(log_in(patch, url, ADMIN)))


@contextmanager
def run_server(postgres: PostgresServer, folder: Path, **changes: str) -> Iterator[str]:
    """Run the server on a database of its own with these variables; yield its URL."""
    database = f"mlflow_{uuid.uuid4().hex[:8]}"
    postgres.create_databases([database])
    port = choose_port(15100)
    environment = os.environ | make_variables(postgres.url(database), folder) | changes
    command = [sys.executable, "-m", "mlruns_config.server", "--port", str(port)]
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_healthy(url, server, folder / "server.log")
        yield url
    finally:
        server.terminate()
        server.wait(timeout=30)


def make_variables(database_url: str, folder: Path) -> dict[str, str]:
    return {
        "MLFLOW_BACKEND_STORE_URI": database_url.replace("+psycopg2", ""),
        "MLFLOW_ARTIFACTS_DESTINATION": (folder / "artifacts").as_uri(),
        "MLFLOW_AUTH_ADMIN_PASSWORD": ADMIN[1],
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "a secret for tests, long enough",
        "TMPDIR": str(folder),
    }


def log_in(patch: pytest.MonkeyPatch, url: str, login: tuple[str, str]) -> MlflowClient:
    patch.setenv("MLFLOW_TRACKING_USERNAME", login[0])
    patch.setenv("MLFLOW_TRACKING_PASSWORD", login[1])
    patch.setenv("MLFLOW_TRACKING_URI", url)
    return MlflowClient(url)


def fill(client: MlflowClient) -> str:
    """Log a run with an artifact and register it; return its id."""
    run_id: str = client.create_run("0").info.run_id
    client.log_metric(run_id, "auroc", 0.8)
    client.log_text(run_id, "a card", "model_card.md")
    client.create_registered_model("mhras-risk")
    client.create_model_version("mhras-risk", f"runs:/{run_id}/model", run_id)
    return run_id


@pytest.fixture
def reviewer(served: Served, monkeypatch) -> MlflowClient:
    return log_in(monkeypatch, served.url, REVIEWER)


@pytest.mark.parametrize("login", [None, ("jane", "a wrong password"), ("eve", "a password")])
def test_whoever_does_not_log_in_sees_nothing(served, login):
    for path in ("/", "/api/2.0/mlflow/registered-models/search"):
        answer = httpx.get(f"{served.url}{path}", auth=login, trust_env=False)
        if path != "/":  # the page itself holds no data
            assert answer.status_code == 401


@pytest.mark.parametrize(
    "change",
    [
        lambda client, run: client.log_metric(run, "auroc", 0.99),
        lambda client, run: client.set_tag(run, "note", "mine"),
        lambda client, run: client.log_text(run, "another card", "model_card.md"),
        lambda client, run: client.delete_run(run),
        lambda client, run: client.create_run("0"),
        lambda client, run: client.create_experiment("mine"),
        lambda client, run: client.create_registered_model("mine"),
        lambda client, run: client.set_registered_model_alias("mhras-risk", "production", "1"),
        lambda client, run: client.set_model_version_tag("mhras-risk", "1", "note", "mine"),
        lambda client, run: client.delete_registered_model("mhras-risk"),
    ],
)
def test_a_reviewer_changes_nothing(served, reviewer, change):
    with pytest.raises((MlflowException, requests.HTTPError), match="403"):
        change(reviewer, served.run_id)


@pytest.fixture(scope="module")
def promoter(served: Served) -> tuple[str, str]:
    login = ("promoter", "a third password for tests")
    assert add_reviewer(served.url, ADMIN, *login)
    let_promote(served.url, ADMIN, login[0], ["mhras-risk", "mhras-not-yet-there"])
    return login


@pytest.fixture
def someone_elses(served: Served, monkeypatch) -> Iterator[None]:
    """A model that the promoter was given no right to."""
    log_in(monkeypatch, served.url, ADMIN).create_registered_model("someone-elses")
    yield
    log_in(monkeypatch, served.url, ADMIN).delete_registered_model("someone-elses")


@pytest.mark.parametrize(
    "change",
    [
        lambda client, run: client.set_registered_model_alias("someone-elses", "production", "1"),
        lambda client, run: client.log_metric(run, "auroc", 0.99),
        lambda client, run: client.create_registered_model("mine"),
        lambda client, run: client.delete_registered_model("mhras-risk"),
        lambda client, run: client.delete_model_version("mhras-risk", "1"),
    ],
)
def test_a_promoter_changes_nothing_else(served, promoter, someone_elses, change, monkeypatch):
    client = log_in(monkeypatch, served.url, promoter)
    with pytest.raises((MlflowException, requests.HTTPError), match="403"):
        change(client, served.run_id)


@pytest.mark.filterwarnings("ignore:.*transition_model_version_stage.*:FutureWarning")
def test_a_promoter_moves_versions_of_our_models(served, promoter, monkeypatch):
    let_promote(served.url, ADMIN, promoter[0], ["mhras-risk"])  # safe to run again
    client = log_in(monkeypatch, served.url, promoter)
    client.transition_model_version_stage("mhras-risk", "1", "Staging")
    client.set_registered_model_alias("mhras-risk", "candidate", "1")
    client.set_model_version_tag("mhras-risk", "1", "share", "0.1")
    client.delete_model_version_tag("mhras-risk", "1", "share")
    client.delete_registered_model_alias("mhras-risk", "candidate")
    assert client.get_model_version("mhras-risk", "1").current_stage == "Staging"
    client.transition_model_version_stage("mhras-risk", "1", "None")


def test_a_reviewer_reads_runs_artifacts_and_models(served, reviewer, tmp_path):
    assert reviewer.get_run(served.run_id).data.metrics == {"auroc": 0.8}
    assert [run.info.run_id for run in reviewer.search_runs(["0"])] == [served.run_id]
    found = mlflow.artifacts.download_artifacts(
        run_id=served.run_id,
        artifact_path="model_card.md",
        dst_path=str(tmp_path),
        tracking_uri=served.url,
    )
    assert Path(found).read_text() == "a card"
    assert [model.name for model in reviewer.search_registered_models()] == ["mhras-risk"]
    assert reviewer.get_model_version("mhras-risk", "1").run_id == served.run_id


def test_serving_reads_the_registry_with_a_reviewers_login(served):
    with closing(Registry(served.url, REVIEWER)) as known:
        assert known.read_tag("mhras-risk", 1, "manifest.sha256") is None
        assert known.find_rollout("mhras-risk") is None
        with pytest.raises(NoProductionVersionError, match="no version in stage Production"):
            known.find_production_version("mhras-risk")
    with closing(Registry(served.url)) as unknown, pytest.raises(Exception, match="401"):
        unknown.read_tag("mhras-risk", 1, "manifest.sha256")


def test_a_reviewer_makes_no_logins(served):
    with pytest.raises(LoginError, match="403"):
        add_reviewer(served.url, REVIEWER, "eve", "a password for eve")


def test_a_login_is_added_once_and_removed(served, monkeypatch):
    log_in(monkeypatch, served.url, ADMIN)
    added = CliRunner().invoke(app, ["add", "john"])
    assert added.exit_code == 0, added.output
    password = added.output.split()[-1]
    url = f"{served.url}/api/2.0/mlflow/registered-models/search"
    assert httpx.get(url, auth=("john", password), trust_env=False).is_success

    again = CliRunner().invoke(app, ["add", "john"])
    assert (again.exit_code, "already" in again.output) == (1, True)
    remove_reviewer(served.url, ADMIN, "john")
    assert httpx.get(url, auth=("john", password), trust_env=False).status_code == 401


def test_a_login_with_wrong_passwords_is_locked_and_no_other(served):
    """The count is of one worker, so that with several it takes some more."""
    guessed = ("guessed", "the right password of guessed")
    add_reviewer(served.url, ADMIN, *guessed)
    statuses = [ask(served, (guessed[0], f"wrong password {n}")) for n in range(60)]

    assert statuses[:MAX_WRONG_LOGINS] == [401] * MAX_WRONG_LOGINS
    assert statuses[-1] == 429
    assert ask(served, guessed) == 429
    assert ask(served, REVIEWER) == 200


def ask(served, login):
    return httpx.get(f"{served.url}/version", auth=login, trust_env=False).status_code


def test_a_foreign_host_and_a_foreign_page_are_refused(served):
    url = f"{served.url}/api/2.0/mlflow/experiments/search"
    for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
        answer = httpx.post(
            url, json={"max_results": 1}, headers=headers, auth=ADMIN, trust_env=False
        )
        assert answer.status_code == 403


@pytest.mark.nightly
def test_artifacts_go_to_a_bucket_whose_key_only_the_server_has(postgres, tmp_path, monkeypatch):
    with run_object_store("models") as store:
        storage = {
            "MODEL_STORAGE_URL": "s3://models/mhras",
            "MODEL_STORAGE_KEY_ID": KEY_ID,
            "MODEL_STORAGE_KEY": SECRET,
            "MLFLOW_S3_ENDPOINT_URL": store,
        }
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name, raising=False)
        with run_server(postgres, tmp_path, **storage) as url:
            client = log_in(monkeypatch, url, ADMIN)
            run_id = fill(client)
            # The server is named: another test may have left MLflow pointed at its own store.
            stored = mlflow.artifacts.download_artifacts(
                run_id=run_id,
                artifact_path="model_card.md",
                dst_path=str(tmp_path / "downloaded"),
                tracking_uri=url,
            )
        listed = httpx.get(f"{store}/models?list-type=2&prefix=mhras/").text

    assert Path(stored).read_text() == "a card"
    assert f"{run_id}/artifacts/model_card.md" in listed
    assert not (tmp_path / "artifacts").exists()


def test_a_storage_key_without_its_id_ends_in_a_line_that_says_so(tmp_path):
    variables = make_variables("postgresql://u@h/d", tmp_path) | {"MODEL_STORAGE_KEY": SECRET}
    inherited = {name: value for name, value in os.environ.items() if "ACCESS_KEY" not in name}
    found = subprocess.run(
        [sys.executable, "-m", "mlruns_config.server"],
        env=inherited | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 1
    assert "MODEL_STORAGE_KEY needs MODEL_STORAGE_KEY_ID" in found.stderr
    assert SECRET not in found.stderr


@pytest.mark.parametrize("missing", ["MLFLOW_BACKEND_STORE_URI", "MLFLOW_AUTH_ADMIN_PASSWORD"])
def test_a_missing_setting_is_named_and_no_secret_shown(missing, tmp_path):
    variables = make_variables("postgresql://u:hidden@h/d", tmp_path) | {
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "short"
    }
    del variables[missing]
    found = subprocess.run(
        [sys.executable, "-m", "mlruns_config.server"],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 1
    assert f"{missing}: Field required" in found.stderr
    assert "MLFLOW_FLASK_SERVER_SECRET_KEY: Value error, must have at least 12" in found.stderr
    assert "hidden" not in found.stderr


@pytest.mark.parametrize(
    ("method", "path", "reads"),
    [
        ("GET", "/api/2.0/mlflow/runs/get", True),
        ("POST", "/api/2.0/mlflow/runs/search", True),
        ("POST", "/ajax-api/2.0/mlflow/runs/search", True),
        ("POST", "/api/2.0/mlflow/runs/create", False),
        ("POST", "/api/2.0/mlflow/runs/search/../delete", False),
        ("DELETE", "/api/2.0/mlflow/runs/search", False),
        ("PUT", "/api/2.0/mlflow-artifacts/artifacts/x", False),
    ],
)
def test_reading_is_told_from_changing(method, path, reads):
    assert is_reading(method, path) is reads


def test_no_secret_stands_on_the_command_line_or_in_an_open_file(tmp_path):
    settings = ServerSettings(
        mlflow_backend_store_uri="postgresql://u:p%40ss@h/d",
        mlflow_artifacts_destination="s3://bucket/models",
        mlflow_auth_admin_password="an admin's password",
        mlflow_flask_server_secret_key="a secret of the UI",
        mlflow_server_names="mlflow,mlflow.mhras.svc",
    )
    command = make_command(settings, "0.0.0.0", 5000)
    login_file = write_login_file(settings, tmp_path)

    assert not [part for part in command if "p%40ss" in part or "password" in part]
    assert login_file.stat().st_mode & 0o077 == 0
    assert "p%%40ss" in login_file.read_text()
    assert "mlflow:5000" in list_hosts(settings, 5000)
    assert "mlflow.mhras.svc" in list_hosts(settings, 5000)
