"""prefect.yaml: what `prefect deploy --all` registers."""

from pathlib import Path
from typing import Any

import pytest
from prefect import Flow

from tests.fixtures.deployments import DECLARED, load_flow

#: What a run is about, for the filters of the UI.
KINDS = {"data", "models", "screening", "watch", "rights"}


@pytest.mark.parametrize("deployment", DECLARED, ids=lambda deployment: deployment["name"])
def test_a_deployment_names_a_flow_and_only_parameters_it_takes(
    deployment: dict[str, Any],
) -> None:
    flow = load_flow(deployment)

    assert flow.name == deployment["name"]
    assert set(deployment.get("parameters", {})) <= set(flow.parameters.properties)
    flow.validate_parameters(deployment.get("parameters", {}) | _require(flow))


def test_every_flow_of_the_room_is_deployed() -> None:
    room = Path(__file__).parents[2] / "flows"
    with_flow = {path.stem for path in room.glob("*.py") if "\n@flow(" in path.read_text()}

    assert {Path(one["entrypoint"].partition(":")[0]).stem for one in DECLARED} == with_flow


@pytest.mark.parametrize("deployment", DECLARED, ids=lambda deployment: deployment["name"])
def test_a_deployment_says_what_it_does(deployment: dict[str, Any]) -> None:
    assert deployment["description"]
    assert deployment["tags"][0] == "mhras"
    assert set(deployment["tags"][1:]) & KINDS
    assert deployment["work_pool"]["name"] == "local"


@pytest.mark.parametrize("deployment", DECLARED, ids=lambda deployment: deployment["name"])
def test_every_parameter_of_a_form_is_described(deployment: dict[str, Any]) -> None:
    parameters = load_flow(deployment).parameters.properties

    assert [name for name, one in parameters.items() if not one.get("description")] == []


@pytest.mark.parametrize("deployment", DECLARED, ids=lambda deployment: deployment["name"])
def test_a_run_ends_some_time_and_has_no_twin(deployment: dict[str, Any]) -> None:
    assert load_flow(deployment).timeout_seconds is not None
    limit = deployment["concurrency_limit"]
    assert (limit if isinstance(limit, int) else limit["limit"]) == 1


@pytest.mark.parametrize("deployment", DECLARED, ids=lambda deployment: deployment["name"])
def test_a_schedule_that_looks_often_does_not_catch_up(deployment: dict[str, Any]) -> None:
    often = [one for one in deployment.get("schedules", []) if one.get("interval", 3600) < 3600]
    limit = deployment["concurrency_limit"]

    assert not often or limit["collision_strategy"] == "CANCEL_NEW"


@pytest.mark.parametrize("deployment", DECLARED, ids=lambda deployment: deployment["name"])
def test_a_form_explains_every_parameter_and_asks_for_no_more_than_it_must(
    deployment: dict[str, Any],
) -> None:
    schema = load_flow(deployment).parameters
    for name, field in schema.properties.items():
        assert field.get("title"), name
        assert len(field.get("description", "")) > 10, name
        assert {"type", "anyOf", "enum", "$ref"} & set(field), name
    # What the run is about, and nothing that has a sensible default.
    about = {"drop", "target", "version", "begin", "end"}
    about |= {"release", "validation_run"}
    about |= {"server", "client_id", "key_file", "key_id"}
    assert set(schema.required) <= about


@pytest.mark.parametrize("name", ["ingestion", "validation", "training", "drift", "retraining"])
def test_the_five_core_flows_can_be_started_from_a_form(name: str) -> None:
    (deployment,) = (one for one in DECLARED if one["name"] == name)

    assert set(load_flow(deployment).parameters.required) <= {"drop"}


def _require(flow: Flow[..., Any]) -> dict[str, Any]:
    """Return a value for each parameter that whoever starts the run must give."""
    values = {"integer": 1, "string": "/data/folder", "date": "2026-01-31"}
    needed = {name: flow.parameters.properties[name] for name in flow.parameters.required}
    return {name: values[one.get("format", one["type"])] for name, one in needed.items()}
