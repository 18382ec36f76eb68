"""A candidate answers its share and no more, and never at anybody's cost."""

import time
import uuid

import pytest
from mlflow import MlflowClient
from sqlalchemy import select
from sqlalchemy.orm import Session

from mlruns_config.arms import CANDIDATE_ALIAS, MODE_TAG, SHARE_TAG, Rollout
from mlruns_config.heads import Stacker
from mlruns_config.manifest import RELEASE_MODEL
from serving.database.tables import Prediction, ReviewItem, ShadowPrediction
from serving.errors import ScoringFailedError
from serving.releases.registry import Registry
from serving.releases.rollout_evidence import observe_candidate
from serving.releases.watcher import ReleaseWatcher
from serving.scoring import assessment
from serving.scoring.loaded_release import Member
from tests.fixtures.api import HIGH_ANSWERS, LOW_ANSWERS, MemoryReader, make_headers, run_app

PATIENCE_SECONDS = 20
#: Its word differs from Production's on everybody.
OTHER_STACKER = Stacker(intercept=1.0, coefficients={"logistic_regression": 0.6})


@pytest.fixture
def roll_out(mlflow_url, releases):
    """Publish a Production release and a candidate beside it; return both versions."""
    client = MlflowClient(mlflow_url)

    def publish(mode, share, **changes):
        production = releases.publish()
        candidate = releases.publish(promote=False, **({"stacker": OTHER_STACKER} | changes))
        client.set_model_version_tag(RELEASE_MODEL, str(candidate), MODE_TAG, mode)
        client.set_model_version_tag(RELEASE_MODEL, str(candidate), SHARE_TAG, str(share))
        client.set_registered_model_alias(RELEASE_MODEL, CANDIDATE_ALIAS, str(candidate))
        return production, candidate

    yield publish
    client.delete_registered_model_alias(RELEASE_MODEL, CANDIDATE_ALIAS)


@pytest.fixture
def watch(mlflow_url):
    watchers = []

    def start(**options):
        watcher = ReleaseWatcher(Registry(mlflow_url), poll_seconds=3600, **options)
        watcher.start()
        watchers.append(watcher)
        return watcher

    yield start
    for watcher in watchers:
        watcher.stop()


def ask(client, individual, phq9=HIGH_ANSWERS):
    body = {"anonymized_id": individual, "survey_data": {"phq9": phq9}}
    return client.post("/screen", json=body, headers=make_headers())


def find_shadow(engine, answer):
    """Return the shadow row of an answer, which is written after it."""
    statement = select(ShadowPrediction).where(
        ShadowPrediction.prediction_id == uuid.UUID(answer["prediction_id"])
    )
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        with Session(engine) as session:
            if (row := session.scalars(statement).first()) is not None:
                return row
        time.sleep(0.05)
    raise AssertionError("no shadow row was written")


def fail(*_arguments):
    raise ScoringFailedError("broken by a test")


# Refusals


@pytest.mark.parametrize("share", ["2", "much", "-0.1"])
def test_a_candidate_with_an_impossible_share_answers_nobody(roll_out, watch, share):
    production, _ = roll_out("traffic", share)
    watcher = watch()

    assert watcher.candidate is None
    assert "no share" in watcher.candidate_problem.reason
    assert watcher.current.version == production


def test_a_tampered_candidate_answers_nobody_and_production_goes_on(roll_out, watch, releases):
    pin = releases.pins[0]
    broken = pin.model_copy(update={"artifacts": pin.artifacts | {"linear.json": "0" * 64}})
    production, candidate = roll_out("traffic", 1.0, members=[broken, releases.pins[1]])
    watcher = watch()

    assert watcher.candidate is None
    assert watcher.candidate_problem.version == candidate
    assert watcher.choose("a" * 32).release.version == production


def test_a_candidate_that_cannot_score_costs_nobody_an_answer(
    roll_out, settings, grant, engine, monkeypatch
):
    production, candidate = roll_out("traffic", 1.0)
    with run_app(settings, MemoryReader()) as client:
        loaded = client.app.state.services.screening.releases.candidate.release
        broken = next(iter(loaded.members.values())).session
        predict = Member.predict_many
        monkeypatch.setattr(
            Member,
            "predict_many",
            lambda self, given: fail() if self.session is broken else predict(self, given),
        )
        answer = ask(client, grant()).json()
        shadow = find_shadow(engine, answer)

    assert answer["release"]["version"] == production
    assert (shadow.release_version, shadow.error) == (str(candidate), "scoring-failed")


def test_a_failing_production_is_an_outage_but_not_for_the_crisis_rule(
    settings, production_version, grant, monkeypatch
):
    with run_app(settings, MemoryReader()) as client:
        monkeypatch.setattr(Member, "predict_many", fail)
        plain, crisis = (
            ask(client, grant(), LOW_ANSWERS),
            ask(client, grant(), [*LOW_ANSWERS[:8], 1]),
        )

    assert plain.status_code == 503
    assert plain.json()["type"] == "urn:mhras:problem:scoring-failed"
    assert (crisis.status_code, crisis.json()["risk_band"]) == (200, "critical")
    assert crisis.json()["degraded"] == ["release"]


@pytest.mark.parametrize("part", ["explain_release", "find_counterfactuals", "estimate"])
def test_whatever_part_of_a_release_fails_the_crisis_rule_answers(
    settings, production_version, grant, monkeypatch, part
):
    def break_down(*_arguments):
        raise ZeroDivisionError

    with run_app(settings, MemoryReader()) as client:
        monkeypatch.setattr(assessment, part, break_down)
        plain, crisis = (
            ask(client, grant(), LOW_ANSWERS),
            ask(client, grant(), [*LOW_ANSWERS[:8], 1]),
        )

    assert plain.json()["type"] == "urn:mhras:problem:scoring-failed"
    assert (crisis.status_code, crisis.json()["risk_band"]) == (200, "critical")


# Answers


def test_a_candidate_in_shadow_answers_nobody_and_is_written_down(
    roll_out, settings, grant, engine
):
    production, candidate = roll_out("shadow", 0)
    with run_app(settings, MemoryReader()) as client:
        answer = ask(client, grant()).json()
        shadow = find_shadow(engine, answer)

    assert answer["release"]["version"] == production
    assert (shadow.release_version, shadow.arm) == (str(candidate), "candidate")
    assert shadow.probability != pytest.approx(answer["probability"])
    assert shadow.error is None


def test_a_share_of_individuals_is_answered_by_the_candidate_always_the_same(
    roll_out, settings, grant, engine
):
    production, candidate = roll_out("traffic", 0.5)
    rollout = Rollout(candidate, "traffic", 0.5)
    individuals = [grant() for _ in range(12)]
    with run_app(settings, MemoryReader()) as client:
        answers = [ask(client, one).json() for one in [*individuals, *individuals]]

    expected = {"production": production, "candidate": candidate}
    for answer in answers:
        arm = rollout.choose_arm(answer["anonymized_id"])
        assert answer["release"]["version"] == expected[arm]
        with Session(engine) as session:
            number = uuid.UUID(answer["prediction_id"])
            assert session.get(Prediction, number).arm == arm
    assert {answer["release"]["version"] for answer in answers} == {production, candidate}


def test_going_back_to_a_kept_release_downloads_nothing(watch, releases, monkeypatch):
    first = releases.publish()
    watcher = watch(cache_size=2)
    releases.publish()
    watcher.refresh()
    releases.promote(first)
    downloads = []
    monkeypatch.setattr(Registry, "download", lambda *arguments: downloads.append(arguments))
    watcher.refresh()

    assert (watcher.current.version, downloads) == (first, [])


def test_no_more_releases_are_kept_than_asked_for(watch, releases):
    releases.publish()
    watcher = watch(cache_size=2)
    for _ in range(3):
        latest = releases.publish()
        watcher.refresh()

    assert len(watcher.cached_versions) == 2
    assert watcher.cached_versions[-1] == watcher.current.version == latest


# What is seen of a candidate


def test_the_measures_compare_both_releases_on_the_same_individuals(
    roll_out, settings, grant, engine
):
    _, candidate = roll_out("traffic", 0.5)
    with run_app(settings, MemoryReader()) as client:
        answers = [ask(client, grant(), [1] * 8 + [0]).json() for _ in range(12)]
        shadows = {one["prediction_id"]: find_shadow(engine, one) for one in answers}
    with Session(engine) as session, session.begin():
        decide_reviews(session, answers, candidate)
        observed = observe_candidate(session, candidate)

    differences = [abs(a["model_score"] - shadows[a["prediction_id"]].risk_score) for a in answers]
    assert observed.screenings == 12
    assert observed.measures["error_rate"] == 0
    assert observed.measures["score_shift"] == pytest.approx(sum(differences) / 12, abs=0.01)
    assert observed.measures["review_share_gain"] == pytest.approx(
        count_gain(answers, shadows, candidate), abs=0.01
    )
    assert observed.measures["override_rate_gain"] == 1.0
    by_candidate = sum(answer["release"]["version"] == candidate for answer in answers)
    assert observed.decisions == min(by_candidate, 12 - by_candidate)


def count_gain(answers, shadows, candidate):
    """Return how much more of the individuals the candidate sends to review."""
    gain = 0
    for answer in answers:
        codes = {reason["code"] for reason in answer["review_reasons"]}
        own, other = bool(codes & {"score", "abstention"}), shadows[answer["prediction_id"]]
        by_candidate = answer["release"]["version"] == candidate
        gain += (own - other.needs_review) if by_candidate else (other.needs_review - own)
    return gain / len(answers)


def decide_reviews(session, answers, candidate):
    """Override every case of the candidate, agree with every one of Production."""
    for answer in answers:
        by_candidate = answer["release"]["version"] == candidate
        now = answer["created_at"]
        session.add(
            ReviewItem(
                id=uuid.uuid4(),
                prediction_id=uuid.UUID(answer["prediction_id"]),
                anonymized_id=answer["anonymized_id"],
                created_at=now,
                due_at=now,
                priority="low",
                reasons=["score"],
                status="decided",
                decision="override" if by_candidate else "agree",
            )
        )
    session.flush()
