"""Signing in at an identity provider: one of the tests' own, on loopback."""

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from fastapi.testclient import TestClient
from sqlalchemy import select
from sqlalchemy.orm import Session

from serving.auth.openid import OpenIdProvider, read_description
from serving.database.tables import AuditRow, Base
from serving.errors import IdentityProviderUnavailableError
from serving.settings import Settings
from tests.fixtures.api import MemoryReader, make_settings, run_app
from tests.fixtures.console import read_text
from tests.fixtures.openid_provider import CLIENT_ID, CLIENT_SECRET, Provider, run_provider


@pytest.fixture(scope="module")
def provider():
    with run_provider() as running:
        yield running


@pytest.fixture(scope="module")
def settings(application_url: str, mlflow_url: str, provider: Provider) -> Settings:
    return make_settings(
        application_url,
        mlflow_url,
        MHRAS_ENV="development",
        oidc_issuer=provider.issuer,
        oidc_client_id=CLIENT_ID,
        oidc_client_secret=CLIENT_SECRET,
        console_url="http://testserver",
    )


@pytest.fixture(autouse=True)
def honest(provider):
    provider.claims, provider.signing_key, provider.is_up = {}, None, True
    provider.sends_id_token = True


@pytest.fixture
def browser(client):
    with_cookies = TestClient(client.app, raise_server_exceptions=False, follow_redirects=False)
    yield with_cookies
    with_cookies.close()


def visit_provider(browser, destination="/console/queue"):
    """Go to the provider and return the address that it sends the person back to."""
    answer = browser.get(f"/console/sign-in/provider?next={destination}")
    back = httpx.get(answer.headers["Location"], trust_env=False)
    return back.headers["Location"].removeprefix("http://testserver")


def test_the_sign_in_page_leads_to_the_provider(browser):
    assert (
        "/console/sign-in/provider?next=/console/queue"
        in browser.get("/console/sign-in?next=/console/queue").text
    )


def test_a_person_signs_in_and_reaches_the_page_asked_for(browser, engine):
    answer = browser.get(visit_provider(browser, "/console/queue?band=high"))

    assert answer.status_code == 200
    assert "0; url=/console/queue?band=high" in answer.text
    assert "dr.provided (clinician)" in read_text(browser.get("/console/queue"))
    with Session(engine) as session:
        rows = session.scalars(select(AuditRow).where(AuditRow.user_id == "dr.provided")).all()
    assert ("sign_in", {"method": "openid"}) in [(row.action, row.details) for row in rows]


@pytest.mark.parametrize(
    "claims",
    [
        {"nonce": "of-another-visit"},
        {"nonce": None},
        {"aud": "another-client"},
        {"aud": [CLIENT_ID, "another"], "azp": "another"},
        {"iss": "https://evil.example"},
        {"exp": 1},
        {"exp": None},
        {"sub": "two words"},
        {"sub": None},
        {"role": "superuser"},
        {"role": None},
        {"role": ["clinician", "admin"]},
    ],
    ids=str,
)
def test_an_id_token_that_says_something_else_opens_nothing(browser, provider, claims):
    provider.claims = claims
    answer = browser.get(visit_provider(browser))

    assert answer.status_code == 401
    assert browser.get("/console/queue").status_code == 303


def test_an_id_token_under_another_key_opens_nothing(browser, provider):
    provider.signing_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    assert browser.get(visit_provider(browser)).status_code == 401


def test_one_role_among_those_of_others_counts(browser, provider):
    provider.claims = {"role": ["offline_access", "auditor"]}
    browser.get(visit_provider(browser))

    assert "(auditor)" in read_text(browser.get("/console/compliance"))


def test_an_answer_is_used_once(browser):
    back = visit_provider(browser)
    cookie = dict(browser.cookies)
    assert browser.get(back).status_code == 200
    browser.cookies.clear()
    browser.cookies.update(cookie)

    assert browser.get(back).status_code == 401


def test_an_answer_opens_nothing_in_another_browser(browser, client):
    back = visit_provider(browser)
    # Entered as a context it would stop the application's services on leaving.
    other = TestClient(client.app, follow_redirects=False)

    assert other.get(back).status_code == 401


def test_a_forged_code_opens_nothing(browser):
    back = visit_provider(browser)
    forged = back.replace("code=", "code=x")

    assert browser.get(forged).status_code == 401


def test_an_answer_of_another_provider_opens_nothing(browser):
    back = visit_provider(browser).partition("&iss=")[0] + "&iss=https%3A%2F%2Fevil.example"

    assert browser.get(back).status_code == 401


@pytest.mark.parametrize("query", ["", "?error=access_denied&state=x", "?code=x"])
def test_an_answer_without_a_visit_opens_nothing(browser, query):
    assert browser.get(f"/console/sign-in/callback{query}").status_code == 401


def test_a_provider_that_is_away_is_said_to_be(provider, application_url, mlflow_url):
    provider.is_up = False
    away = make_settings(
        application_url,
        mlflow_url,
        oidc_issuer=provider.issuer,
        oidc_client_id=CLIENT_ID,
        console_url="https://mhras.example",
    )
    with run_app(away, MemoryReader()) as client:
        answer = client.get("/console/sign-in/provider", follow_redirects=False)

    assert answer.status_code == 503
    assert "identity provider cannot be reached" in read_text(answer)


def test_a_provider_that_goes_away_during_the_visit_is_said_to_be(browser, provider):
    back = visit_provider(browser)
    provider.is_up = False
    answer = browser.get(back)

    assert answer.status_code == 503
    assert "identity provider cannot be reached" in read_text(answer)


def test_an_answer_of_the_provider_without_an_id_token_opens_nothing(browser, provider):
    provider.sends_id_token = False
    answer = browser.get(visit_provider(browser))

    assert answer.status_code == 401
    assert browser.get("/console/queue").status_code != 200


def test_keys_that_move_to_another_address_are_followed(settings, monkeypatch):
    monkeypatch.setattr("serving.auth.openid.DESCRIPTION_LIVES_SECONDS", 0)
    with run_provider() as moving:
        changed = settings.model_copy(update={"oidc_issuer": moving.issuer})
        with run_app(changed, MemoryReader()) as client:
            client.follow_redirects = False
            assert client.get(visit_provider(client)).status_code == 200
            moving.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
            moving.keys_path = "/moved"
            assert client.get(visit_provider(client)).status_code == 200


def test_known_keys_count_while_the_provider_describes_nothing(settings, monkeypatch):
    monkeypatch.setattr("serving.auth.openid.DESCRIPTION_LIVES_SECONDS", 0)
    with run_provider() as away:
        openid = OpenIdProvider(settings.model_copy(update={"oidc_issuer": away.issuer}))
        away.claims = LOGOUT | {"sub": "dr.who", "jti": "one", "nonce": None}
        token = away.issue("")
        assert openid.identify_signed_out(token) == "dr.who"
        away.is_up = False
        assert openid.identify_signed_out(token) == "dr.who"


def test_the_description_of_another_issuer_is_refused(provider):
    """As an attacker's copy of the description under the address of the issuer would be."""
    with pytest.raises(IdentityProviderUnavailableError, match="names another issuer"):
        read_description(f"{provider.issuer}/")


@pytest.mark.parametrize("claims", [{"acr": None}, {"acr": "password"}], ids=str)
def test_a_login_weaker_than_asked_for_opens_nothing(provider, settings, claims):
    strict = settings.model_copy(update={"oidc_acr_values": "phr, phrh"})
    provider.claims = claims
    with run_app(strict, MemoryReader()) as client:
        client.follow_redirects = False
        assert client.get(visit_provider(client)).status_code == 401
        provider.claims = {"acr": "phr"}
        assert client.get(visit_provider(client)).status_code == 200
    assert provider.asked["acr_values"] == "phr phrh"


@pytest.mark.parametrize("claim", ["email", "preferred_username", "upn"])
def test_people_are_not_identified_by_a_claim_that_may_pass_to_another(settings, claim):
    with pytest.raises(ValueError, match="may pass to another person"):
        type(settings)(**settings.model_dump(exclude={"oidc_user_claim"}), oidc_user_claim=claim)


def test_the_tokens_of_the_provider_are_kept_nowhere(browser, provider, engine):
    """They are read once; a session rests on a row and a secret of our own."""
    browser.get(visit_provider(browser))
    stored = "".join(dump_tables(engine)) + str(dict(browser.cookies))

    assert provider.issued
    assert not [part for token in provider.issued for part in token.split(".") if part in stored]


def dump_tables(engine):
    with engine.connect() as connection:
        for table in Base.metadata.sorted_tables:
            yield from map(str, connection.execute(select(table)).all())


LOGOUT = {
    "events": {"http://schemas.openid.net/event/backchannel-logout": {}},
    "jti": "one",
    "nonce": None,
}


def test_a_sign_out_at_the_provider_ends_the_sessions_here(browser, provider, engine):
    browser.get(visit_provider(browser))
    provider.claims = LOGOUT
    answer = send_logout(browser, provider.issue("none"))

    assert answer.status_code == 200
    assert browser.get("/console/queue").status_code == 303
    with Session(engine) as session:
        query = select(AuditRow).where(AuditRow.action == "provider_sign_out")
        details = [row.details for row in session.scalars(query)]
    assert {"user_id": "dr.provided", "sessions": 1} in [
        {"user_id": row["user_id"], "sessions": min(row["sessions"], 1)} for row in details
    ]


@pytest.mark.parametrize(
    "claims",
    [
        {"nonce": "as-in-an-id-token"},
        {"events": None},
        {"events": {}},
        {"events": "http://schemas.openid.net/event/backchannel-logout"},
        {"aud": "another-client"},
        {"iss": "https://evil.example"},
        {"exp": 1},
        {"jti": None},
        {"sub": None},
    ],
    ids=str,
)
def test_what_is_no_logout_token_ends_no_session(browser, provider, claims):
    browser.get(visit_provider(browser))
    provider.claims = LOGOUT | claims

    assert send_logout(browser, provider.issue("none")).status_code == 401
    assert browser.get("/console/queue").status_code == 200


def send_logout(browser, token):
    return browser.post("/console/backchannel-logout", data={"logout_token": token})
