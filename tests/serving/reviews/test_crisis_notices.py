"""Notices of crises: written with the crisis, sent at least once, retried, and of three facts."""

import time
import uuid
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from sqlalchemy import create_engine, select, text, update
from sqlalchemy.orm import Session

from serving.database.tables import CrisisNotice, ReviewItem
from serving.reviews.crisis_notices import (
    FIRST_WAIT,
    LONGEST_WAIT,
    NoticeSender,
    find_wait,
    send_next,
)
from tests.fixtures.api import CLINICIAN, HIGH_ANSWERS, LOW_ANSWERS, read_rows
from tests.fixtures.webhook import run_webhook

CRISIS = [0, 0, 0, 0, 0, 0, 0, 0, 3]


@pytest.fixture
def webhook():
    with run_webhook() as running:
        yield running


@pytest.fixture
def queue_crisis(screen, grant, engine):
    """Screen a new person with the answers; return the review item and its notice, if any."""
    with Session(engine) as session, session.begin():
        session.execute(update(CrisisNotice).values(state="dropped"))

    def queue(answers=CRISIS):
        person = grant("survey")
        screen(person, answers).raise_for_status()
        item = next(iter(read_rows(engine, ReviewItem, person)), None)
        return item, item and read_notice(engine, item.id)

    return queue


def read_notice(engine, review_id):
    with Session(engine) as session:
        return session.get(CrisisNotice, review_id)


def send_all(engine, url):
    with httpx.Client(trust_env=False, timeout=1) as client:
        while send_next(engine, client, url):
            pass


def test_a_crisis_leaves_a_notice_in_its_own_transaction(queue_crisis):
    item, notice = queue_crisis()

    assert (notice.state, notice.level, notice.due_at) == ("waiting", "critical", item.due_at)


@pytest.mark.parametrize("answers", [LOW_ANSWERS, HIGH_ANSWERS])
def test_what_is_no_crisis_leaves_none(queue_crisis, answers):
    assert queue_crisis(answers)[1] is None


def test_a_notice_that_cannot_be_written_takes_the_screening_with_it(
    screen, grant, engine, breaking_trigger
):
    breaking_trigger(
        "crisis_notices",
        "CREATE TRIGGER broken BEFORE INSERT ON {table} "
        "FOR EACH ROW EXECUTE FUNCTION break_write()",
    )
    person = grant("survey")

    assert screen(person, CRISIS).status_code >= 500
    assert read_rows(engine, ReviewItem, person) == []


def test_a_notice_says_three_facts_and_nothing_about_the_person(engine, queue_crisis, webhook):
    item, _ = queue_crisis()
    send_all(engine, webhook.url)
    (sent,) = webhook.bodies

    assert set(sent) == {"text", "review_id", "level", "due_at"}
    assert sent["review_id"] == str(item.id)
    assert item.anonymized_id not in str(sent)
    assert read_notice(engine, item.id).state == "sent"


def test_a_notice_that_is_refused_waits_and_is_sent_again(engine, queue_crisis, webhook):
    item, _ = queue_crisis()
    webhook.status = 503
    send_all(engine, webhook.url)
    put_off = read_notice(engine, item.id)
    assert (put_off.state, put_off.attempts) == ("waiting", 1)
    assert put_off.next_attempt_at > datetime.now(UTC)
    webhook.status = 200
    with Session(engine) as session, session.begin():
        session.execute(update(CrisisNotice).values(next_attempt_at=datetime.now(UTC)))
    send_all(engine, webhook.url)

    assert read_notice(engine, item.id).state == "sent"
    assert [one["review_id"] for one in webhook.bodies] == [str(item.id)] * 2


def test_a_webhook_that_is_away_loses_no_notice(engine, queue_crisis):
    item, _ = queue_crisis()
    send_all(engine, "http://127.0.0.1:9/")

    assert read_notice(engine, item.id).state == "waiting"


def test_a_notice_of_a_decided_item_is_dropped(engine, client, queue_crisis, webhook):
    item, _ = queue_crisis()
    decision = f"/reviews/{item.id}/decision"
    client.post(decision, json={"decision": "agree"}, headers=CLINICIAN()).raise_for_status()
    send_all(engine, webhook.url)

    assert webhook.bodies == []
    assert read_notice(engine, item.id).state == "dropped"


def test_an_erasure_removes_the_notice_with_the_item(engine, queue_crisis):
    item, _ = queue_crisis()
    with Session(engine) as session, session.begin():
        session.delete(session.get_one(ReviewItem, item.id))

    assert read_notice(engine, item.id) is None


def test_a_clinician_s_override_of_a_calm_screening_sends_a_notice(client, screen, grant, engine):
    person = grant("survey")
    prediction_id = screen(person, LOW_ANSWERS).json()["prediction_id"]
    path = f"/screen/{prediction_id}/crisis-override"
    made = client.post(path, json={"comment": "A plan."}, headers=CLINICIAN()).json()

    assert read_notice(engine, uuid.UUID(made["review_id"])).state == "waiting"


def test_the_sender_of_a_worker_sends_what_waits(engine, queue_crisis, webhook):
    item, _ = queue_crisis()
    sender = NoticeSender(engine, webhook.url)
    sender.start()
    until = time.monotonic() + 10
    while not webhook.bodies and time.monotonic() < until:
        time.sleep(0.05)
    sender.stop()

    assert [one["review_id"] for one in webhook.bodies] == [str(item.id)]
    assert read_notice(engine, item.id).state == "sent"


def test_without_an_address_nothing_is_sent_and_nothing_is_wrong(engine):
    sender = NoticeSender(engine, None)
    sender.start()

    assert sender.is_alive
    sender.stop()


def test_repetitions_wait_longer_each_time_up_to_a_limit():
    waits = [find_wait(attempts) for attempts in range(1, 12)]

    assert waits[0] == FIRST_WAIT
    assert waits[1] == 2 * FIRST_WAIT
    assert waits[-1] == LONGEST_WAIT
    assert waits == sorted(waits)


def test_a_crisis_past_its_due_time_shows_in_the_metrics(client, engine, queue_crisis, monkeypatch):
    item, _ = queue_crisis()
    with Session(engine) as session, session.begin():
        past = datetime.now(UTC) - timedelta(minutes=1)
        session.execute(update(ReviewItem).where(ReviewItem.id == item.id).values(due_at=past))
    monkeypatch.setattr("serving.queue_metrics.REFRESH_SECONDS", 0)
    exposed = client.get("/metrics").text
    with Session(engine) as session:
        late = session.scalars(
            select(ReviewItem).where(
                ReviewItem.due_at < datetime.now(UTC), ReviewItem.status == "pending"
            )
        ).all()

    assert f"\nmhras_crises_unclaimed_overdue {len(late)}.0" in exposed
    assert "\nmhras_crisis_notices_waiting " in exposed


@pytest.mark.parametrize("attempts", [2**31 - 1, -(2**31)])
def test_a_notice_with_an_impossible_count_of_attempts_holds_up_no_other(
    engine, application_url, queue_crisis, webhook, attempts
):
    crises = [queue_crisis()[0].id for _ in range(2)]
    application = create_engine(application_url)
    with application.begin() as connection:
        connection.execute(
            text(
                "UPDATE crisis_notices SET attempts = :attempts,"
                " next_attempt_at = now() - interval '1 day' WHERE review_id = :id"
            ),
            {"attempts": attempts, "id": crises[0]},
        )
    application.dispose()
    webhook.status = 500
    send_all(engine, webhook.url)
    webhook.status = 200
    with Session(engine) as session, session.begin():
        session.execute(update(CrisisNotice).values(next_attempt_at=datetime.now(UTC)))
    send_all(engine, webhook.url)

    assert [read_notice(engine, crisis).state for crisis in crises] == ["sent", "sent"]
