"""Screenings share commits, but stand or fall by themselves, and never after their time."""

import threading
import time
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import create_engine, select, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session

from serving.database.sessions import create_single_engine
from serving.database.tables import AuditRow, Prediction, ReviewItem
from serving.errors import DeadlineExceededError, MaybeRecordedError, RequestInFlightError
from serving.screening import recorder as recorder_module
from serving.screening.recorder import MAX_TOGETHER, TREND_LENGTH, Record, Recorder

PATIENCE_SECONDS = 20


@pytest.fixture(scope="module")
def engine(database_url):
    engine = create_engine(database_url)
    yield engine
    engine.dispose()


def make_recorder(url):
    return Recorder(create_single_engine(url, 5), create_single_engine(url, 5))


@pytest.fixture
def recorder(database_url):
    recorder = make_recorder(database_url)
    yield recorder
    recorder.close()


def make_record(individual=None, created_at=None, deadline=PATIENCE_SECONDS, **prediction):
    individual = individual or uuid.uuid4().hex
    now = created_at or datetime.now(UTC)
    number = uuid.uuid4()
    return Record(
        prediction={
            "id": number,
            "anonymized_id": individual,
            "created_at": now,
            "user_id": "dr.who",
            "risk_score": 12.5,
            "probability": float("nan"),
            "risk_band": "low",
            "outcome": "adverse_course_v1",
            "confidence": 0.5,
            "needs_review": True,
            "review_reasons": ["score", "abstention"],
            "release_version": "3",
            "arm": "production",
            "answer": {"summary": 'a "quoted" word, é'},
            "inputs": {"features": {"age": float("nan")}},
        }
        | prediction,
        review_item={
            "id": uuid.uuid4(),
            "prediction_id": number,
            "anonymized_id": individual,
            "created_at": now,
            "priority": "low",
            "reasons": ["score"],
            "crisis_level": 0,
            "risk_score": 12.5,
            "status": "pending",
            "due_at": now,
        },
        audit_row={
            "created_at": now,
            "event_type": "screening_request",
            "user_id": "dr.who",
            "user_role": "clinician",
            "anonymized_id": individual,
            "data_types": ["survey"],
            "action": "generate_risk_score",
            "result": "success",
            "request_id": None,
            "details": {"prediction_id": number},
        },
        deadline=time.monotonic() + deadline,
    )


def read(engine, table, individual):
    with Session(engine) as session:
        return list(session.scalars(select(table).where(table.anonymized_id == individual)))


def test_a_record_whose_time_has_passed_is_not_written(recorder, engine):
    record = make_record(deadline=-1)

    with pytest.raises(DeadlineExceededError):
        recorder.submit(record).result(PATIENCE_SECONDS)
    assert read(engine, Prediction, record.prediction["anonymized_id"]) == []


def test_a_row_the_database_refuses_takes_its_screening_with_it_and_no_other(recorder, engine):
    good = [make_record() for _ in range(5)]
    bad = make_record(risk_band="a band far too long for its column")
    hold_and_submit(recorder, engine, [*good[:3], bad, *good[3:]])

    with pytest.raises(DBAPIError):
        recorder.submit(bad).result(PATIENCE_SECONDS)
    for record in good:
        assert len(read(engine, Prediction, record.prediction["anonymized_id"])) == 1
    for table in (Prediction, ReviewItem, AuditRow):
        assert read(engine, table, bad.prediction["anonymized_id"]) == []


def hold_and_submit(recorder, engine, records):
    """Submit while a lock holds the writer up, so that the records wait for one commit."""
    with engine.connect() as connection, connection.begin():
        connection.execute(text("LOCK TABLE predictions IN EXCLUSIVE MODE"))
        first = recorder.submit(make_record())
        futures = [recorder.submit(record) for record in records]
        time.sleep(0.2)
    first.result(PATIENCE_SECONDS)
    return futures


def test_an_unreachable_database_fails_every_waiting_screening():
    recorder = make_recorder("postgresql+psycopg2://mhras:x@127.0.0.1:1/mhras")
    futures = [recorder.submit(make_record()) for _ in range(3)]

    for future in futures:
        with pytest.raises(OperationalError):
            future.result(PATIENCE_SECONDS)
    recorder.close()


def test_a_screening_that_was_given_up_while_it_waited_leaves_no_rows(recorder, engine):
    given_up, kept = make_record(), make_record()
    with engine.connect() as connection, connection.begin():
        connection.execute(text("LOCK TABLE predictions IN EXCLUSIVE MODE"))
        first = recorder.submit(make_record())
        time.sleep(0.2)
        futures = [recorder.submit(given_up), recorder.submit(kept)]
        assert futures[0].cancel()
    first.result(PATIENCE_SECONDS)
    futures[1].result(PATIENCE_SECONDS)

    assert read(engine, Prediction, given_up.prediction["anonymized_id"]) == []
    assert all(lane.is_alive for lane in recorder.lanes)


def test_a_screening_that_is_given_up_while_it_is_written_stops_no_other(recorder, engine):
    with engine.connect() as connection, connection.begin():
        connection.execute(text("LOCK TABLE predictions IN EXCLUSIVE MODE"))
        being_written = recorder.submit(make_record())
        time.sleep(0.2)
        assert not being_written.cancel()
    being_written.result(PATIENCE_SECONDS)

    recorder.submit(make_record()).result(PATIENCE_SECONDS)


def test_a_surprise_in_the_writing_thread_fails_its_screenings_and_no_later_one(
    recorder, monkeypatch
):
    def break_down(*_arguments):
        raise ZeroDivisionError

    with monkeypatch.context() as broken:
        broken.setattr(recorder_module.Lane, "_write_in_time", break_down)
        failed = recorder.submit(make_record())
        with pytest.raises(ZeroDivisionError):
            failed.result(PATIENCE_SECONDS)

    recorder.submit(make_record()).result(PATIENCE_SECONDS)


def test_a_crisis_is_recorded_while_others_wait_for_a_lock(recorder, engine):
    key = {"user_id": "dr.who", "key": uuid.uuid4().hex}
    claim = "INSERT INTO idempotency_keys VALUES (:user_id, :key, repeat('0', 64), now())"
    with engine.begin() as connection:
        connection.execute(text(claim), key)
    answered = key | {"prediction_id": None, "answer": {}}
    with engine.connect() as connection, connection.begin():
        lock = "SELECT 1 FROM idempotency_keys WHERE key = :key FOR UPDATE"
        connection.execute(text(lock), {"key": key["key"]})
        stuck = recorder.submit(replace(make_record(), idempotency=answered))
        recorder.submit(replace(make_record(), is_urgent=True)).result(PATIENCE_SECONDS)
        assert not stuck.done()
    stuck.result(PATIENCE_SECONDS)


def test_all_three_rows_are_written_as_they_were_given(recorder, engine):
    record = make_record()
    individual = record.prediction["anonymized_id"]
    recorder.submit(record).result(PATIENCE_SECONDS)

    (prediction,) = read(engine, Prediction, individual)
    (item,) = read(engine, ReviewItem, individual)
    (row,) = read(engine, AuditRow, individual)
    assert prediction.id == item.prediction_id == record.prediction["id"]
    assert prediction.created_at == record.prediction["created_at"]
    assert prediction.probability is None
    assert prediction.inputs == {"features": {"age": None}}
    assert prediction.answer == record.prediction["answer"]
    assert prediction.review_reasons == ["score", "abstention"]
    assert row.details == {"prediction_id": str(prediction.id)}
    assert (row.data_types, row.request_id) == (["survey"], None)


def test_a_screening_without_review_leaves_no_item(recorder, engine):
    record = make_record()
    without = Record(record.prediction, None, record.audit_row, record.deadline)
    recorder.submit(without).result(PATIENCE_SECONDS)

    assert read(engine, ReviewItem, record.prediction["anonymized_id"]) == []


def test_those_who_wait_share_a_commit(recorder, engine):
    futures = hold_and_submit(recorder, engine, [make_record() for _ in range(20)])
    for future in futures:
        future.result(PATIENCE_SECONDS)

    with engine.connect() as connection:
        transactions = connection.scalar(
            text(
                "SELECT count(DISTINCT xmin::text) FROM (SELECT xmin FROM predictions "
                "ORDER BY created_at DESC LIMIT 20) AS latest"
            )
        )
    assert transactions < 20
    assert MAX_TOGETHER >= 20


def test_the_trend_is_of_earlier_answers_oldest_first_and_of_nobody_else(recorder):
    begun = datetime.now(UTC) - timedelta(days=30)
    somebody = uuid.uuid4().hex
    for day in range(TREND_LENGTH + 2):
        other = make_record(created_at=begun)
        known = make_record(somebody, begun + timedelta(days=day), risk_score=float(day))
        recorder.submit(other)
        recorder.submit(known).result(PATIENCE_SECONDS)

    trend = recorder.submit(make_record(somebody)).result(PATIENCE_SECONDS)
    assert [point.risk_score for point in trend] == [float(day) for day in range(2, 12)]
    assert recorder.submit(make_record()).result(PATIENCE_SECONDS) == []


def test_a_connection_that_died_costs_no_screening(recorder, engine):
    recorder.submit(make_record()).result(PATIENCE_SECONDS)
    with engine.begin() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    record = make_record()
    recorder.submit(record).result(PATIENCE_SECONDS)

    assert len(read(engine, Prediction, record.prediction["anonymized_id"])) == 1


def test_rows_that_were_committed_before_the_connection_died_are_not_written_twice(
    database_url, engine, monkeypatch
):
    single, record = create_single_engine(database_url, 5), make_record()
    execute, told = recorder_module._execute, []

    def commit_and_die(engine_, parameters):
        found = execute(engine_, parameters)
        if not told:
            told.append(found)
            raise OperationalError("cut off", {}, OSError(), connection_invalidated=True)
        return found

    monkeypatch.setattr(recorder_module, "_execute", commit_and_die)
    assert recorder_module.write_records(single, [record]) == [[]]
    single.dispose()

    assert len(read(engine, Prediction, record.prediction["anonymized_id"])) == 1


def test_a_screening_whose_reply_is_lost_for_good_may_have_been_recorded(
    database_url, engine, monkeypatch
):
    single, record = create_single_engine(database_url, 5), make_record()
    execute, attempts = recorder_module._execute, []

    def commit_and_go_away(engine_, parameters):
        attempts.append(parameters)
        if len(attempts) == 1:
            execute(engine_, parameters)
        raise OperationalError("cut off", {}, OSError(), connection_invalidated=len(attempts) == 1)

    monkeypatch.setattr(recorder_module, "_execute", commit_and_go_away)
    with pytest.raises(MaybeRecordedError, match="may have been recorded"):
        recorder_module.write_records(single, [record])
    single.dispose()

    assert len(attempts) == 2
    assert len(read(engine, Prediction, record.prediction["anonymized_id"])) == 1


def test_of_two_answers_under_one_key_the_later_leaves_no_rows(recorder, engine):
    """The first may lie in a frozen server until the key was claimed again."""
    key = {"user_id": "dr.who", "key": uuid.uuid4().hex}
    claim = "INSERT INTO idempotency_keys VALUES (:user_id, :key, repeat('0', 64), now())"
    with engine.begin() as connection:
        connection.execute(text(claim), key)
    first, second = (make_record() for _ in range(2))
    keyed = [
        replace(one, idempotency=key | {"prediction_id": one.prediction["id"], "answer": {}})
        for one in (first, second)
    ]
    recorder.submit(keyed[0]).result(PATIENCE_SECONDS)
    with pytest.raises(RequestInFlightError, match="was answered; send it again"):
        recorder.submit(keyed[1]).result(PATIENCE_SECONDS)

    for table in (Prediction, ReviewItem, AuditRow):
        assert len(read(engine, table, first.prediction["anonymized_id"])) == 1
        assert read(engine, table, second.prediction["anonymized_id"]) == []


def test_closing_writes_what_is_queued(database_url):
    recorder = make_recorder(database_url)
    records = [make_record() for _ in range(30)]
    futures = [recorder.submit(record) for record in records]
    recorder.close()

    assert all(future.done() and future.exception() is None for future in futures)


def test_many_threads_lose_nothing(recorder, engine):
    records = [make_record() for _ in range(200)]
    threads = [
        threading.Thread(target=lambda part=part: [recorder.submit(one).result() for one in part])
        for part in (records[n::8] for n in range(8))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    individuals = [record.prediction["anonymized_id"] for record in records]
    with Session(engine) as session:
        for table in (Prediction, ReviewItem, AuditRow):
            statement = select(table.anonymized_id).where(table.anonymized_id.in_(individuals))
            assert sorted(session.scalars(statement)) == sorted(individuals)
