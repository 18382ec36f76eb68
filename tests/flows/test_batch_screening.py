"""Everybody who consents is screened once a batch, as serving would, whatever cuts a run off."""

import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from feature_repo.online_store import REPOSITORY
from feature_repo.pseudonyms import BUCKET_COUNT, assign_bucket
from feature_repo.survey_history import survey_history
from flows import batch_screening
from flows.batch_screening import BatchIncompleteError, BatchNameError, screen_everybody
from flows.lake.consents import page_consenting, read_consented_types
from serving.app import create_app
from serving.auth.tokens import issue_token
from serving.database.tables import AuditRow, Consent, Prediction, ReviewItem
from serving.errors import ScoringFailedError
from serving.roles import Role
from serving.settings import get_settings
from tests.fixtures.trained_world import TrainedWorld
from tests.fixtures.world_server import served_world

__all__ = ["served_world"]

BUCKET = 0


@pytest.fixture
def world(served_world: TrainedWorld, monkeypatch) -> Iterator[TrainedWorld]:
    """The world with its first bucket to be screened, without predictions before and after."""
    monkeypatch.setattr(batch_screening, "BUCKET_COUNT", BUCKET + 1)
    monkeypatch.setattr(batch_screening, "PAGE_SIZE", 7)
    monkeypatch.setattr(
        batch_screening, "screen_bucket", batch_screening.screen_bucket.with_options(retries=0)
    )
    yield served_world
    with Session(served_world.engine) as session, session.begin():
        for table in (Prediction, ReviewItem):
            session.execute(delete(table))


@pytest.fixture
def newcomer(world: TrainedWorld) -> Iterator[str]:
    """An individual of the bucket who has just consented, and of whom nothing is stored."""
    person = "ffff" + uuid.uuid4().hex[4:]
    person = person[:3] + f"{BUCKET:x}" + person[4:]
    now = datetime.now(UTC)
    with Session(world.engine) as session, session.begin():
        consent = Consent(
            anonymized_id=person,
            granted_at=now - timedelta(hours=1),
            expires_at=now + timedelta(days=9),
            data_types=["survey"],
            purposes=["screening"],
            key_id="00000000",
        )
        session.add(consent)
    yield person
    with Session(world.engine) as session, session.begin():
        session.execute(delete(Consent).where(Consent.anonymized_id == person))


def list_consenting(world: TrainedWorld) -> set[str]:
    frame = read_consented_types(world.engine, datetime.now(UTC), ["screening"])
    people = frame["anonymized_id"].to_list()
    return {one for one in people if assign_bucket(one) == BUCKET}


def read_predictions(world: TrainedWorld, batch: str) -> list[Prediction]:
    with Session(world.engine) as session:
        return list(session.scalars(select(Prediction).where(Prediction.batch == batch)))


def find_people(world: TrainedWorld, batch: str) -> set[str]:
    return {one.anonymized_id for one in read_predictions(world, batch)}


def list_items(world: TrainedWorld, person: str) -> list[ReviewItem]:
    with Session(world.engine) as session:
        return list(session.scalars(select(ReviewItem).where(ReviewItem.anonymized_id == person)))


def withdraw(world: TrainedWorld, person: str) -> None:
    with Session(world.engine) as session, session.begin():
        ended = update(Consent).where(Consent.anonymized_id == person)
        session.execute(ended.values(withdrawn_at=datetime.now(UTC)))


def answer_today(person: str, **answers: float) -> None:
    """Store a PHQ-9 answered yesterday, as a features run would have."""
    from feature_repo.feast_library import FeatureStore

    now = datetime.now(UTC)
    row = {feature.name: [float("nan")] for feature in survey_history.features}
    items = {f"stored_phq9_item_{n}": [0.0] for n in range(1, 10)}
    yesterday = {"stored_phq9_at": [now.timestamp() // 86400 - 1], "stored_phq9_total": [1.0]}
    changed = {name: [value] for name, value in answers.items()}
    moments = {"event_timestamp": [now], "created_timestamp": [now]}
    frame = pd.DataFrame({"anonymized_id": [person], **row, **items, **yesterday, **changed})
    FeatureStore(repo_path=str(REPOSITORY)).write_to_online_store(
        "survey_history", frame.assign(**moments)
    )


# Refusals


@pytest.mark.parametrize("name", ["two words", "a/b", "x" * 65, "'; --", "-first"])
def test_a_batch_without_a_usable_name_is_not_begun(world, name):
    with pytest.raises(BatchNameError):
        screen_everybody(name)


def test_without_consent_nobody_is_screened(world, newcomer):
    answer_today(newcomer)
    withdraw(world, newcomer)
    screen_everybody("a")

    assert newcomer not in find_people(world, "a")


def test_a_consent_withdrawn_during_the_run_binds(world, newcomer, monkeypatch):
    answer_today(newcomer)
    screen = batch_screening.screen_stored

    def screen_after_withdrawal(person, *arguments):
        if person == newcomer:
            withdraw(world, newcomer)
        return screen(person, *arguments)

    monkeypatch.setattr(batch_screening, "screen_stored", screen_after_withdrawal)
    counts = screen_everybody("a")

    assert newcomer not in find_people(world, "a")
    assert counts.consent_changed == 1
    assert counts.screened > 0


# Screenings


def test_everybody_who_consents_is_answered_once_with_record_and_review(world, newcomer):
    answer_today(newcomer, stored_phq9_item_9=1.0)
    counts = screen_everybody("once")
    predictions = read_predictions(world, "once")
    people = Counter(one.anonymized_id for one in predictions)

    assert counts.screened == len(predictions) > 15
    assert counts.screened + counts.without_data == len(list_consenting(world))
    assert set(people.values()) == {1}
    assert {one.release_version for one in predictions} == {str(world.report.release_version)}
    with Session(world.engine) as session:
        audited = session.scalars(select(AuditRow).where(AuditRow.request_id == "batch:once")).all()
        queued = session.scalars(select(ReviewItem.prediction_id)).all()
    assert Counter(one.anonymized_id for one in audited) == people
    assert {(one.user_id, one.user_role) for one in audited} == {("batch screening flow", "flow")}
    assert set(queued) == {one.id for one in predictions if one.needs_review} != set()


def test_serving_would_have_said_the_same(world):
    screen_everybody("a")
    settings = get_settings()
    token = issue_token(
        settings.jwt_secret_key.get_secret_value(), "dr.who", Role.CLINICIAN, timedelta(minutes=5)
    )
    with TestClient(create_app(settings)) as client:
        for one in read_predictions(world, "a")[:5]:
            body = {"anonymized_id": one.anonymized_id}
            said = client.post("/screen", json=body, headers={"Authorization": f"Bearer {token}"})
            answer = said.json()
            assert answer["risk_score"] == one.risk_score
            assert answer["probability"] == pytest.approx(one.probability, abs=1e-6)
            assert answer["reasons"] == one.answer["reasons"]
            assert answer["missing_data"] == one.answer["missing_data"]


def test_the_same_batch_again_adds_nobody_and_another_adds_everybody(world):
    first = screen_everybody("a")
    again = screen_everybody("a")

    assert (again.screened, again.screened_before) == (0, first.screened)
    assert screen_everybody("b").screened == first.screened
    assert find_people(world, "a") == find_people(world, "b")


def test_a_run_that_was_cut_off_is_continued(world, monkeypatch):
    write, written = batch_screening.write_records, []

    def write_once(engine, records):
        if written:
            raise ConnectionError("cut off")
        written.extend(records)
        return write(engine, records)

    with monkeypatch.context() as patch:
        patch.setattr(batch_screening, "write_records", write_once)
        with pytest.raises(ConnectionError):
            screen_everybody("a")
    assert len(read_predictions(world, "a")) == len(written) > 0
    counts = screen_everybody("a")

    assert counts.screened_before == len(written)
    assert len(find_people(world, "a")) == len(read_predictions(world, "a"))
    assert counts.screened + counts.screened_before == len(find_people(world, "a"))


def test_whom_nothing_is_stored_of_is_counted_and_not_queued(world, newcomer):
    counts = screen_everybody("a")

    assert counts.without_data >= 1
    assert newcomer not in find_people(world, "a")


def test_an_answer_to_item_9_that_landed_lately_goes_to_a_person(world, newcomer):
    answer_today(newcomer, stored_phq9_item_9=1.0)
    screen_everybody("a")
    (prediction,) = (one for one in read_predictions(world, "a") if one.anonymized_id == newcomer)

    assert prediction.risk_band == "critical"
    assert "stored_crisis_item" in prediction.review_reasons
    assert set(prediction.inputs["request"]) == {"index_day"}


def test_who_waits_for_a_person_already_is_answered_and_not_queued_again(world, newcomer):
    answer_today(newcomer, stored_phq9_item_9=1.0)
    first, again = screen_everybody("a"), screen_everybody("b")

    assert newcomer in find_people(world, "b")
    assert len(list_items(world, newcomer)) == 1
    assert first.waiting_already == 0 < again.waiting_already <= again.screened


@pytest.mark.parametrize(
    "otherwise",
    [{"priority": "high"}, {"reasons": ["score"]}, {"status": "decided"}],
    ids=["less urgent", "for another reason", "decided"],
)
def test_what_no_open_item_covers_is_queued_again(world, newcomer, otherwise):
    answer_today(newcomer, stored_phq9_item_9=1.0)
    screen_everybody("a")
    with Session(world.engine) as session, session.begin():
        (item,) = list_items(world, newcomer)
        session.execute(update(ReviewItem).where(ReviewItem.id == item.id).values(**otherwise))
    screen_everybody("b")

    assert len(list_items(world, newcomer)) == 2


def test_who_cannot_be_scored_is_told_of_and_tried_again(world, monkeypatch):
    score, failing = batch_screening.assess_or_leave_to_rules, iter([True])

    def fail_once(*arguments):
        if next(failing, False):
            raise ScoringFailedError("broken by a test")
        return score(*arguments)

    monkeypatch.setattr(batch_screening, "assess_or_leave_to_rules", fail_once)
    with pytest.raises(BatchIncompleteError, match="1 individuals"):
        screen_everybody("a")

    assert screen_everybody("a").screened == 1


def test_pages_hold_each_individual_of_their_bucket_once(world):
    everybody = read_consented_types(world.engine, datetime.now(UTC), ["screening"])
    paged = [
        one
        for bucket in range(BUCKET_COUNT)
        for page in page_consenting(world.engine, bucket, "screening", 5)
        for one in page
        if assign_bucket(one) == bucket
    ]

    assert sorted(paged) == sorted(everybody["anonymized_id"].to_list())
