"""GET /drift and mhras_drift_score: what the drift flow found."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import delete
from sqlalchemy.orm import Session

from serving.database.tables import DriftReport
from serving.queue_metrics import QueueMetrics
from serving.roles import Role
from tests.fixtures.api import make_headers

NOW = datetime(2026, 1, 31, tzinfo=UTC)


@pytest.fixture(autouse=True)
def no_reports(engine):
    yield
    with Session(engine) as session, session.begin():
        session.execute(delete(DriftReport))


def report(engine, drift_score: float, days_ago: int = 0, **changes) -> None:
    found = DriftReport(
        id=uuid.uuid4(),
        created_at=NOW - timedelta(days=days_ago),
        release_version=3,
        window_begin=NOW - timedelta(days=30 + days_ago),
        window_end=NOW - timedelta(days=days_ago),
        rows_screened=100_000,
        rows_tested=5000,
        drift_score=drift_score,
        drifted_share=0.2,
        missing_drifted_share=0.1,
        scores_drifted=None,
        threshold=0.3,
        run_id="a" * 32,
        columns={"steps": {"value": 0.4, "drifted": True}},
        **{"dataset": "requests", "alarms": ["wearables"], **changes},
    )
    with Session(engine) as session, session.begin():
        session.add(found)


def ask(client, **query):
    return client.get("/drift", params=query, headers=make_headers(Role.DATA_SCIENTIST))


@pytest.mark.parametrize("count", [0, 101, "many"])
def test_an_unusable_count_is_refused(client, count):
    assert ask(client, count=count).status_code == 422


def test_before_any_report_there_is_nothing_to_tell(client):
    assert ask(client).json() == {
        "enabled": True,
        "threshold": 0.3,
        "latest": None,
        "history": [],
    }


def test_the_newest_report_comes_first_and_with_its_columns(client, engine):
    report(engine, 0.1, days_ago=2)
    report(engine, 0.45)
    report(engine, 0.2, days_ago=1)
    answer = ask(client, count=2).json()

    assert answer["latest"]["drift_score"] == 0.45
    assert (answer["latest"]["dataset"], answer["latest"]["alarms"]) == ("requests", ["wearables"])
    assert answer["latest"]["columns"] == {"steps": {"value": 0.4, "drifted": True}}
    assert [one["drift_score"] for one in answer["history"]] == [0.45, 0.2]
    assert "columns" not in answer["history"][0]


def test_the_metric_is_the_newest_score(client, engine):
    report(engine, 0.1, days_ago=2)
    report(engine, 0.45)
    QueueMetrics(engine).refresh()  # the worker's own looks every few seconds

    assert 'mhras_drift_score{dataset="requests"} 0.45' in client.get("/metrics").text
    assert 'mhras_drift_alarms{dataset="requests"} 1.0' in client.get("/metrics").text


def test_requests_and_batches_have_each_a_metric(client, engine):
    report(engine, 0.45, days_ago=1)
    report(engine, 0.02, dataset="batches", alarms=[])
    QueueMetrics(engine).refresh()
    metrics = client.get("/metrics").text

    assert 'mhras_drift_score{dataset="requests"} 0.45' in metrics
    assert 'mhras_drift_score{dataset="batches"} 0.02' in metrics
    assert 'mhras_drift_alarms{dataset="batches"} 0.0' in metrics


def test_outcomes_and_groups_are_told(client, engine):
    group = {"attribute": "sex", "group": "female", "share": 0.6, "mix_drifted": True}
    found = {"is_known": True, "auroc": 0.712, "ratio": 1.31}
    report(engine, 0.1, outcomes=found, groups=[group])
    QueueMetrics(engine).refresh()
    latest = ask(client).json()["latest"]
    metrics = client.get("/metrics").text

    assert (latest["outcomes"], latest["groups"]) == (found, [group])
    assert 'mhras_outcome_auroc{dataset="screenings"} 0.712' in metrics
    assert 'mhras_calibration_ratio{dataset="screenings"} 1.31' in metrics


def test_what_outcomes_do_not_say_yet_is_no_number(client, engine):
    report(engine, 0.1, outcomes={"is_known": False})
    QueueMetrics(engine).refresh()

    assert 'mhras_outcome_auroc{dataset="screenings"} NaN' in client.get("/metrics").text


def test_where_drift_is_not_watched_the_metric_says_nothing_new(client, engine):
    report(engine, 0.77)
    QueueMetrics(engine, watches_drift=False).refresh()

    lines = client.get("/metrics").text.splitlines()
    assert not [one for one in lines if one.startswith("mhras_drift_score") and "0.77" in one]
