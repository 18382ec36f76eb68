"""The review queue as clinicians work on it."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.orm import Session

from serving.database.review_terms import REVIEW_WITHIN
from serving.database.tables import Prediction, ReviewEvent, ReviewItem
from serving.http.parameters import write_cursor
from serving.queue_metrics import QueueMetrics
from serving.reviews.labels import read_review_labels
from serving.roles import Role
from tests.fixtures.api import (
    AT_COMMIT,
    AT_INSERT,
    make_headers,
    read_audit,
    read_rows,
)

CRISIS_ANSWERS = [0] * 8 + [1]
OVERRIDE = {
    "decision": "override",
    "new_band": "moderate",
    "reason_code": "already_in_care",
    "comment": "Seen yesterday.",
}


@pytest.fixture
def queue(engine):
    """Put an item into the queue: priority, and how long ago it was queued."""

    def add(priority="critical", age=timedelta(0), **changes):
        values = {
            "id": uuid.uuid4(),
            "prediction_id": uuid.uuid4(),
            "anonymized_id": uuid.uuid4().hex,
            "created_at": datetime.now(UTC) - age,
            "priority": priority,
            "reasons": ["score"],
            "status": "pending",
        }
        with Session(engine, expire_on_commit=False) as session, session.begin():
            session.add(item := ReviewItem(**(values | changes)))
        return item

    return add


@pytest.fixture
def empty_queue(engine):
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM review_items"))


def ask(client, method, path, user="clinician_001", role=Role.CLINICIAN, **options):
    return client.request(method, path, headers=make_headers(role, user), **options)


def list_ids(client, **query):
    answer = ask(client, "GET", "/reviews", params=query)
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()["items"]]


# Refusals


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "", None),
        ("POST", "/claim", None),
        ("DELETE", "/claim", None),
        ("POST", "/decision", {"decision": "agree"}),
        ("POST", "/notes", {"note": "x"}),
    ],
)
def test_an_item_that_does_not_exist_is_not_found(client, method, path, body):
    response = ask(client, method, f"/reviews/{uuid.uuid4()}{path}", json=body)

    assert response.status_code == 404
    assert response.json()["type"] == "urn:mhras:problem:not-found"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"decision": "maybe"},
        {"decision": "refer"},
        {"decision": "agree", "new_band": "low"},
        {"decision": "agree", "comment": "x\u0000y"},
        {"decision": "agree", "comment": "x" * 2001},
        {"decision": "agree", "comment": "  "},
        *({**OVERRIDE, name: None} for name in ("new_band", "reason_code", "comment")),
        {**OVERRIDE, "new_band": "harmless"},
        {**OVERRIDE, "reason_code": "because"},
        {**OVERRIDE, "because": "x"},
    ],
    ids=str,
)
def test_an_incomplete_decision_is_refused_and_decides_nothing(client, engine, queue, body):
    item = queue()
    response = ask(client, "POST", f"/reviews/{item.id}/decision", json=body)

    assert response.status_code == 422
    (stored,) = read_rows(engine, ReviewItem, item.anonymized_id)
    assert stored.status == "pending"


@pytest.mark.parametrize(
    "cursor",
    [
        "x",
        "!",
        "ä" * 10,
        write_cursor("a", "b", "c"),
        write_cursor(1),
        write_cursor(1, "2026-01-01", str(uuid.uuid4())),
        write_cursor(True, datetime.now(UTC), uuid.uuid4()),
        write_cursor(2**70, datetime.now(UTC), uuid.uuid4()),
        write_cursor(-1, datetime.now(UTC), uuid.uuid4()),
        "9" * 257,
    ],
    ids=lambda cursor: f"{len(cursor)} signs",
)
def test_a_cursor_that_is_not_ours_is_refused(client, cursor):
    assert ask(client, "GET", "/reviews", params={"cursor": cursor}).status_code == 422


def test_an_item_claimed_by_another_is_not_ours_to_decide_and_the_attempt_is_audited(
    client, engine, queue
):
    item = queue()
    assert ask(client, "POST", f"/reviews/{item.id}/claim", "first").status_code == 200
    response = ask(
        client, "POST", f"/reviews/{item.id}/decision", "second", json={"decision": "agree"}
    )

    assert response.status_code == 409
    assert response.json()["type"] == "urn:mhras:problem:claimed-by-another"
    (stored,) = read_rows(engine, ReviewItem, item.anonymized_id)
    assert (stored.status, stored.claimed_by) == ("claimed", "first")
    refused = [row for row in read_audit(engine, item.anonymized_id) if row.result == "failure"]
    assert [(row.user_id, row.action) for row in refused] == [("second", "decide_review")]


@pytest.mark.parametrize("path", ["claim", "decision"])
def test_a_decided_item_stays_decided(client, queue, path):
    item = queue()
    decision = {"json": {"decision": "agree"}}
    ask(client, "POST", f"/reviews/{item.id}/decision", **decision)
    options = decision if path == "decision" else {}
    response = ask(client, "POST", f"/reviews/{item.id}/{path}", **options)

    assert (response.status_code, response.json()["type"]) == (409, "urn:mhras:problem:conflict")


def test_only_its_owner_or_an_admin_gives_an_item_back(client, queue):
    item = queue()
    ask(client, "POST", f"/reviews/{item.id}/claim", "first")

    assert ask(client, "DELETE", f"/reviews/{item.id}/claim", "second").status_code == 409
    released = ask(client, "DELETE", f"/reviews/{item.id}/claim", "boss", Role.ADMIN).json()
    assert (released["status"], released["claimed_by"]) == ("pending", None)
    assert ask(client, "DELETE", f"/reviews/{item.id}/claim", "first").status_code == 409


# What is broken


@pytest.mark.parametrize("timing", [AT_INSERT, AT_COMMIT], ids=["at insert", "at commit"])
@pytest.mark.parametrize(
    ("path", "body"),
    [("claim", None), ("decision", {"decision": "agree"}), ("notes", {"note": "x"})],
)
def test_what_cannot_be_audited_is_not_done(
    client, engine, queue, breaking_trigger, timing, path, body
):
    item = queue()
    breaking_trigger("audit_log", timing)
    response = ask(client, "POST", f"/reviews/{item.id}/{path}", json=body)

    assert response.status_code == 500
    (stored,) = read_rows(engine, ReviewItem, item.anonymized_id)
    assert stored.status == "pending"
    assert read_rows(engine, ReviewEvent, item.anonymized_id) == []


def test_what_cannot_be_audited_is_not_shown(client, queue, breaking_trigger):
    item = queue()
    breaking_trigger("audit_log", AT_INSERT)

    for path in ("/reviews", f"/reviews/{item.id}"):
        response = ask(client, "GET", path)
        assert response.status_code == 500
        assert item.anonymized_id not in response.text


# What works


def test_the_most_urgent_come_first_and_the_oldest_of_them(client, queue, empty_queue):
    hour = timedelta(hours=1)
    low = queue("low", 9 * hour)
    young, old = queue("critical", hour), queue("critical", 2 * hour)
    moderate, high = queue("moderate", 5 * hour), queue("high", hour)

    expected = [str(item.id) for item in (old, young, high, moderate, low)]
    assert list_ids(client) == expected


def test_pages_hold_every_item_once(client, queue, empty_queue):
    made = {str(queue(priority).id) for priority in REVIEW_WITHIN for _ in range(4)}
    seen, cursor = [], None
    while True:
        query = {"limit": 3} | ({"cursor": cursor} if cursor else {})
        page = ask(client, "GET", "/reviews", params=query).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break

    assert seen == list_ids(client, limit=100)
    assert set(seen) == made


def test_filters_narrow_the_queue(client, queue, empty_queue):
    late = queue("critical", timedelta(hours=2), reasons=["crisis_item"])
    calm = queue("low")
    claimed = queue("high", status="claimed", claimed_by="first", claimed_at=datetime.now(UTC))
    decided = queue("high", status="decided", decided_at=datetime.now(UTC))

    assert list_ids(client, overdue=True) == [str(late.id)]
    assert list_ids(client, overdue=False) == [str(claimed.id), str(calm.id)]
    assert list_ids(client, priority="low") == [str(calm.id)]
    assert list_ids(client, reason="crisis_item") == [str(late.id)]
    assert list_ids(client, claimed_by="first") == [str(claimed.id)]
    assert list_ids(client, status="pending") == [str(late.id), str(calm.id)]
    assert list_ids(client, status="decided") == [str(decided.id)]


def test_a_listing_is_audited_with_the_individuals_it_showed(client, engine, queue, empty_queue):
    item = queue()
    ask(client, "GET", "/reviews", "reader_1")

    with engine.connect() as connection:
        query = text("SELECT details FROM audit_log WHERE user_id = 'reader_1'")
        assert connection.scalars(query).all() == [{"individuals": [item.anonymized_id]}]


def test_of_many_who_reach_for_an_item_one_gets_it(client, queue):
    item = queue()

    def reach(number):
        return ask(client, "POST", f"/reviews/{item.id}/claim", f"user_{number}").status_code

    with ThreadPoolExecutor(12) as pool:
        statuses = sorted(pool.map(reach, range(12)))

    assert statuses == [200] + [409] * 11


def test_a_claim_lapses_so_that_nobody_is_forgotten(client, queue):
    long_ago = datetime.now(UTC) - timedelta(hours=4, minutes=1)
    item = queue(status="claimed", claimed_by="gone_home", claimed_at=long_ago)

    assert ask(client, "POST", f"/reviews/{item.id}/claim", "next").json()["claimed_by"] == "next"


def test_a_screening_goes_through_the_queue_to_a_label(client, screen, grant, engine):
    individual = grant()
    answer = screen(individual, CRISIS_ANSWERS).json()
    (item,) = read_rows(engine, ReviewItem, individual)
    began = datetime.now(UTC)

    ask(client, "POST", f"/reviews/{item.id}/claim")
    ask(client, "POST", f"/reviews/{item.id}/notes", json={"note": "Called; no answer."})
    decided = ask(client, "POST", f"/reviews/{item.id}/decision", json=OVERRIDE).json()

    assert (decided["status"], decided["decision"]) == ("decided", "override")
    assert decided["prediction"]["prediction_id"] == answer["prediction_id"]
    assert decided["prediction"]["summary"] == answer["summary"]
    assert [event["action"] for event in decided["history"]] == ["claimed", "noted", "override"]
    assert decided["history"][1]["note"] == "Called; no answer."
    with Session(engine) as session:
        (label,) = read_review_labels(session, began)
    assert (label.anonymized_id, label.given_band) == (individual, "critical")
    assert (label.reviewed_band, label.reason_code) == ("moderate", "already_in_care")
    assert label.model_score == answer["model_score"]


def test_every_change_of_an_item_is_audited_without_what_was_written(client, engine, queue):
    item = queue()
    ask(client, "POST", f"/reviews/{item.id}/claim")
    ask(client, "POST", f"/reviews/{item.id}/notes", json={"note": "private words"})
    ask(client, "GET", f"/reviews/{item.id}")
    ask(client, "POST", f"/reviews/{item.id}/decision", json=OVERRIDE)

    rows = read_audit(engine, item.anonymized_id)
    actions = ["claim_review", "note_review", "view_review", "decide_review"]
    assert [row.action for row in rows] == actions
    assert "private words" not in str([row.details for row in rows])
    assert OVERRIDE["comment"] not in str([row.details for row in rows])


def test_a_referral_is_no_label(client, engine, queue):
    item, began = queue(), datetime.now(UTC)
    body = {"decision": "refer", "comment": "To the crisis team."}
    ask(client, "POST", f"/reviews/{item.id}/decision", json=body)

    with Session(engine) as session:
        assert list(read_review_labels(session, began)) == []


def test_the_queue_and_decisions_are_seen_in_the_metrics(client, engine, queue, empty_queue):
    queue("critical", timedelta(hours=2))
    queue("high", status="claimed", claimed_by="u", claimed_at=datetime.now(UTC))
    QueueMetrics(engine).refresh()
    exposed = client.get("/metrics").text

    assert 'mhras_review_queue_size{priority="critical",status="pending"} 1.0' in exposed
    assert 'mhras_review_queue_size{priority="high",status="claimed"} 1.0' in exposed
    assert 'mhras_review_queue_size{priority="low",status="pending"} 0.0' in exposed
    assert 'mhras_review_queue_overdue{priority="critical"} 1.0' in exposed


def test_an_item_whose_prediction_is_gone_is_still_shown(client, queue, engine):
    item = queue()

    assert read_rows(engine, Prediction, item.anonymized_id) == []
    assert ask(client, "GET", f"/reviews/{item.id}").json()["prediction"] is None


def test_crises_are_ranked_by_item_9_then_all_by_score_then_by_waiting(client, queue, empty_queue):
    day = timedelta(days=1)
    late_worst = queue(crisis_level=3, risk_score=100.0)
    old_mild = queue(crisis_level=1, risk_score=100.0, age=day)
    by_score = queue(crisis_level=0, risk_score=90.0, age=2 * day)
    lower = queue(crisis_level=0, risk_score=80.0, age=3 * day)
    waiting = queue(crisis_level=0, risk_score=80.0, age=2 * day)

    ranked = [late_worst, old_mild, by_score, lower, waiting]
    assert list_ids(client) == [str(item.id) for item in ranked]


def test_a_list_shows_of_each_item_what_a_clinician_chooses_by(client, screen, grant, empty_queue):
    individual = grant()
    screen(individual, [1] * 8 + [0])
    answer = screen(individual, CRISIS_ANSWERS).json()
    (item,) = [
        one
        for one in ask(client, "GET", "/reviews").json()["items"]
        if one["prediction_id"] == answer["prediction_id"]
    ]

    assert item["summary"] == answer["summary"]
    assert item["why"] == [reason["text"] for reason in answer["review_reasons"]]
    assert (item["crisis_level"], item["risk_score"]) == (1, 100)
    assert [point["risk_band"] for point in item["trend"]][-1] == "critical"
    assert len(item["trend"]) == 2


def test_a_list_takes_as_many_queries_for_many_items_as_for_few(client, queue, empty_queue, engine):
    def count_queries():
        statements = []
        listener = lambda *arguments: statements.append(arguments[2])  # noqa: E731
        event.listen(Engine, "before_cursor_execute", listener)
        list_ids(client)
        event.remove(Engine, "before_cursor_execute", listener)
        return len(
            [one for one in statements if "FROM predictions" in one or "review_items" in one]
        )

    queue()
    few = count_queries()
    for _ in range(20):
        queue()

    assert count_queries() == few
