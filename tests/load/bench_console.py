"""Server time of the console's pages over a queue of 100,000 items: medians and p95, queries too.

python -m tests.load.bench_console
"""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import Any

from fastapi.testclient import TestClient
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.orm import Session

from infra.local.ports import choose_port
from infra.local.postgres import remove_root_state, start_postgres
from monitoring.logging import configure_logging
from serving.app import create_app
from serving.auth.sign_in_tickets import issue_sign_in_link
from serving.database.migrate import upgrade
from serving.roles import Role
from serving.settings import Settings
from tests.fixtures.api import MemoryReader, make_settings

ITEMS = 100_000
PEOPLE = 40_000
ROUNDS = 60
WARM_UP = 5
PAGES = {
    "queue": "/console/queue",
    "queue, high": "/console/queue?band=high",
    "queue, my items": "/console/queue?owner=mine",
    "queue, due soonest": "/console/queue?order=due",
    "queue, newest": "/console/queue?order=newest",
}
ANSWER = {
    "summary": "High review priority: 49% (38%-61%) chance of an adverse course within 90 days.",
    "risk_score": 61.0,
    "risk_band": "high",
    "decided_by": "release",
    "probability": 0.49,
    "review_reasons": [{"code": "high_priority", "text": "The priority is high."}],
    "reasons": [{"direction": "raises", "text": "PHQ-9 12 of 27, moderate"}] * 5,
    "data_as_of": {"wearable_windows": "2026-11-27T00:00:00Z"},
    "missing_data": ["emr"],
}
INPUTS = {
    "features": {f"feature_{n}": 0.5 for n in range(60)},
    "request": {f"answered_phq9_{n}": 1.0 for n in range(1, 10)},
}
FILL = """
INSERT INTO predictions (id, anonymized_id, created_at, user_id, risk_score, probability, outcome,
    risk_band, confidence, needs_review, review_reasons, release_version, arm, answer, inputs)
SELECT gen_random_uuid(), md5((n % :people)::text), now() - n * interval '1 minute', 'bench',
    random() * 100, 0.5, 'adverse_course', (ARRAY['critical','high','moderate','low'])[1 + n % 4],
    0.7, true, ARRAY['high_priority'], '1', 'production', :answer, :inputs
FROM generate_series(1, :items) AS n
"""
QUEUE = """
INSERT INTO review_items (id, prediction_id, anonymized_id, created_at, priority, reasons,
    crisis_level, risk_score, status, due_at)
SELECT gen_random_uuid(), id, anonymized_id, created_at, risk_band, review_reasons, 0, risk_score,
    'pending', created_at + interval '1 day'
FROM predictions
"""


@contextmanager
def open_database() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        server = start_postgres(Path(folder), choose_port(15700), "bench")
        server.create_databases(["console"])
        url = server.url("console")
        upgrade(url)
        yield url
        server.stop()
        remove_root_state(Path(folder))


def fill(engine: Engine) -> None:
    parts = {"answer": json.dumps(ANSWER), "inputs": json.dumps(INPUTS)}
    with engine.begin() as connection:
        # Triggers lock each person's rows in turn, which a screening does one at a time.
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text(FILL), {"items": ITEMS, "people": PEOPLE, **parts})
        connection.execute(text(QUEUE))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))


def sign_in(client: TestClient, engine: Engine, settings: Settings) -> None:
    with Session(engine) as session, session.begin():
        link = issue_sign_in_link(session, settings, "bench", Role.CLINICIAN)
    token, origin = link.partition("=")[2], {"Origin": "http://testserver"}
    client.post("/console/sign-in", data={"link": token}, headers=origin).raise_for_status()


def measure(client: TestClient, path: str, statements: list[str]) -> tuple[float, float, int]:
    """Return median and p95 in milliseconds, and the statements of one request."""
    for _ in range(WARM_UP):
        client.get(path).raise_for_status()
    statements.clear()
    client.get(path)
    queries, times = len(statements), []
    for _ in range(ROUNDS):
        begun = perf_counter()
        client.get(path)
        times.append(1000 * (perf_counter() - begun))
    return median(times), quantiles(times, n=20)[-1], queries


def main() -> None:
    with open_database() as url:
        engine = create_engine(url)
        fill(engine)
        settings = make_settings(
            url, "http://127.0.0.1:9", MHRAS_ENV="development", release_poll_seconds=30
        )
        statements: list[str] = []
        with TestClient(create_app(settings, MemoryReader())) as client:
            configure_logging("ERROR", settings.log_format)
            watch(client, statements)
            sign_in(client, engine, settings)
            print_pages(client, engine, statements)
        engine.dispose()


def watch(client: TestClient, statements: list[str]) -> None:
    application: Any = client.app

    @event.listens_for(application.state.services.engine, "before_cursor_execute")
    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)


def print_pages(client: TestClient, engine: Engine, statements: list[str]) -> None:
    with Session(engine) as session:
        item = session.scalar(text("SELECT id FROM review_items LIMIT 1"))
    print(f"\nConsole over {ITEMS:,} open items, {ROUNDS} requests a page\n")
    print(f"{'page':22} {'median ms':>10} {'p95 ms':>10} {'statements':>11}")
    for name, path in {**PAGES, "case": f"/console/cases/{item}"}.items():
        middle, slow, queries = measure(client, path, statements)
        print(f"{name:22} {middle:10.1f} {slow:10.1f} {queries:11}", flush=True)


if __name__ == "__main__":
    main()
