"""Registration against a real Prefect server and PostgreSQL."""

import os

import psycopg2
import pytest
import yaml
from prefect.settings import PREFECT_API_URL

from infra.cluster.registration import (
    PROJECT,
    WORK_POOL,
    RegistrationError,
    grant_reading,
    make_job_template,
    open_prefect,
    register_flows,
    register_work_pool,
    wait_for,
)
from infra.local.postgres import PostgresServer

FLOW_RUN = PROJECT / "infra" / "k8s" / "base" / "registration" / "flow-run.yaml"


@pytest.fixture
def environment(prefect_server: None) -> dict[str, str]:
    return {**os.environ, "PREFECT_API_URL": PREFECT_API_URL.value(), "FLOWS_IMAGE": "flows:1"}


def test_a_server_that_never_answers_is_named() -> None:
    with pytest.raises(RegistrationError, match=r"127\.0\.0\.1:9/health did not answer"):
        wait_for("http://127.0.0.1:9/health", patience=0)


@pytest.mark.nightly
def test_every_deployment_of_the_project_goes_to_the_cluster_s_work_pool(
    environment: dict[str, str],
) -> None:
    register_flows(environment, FLOW_RUN)
    declared = yaml.safe_load((PROJECT / "prefect.yaml").read_text())["deployments"]
    with open_prefect(environment) as client:
        found = client.post("/deployments/filter", json={}).json()
        pool = client.get(f"/work_pools/{WORK_POOL}").json()
    deployed = {one["name"] for one in found if one["work_pool_name"] == WORK_POOL}
    assert deployed == {one["name"] for one in declared}
    assert pool["type"] == "kubernetes"


def test_the_next_release_changes_the_image_of_flow_runs(environment: dict[str, str]) -> None:
    flow_run = yaml.safe_load(FLOW_RUN.read_text())
    with open_prefect(environment) as client:
        for image in ("flows:1", "flows:2"):
            register_work_pool(client, make_job_template(flow_run, image))
        pool = client.get(f"/work_pools/{WORK_POOL}").json()
    variables = pool["base_job_template"]["variables"]["properties"]
    assert variables["image"]["default"] == "flows:2"


def test_the_reader_reads_what_is_there_and_what_comes_and_writes_nothing(
    postgres: PostgresServer,
) -> None:
    postgres.create_databases(["feast_reading"])
    url = postgres.url("feast_reading", driver="postgresql")
    owner = psycopg2.connect(url)
    with owner, owner.cursor() as cursor:
        cursor.execute("DROP ROLE IF EXISTS feast_reader")
        cursor.execute("CREATE ROLE feast_reader LOGIN PASSWORD 'reads'; CREATE TABLE before ()")
    grant_reading(postgres.url("feast_reading"), "feast_reader")
    with owner, owner.cursor() as cursor:
        cursor.execute("CREATE TABLE after (id int)")

    reader = psycopg2.connect(
        postgres.url_of("feast_reader", "reads", "feast_reading", "postgresql")
    )
    with reader, reader.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM before")
        cursor.execute("SELECT count(*) FROM after")
    with pytest.raises(psycopg2.errors.InsufficientPrivilege), reader, reader.cursor() as cursor:
        cursor.execute("INSERT INTO after VALUES (1)")
    reader.close()
    with owner, owner.cursor() as cursor:
        cursor.execute("DROP OWNED BY feast_reader; DROP ROLE feast_reader")
    owner.close()


def test_the_worker_asks_the_same_work_pool() -> None:
    worker = (FLOW_RUN.parents[1] / "prefect-worker" / "prefect-worker.yaml").read_text()
    assert f"--pool, {WORK_POOL}" in worker
