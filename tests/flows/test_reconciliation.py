"""What a killed process left behind is marked once; what somebody works on is left alone."""

import time
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from mlflow import MlflowClient
from prefect import flow, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.events import emit_event
from prefect.states import Pending, Running

from flows.reconciliation import reconcile_runs
from flows.runtime.flow_run import FLOW_RUN_TAG
from flows.runtime.orphaned_flow_runs import HEARTBEAT, find_last_sign
from flows.runtime.orphaned_versions import BROKEN_TAG
from mlruns_config.manifest import MANIFEST_HASH_TAG, RELEASE_MODEL
from mlruns_config.registry.transitions import Registry, promote
from tests.fixtures.rollouts import candidate
from tests.fixtures.small_registry import MEMBER, register, registry, tracking_uri
from tests.fixtures.webhook import webhook

__all__ = ["candidate", "registry", "tracking_uri", "webhook"]

PATIENCE_SECONDS = 30
OURS = "mhras-left-behind"


@flow(name="left-behind")
def left_behind() -> None:
    """Stand for a flow whose worker was killed."""


def begin(state: Any) -> FlowRun:
    """Return a run that is in a state that somebody else has to end."""
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(left_behind)
        client.set_flow_run_state(run.id, state, force=True)
        return client.read_flow_run(run.id)


def read(run: FlowRun) -> FlowRun:
    with get_client(sync_client=True) as client:
        return client.read_flow_run(run.id)


def is_named(run: FlowRun, found: list[str]) -> bool:
    return any(run.name in one for one in found)


@pytest.fixture
def client(candidate: int, tracking_uri: str, tmp_path_factory: Any) -> MlflowClient:
    client = MlflowClient(tracking_uri)
    if client.get_experiment_by_name(OURS) is None:
        client.create_experiment(OURS, tmp_path_factory.mktemp("left").as_uri())
    return client


def begin_mlflow_run(client: MlflowClient, experiment: str = OURS, **tags: str) -> str:
    number = client.get_experiment_by_name(experiment).experiment_id
    return client.create_run(number, tags=tags).info.run_id


def get_status(client: MlflowClient, run_id: str) -> str:
    return client.get_run(run_id).info.status


@pytest.mark.parametrize("state", [Running(), Pending()], ids=["running", "pending"])
def test_a_run_that_gives_no_sign_of_life_is_crashed_and_told_once(
    state: Any, client: MlflowClient, webhook: Any
) -> None:
    run = begin(state)

    assert not is_named(run, reconcile_runs(silence_minutes=15))
    assert read(run).state.name == state.name
    assert is_named(run, reconcile_runs(silence_minutes=0))
    assert read(run).state.is_crashed()
    assert "its process was killed" in read(run).state.message
    assert any(run.name in message for message in webhook.messages)
    assert not is_named(run, reconcile_runs(silence_minutes=0))


def test_the_tasks_it_was_at_are_crashed_with_it(client: MlflowClient) -> None:
    from prefect import task

    run = begin(Running())
    with get_client(sync_client=True) as prefect:
        at_work = prefect.create_task_run(
            task(lambda: None, name="step"), flow_run_id=run.id, dynamic_key="0", state=Running()
        )
        reconcile_runs(silence_minutes=0)
        assert prefect.read_task_run(at_work.id).state.is_crashed()


def test_a_heartbeat_is_a_sign_of_life(client: MlflowClient) -> None:
    run = begin(Running())
    begun = datetime.now(UTC)
    emit_event(HEARTBEAT, resource={"prefect.resource.id": f"prefect.flow-run.{run.id}"})
    until = time.monotonic() + PATIENCE_SECONDS
    while find_last_sign(run) < begun:
        assert time.monotonic() < until, "the heartbeat was never heard"
        time.sleep(0.2)


def test_an_mlflow_run_is_killed_with_its_flow_run_and_its_children(client: MlflowClient) -> None:
    run = begin(Running())
    parent = begin_mlflow_run(client, **{FLOW_RUN_TAG: str(run.id)})
    child = begin_mlflow_run(client, **{"mlflow.parentRunId": parent})

    reconcile_runs(silence_minutes=15)
    assert {get_status(client, one) for one in (parent, child)} == {"RUNNING"}
    reconcile_runs(silence_minutes=0)
    assert {get_status(client, one) for one in (parent, child)} == {"KILLED"}


def test_a_run_of_a_server_that_is_not_ours_is_left_alone(client: MlflowClient) -> None:
    unknown = begin_mlflow_run(client, **{FLOW_RUN_TAG: str(uuid.uuid4())})
    others = begin_mlflow_run(client, "releases")

    reconcile_runs(silence_minutes=0)
    assert get_status(client, unknown) == "RUNNING"
    assert get_status(client, others) == "RUNNING"
    for run_id in (unknown, others):
        client.set_terminated(run_id)


def test_a_run_that_names_nobody_is_killed_once_nobody_is_at_work(client: MlflowClient) -> None:
    nobodys = begin_mlflow_run(client)
    at_work = begin(Running())

    reconcile_runs(silence_minutes=15)
    assert get_status(client, nobodys) == "RUNNING"
    reconcile_runs(silence_minutes=0)
    assert read(at_work).state.is_crashed()
    assert get_status(client, nobodys) == "KILLED"


def test_a_member_whose_training_never_came_to_a_release_is_tagged(
    client: MlflowClient, registry: Registry
) -> None:
    parent = begin_mlflow_run(client)
    child = begin_mlflow_run(client, **{"mlflow.parentRunId": parent})
    client.set_terminated(child)  # the member was done; what it was for was not
    known = client.create_model_version(MEMBER, "runs:/nowhere", child)

    found = [one for one in reconcile_runs(silence_minutes=0) if "half" in one]
    assert found == [
        f"{MEMBER} {known.version} is half registered: its training ended before there was a "
        "release of it"
    ]


def test_versions_whose_registration_broke_off_are_tagged_and_told_once(
    client: MlflowClient, registry: Registry
) -> None:
    whole, no_manifest, unstaged = (register(registry) for _ in range(3))
    promote(registry, whole, "Staging", "ada", "a test")
    client.delete_model_version_tag(RELEASE_MODEL, str(no_manifest), MANIFEST_HASH_TAG)
    dead = begin(Running())
    for version in (whole, no_manifest, unstaged):
        run_id = client.get_model_version(RELEASE_MODEL, str(version)).run_id
        client.set_tag(run_id, FLOW_RUN_TAG, str(dead.id))

    assert [one for one in reconcile_runs(silence_minutes=15) if "half" in one] == []
    found = [one for one in reconcile_runs(silence_minutes=0) if "half" in one]
    assert sorted(found) == [
        f"{RELEASE_MODEL} {no_manifest} is half registered: its manifest is unknown",
        f"{RELEASE_MODEL} {unstaged} is half registered: its training ended before it came to "
        "Staging",
    ]
    assert BROKEN_TAG in client.get_model_version(RELEASE_MODEL, str(unstaged)).tags
    assert [one for one in reconcile_runs(silence_minutes=0) if "half" in one] == []
