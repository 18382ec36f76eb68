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
from flows.datasets.unseen import find_newcomers
from flows.drift import DRIFT_DETECTED
from flows.evaluation.recalibration import Recalibration
from flows.newest_outcomes import assess_production
from flows.recalibration import Offered, extend_lineage
from flows.retraining import ACTOR, COOL_DOWN_DAYS, judge_drift, judge_time, retrain
from flows.runtime import releases
from mlruns_config.gates import load_gates
from mlruns_config.manifest import RELEASE_MODEL
from mlruns_config.registry import transitions
from mlruns_config.registry.rollout import find_rollout, stop_rollout
from mlruns_config.registry.transitions import (
    find_production,
    find_version,
    open_registry,
    read_ledger,
    read_manifest,
    read_metrics,
)
from serving.database.tables import DriftReport
from tests.fixtures.newer_outcomes import land_newer_outcomes, make_more_frequent, make_unrelated
from tests.fixtures.trained_world import (
    GATES,
    SEED,
    TABULAR_MEMBERS,
    TrainedWorld,
    forget_settings,
)
from tests.fixtures.webhook import webhook

__all__ = ["webhook"]

NOW = datetime.now(UTC)
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
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


@pytest.mark.parametrize(
    ("offered_until", "until"), [("2025-12-01", "2025-12-01"), ("2025-03-01", "2025-09-20")]
)
def test_a_recalibration_moves_the_last_day_of_a_release_never_back(offered_until, until):
    offer = Recalibration(
        release=PRODUCTION,
        kind="intercept",
        intercept=-0.6,
        slope=1.0,
        simulated=False,
        before={},
        metrics={},
    )
    before = {"fitted_until": "2025-09-20", "git_commit": "a"}
    after = extend_lineage(before, Offered(offer, "a test", {}, offered_until))

    assert (after["fitted_until"], after["git_commit"]) == (until, "a")
    assert extend_lineage(before, Offered(offer, "a test", {}))["fitted_until"] == "2025-09-20"


@pytest.fixture
def enter(monkeypatch):
    """Set this process's environment, and gates as wide as a small world needs, for one test."""
    monkeypatch.setattr(transitions, "load_gates", lambda: load_gates(GATES))
    yield lambda world: world.enter(monkeypatch)
    forget_settings()


def test_without_outcomes_of_later_days_a_new_release_is_trained(world):
    newest = assess_production.fn()
    assert newest.take_offer() is None
    assert newest.choice.why.startswith("0 labelled index dates are later than 2025-09-")


def test_where_the_ranking_is_lost_a_new_release_is_trained(world, enter, tmp_path):
    enter(land_newer_outcomes(world, tmp_path, make_unrelated))
    newest = assess_production.fn()
    assert newest.take_offer() is None
    assert newest.choice.why.startswith("Production ranks its newest outcomes worse (AUROC 0.")


def test_people_who_landed_later_are_newcomers(world):
    made_at = find_making(world)
    assert find_newcomers(world.lake_url, made_at).is_empty()
    assert find_newcomers(world.lake_url, LONG_AGO).len() > 300


def find_making(world: TrainedWorld) -> datetime:
    registry = open_registry(world.tracking_uri, world.engine)
    return read_manifest(registry, world.report.release_version).created_at


def test_where_only_the_calibration_is_lost_production_recalibrated_shadows_it(
    world, enter, emitted, webhook, tmp_path
):
    enter(land_newer_outcomes(world, tmp_path, make_more_frequent))
    production = world.report.release_version
    registry = open_registry(world.tracking_uri, world.engine)
    assert assess_production.fn().choice.recalibrates
    report = retrain(reason="a test", force=True, members=TABULAR_MEMBERS)
    version = report.release_version
    try:
        assert find_production(registry) == production
        assert find_rollout(registry).version == version
        manifest, original = (read_manifest(registry, one) for one in (version, production))
        assert manifest.lineage["recalibration"]["of_release"] == production
        assert manifest.members == original.members
        assert manifest.calibration != original.calibration
        # What it is recalibrated on is not new to it.
        assert manifest.lineage["fitted_until"] > original.lineage["fitted_until"]
        metrics = read_metrics(registry, find_version(registry, version))
        assert 0.8 < metrics["observed_over_expected"] < 1.25
        assert metrics["compared_with_release"] == production
        assert metrics["brier_vs_production"] < 0
        assert abs(metrics["auroc_vs_production"]) < 0.02
        # The order of people is the one that was evaluated.
        assert metrics["auroc_low"] == world.report.metrics["auroc_low"]
        steps = read_ledger(registry, version)
        assert [(one.to_stage, one.actor) for one in steps] == [
            ("Staging", ACTOR),
            ("shadow", ACTOR),
        ]
        assert all("a test; recalibrated: Production ranks its" in one.reason for one in steps)
        card = mlflow.artifacts.load_text(f"runs:/{report.run_id}/model_card.md")
        assert f"**Release {production}, recalibrated on the newest labelled outcomes" in card
        assert "Reason: a test; recalibrated: Production ranks its newest" in card
        measured = f"runs:/{report.run_id}/evaluation/production_on_newest_outcomes.md"
        assert "| observed_over_expected | 1." in mlflow.artifacts.load_text(measured)
        ((event, facts),) = emitted
        assert (event, facts["payload"]["recalibrated"]) == ("ModelRetrained", True)
        announced = (
            f"MHRAS: release {version} shadows Production (a test); recalibrated: Production"
        )
        assert any(message.startswith(announced) for message in webhook.messages)
    finally:
        stop_rollout(registry, "a test", "the test is over")
        registry.client.delete_model_version(RELEASE_MODEL, str(version))


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
        assert not facts["payload"]["recalibrated"]
        why = "a test; newly trained: 0 labelled index dates are later than"
        assert all(why in one.reason for one in steps)
        card = mlflow.artifacts.load_text(f"runs:/{report.run_id}/model_card.md")
        assert f"Reason: {why}" in card
        assert webhook.messages[0].startswith(
            f"MHRAS: release {report.release_version} shadows Production (a test); newly trained: 0"
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
