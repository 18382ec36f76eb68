"""The drift flow on a trained release, real PostgreSQL, MLflow and Prefect."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import mlflow
import numpy as np
import pytest
from prefect.exceptions import ParameterTypeError
from sqlalchemy import select
from sqlalchemy.orm import Session

from flows import drift
from flows.drift import watch_drift
from mlruns_config.manifest import RELEASE_MODEL
from monitoring.drift_reference import SCORE, draw
from serving.database.tables import DriftReport, Prediction, PredictionLabel
from serving.predictions.drift_records import sample_screenings
from serving.settings import get_settings
from tests.fixtures.drift_world import SCREENINGS, list_reports, reference, screen, watched
from tests.fixtures.trained_world import TrainedWorld
from tests.fixtures.webhook import webhook

__all__ = ["reference", "watched", "webhook"]

pytestmark = pytest.mark.usefixtures("evidently")


def label(world: TrainedWorld, happened: Callable[[int], bool], rows: int = SCREENINGS) -> None:
    """Let the outcome of some screenings be known."""
    with Session(world.engine) as session, session.begin():
        found = session.execute(select(Prediction.id, Prediction.anonymized_id).limit(rows)).all()
        for number, (prediction_id, person) in enumerate(found):
            session.add(
                PredictionLabel(
                    prediction_id=prediction_id,
                    kind="adverse_course",
                    anonymized_id=person,
                    source="observed",
                    occurred=happened(number),
                    settled_at=datetime.now(UTC),
                )
            )


@pytest.fixture
def emitted(monkeypatch) -> list[tuple[str, dict[str, object]]]:
    """What was handed to Prefect as an event."""
    heard: list[tuple[str, dict[str, object]]] = []
    monkeypatch.setattr(drift, "emit_event", lambda event, **facts: heard.append((event, facts)))
    return heard


def test_nothing_is_compared_where_drift_is_not_watched(watched, reference, monkeypatch):
    screen(watched, reference)
    monkeypatch.setenv("ENABLE_DRIFT_MONITORING", "false")
    get_settings.cache_clear()

    assert watch_drift() is None
    assert list_reports(watched) == []


def test_too_few_screenings_are_not_compared(watched, reference):
    screen(watched, reference, rows=50)
    assert watch_drift() is None
    assert list_reports(watched) == []


def test_a_begin_without_a_time_zone_is_refused():
    with pytest.raises(ParameterTypeError, match="timezone"):
        watch_drift(begin=datetime(2025, 6, 1))


def test_screenings_before_the_begin_are_not_compared(watched, reference):
    screen(watched, reference)

    assert watch_drift(begin=datetime.now(UTC)) is None
    assert list_reports(watched) == []


def test_people_like_those_of_the_training_are_no_drift(
    watched, reference, emitted, webhook, tmp_path
):
    screen(watched, reference)

    assert watch_drift() < 0.05
    (report,) = list_reports(watched)
    assert report.release_version == watched.report.release_version
    assert (report.rows_screened, report.rows_tested) == (SCREENINGS, SCREENINGS)
    assert report.scores_drifted is False
    assert report.outcomes["is_known"] is False
    assert {one["attribute"] for one in report.groups} == {"sex", "age_band", "ethnicity"}
    assert emitted == webhook.messages == []
    expect_report_without_pseudonyms(watched, report, tmp_path)


def expect_report_without_pseudonyms(world: TrainedWorld, report: DriftReport, folder) -> None:
    run = mlflow.get_run(report.run_id)
    mlflow.artifacts.download_artifacts(f"runs:/{report.run_id}/", dst_path=str(folder))
    files = {path.name: path.read_text() for path in folder.rglob("*") if path.is_file()}

    pages = {"drift.html", "drift.json", "columns.json", "outcomes.json", "summary.md"}
    assert set(files) == pages | {"summary.html"}
    assert "<h1>drift of requests against release" in files["summary.html"]
    assert json.loads(files["columns.json"]) == report.columns
    assert run.data.params["rows_screened"] == str(SCREENINGS)
    assert run.data.params["sampling"].startswith("random, about 5000 rows")
    assert run.data.metrics["drift_score"] == pytest.approx(report.drift_score)
    with Session(world.engine) as session:
        people = [one.anonymized_id for one in session.query(Prediction).limit(200)]
    assert not [name for name in people for text in files.values() if name in text]


def test_another_population_and_a_release_that_outcomes_prove_wrong_are_told_of(
    watched, reference, emitted, webhook
):
    heaviest = sorted(reference.importance, key=reference.importance.get, reverse=True)[:30]
    moved = {name: np.random.default_rng(2).normal(1e6, 60, SCREENINGS) for name in heaviest}
    screen(watched, reference, **moved)
    label(watched, lambda number: number % 2 == 0)
    score = watch_drift()
    (report,) = list_reports(watched)

    assert score == report.drift_score
    assert 0.3 < sum(reference.importance[name] for name in heaviest) <= score + 1e-9
    assert {name for name, one in report.columns.items() if one["drifted"]} >= set(heaviest)
    events, version = dict(emitted), watched.report.release_version
    assert set(events) == {"drift.detected", "performance.degraded"}
    told = events["drift.detected"]
    assert told["resource"]["prefect.resource.id"] == f"model.{RELEASE_MODEL}.{version}"
    assert told["payload"] == {
        "drift_score": score,
        "dataset": "requests",
        "alarms": report.alarms,
        "run_id": report.run_id,
    }
    assert "overall" in report.alarms
    *messages, ended = webhook.messages
    assert "flow drift completed" in ended
    assert all(f"release {version}" in message for message in messages)
    expect_outcomes_that_prove_it_wrong(watched, report)
    assert events["performance.degraded"]["payload"]["run_id"] == report.run_id
    assert any("as many outcomes as expected" in message for message in messages)


def expect_outcomes_that_prove_it_wrong(world: TrainedWorld, report: DriftReport) -> None:
    assert report.outcomes["is_known"]
    assert (report.outcomes["labels"], report.outcomes["outcomes"]) == (SCREENINGS, SCREENINGS / 2)
    assert report.outcomes["calibration_drifted"]
    assert report.outcomes["auroc_at_training"] == world.report.metrics["auroc"]
    run = mlflow.get_run(report.run_id)
    assert run.data.metrics["outcomes_auroc"] == pytest.approx(report.outcomes["auroc"])


def test_a_large_window_is_sampled_in_the_database(watched, reference):
    screen(watched, reference)
    now = datetime.now(UTC)
    with Session(watched.engine) as session:
        version = watched.report.release_version
        month = (now - timedelta(days=30), now)
        found = sample_screenings(session, *month, version, 300, "requests")
        other = sample_screenings(session, *month, version + 1, 300, "requests")
        batches = sample_screenings(session, *month, version, 300, "batches")

    assert found.screened == SCREENINGS
    assert 200 < len(found.features) == len(found.scores) < 400
    assert other.scores == []  # of another release there are inputs, and no scores
    assert batches.screened == 0


def test_a_batch_without_answers_of_the_day_raises_no_alarm(watched, reference, emitted):
    assert reference.batches is not None
    screen(watched, reference.batches, batch="2026-01-01")
    assert watch_drift() < 0.05

    (report,) = list_reports(watched)
    assert (report.dataset, report.alarms) == ("batches", [])
    assert emitted == []


@pytest.mark.nightly
def test_requests_and_batches_are_each_compared_with_what_they_would_read(
    watched, reference, emitted
):
    screen(watched, reference)
    screen(watched, reference, batch="2026-01-01")  # as if read on request
    watch_drift()

    reports = {one.dataset: one for one in list_reports(watched)}
    assert reports["requests"].alarms == []
    assert "questionnaires" in reports["batches"].alarms
    assert [facts["payload"]["dataset"] for _, facts in emitted] == ["batches"]


@pytest.mark.nightly
def test_a_device_that_counts_more_steps_raises_an_alarm_however_little_it_weighs(
    watched, reference, emitted
):
    random = np.random.default_rng(4)
    counted = {
        name: 1.3 * random.permutation(draw(summary, SCREENINGS))
        for name, summary in reference.columns.items()
        if name.startswith("steps_") and "missing" not in name
    }
    screen(watched, reference, **counted)
    score = watch_drift()

    (report,) = list_reports(watched)
    assert report.alarms == ["wearables"]
    assert score < report.threshold
    assert [event for event, _ in emitted] == ["drift.detected"]


def test_the_reference_of_a_release_is_complete_and_no_row_of_it(reference, trained_world):
    assert sum(reference.importance.values()) == pytest.approx(1)
    # The last of two years that the release was fitted on, the people who stop the fit left out.
    assert 0.4 < reference.rows / trained_world.report.metrics["rows"] < 0.6
    assert reference.score.is_known
    assert reference.people > 200
    assert set(reference.null.distances) == {*reference.columns, SCORE}
    assert set(reference.modalities.values()) == {"questionnaires", "wearables", "care", "person"}
    assert reference.batches.people > 200
    assert all(
        summary.is_known for name, summary in reference.columns.items() if "phq9_item" in name
    )
    assert max(len(summary.quantiles) for summary in reference.columns.values()) == 200
