"""Which releases answer, and an admin's changes of that through the real registry."""

from functools import partial

import pytest
from sqlalchemy import text

from serving.roles import Role
from tests.fixtures.api import make_headers, make_settings, run_app

ADMIN = partial(make_headers, Role.ADMIN)


def read_ledger(engine):
    query = text("SELECT version, to_stage, actor, result FROM promotion_ledger ORDER BY id")
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(query)]


@pytest.mark.parametrize(
    "body",
    [
        {"action": "shadow", "reason": "a test"},
        {"action": "share", "reason": "a test"},
        {"action": "share", "share": 1.5, "reason": "a test"},
        {"action": "shadow", "version": 0, "reason": "a test"},
        {"action": "promote", "version": 1, "reason": "a test"},
        {"action": "stop", "reason": "  "},
        {"action": "stop"},
    ],
)
def test_a_change_that_is_not_whole_is_refused(client, body):
    assert client.post("/models/rollout", json=body, headers=ADMIN()).status_code == 422


@pytest.mark.nightly
def test_a_refusal_of_the_registry_is_answered_and_kept_in_the_ledger(client, engine):
    body = {"action": "shadow", "version": 999, "reason": "-a reason with a dash"}
    response = client.post("/models/rollout", json=body, headers=ADMIN())

    assert response.status_code == 409
    assert "has no version 999" in response.json()["detail"]
    assert read_ledger(engine)[-1] == (999, "shadow", "clinician_001", "refused")


def test_a_service_that_may_only_read_the_registry_changes_nothing(
    database_url, mlflow_url, production_version, engine
):
    login = {"mlflow_tracking_username": "reviewer", "mlflow_tracking_password": "secret"}
    before = read_ledger(engine)
    with run_app(make_settings(database_url, mlflow_url, **login), None) as client:
        body = {"reason": "scores shifted"}
        response = client.post("/models/rollback", json=body, headers=ADMIN())

    assert response.status_code == 409
    assert response.json()["detail"] == "this service may only read the registry"
    assert read_ledger(engine) == before


@pytest.mark.nightly
def test_a_registry_that_is_away_is_said_so_without_its_address(database_url, engine):
    settings = make_settings(database_url, "http://127.0.0.1:1")
    with run_app(settings, None) as client:
        body = {"action": "stop", "reason": "a test"}
        response = client.post("/models/rollout", json=body, headers=ADMIN())

    assert response.status_code == 409
    assert "127.0.0.1" not in response.text


@pytest.mark.nightly
def test_an_admin_rolls_a_candidate_out_and_stops_it(client, releases, engine):
    candidate = releases.publish(promote=False)
    releases.stage(candidate)
    begin = {"action": "shadow", "version": candidate, "reason": "ready to compare"}
    started = client.post("/models/rollout", json=begin, headers=ADMIN())
    client.app.state.services.screening.releases.refresh()
    seen = client.get("/models", headers=ADMIN()).json()
    end = {"action": "stop", "reason": "seen enough"}
    stopped = client.post("/models/rollout", json=end, headers=ADMIN())
    client.app.state.services.screening.releases.refresh()

    assert started.json()["message"] == f"mhras-risk {candidate} scores in shadow"
    assert seen["candidate"]["release"]["version"] == candidate
    assert (seen["candidate"]["mode"], seen["candidate"]["share"]) == ("shadow", 0)
    assert seen["candidate"]["breaches"] == []
    assert seen["ledger"][0]["reason"] == "ready to compare"
    assert stopped.status_code == 200
    assert client.get("/models", headers=ADMIN()).json()["candidate"] is None
    assert [row[1:] for row in read_ledger(engine)[-2:]] == [
        ("shadow", "clinician_001", "promoted"),
        ("stopped", "clinician_001", "promoted"),
    ]


def test_the_models_of_a_worker_are_shown_by_version(client, releases):
    production = client.get("/models", headers=make_headers(Role.DATA_SCIENTIST)).json()

    loaded = client.app.state.services.screening.releases.current
    assert production["production"]["version"] == loaded.version
    assert loaded.version in production["cached_versions"]
    weights = {one["name"]: one["weight"] for one in production["production"]["members"]}
    assert weights == {"logistic_regression": 0.6, "lightgbm": 0.5}
    assert production["problems"] == []
