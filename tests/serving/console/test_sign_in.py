"""Who gets into the console, and how a session ends; every refusal is audited."""

import base64
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from serving.auth.browser_sessions import (
    Limits,
    find_browser_session,
    hash_secret,
    open_browser_session,
)
from serving.auth.sign_in_tickets import LinksDisabledError, issue_sign_in_link
from serving.console.access import DEVELOPMENT_COOKIE, SECURE_COOKIE, name_cookie
from serving.database.tables import AuditRow, BrowserSession, SignInTicket
from serving.errors import Principal
from serving.roles import Role
from tests.fixtures.api import make_headers, make_settings
from tests.fixtures.console import read_text

LIMITS = Limits(timedelta(minutes=30), timedelta(hours=10))


def list_refusals(engine, since):
    with Session(engine) as session:
        statement = select(AuditRow).where(AuditRow.result == "failure", AuditRow.id > since)
        return [row.details["reason"] for row in session.scalars(statement.order_by(AuditRow.id))]


@pytest.fixture
def newest(engine):
    """Number of the newest audit row before a test."""
    time.sleep(0.21)  # in a second at most five callers without a session are recorded
    with Session(engine) as session:
        return session.scalars(select(AuditRow.id).order_by(AuditRow.id.desc())).first() or 0


def test_a_page_without_a_session_leads_to_the_sign_in_and_back(visit, engine, newest):
    answer = visit().get("/console/queue?band=high")

    assert answer.status_code == 303
    assert answer.headers["Location"] == "/console/sign-in?next=/console/queue%3Fband%3Dhigh"
    assert list_refusals(engine, newest) == ["unauthenticated"]


def test_a_link_signs_in_once(visit, engine, newest):
    token = visit().issue_link(Role.CLINICIAN).partition("=")[2]
    first = visit().post_raw("/console/sign-in", {"link": token})
    again = visit().post_raw("/console/sign-in", {"link": token})

    assert (first.status_code, again.status_code) == (303, 401)
    assert "was used before" in read_text(again)
    assert "Set-Cookie" not in again.headers
    assert list_refusals(engine, newest) == ["unauthenticated"]


def test_of_two_uses_of_a_link_at_once_one_signs_in(visit):
    token = visit().issue_link().partition("=")[2]
    visitors, statuses = [visit(), visit(), visit()], []

    def use(visitor):
        statuses.append(visitor.post_raw("/console/sign-in", {"link": token}).status_code)

    threads = [threading.Thread(target=use, args=(one,)) for one in visitors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(statuses) == [303, 401, 401]


def test_opening_the_page_of_a_link_does_not_use_it_up(visit):
    visitor = visit()
    link = visitor.issue_link()

    assert visitor.get(link).status_code == visitor.get(link).status_code == 200
    answer = visitor.post_raw("/console/sign-in", {"link": link.partition("=")[2]})
    assert answer.status_code == 303


def test_a_link_cannot_be_issued_or_used_outside_of_development(settings, engine, visit):
    production = make_settings("postgresql://u:p@h/d", "http://127.0.0.1:1")
    with Session(engine) as session, pytest.raises(LinksDisabledError):
        issue_sign_in_link(session, production, "dr.who", Role.CLINICIAN)


def test_a_sign_in_from_a_foreign_page_is_refused(visit):
    token = visit().issue_link().partition("=")[2]
    visitor = visit()
    answer = visitor.post_raw("/console/sign-in", {"link": token}, origin="https://evil.example")

    assert answer.status_code == 401
    assert visitor.post_raw("/console/sign-in", {"link": token}).status_code == 303


@pytest.mark.parametrize(
    "elsewhere",
    [
        *("https://evil.example/", "//evil.example", "/console/../x", "/consolex", "/audit"),
        *("javascript:alert(1)", "data:text/html,x", "/console/queue\r\nSet-Cookie: a=b"),
    ],
)
def test_a_sign_in_leads_to_no_page_elsewhere(visit, elsewhere):
    visitor = visit()
    token = visitor.issue_link().partition("=")[2]
    answer = visitor.post_raw("/console/sign-in", {"link": token, "next": elsewhere})

    assert answer.headers["Location"] == "/console"


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(visit):
    visitor = visit()
    token = visitor.issue_link().partition("=")[2]
    cookie = visitor.post_raw("/console/sign-in", {"link": token}).headers["Set-Cookie"]

    assert cookie.startswith(f"{DEVELOPMENT_COOKIE}=")
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "Domain" not in cookie


def test_outside_of_development_the_cookie_is_bound_to_a_secure_host():
    production = make_settings("postgresql://u:p@h/d", "http://127.0.0.1:1")

    assert name_cookie(production) == SECURE_COOKIE == "__Host-mhras"


def test_a_signed_out_session_opens_nothing(visit, engine, newest):
    visitor = visit().sign_in()
    kept = dict(visitor.client.cookies)
    assert visitor.post("/console/queue", "/console/sign-out").status_code == 303
    visitor.client.cookies.update(kept)

    assert visitor.get("/console/queue").headers["Location"].startswith("/console/sign-in")
    assert list_refusals(engine, newest) == ["session-ended"]


def test_revoking_a_user_s_tokens_ends_the_sessions(visit, client):
    visitor, other = visit().sign_in(user="left.us"), visit().sign_in(user="stays")
    body = {"user_id": "left.us", "reason": "left the service"}
    client.post("/tokens/revoke", json=body, headers=make_headers(Role.ADMIN)).raise_for_status()

    assert visitor.get("/console/queue").status_code == 303
    assert other.get("/console/queue").status_code == 200


@pytest.mark.parametrize("column", ["last_seen_at", "expires_at"])
def test_a_session_ends_by_idleness_and_by_age(visit, engine, column):
    visitor = visit().sign_in()
    secret = visitor.client.cookies[DEVELOPMENT_COOKIE]
    with Session(engine) as session, session.begin():
        past = datetime.now(UTC) - timedelta(minutes=31)
        changed = update(BrowserSession).values({column: past})
        session.execute(changed.where(BrowserSession.token_hash == hash_secret(secret)))

    assert visitor.get("/console/queue").status_code == 303


def test_long_ended_sessions_are_removed_at_a_sign_in(engine):
    with Session(engine) as session, session.begin():
        secret = open_browser_session(session, Principal("old", Role.CLINICIAN), LIMITS)
        row = session.get_one(BrowserSession, hash_secret(secret))
        row.expires_at = datetime.now(UTC) - timedelta(days=2)
    with Session(engine) as session, session.begin():
        open_browser_session(session, Principal("new", Role.CLINICIAN), LIMITS)
        assert session.get(BrowserSession, hash_secret(secret)) is None


def test_the_database_holds_no_secret_of_a_session(engine):
    with Session(engine) as session, session.begin():
        secret = open_browser_session(session, Principal("dr.who", Role.CLINICIAN), LIMITS)
        row = session.get_one(BrowserSession, hash_secret(secret))
        held = [getattr(row, column.name) for column in BrowserSession.__table__.columns]
        assert find_browser_session(session, secret, LIMITS) is not None

    assert secret not in map(str, held)
    assert secret.encode() not in held


def test_the_secret_of_a_session_has_256_random_bits(engine):
    with Session(engine) as session, session.begin():
        made = {
            open_browser_session(session, Principal("dr.who", Role.CLINICIAN), LIMITS)
            for _ in range(20)
        }

    assert len(made) == 20
    assert {len(base64.urlsafe_b64decode(f"{secret}=")) for secret in made} == {32}


@pytest.mark.parametrize("token", [None, "0" * 64])
def test_a_form_with_a_forged_token_is_refused_and_audited(visit, engine, newest, token):
    visitor = visit().sign_in()
    fields = {"other": "1"} if token is None else {"form_token": token}
    answer = visitor.post_raw("/console/sign-out", fields)

    assert answer.status_code == 403
    assert "does not belong to your session" in read_text(answer)
    assert list_refusals(engine, newest) == ["forged-form"]
    assert visitor.get("/console/queue").status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://testserver.evil"])
def test_a_form_of_a_foreign_origin_is_refused_and_audited(visit, engine, newest, origin):
    visitor = visit().sign_in()
    fields = {"form_token": visitor.read_token("/console/queue")}
    answer = visitor.post_raw("/console/sign-out", fields, origin=origin)

    assert answer.status_code == 403
    assert list_refusals(engine, newest) == ["foreign-origin"]


def test_a_form_token_of_another_session_is_refused(visit):
    first, second = visit().sign_in(user="first"), visit().sign_in(user="second")
    token = first.read_token("/console/queue")

    assert second.post_raw("/console/sign-out", {"form_token": token}).status_code == 403


def test_a_link_from_another_site_reloads_the_page_once(visit):
    visitor = visit()
    answer = visitor.get("/console/queue", **{"Sec-Fetch-Site": "cross-site"})

    assert answer.status_code == 200
    assert 'http-equiv="refresh" content="0; url=/console/queue"' in answer.text


def test_signing_in_and_out_is_audited(visit, engine):
    visitor = visit().sign_in(user="leaves.a.trace")
    visitor.post("/console/queue", "/console/sign-out")
    with Session(engine) as session:
        rows = session.scalars(select(AuditRow).where(AuditRow.user_id == "leaves.a.trace"))
        assert {"sign_in", "sign_out"} <= {row.action for row in rows}


def test_a_page_runs_no_script_and_loads_nothing_from_elsewhere(visit):
    answer = visit().get("/console/sign-in")
    policy = answer.headers["Content-Security-Policy"]

    assert "script-src" not in policy
    assert "default-src 'none'" in policy
    assert "form-action 'self'" in policy
    assert "<script" not in answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Referrer-Policy"] == "same-origin"


def test_the_intended_use_is_on_the_page(visit):
    assert "Not a diagnosis" in read_text(visit().get("/console/sign-in"))


def test_a_link_that_was_not_used_in_time_signs_nobody_in(visit, engine):
    visitor = visit()
    token = visitor.issue_link().partition("=")[2]
    with Session(engine) as session, session.begin():
        session.execute(update(SignInTicket).values(expires_at=datetime.now(UTC)))

    assert visitor.post_raw("/console/sign-in", {"link": token}).status_code == 401
