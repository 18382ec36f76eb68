"""What identifies a person reaches no log, metric, table or answer that is not meant for it."""

import csv
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from flows.lake.tables import QUARANTINE, scan_table
from flows.sources.contract import TABLES
from monitoring.logging import configure_logging
from tests.fixtures.api import (
    LOW_ANSWERS,
    application_url,
    engine,
    grant,
    make_headers,
    make_settings,
    production_version,
    reader,
    run_app,
)
from tests.fixtures.canaries import ENCODINGS, find_canaries, make_canaries, read_database
from tests.fixtures.canary_requests import GRANTS, make_senders
from tests.fixtures.ehr import (
    PUBLIC_URL,
    make_response,
    write_clients,
)
from tests.fixtures.quiet_ingestion import ingest_quietly

__all__ = [
    "application_url",
    "engine",
    "grant",
    "production_version",
    "reader",
]

#: What clinicians and administrators write for other people, each in its own column.
FREE_TEXT = (
    *("review_items.comment", "review_events.note", "contact_attempts.note"),
    *("crisis_overrides.comment",),
)


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
