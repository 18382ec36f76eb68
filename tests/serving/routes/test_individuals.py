"""What an individual may ask of us, and what is left of somebody who was erased."""

import json
import os
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from fhir.resources.R4B.bundle import Bundle
from sqlalchemy import select, text, update
from sqlalchemy.orm import Session

from mlruns_config.ledger import ledger_metadata
from serving.audit.signing import KeyRing, Signer
from serving.database.tables import (
    AuditRow,
    Base,
    Consent,
    Erasure,
    IdempotencyKey,
    Prediction,
    ReviewItem,
)
from serving.errors import ConflictError
from serving.individuals.erasure import ERASED_TABLES, erase_individual, list_queued, report_store
from serving.roles import Role
from serving.screening.idempotency import hash_key
from tests.fixtures.api import (
    AT_COMMIT,
    AT_INSERT,
    JWT_SECRET,
    LOW_ANSWERS,
    SALT,
    SIGNING_KEY,
    MemoryReader,
    make_headers,
    make_settings,
    read_audit,
    read_rows,
    run_app,
)

ADMIN = partial(make_headers, Role.ADMIN, "admin_1")
AUDITOR = partial(make_headers, Role.AUDITOR, "auditor_1")
CRISIS_ANSWERS = [*LOW_ANSWERS[:8], 1]
KEYS = KeyRing([Signer(SIGNING_KEY).public_key])

PATIENCE_SECONDS = 20
#: Tables that name individuals and keep their rows, each for a reason.
KEPT = {"audit_log": "who saw what must stay provable", "erasures": "the record of the erasure"}


def ask(client, path, headers=None, **options):
    response = client.get(path, headers=headers or ADMIN(), **options)
    assert response.status_code == 200, response.text
    return response


def erase(client, individual, headers=None):
    return client.delete(f"/individuals/{individual}", headers=headers or ADMIN())


@pytest.fixture
def known(screen, grant, client):
    """An individual with consents, three predictions, a review with a note, an override."""
    individual = grant()
    answers = [screen(individual, phq9).json() for phq9 in (LOW_ANSWERS, CRISIS_ANSWERS, None)]
    path = f"/screen/{answers[0]['prediction_id']}/crisis-override"
    override = client.post(path, json={"comment": "x"}, headers=make_headers()).json()
    note = {"note": "Called, no answer."}
    client.post(f"/reviews/{override['review_id']}/notes", json=note, headers=make_headers())
    return individual


# Refusals


@pytest.mark.parametrize("path", ["predictions", "export", "access-history", "erasures"])
def test_what_is_no_pseudonym_is_refused(client, path):
    for name in ("P-1", "A" * 32, "a" * 31, "%00"):
        assert client.get(f"/individuals/{name}/{path}", headers=ADMIN()).status_code == 422


@pytest.mark.parametrize("timing", [AT_INSERT, AT_COMMIT], ids=["at insert", "at commit"])
@pytest.mark.parametrize("table", ["audit_log", "erasures", "erasure_stores"])
def test_an_erasure_that_cannot_be_recorded_does_not_happen(
    client, known, engine, breaking_trigger, table, timing
):
    breaking_trigger(table, timing)

    assert erase(client, known).status_code == 500
    assert len(read_rows(engine, Prediction, known)) == 3
    assert read_rows(engine, Consent, known) != []
    assert read_rows(engine, Erasure, known) == []


def test_an_export_that_cannot_be_audited_is_not_handed_out(client, known, breaking_trigger):
    breaking_trigger("audit_log", AT_INSERT)
    response = client.get(f"/individuals/{known}/export", headers=ADMIN())

    assert response.status_code == 500
    assert known not in response.text


def test_without_a_database_nothing_is_erased(mlflow_url):
    settings = make_settings("postgresql://mhras:hidden@127.0.0.1:1/mhras", mlflow_url)
    with run_app(settings, MemoryReader()) as client:
        assert erase(client, "a" * 32).status_code == 503


# Access


def test_predictions_are_listed_latest_first_in_pages(client, known):
    path, seen, cursor = f"/individuals/{known}/predictions", [], None
    while True:
        query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = ask(client, path, make_headers(Role.DATA_SCIENTIST), params=query).json()
        seen += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break

    moments = [one["created_at"] for one in seen]
    assert (len(seen), moments) == (3, sorted(moments, reverse=True))
    assert [one["crisis_override"] for one in seen] == [False, False, True]


def test_an_export_holds_all_that_is_held(client, known, engine):
    export = ask(client, f"/individuals/{known}/export").json()

    assert len(export["predictions"]) == 3
    assert len(export["consents"]) == len(read_rows(engine, Consent, known)) == 1
    assert len(export["reviews"]) == len(read_rows(engine, ReviewItem, known))
    assert [one["comment"] for one in export["crisis_overrides"]] == ["x"]
    assert "Called, no answer." in [one["note"] for one in export["review_events"]]
    assert "stay with the systems" in export["not_included"]


def test_every_table_about_individuals_is_exported_and_erased_or_kept_for_a_reason():
    tables = [*Base.metadata.tables.values(), *ledger_metadata.tables.values()]
    named = {table.name for table in tables if "anonymized_id" in table.columns}

    assert named == {table.__tablename__ for table in ERASED_TABLES} | set(KEPT)


@pytest.mark.parametrize(
    "options",
    [{"params": {"format": "fhir"}}, {"accept": "application/fhir+json"}],
    ids=["by parameter", "by header"],
)
def test_an_export_as_fhir_is_valid_r4(client, known, options):
    headers = ADMIN() | {"Accept": options.pop("accept", "*/*")}
    response = ask(client, f"/individuals/{known}/export", headers, **options)

    assert response.headers["Content-Type"] == "application/fhir+json"
    bundle = Bundle.model_validate_json(response.text)
    kinds = [entry.resource.get_resource_type() for entry in bundle.entry]
    assert kinds.count("RiskAssessment") == 3
    # Each prediction was made, and one of them was overridden.
    assert kinds.count("Provenance") == 4
    assert {"Patient", "Consent", "Task"} < set(kinds)
    inside = {entry.fullUrl for entry in bundle.entry}
    references = set(_find_references(json.loads(response.text)))
    references = {reference for reference in references if not reference.startswith("#")}
    assert references <= inside


def _find_references(node):
    if isinstance(node, dict):
        if "reference" in node:
            yield node["reference"]
        for part in node.values():
            yield from _find_references(part)
    elif isinstance(node, list):
        for part in node:
            yield from _find_references(part)


def test_an_export_as_fhir_of_an_unknown_individual_is_valid_too(client):
    response = ask(client, f"/individuals/{uuid.uuid4().hex}/export", params={"format": "fhir"})

    assert len(Bundle.model_validate_json(response.text).entry) == 1


def test_the_access_history_tells_who_saw_the_record(client, known):
    client.get("/reviews", headers=make_headers(user="lister"), params={"limit": 100})
    ask(client, f"/individuals/{known}/export", make_headers(Role.ADMIN, "exporter"))
    refused = client.get(
        f"/individuals/{known}/predictions", headers=make_headers(Role.AUDITOR, "curious")
    )
    assert refused.status_code == 403
    rows = ask(client, f"/individuals/{known}/access-history", AUDITOR(), params={"limit": 100})

    seen = {(row["user_id"], row["action"]) for row in rows.json()["items"]}
    assert ("lister", "list_reviews") in seen
    assert ("exporter", "export_individual") in seen
    assert ("clinician_001", "generate_risk_score") in seen


def test_the_access_history_comes_in_pages(client, known):
    path, seen, cursor = f"/individuals/{known}/access-history", [], None
    while True:
        query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = ask(client, path, AUDITOR(), params=query).json()
        seen += [row for row in page["items"] if row["action"] != "view_access_history"]
        cursor = page["next_cursor"]
        if cursor is None:
            break

    assert [row["action"] for row in seen] == [
        *("note_review", "override_crisis"),
        *["generate_risk_score"] * 3,
    ]


# Erasure


def test_an_erased_individual_is_gone_from_every_table(client, known, engine):
    answer = erase(client, known).json()

    for table in ERASED_TABLES:
        assert read_rows(engine, table, known) == [], table.__tablename__
    assert answer["receipt"]["erased_rows"]["predictions"] == 3
    assert read_audit(engine, known)[-1].action == "erase_individual"
    states = {name: store["state"] for name, store in answer["stores"].items()}
    assert states == {
        "database": "done",
        "lake": "queued",
        "feature_store": "queued",
        "artifacts": "queued",
    }


def test_answers_kept_for_repetition_go_with_the_individual(client, grant, engine):
    individual = grant()
    body = {"anonymized_id": individual, "survey_data": {"phq9": LOW_ANSWERS}}
    headers = make_headers() | {"Idempotency-Key": "key-of-the-erased"}
    client.post("/screen", json=body, headers=headers).raise_for_status()
    stored = select(IdempotencyKey).where(IdempotencyKey.key == hash_key("key-of-the-erased", SALT))
    with Session(engine) as session:
        assert len(session.scalars(stored).all()) == 1
    erase(client, individual)

    with Session(engine) as session:
        assert session.scalars(stored).all() == []


def test_the_receipt_verifies_and_a_changed_one_does_not(client, known, production_version):
    answer = erase(client, known).json()
    receipt = answer["receipt"]

    assert KEYS.holds(receipt)
    assert KeyRing([answer["public_key"]]).holds(receipt)
    assert receipt["scored_by_releases"] == [str(production_version)]
    assert not KEYS.holds(receipt | {"anonymized_id": "b" * 32})


def run_audit_command(database_url, *arguments, **changes):
    return subprocess.run(
        [sys.executable, "-m", "serving.audit", *arguments],
        env={
            "PATH": os.environ["PATH"],
            "DATABASE_URL": database_url,
            "JWT_SECRET_KEY": JWT_SECRET,
            "ANONYMIZATION_SALT": SALT,
            "AUDIT_SIGNING_KEY": SIGNING_KEY,
        }
        | changes,
        capture_output=True,
        text=True,
    )


def test_a_receipt_is_checked_by_command(client, known, database_url, tmp_path):
    receipt = erase(client, known).json()["receipt"]
    path = tmp_path / "receipt.json"
    for written, code, said in (
        (json.dumps(receipt), 0, "receipt genuine\n"),
        (json.dumps(receipt | {"requested_by": "x"}), 1, "receipt NOT genuine\n"),
        ("[]", 1, "receipt NOT genuine\n"),
    ):
        path.write_text(written)
        result = run_audit_command(database_url, "receipt", str(path))
        assert (result.returncode, result.stdout) == (code, said)


def test_asking_again_gives_the_same_receipt(client, known, engine):
    first, second = erase(client, known).json(), erase(client, known).json()

    assert first["receipt"] == second["receipt"]
    assert len(read_rows(engine, Erasure, known)) == 1


def test_of_several_who_erase_at_once_one_does(client, known, engine):
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: erase(client, known).json(), range(6)))

    assert len({answer["erasure_id"] for answer in answers}) == 1


def test_a_screening_that_began_before_an_erasure_leaves_no_row_after_it(
    client, known, screen, engine
):
    with Session(engine) as erasing, ThreadPoolExecutor(1) as pool:
        erase_individual(erasing, known, "admin_1", Signer(SIGNING_KEY))
        waiting = pool.submit(screen, known, CRISIS_ANSWERS)
        wait_until_an_advisory_lock_is_awaited(engine)
        erasing.commit()
        refused = waiting.result(PATIENCE_SECONDS)

    assert (refused.status_code, refused.json()["type"]) == (
        403,
        "urn:mhras:problem:consent-missing",
    )
    assert read_rows(engine, Prediction, known) == read_rows(engine, ReviewItem, known) == []
    assert read_audit(engine, known)[-1].result == "failure"


def wait_until_an_advisory_lock_is_awaited(engine):
    waiting = text(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        with engine.connect() as connection:
            if connection.scalar(waiting):
                return
        time.sleep(0.02)
    raise AssertionError("no statement waits for the erasure")


def test_an_update_does_not_bring_a_consent_of_before_an_erasure_back(client, known, engine):
    erase(client, known)
    yesterday = datetime.now(UTC) - timedelta(days=1)
    with Session(engine) as session:
        consent = Consent(
            anonymized_id=known,
            data_types=["survey"],
            purposes=["screening"],
            granted_at=yesterday,
            expires_at=yesterday + timedelta(days=300),
            key_id="k",
        )
        session.add(consent)
        session.flush()
        session.execute(update(Consent).values(withdrawn_at=None))
        session.refresh(consent)
        assert consent.withdrawn_at is not None
        session.rollback()


def test_an_unknown_individual_is_erased_elsewhere_all_the_same(client):
    answer = erase(client, uuid.uuid4().hex).json()

    assert answer["stores"]["lake"]["state"] == "queued"


def test_an_erased_individual_is_not_screened_without_a_new_consent(client, known, screen, engine):
    erase(client, known)
    time.sleep(1)

    assert screen(known, LOW_ANSWERS).status_code == 403


def test_an_old_consent_that_a_drop_repeats_does_not_come_back(client, known, screen, grant):
    erase(client, known)
    grant(anonymized_id=known)
    time.sleep(1)
    assert screen(known, LOW_ANSWERS).status_code == 403

    grant(anonymized_id=known, granted_at=datetime.now(UTC))
    time.sleep(1)
    assert screen(known, LOW_ANSWERS).status_code == 200


def test_the_flow_finds_what_is_queued_and_reports_each_store(client, known, engine):
    erasure_id = uuid.UUID(erase(client, known).json()["erasure_id"])
    with Session(engine) as session, session.begin():
        assert erasure_id in [one.id for one in list_queued(session)]
        for store in ("lake", "feature_store", "artifacts"):
            report_store(session, erasure_id, store, "done", {"rows": 3})
        assert erasure_id not in [one.id for one in list_queued(session)]
        with pytest.raises(ConflictError):
            report_store(session, erasure_id, "elsewhere", "done", {})

    (shown,) = ask(client, f"/individuals/{known}/erasures", AUDITOR()).json()["items"]
    assert shown["stores"]["lake"]["details"] == {"rows": 3}
    assert KEYS.holds(shown["receipt"])


def test_the_audit_rows_of_an_erased_individual_stay(client, known, engine):
    before = len(read_rows(engine, AuditRow, known))
    erase(client, known)

    assert len(read_rows(engine, AuditRow, known)) == before + 1
    assert ask(client, f"/individuals/{known}/access-history", AUDITOR()).json()["items"]
