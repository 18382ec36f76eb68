"""Refusals of tokens and sessions that no screen of the console leads to."""

import base64
import hashlib
from datetime import UTC, datetime, timedelta

import jwt
import pytest

from serving.auth.browser_sessions import Limits, find_browser_session, open_browser_session
from serving.auth.sign_in_tickets import end_visit, issue_sign_in_link, redeem_link
from serving.auth.tokens import TOKEN_TYPE, issue_token, read_token
from serving.auth.verifier import ProviderKeys
from serving.database.tables import BrowserSession
from serving.errors import Principal, UnauthenticatedError
from serving.roles import Role
from tests.fixtures.api import JWT_SECRET, make_settings

HOUR = timedelta(hours=1)
LIMITS = Limits(idle=HOUR, absolute=8 * HOUR)
PERSON = Principal("dr.who", Role.CLINICIAN)


@pytest.fixture
def development():
    url = "postgresql://mhras@127.0.0.1/mhras"
    return make_settings(url, "http://127.0.0.1", MHRAS_ENV="development")


@pytest.mark.parametrize("user", ["", "two words", "<b>", "x" * 129, ".hidden"])
def test_neither_token_nor_link_is_issued_for_an_unusable_user_id(session, development, user):
    with pytest.raises(ValueError, match="the user id may hold"):
        issue_token(JWT_SECRET, user, Role.CLINICIAN, timedelta(minutes=5))
    with pytest.raises(ValueError, match="the user id may hold"):
        issue_sign_in_link(session, development, user, Role.CLINICIAN)


def test_a_token_that_requires_an_extension_is_refused():
    good = issue_token(JWT_SECRET, "dr.who", Role.CLINICIAN, timedelta(minutes=5))
    claims = jwt.decode(good, options={"verify_signature": False})
    headers = {"typ": TOKEN_TYPE, "crit": ["b64"], "b64": True}
    token = jwt.encode(claims, JWT_SECRET, "HS256", headers=headers)

    with pytest.raises(UnauthenticatedError):
        read_token(token, JWT_SECRET)


@pytest.mark.parametrize(
    "header", ["", "no header", base64.urlsafe_b64encode(b"[]").decode()], ids=str
)
def test_a_token_without_a_readable_header_asks_no_provider_for_keys(header):
    keys = ProviderKeys("http://127.0.0.1:1/keys")
    with pytest.raises(UnauthenticatedError):
        keys.find(f"{header}.e30.AA")

    assert keys._asked_at == float("-inf")


@pytest.mark.parametrize("role", ["", "superuser", "CLINICIAN"])
def test_a_session_of_a_role_that_is_not_there_any_more_opens_nothing(session, role):
    secret = open_browser_session(session, PERSON, LIMITS)
    row = session.get(BrowserSession, hashlib.sha256(secret.encode()).digest())
    assert find_browser_session(session, secret, LIMITS).principal == PERSON
    row.role = role
    session.flush()

    assert find_browser_session(session, secret, LIMITS) is None


def test_a_request_is_noted_once_a_minute(session):
    secret = open_browser_session(session, PERSON, LIMITS)
    row = session.get(BrowserSession, hashlib.sha256(secret.encode()).digest())
    opened_at = row.last_seen_at
    find_browser_session(session, secret, LIMITS)
    assert row.last_seen_at == opened_at
    row.last_seen_at = datetime.now(UTC) - timedelta(minutes=2)
    find_browser_session(session, secret, LIMITS)

    assert row.last_seen_at >= opened_at


def test_a_link_is_no_visit_and_a_visit_no_link(session, development):
    link = issue_sign_in_link(session, development, "dr.who", Role.CLINICIAN)
    token = link.partition("link=")[2]

    assert end_visit(session, token) is None
    assert redeem_link(session, development, token) is None
