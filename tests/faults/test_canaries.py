"""What identifies a person reaches no log, metric, table or answer that is not meant for it."""

import csv
import json
import logging
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import structlog
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from flows.lake.tables import QUARANTINE, scan_table
from flows.sources.contract import TABLES
from monitoring.logging import configure_logging
from serving.roles import Role
from tests.fixtures.api import (
    HIGH_ANSWERS,
    LOW_ANSWERS,
    application_url,
    engine,
    grant,
    make_headers,
    make_settings,
    mlflow_url,
    production_version,
    reader,
    releases,
    run_app,
)
from tests.fixtures.canaries import ENCODINGS, find_canaries, make_canaries, read_database
from tests.fixtures.ehr import (
    CLINIC,
    FEEDBACK,
    HOOK,
    PUBLIC_URL,
    make_hook,
    make_response,
    write_clients,
)
from tests.fixtures.quiet_ingestion import ingest_quietly

__all__ = [
    "application_url",
    "engine",
    "grant",
    "mlflow_url",
    "production_version",
    "reader",
    "releases",
]

#: What clinicians and administrators write for other people, each in its own column.
FREE_TEXT = (
    *("review_items.comment", "review_events.note", "contact_attempts.note"),
    *("crisis_overrides.comment",),
)
SENT = "/fhir/QuestionnaireResponse"
GRANTS = [
    {
        "data_types": ["survey", "wearable", "emr"],
        "purposes": ["screening"],
        "expires_at": "2099-01-01T00:00:00Z",
    }
]
#: Request headers that clients and proxies set.
HEADERS = ("X-Request-ID", "Idempotency-Key", "User-Agent", "Referer", "Cookie", "Accept-Language")
HEADERS += ("X-Forwarded-For", "X-Forwarded-User", "traceparent", "baggage", "Authorization")
QUERIES = (
    *("/audit?user_id=", "/audit?action=", "/audit?event_type=", "/audit?cursor="),
    *("/audit?since=", "/audit?anonymized_id=", "/reviews?reason=", "/reviews?claimed_by="),
    *("/reviews?cursor=", "/fhir/RiskAssessment?patient=", "/fhir/RiskAssessment?_id="),
    *("/fhir/RiskAssessment?date=", "/compliance/report?since=", "/health?name="),
    *("/console/sign-in?link=", "/console/sign-in?next=/console/queue?x=", "/console/queue?band="),
    *("/console/sign-in/callback?state=", "/console/sign-in/provider?next=/console?x="),
)
PATHS = (
    *("/{}", "/predictions/{}", "/predictions/{}/passport", "/individuals/{}"),
    *("/individuals/{}/export", "/consents/{}", "/reviews/{}", "/fhir/RiskAssessment/{}"),
    *("/cds-services/{}", "/docs/{}", "/console/individuals/{}", "/console/cases/{}"),
)
BY_OWN_ID = ("/individuals/lookup", "/individuals/predictions", "/reviews/search")
BY_OWN_ID += ("/consents/lookup", "/consents/withdraw")

Send = Callable[[str], list[Any]]


@pytest.fixture(scope="module")
def client(application_url, mlflow_url, production_version, reader, tmp_path_factory):
    clients = write_clients(tmp_path_factory.mktemp("ehr") / "clients.json")
    changes = {"ehr_clients_file": str(clients), "public_url": PUBLIC_URL}
    settings = make_settings(application_url, mlflow_url, **changes)
    with run_app(settings, reader) as client:
        yield client


@pytest.fixture
def logs(capsys: pytest.CaptureFixture[str], client: TestClient) -> Iterator[Callable[[], str]]:
    """All log lines of the process from here on, but those of the client of this test."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    configure_logging("DEBUG", "json")
    for name in ("httpx", "httpx2", "httpcore", "asyncio", "urllib3"):
        logging.getLogger(name).setLevel(logging.WARNING)
    yield lambda: "".join(capsys.readouterr())
    root.handlers, _ = handlers, root.setLevel(level)
    structlog.reset_defaults()


def make_senders(client: TestClient) -> dict[str, Send]:
    """Return what sends a value through each kind of field a caller controls."""
    staff, admin = make_headers(), make_headers(Role.ADMIN)

    def post(path: str, body: Any, headers: dict[str, str] = staff) -> Any:
        return client.post(path, json=body, headers=headers)

    def screen(**body: Any) -> Any:
        return post("/screen", {"patient_id": "known", "survey_data": {"phq9": LOW_ANSWERS}} | body)

    def screen_by_own_id(value: str) -> list[Any]:
        refused = screen(patient_id=value)
        granted = post("/consents", {"patient_id": value, "grants": GRANTS})
        return [refused, granted, screen(patient_id=value)]

    def send_headers(value: str) -> list[Any]:
        raw = value.encode()
        return [
            client.post(
                "/screen",
                json={"patient_id": "known", "survey_data": {"phq9": LOW_ANSWERS}},
                headers=[*staff.items(), (name, raw)],
            )
            for name in HEADERS
        ]

    def send_wrong_types(value: str) -> list[Any]:
        bodies: list[dict[str, Any]] = [
            {value: 1},
            {"name": value},
            {"survey_data": value},
            {"survey_data": {value: 1}},
            {"survey_data": {"phq9": [value] * 9}},
            {"survey_data": {"phq9": [*LOW_ANSWERS[:8], value]}},
            {"index_time": value},
            {"consent_verified": value},
            {"patient_id": {value: value}},
            {"patient_id": [value]},
            {"anonymized_id": value, "patient_id": None},
        ]
        return [screen(**body) for body in bodies] + [
            client.post("/screen", content=raw, headers=staff | {"Content-Type": kind})
            for raw, kind in (
                (json.dumps({"patient_id": value}).encode("utf-16"), "application/json"),
                (json.dumps({value: value})[:-1].encode(), "application/json"),
                (value.encode(), "text/plain"),
                (f"name={quote(value)}".encode(), "application/x-www-form-urlencoded"),
                (b"{}", f"application/json; name={quote(value)}"),
            )
        ]

    def send_batch(value: str) -> list[Any]:
        items = [{"patient_id": value}, {"patient_id": "known", value: 1}, value]
        return [
            post("/screen/batch", {"items": items}),
            post("/screen/batch", {"items": items[:1]}),
        ]

    def send_consents(value: str) -> list[Any]:
        wrong = [GRANTS[0] | {"data_types": [value]}, GRANTS[0] | {"expires_at": value}, value]
        bodies = [{"patient_id": value, "grants": [one]} for one in wrong]
        path = f"/consents/{uuid.uuid4().hex}"
        return [post("/consents", body) for body in bodies] + [
            client.put(path, json={"grants": wrong, "note": value}, headers=staff)
        ]

    def send_own_ids(value: str) -> list[Any]:
        return [post(path, {"patient_id": value}) for path in BY_OWN_ID] + [
            client.post(
                "/fhir/RiskAssessment/_search",
                data={"patient": value, value: "x"},
                headers=staff,
            )
        ]

    def send_fhir(value: str) -> list[Any]:
        resource = make_response(
            "known",
            HIGH_ANSWERS,
            id=value,
            text={"status": "generated", "div": f"<div>{value}</div>"},
            author={"display": value},
            identifier={"system": f"urn:{value}", "value": value},
            contained=[{"resourceType": "Patient", "name": [{"text": value}]}],
            extension=[{"url": value, "valueString": value}],
        )
        odd = [
            resource,
            resource | {"authored": value},
            resource | {"subject": {"reference": f"Patient/{value}", "display": value}},
            resource | {"subject": {"reference": value}},
            resource | {"questionnaire": value, "status": value},
            resource | {"resourceType": value},
            resource | {"item": [{"linkId": value, "answer": [{"valueString": value}]}]},
        ]
        bundle = {"resourceType": "Bundle", "type": value, "entry": [{"fullUrl": value}]}
        whole = {"resourceType": "Patient", "id": "known", "name": [{"text": value}]}
        entries = [{"fullUrl": f"urn:{value}", "resource": one} for one in (whole, resource)]
        moved = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
        to_clinic = [client.post(SENT, json=one, headers=CLINIC.authorise(SENT)) for one in odd]
        return to_clinic + [
            client.post("/fhir", json=one, headers=CLINIC.authorise("/fhir"))
            for one in (bundle, moved)
        ]

    def send_hooks(value: str) -> list[Any]:
        hook = make_hook("known", make_response("known", HIGH_ANSWERS, author={"display": value}))
        patient = {"resourceType": "Patient", "id": "known", "name": [{"text": value}]}
        hooks = [
            hook | {"prefetch": hook["prefetch"] | {"patient": patient}},
            hook | {"context": {"userId": value, "patientId": value}},
            hook | {"hook": value, "hookInstance": value, "fhirServer": value},
            make_hook(value, make_response(value, HIGH_ANSWERS)),
        ]
        feedback = [
            {"card": str(uuid.uuid4()), "outcome": "overridden", "outcomeTimestamp": value},
            {"card": value, "outcome": value, "overrideReason": {"userComment": value}},
        ]
        return [client.post(HOOK, json=one, headers=CLINIC.authorise(HOOK)) for one in hooks] + [
            client.post(FEEDBACK, json={"feedback": [one]}, headers=CLINIC.authorise(FEEDBACK))
            for one in feedback
        ]

    def send_notes(value: str) -> list[Any]:
        item = client.get("/reviews?limit=1", headers=staff).json()["items"][0]
        path, prediction = f"/reviews/{item['id']}", item["prediction_id"]
        contact = {"channel": "phone", "outcome": "no_answer", "note": value}
        decision = {"decision": value, "new_band": value, "reason_code": value, "comment": value}
        return [
            post(f"{path}/notes", {"note": value}),
            post(f"{path}/contacts", contact),
            post(f"{path}/decision", decision),
            post(f"/screen/{prediction}/crisis-override", {"comment": value}),
        ]

    def send_to_console(value: str) -> list[Any]:
        form = {"link": value, "next": f"/console/{value}"}
        return [client.post("/console/sign-in", data=form, headers={"Origin": value.encode()})]

    def send_queries(value: str) -> list[Any]:
        found = [client.get(f"{one}{quote(value)}", headers=admin) for one in QUERIES]
        return [*found, client.get(f"/health?{quote(value)}=1")]

    def send_paths(value: str) -> list[Any]:
        return [client.get(one.format(quote(value, safe="")), headers=admin) for one in PATHS]

    return {
        "own id": screen_by_own_id,
        "headers": send_headers,
        "wrong types": send_wrong_types,
        "batch": send_batch,
        "consents": send_consents,
        "own ids": send_own_ids,
        "fhir": send_fhir,
        "hooks": send_hooks,
        "notes": send_notes,
        "console": send_to_console,
        "queries": send_queries,
        "paths": send_paths,
    }


def find_leaks(engine: Engine, client: TestClient, logged: str) -> dict[str, list[str]]:
    """Return the canaries of each sink that holds any."""
    sinks = read_database(engine, FREE_TEXT)
    sinks |= {"logs": logged, "metrics": client.get("/metrics").text}
    found = {sink: find_canaries(held) for sink, held in sinks.items()}
    return {sink: canaries for sink, canaries in found.items() if canaries}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_canary_that_stands_in_a_text_is_found(encoding: str) -> None:
    for canary in make_canaries():
        assert canary in find_canaries(f"x{ENCODINGS[encoding](canary)}x")


@pytest.mark.parametrize("every", [37, pytest.param(1, marks=pytest.mark.nightly)])
def test_what_identifies_a_person_reaches_no_sink(client, engine, logs, capsys, every) -> None:
    values = [encode(canary) for canary in make_canaries() for encode in ENCODINGS.values()]
    assert len(values) == 800
    crisis = {"patient_id": "known", "survey_data": {"phq9": [*LOW_ANSWERS[:8], 3]}}
    client.post("/consents", json={"patient_id": "known", "grants": GRANTS}, headers=make_headers())
    assert client.post("/screen", json=crisis, headers=make_headers()).status_code == 200
    repeated, failed, requests = set(), set(), 0
    for place, (name, send) in enumerate(make_senders(client).items()):
        for value in values[place % every :: every]:
            for response in send(value):
                requests += 1
                where = f"{name}: {response.request.method} {response.request.url.path[:20]}"
                if response.status_code >= 500:
                    failed.add(f"{where} {response.status_code} {value[:20]!r}")
                if response.status_code >= 400 and find_canaries(response.text):
                    repeated.add(where)
    with capsys.disabled():
        print(f"\ncanaries: {requests} requests with {len(values)} values, every {every}th")  # noqa: T201
    assert failed == set()
    assert repeated == set()
    assert find_leaks(engine, client, logs()) == {}
    assert requests > 3000 / every


def test_what_identifies_a_person_in_a_drop_reaches_no_table_and_no_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = [encode(canary) for canary in make_canaries() for encode in ENCODINGS.values()]
    usable = [one for one in values if "\x00" not in one]
    drop = write_canary_drop(tmp_path / "drop", usable)
    report = ingest_quietly(drop, str(tmp_path / "lake"), usable)
    tables = {
        name: str(scan_table(str(tmp_path / "lake"), name).collect().to_dicts())
        for name in (*TABLES, QUARANTINE)
    }
    sinks = tables | {"report": repr(report), "printed": "".join(capsys.readouterr())}

    assert sum(counts.landed for counts in report.tables.values()) > len(usable)
    assert {name: found for name, held in sinks.items() if (found := find_canaries(held))} == {}


def write_canary_drop(drop: Path, values: list[str]) -> Path:
    """Write values as person ids, unknown columns, cells of wrong types, and names of files."""
    drop.mkdir()
    written: dict[str, list[list[str]]] = {
        "people.csv": [["person_id", "birth_date", "sex", "name", values[0]]],
        "wearable_days.csv": [["person_id", "date", "steps", "home"]],
        "emr_events.csv": [["person_id", "kind", "system", "code", "started_at", "note"]],
    }
    for one in values:
        written["people.csv"] += [[one, "1980-01-01", "female", one, one]]
        written["people.csv"] += [[f"{one}-2", one, one, one, one]]
        days = [
            [one, "2025-01-01", "100", one],
            [one, one, "1", one],
            [one, "2025-01-02", one, one],
        ]
        written["wearable_days.csv"] += days
        event = [one, "diagnosis", "icd-10", "F32.1", "2025-01-01", one]
        written["emr_events.csv"] += [event, [one, one, "icd-10", "F32.1", one, one]]
    for name, rows in written.items():
        with (drop / name).open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    resources = [make_response(one, text={"div": one}, author={"display": one}) for one in values]
    lines = [*map(json.dumps, resources), *(f'{{"name": {json.dumps(one)}' for one in values)]
    (drop / "QuestionnaireResponse.ndjson").write_text("\n".join(lines))
    for name in ("Zéphyrine Quellbrook", "1910-02-10"):
        (drop / f"surveys_{name}.csv").write_text("person_id,instrument,answered_at\n")
        (drop / f"{name}.ndjson").write_text("{")
    return drop
