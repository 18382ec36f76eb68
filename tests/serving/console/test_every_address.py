"""Every address that is only read, API and console alike: what it answers and what it leaves."""

import re
import uuid
from collections.abc import Iterator

import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from serving.auth.sign_in_tickets import issue_sign_in_link
from serving.database.tables import Base, ReviewItem
from serving.roles import Role
from tests.fixtures.api import HIGH_ANSWERS, make_headers, read_rows
from tests.fixtures.console import ORIGIN

#: The audit trail keeps every viewing and verification, and a session when it was last used.
WRITTEN_BY_VIEWING = {
    *("audit_log", "audit_chain", "audit_checkpoints", "audit_verifications", "browser_sessions")
}
#: The first step of a sign-in keeps the state that the browser has to bring back.
LEFT_OUT = "/console/sign-in/provider"
PLACE = re.compile(r"\{(\w+)(?::\w+)?\}")
#: A name of our own, with a day or a pseudonym: nothing that was typed.
ATTACHED = re.compile(r'attachment; filename="[a-z0-9.-]+"')


def list_gets(client: TestClient) -> Iterator[str]:
    """Yield the path of every route with a GET."""
    for included in client.app.routes:
        for route in getattr(getattr(included, "original_router", None), "routes", ()):
            if isinstance(route, APIRoute) and "GET" in route.methods and route.path != LEFT_OUT:
                yield route.path


@pytest.fixture(scope="module")
def browser(client, settings, engine):
    """An admin who has signed in, beside the token of one."""
    admin = TestClient(client.app, raise_server_exceptions=False, follow_redirects=False)
    with Session(engine) as session, session.begin():
        link = issue_sign_in_link(session, settings, "every.address", Role.ADMIN)
    token = link.partition("=")[2]
    admin.post("/console/sign-in", data={"link": token}, headers={"Origin": ORIGIN})
    yield admin
    admin.close()


@pytest.fixture(scope="module")
def known(client, engine):
    """The ids of a person, of a prediction about them, and of its review."""
    admin = make_headers(Role.ADMIN, f"admin.{uuid.uuid4().hex[:8]}")
    person = uuid.uuid4().hex
    terms = {"data_types": ["survey"], "purposes": ["screening"]}
    body = {"grants": [terms | {"expires_at": "2099-01-01T00:00:00Z"}]}
    client.put(f"/consents/{person}", json=body, headers=admin).raise_for_status()
    body = {"anonymized_id": person, "survey_data": {"phq9": HIGH_ANSWERS}}
    prediction = client.post("/screen", json=body, headers=admin).raise_for_status().json()
    (review,) = read_rows(engine, ReviewItem, person)
    ids = {"anonymized_id": person, "prediction_id": prediction["prediction_id"]}
    return ids | {"job_id": str(uuid.uuid4()), "review_id": str(review.id), "name": "console.css"}


def summarise_tables(engine: Engine) -> dict[str, str]:
    """Return a digest of the rows of each table that viewing does not write to."""
    names = [table.name for table in Base.metadata.sorted_tables]
    query = "SELECT coalesce(md5(string_agg(t::text, '|' ORDER BY t::text)), '') FROM {} AS t"
    with engine.connect() as connection:
        return {
            name: connection.scalar(text(query.format(name)))
            for name in names
            if name not in WRITTEN_BY_VIEWING
        }


@pytest.fixture(scope="module")
def visited(client, browser, known, engine):
    """The answer of every path, with digests of the tables before and after."""
    headers = make_headers(Role.ADMIN, "every.address")
    before, answers = summarise_tables(engine), {}
    for path in sorted(set(list_gets(client))):
        address = PLACE.sub(lambda place: known[place[1]], path)
        caller, own = (browser, {}) if path.startswith("/console") else (client, headers)
        answers[path] = caller.get(address, headers=own)
    return before, answers, summarise_tables(engine)


def test_every_address_is_visited(visited):
    _, answers, _ = visited
    assert {"/reviews", "/console/queue", "/fhir/RiskAssessment"} <= set(answers)
    assert len(answers) > 45
    assert not {path for path, answer in answers.items() if answer.status_code >= 500}


def test_a_get_leaves_nothing_but_traces_of_the_viewing(visited):
    before, _, after = visited
    assert after == before


def test_every_text_names_its_encoding(visited):
    _, answers, _ = visited
    types = {path: answer.headers.get("Content-Type", "") for path, answer in answers.items()}
    unnamed = {path: kind for path, kind in types.items() if kind.startswith("text/")}

    assert unnamed
    assert {path for path, kind in unnamed.items() if "charset=utf-8" not in kind} == set()


def test_every_page_of_a_session_has_the_way_out(visited):
    _, answers, _ = visited
    pages = {
        path: answer.text
        for path, answer in answers.items()
        if path.startswith("/console/")
        and not path.startswith("/console/sign-in")
        and answer.headers.get("Content-Type", "").startswith("text/html")
    }

    assert len(pages) > 10
    assert {
        path for path, page in pages.items() if 'action="/console/sign-out"' not in page
    } == set()


def test_downloads_are_named_by_us(visited):
    _, answers, _ = visited
    named = {path: answer.headers.get("Content-Disposition") for path, answer in answers.items()}
    downloads = {path: name for path, name in named.items() if name is not None}

    assert "/console/individuals/{anonymized_id}/export" in downloads
    assert {path for path, name in downloads.items() if not ATTACHED.fullmatch(name)} == set()
