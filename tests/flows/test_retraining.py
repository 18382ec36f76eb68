"""Retraining: only where drift has lasted, not again at once, and never past Staging by itself."""

import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import mlflow
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import delete
from sqlalchemy.orm import Session

from flows.comparison import UnknownReleaseError, compare_release
from flows.drift import DRIFT_DETECTED
from flows.retraining import ACTOR, COOL_DOWN_DAYS, judge_drift, judge_time, retrain
from flows.runtime import releases
from mlruns_config.registry.rollout import find_rollout, stop_rollout
from mlruns_config.registry.transitions import (
    find_production,
    find_version,
    open_registry,
    read_ledger,
    read_metrics,
)
from serving.database.tables import DriftReport
from tests.fixtures.trained_world import SEED, TABULAR_MEMBERS, TrainedWorld
from tests.fixtures.webhook import webhook

__all__ = ["webhook"]

NOW = datetime.now(UTC)
PRODUCTION = 4
COOL_DOWN = timedelta(days=COOL_DOWN_DAYS)


def make_report(
    score: float, version: int = PRODUCTION, days_ago: int = 0, dataset: str = "requests"
) -> DriftReport:
    return DriftReport(
        id=uuid.uuid4(),
        created_at=NOW - timedelta(days=days_ago),
        release_version=version,
        window_begin=NOW - timedelta(days=30 + days_ago),
        window_end=NOW - timedelta(days=days_ago),
        rows_screened=1000,
        rows_tested=1000,
        drift_score=score,
        drifted_share=score,
        missing_drifted_share=0.0,
        scores_drifted=None,
        threshold=0.3,
        dataset=dataset,
        alarms=["questionnaires"] if score >= 0.3 else [],
        run_id="a" * 32,
        columns={},
    )


@pytest.mark.parametrize(
    ("scores", "reason"),
    [
        ([], "the newest drift report does not breach"),
        ([0.29, 0.9, 0.9, 0.9, 0.9], "the newest drift report does not breach"),
        ([0.9], "1 of the last 5 drift reports breach, 2 must"),
        ([0.9, 0.1, 0.1, 0.1, 0.1], "1 of the last 5 drift reports breach, 2 must"),
        ([0.9, 0.1, 0.1, 0.1, 0.1, 0.9], "1 of the last 5 drift reports breach, 2 must"),
        ([0.3, 0.1, 0.1, 0.1, 0.3], None),
        ([0.9, 0.9], None),
    ],
)
def test_the_newest_and_two_of_five_reports_must_breach(scores, reason):
    reports = [make_report(score, days_ago=30 * n) for n, score in enumerate(scores)]
    assert judge_drift(reports, PRODUCTION) == reason


def test_requests_and_batches_are_counted_apart():
    reports = [make_report(0.9), make_report(0.9, days_ago=30, dataset="batches")]
    assert "1 of the last 5" in str(judge_drift(reports, PRODUCTION))
    calm = make_report(0.0, dataset="requests")
    lasting = [make_report(0.9, days_ago=30 * n, dataset="batches") for n in range(2)]
    assert judge_drift([calm, *lasting], PRODUCTION) is None


def test_an_alarm_of_columns_of_little_weight_is_a_breach():
    device = [make_report(0.05, days_ago=30 * n) for n in range(2)]
    for report in device:
        report.alarms = ["wearables"]
    assert judge_drift(device, PRODUCTION) is None


def test_breaches_in_windows_that_overlap_count_once():
    daily = [make_report(0.9, days_ago=n) for n in range(30)]
    assert "1 of the last 5" in str(judge_drift(daily, PRODUCTION))
    assert judge_drift([*daily, make_report(0.9, days_ago=30)], PRODUCTION) is None


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=8))
def test_reports_against_an_earlier_release_call_for_nothing(found):
    reports = [
        make_report(score, PRODUCTION if own else 3, days_ago=30 * n)
        for n, (score, own) in enumerate(found)
    ]
    acts = judge_drift(reports, PRODUCTION) is None
    breaches = [own and score >= 0.3 for score, own in found[:5]]

    assert acts == (sum(breaches) >= 2 and breaches[0])
    assert judge_drift(reports, None) is not None


@pytest.mark.parametrize(
    ("ago", "waits"), [(timedelta(hours=1), True), (COOL_DOWN, False), (2 * COOL_DOWN, False)]
)
def test_a_second_retraining_waits_until_the_first_can_show(ago, waits):
    assert (judge_time(datetime.now(UTC) - ago, COOL_DOWN) is not None) == waits
    assert judge_time(None, COOL_DOWN) is None


@pytest.fixture
def world(in_trained_world: TrainedWorld):
    yield in_trained_world
    with Session(in_trained_world.engine) as session, session.begin():
        session.execute(delete(DriftReport))


@pytest.fixture
def emitted(monkeypatch) -> list[tuple[str, dict]]:
    """What was handed to Prefect as an event."""
    heard: list[tuple[str, dict]] = []
    monkeypatch.setattr(releases, "emit_event", lambda event, **facts: heard.append((event, facts)))
    return heard


def test_drift_that_has_lasted_waits_for_the_cool_down(world, caplog):
    version = world.report.release_version
    with Session(world.engine) as session, session.begin():
        session.add_all([make_report(0.9, version, days_ago) for days_ago in (0, 30)])

    assert retrain() is None
    assert "less than 7 days ago" in caplog.text


@pytest.mark.nightly
def test_a_challenger_shadows_production_and_is_announced(world, emitted, webhook):
    report = retrain(reason="a test", force=True, members=TABULAR_MEMBERS, seed=SEED + 1)
    registry = open_registry(world.tracking_uri, world.engine)
    try:
        assert report.stage == "Staging"
        assert find_production(registry) == world.report.release_version
        assert find_rollout(registry).version == report.release_version
        steps = read_ledger(registry, report.release_version)
        assert [(one.to_stage, one.actor) for one in steps] == [
            ("Staging", ACTOR),
            ("shadow", ACTOR),
        ]
        compared = compare_release(report.release_version)
        assert compared.production == world.report.release_version
        assert compared.to_metrics().items() <= report.metrics.items()  # asked again, the same
        known = find_version(registry, report.release_version)
        assert read_metrics(registry, known)["auroc_vs_production_low"] >= -0.2
        own = known.run_id, "evaluation/versus_production.md"
        assert f"release {compared.production} (Production)" in mlflow.artifacts.load_text(
            f"runs:/{'/'.join(own)}"
        )
        assert compare_release(compared.production) is None  # with itself
        with pytest.raises(UnknownReleaseError, match="no version 99"):
            compare_release(99)
        ((event, facts),) = emitted
        assert (event, facts["payload"]["reason"]) == ("ModelRetrained", "a test")
        assert webhook.messages[0] == (
            f"MHRAS: release {report.release_version} was trained (a test) and shadows Production"
        )
        assert retrain(force=True) is None  # while a candidate is rolled out
    finally:
        stop_rollout(registry, "a test", "the test is over")


def test_the_event_of_the_drift_flow_starts_it():
    declared = yaml.safe_load((Path(__file__).parents[2] / "prefect.yaml").read_text())
    (deployment,) = [one for one in declared["deployments"] if one["name"] == "retraining"]
    (trigger,) = deployment["triggers"]

    assert trigger["expect"] == [DRIFT_DETECTED]
    assert trigger["match"] == {"prefect.resource.id": "model.mhras-risk.*"}
    assert set(trigger["parameters"]) <= set(retrain.parameters.properties)
