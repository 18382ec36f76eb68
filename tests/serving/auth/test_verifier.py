"""Tokens of an identity provider, and revocation in every worker."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from sqlalchemy import text

from serving.auth import verifier
from serving.auth.revocations import RevocationList
from serving.auth.tokens import issue_token
from serving.auth.verifier import ProviderKeys, choose_algorithm
from serving.errors import IdentityProviderUnavailableError
from serving.roles import Role
from tests.fixtures.api import (
    AT_INSERT,
    JWT_SECRET,
    MemoryReader,
    make_headers,
    make_settings,
    make_token,
    run_app,
)
from tests.fixtures.served import serve

ISSUER, AUDIENCE = "https://identity.example.org", "mhras-api"
RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
STRANGER = rsa.generate_private_key(65537, 2048)
BOUND_SECONDS = 1


class Provider:
    """An identity provider: a JWKS over HTTP, and the tokens it signs."""

    def __init__(self) -> None:
        self.keys = {
            "rsa": json.loads(RSAAlgorithm.to_jwk(RSA_KEY.public_key())),
            "ec": json.loads(ECAlgorithm.to_jwk(EC_KEY.public_key())),
        }
        self.requests = 0
        #: What is sent instead of the keys.
        self.body = b""
        #: Where a request is sent on to.
        self.moved_to = ""
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.requests += 1
                keys = [{**key, "kid": kid, "use": "sig"} for kid, key in provider.keys.items()]
                body = provider.body or json.dumps({"keys": keys}).encode()
                self.send_response(302 if provider.moved_to else 200)
                if provider.moved_to:
                    self.send_header("Location", provider.moved_to)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/jwks"

    def sign(self, key=RSA_KEY, kid="rsa", algorithm="RS256", headers=None, drop=(), **changes):
        now = datetime.now(UTC)
        claims = {
            "sub": "clinician_7",
            "role": "clinician",
            "aud": AUDIENCE,
            "iss": ISSUER,
            "jti": "t-1",
            "iat": now,
            "exp": now + timedelta(minutes=5),
        } | changes
        kept = {name: value for name, value in claims.items() if name not in drop}
        header = {"typ": "at+jwt", "kid": kid} | (headers or {})
        return jwt.encode(kept, key, algorithm, headers=header)


@contextmanager
def run_provider() -> Iterator[Provider]:
    provider = Provider()
    with serve(provider.server):
        yield provider


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with run_provider() as running:
        yield running


@pytest.fixture(scope="module")
def hospital(application_url, mlflow_url, provider):
    """The API with the hospital's identity provider."""
    settings = make_settings(
        application_url,
        mlflow_url,
        jwt_jwks_url=provider.url,
        jwt_issuer=ISSUER,
        jwt_audience=AUDIENCE,
    )
    with run_app(settings, MemoryReader()) as client:
        yield client


def ask(client, token):
    return client.get("/", headers={"Authorization": f"Bearer {token}"})


# Refusals


def test_the_embedded_defaults_tokens_do_not_count_beside_a_provider(hospital):
    token = issue_token(JWT_SECRET, "u", Role.ADMIN, timedelta(minutes=5), AUDIENCE, ISSUER)

    assert ask(hospital, token).status_code == 401


@pytest.mark.parametrize(
    "forged",
    [
        {"key": STRANGER},
        {"kid": "other"},
        {"kid": "ec"},
        {"algorithm": "RS512"},
        {"algorithm": "PS256"},
        {"headers": {"typ": "JWT"}},
        {"headers": {"crit": ["b64"], "b64": False}},
        {"aud": "another"},
        {"iss": "https://elsewhere.example.org"},
        {"role": "owner"},
        {"drop": ["jti"]},
        {"drop": ["exp"]},
        {"drop": ["iat"]},
        {"drop": ["role"]},
        {"exp": timedelta(minutes=90)},
        {"exp": -timedelta(minutes=1)},
        {"iat": timedelta(minutes=30)},
        {"nbf": timedelta(minutes=3)},
    ],
    ids=lambda forged: (
        " ".join(f"{name} {value}" for name, value in forged.items() if name != "key")
        or "another key"
    ),
)
def test_a_token_that_is_not_the_providers_or_not_for_us_is_refused(hospital, provider, forged):
    # Instants as of now, not as of when the tests were collected.
    claims = {
        name: datetime.now(UTC) + value if isinstance(value, timedelta) else value
        for name, value in forged.items()
    }

    assert ask(hospital, provider.sign(**claims)).status_code == 401


def test_a_public_key_is_no_shared_secret(hospital, provider):
    """The oldest trick: HS256 under the text of the public key."""
    pem = RSA_KEY.public_key().public_numbers()
    token = jwt.api_jws.PyJWS().encode(
        b'{"sub":"x"}', str(pem.n).encode(), "HS256", headers={"kid": "rsa", "typ": "at+jwt"}
    )

    assert ask(hospital, token).status_code == 401


@pytest.mark.parametrize("key_id", ["a", "b", "c"])
def test_unknown_keys_do_not_make_us_ask_the_provider_each_time(hospital, provider, key_id):
    ask(hospital, provider.sign())
    before = provider.requests
    for number in range(20):
        ask(hospital, provider.sign(key=STRANGER, kid=f"{key_id}{number}"))

    assert provider.requests - before <= 1


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 1024).public_key(),
        ec.generate_private_key(ec.SECP384R1()).public_key(),
        b"a secret",
    ],
    ids=["short RSA", "P-384", "symmetric"],
)
def test_keys_of_other_kinds_verify_nothing(key):
    assert choose_algorithm(key) == ""


def test_without_a_provider_nobody_is_let_in(application_url, mlflow_url, provider):
    settings = make_settings(application_url, mlflow_url, jwt_jwks_url="http://127.0.0.1:1/jwks")
    with run_app(settings, MemoryReader()) as client:
        response = ask(client, provider.sign())

    assert response.status_code == 503
    assert response.json()["type"] == "urn:mhras:problem:identity-provider-unavailable"


# What counts


@pytest.mark.parametrize(
    ("key", "kid", "algorithm"), [(RSA_KEY, "rsa", "RS256"), (EC_KEY, "ec", "ES256")]
)
def test_the_providers_tokens_count(hospital, provider, key, kid, algorithm):
    assert ask(hospital, provider.sign(key, kid, algorithm)).status_code == 200


def test_a_provider_that_is_away_does_not_lock_out_known_keys(application_url, mlflow_url):
    with ExitStack() as running:
        provider = running.enter_context(run_provider())
        settings = make_settings(
            application_url,
            mlflow_url,
            jwt_jwks_url=provider.url,
            jwt_issuer=ISSUER,
            jwt_audience=AUDIENCE,
        )
        with run_app(settings, MemoryReader()) as client:
            assert ask(client, provider.sign()).status_code == 200
            running.close()
            assert ask(client, provider.sign(jti="t-2")).status_code == 200


# Revocation


def test_the_later_of_the_users_and_everybodys_limit_binds():
    known = RevocationList(frozenset({"x"}), {"early": 100.0, "late": 300.0}, 200.0)

    assert known.revokes("x", "anybody", 999)
    assert known.revokes("y", "early", 150), "everybody's limit is later than the user's own"
    assert known.revokes("y", "late", 250), "the user's own limit is later than everybody's"
    assert not known.revokes("y", "early", 200)
    assert not known.revokes("y", "late", 300)


def revoke(client, **body):
    body = {"reason": "a test"} | body
    return client.post("/tokens/revoke", json=body, headers=make_headers(Role.ADMIN, "boss"))


@pytest.mark.parametrize(
    "body",
    [{}, {"everyone": True, "user_id": "u"}, {"user_id": "two words"}, {"token_id": "x\u0000"}],
)
def test_a_revocation_names_one_target(client, body):
    assert revoke(client, **body).status_code == 422


def test_a_revocation_that_cannot_be_audited_does_not_happen(client, breaking_trigger, engine):
    token = make_token(user="spared")
    breaking_trigger("audit_log", AT_INSERT)

    assert revoke(client, user_id="spared").status_code == 500
    time.sleep(BOUND_SECONDS)
    assert ask(client, token).status_code == 200


@pytest.fixture
def other_worker(settings, production_version):
    with run_app(settings, MemoryReader()) as client:
        yield client


def test_a_revoked_token_opens_nothing_in_any_worker_within_a_second(client, other_worker):
    token, other = make_token(user="left"), make_token(user="left")
    token_id = jwt.decode(token, options={"verify_signature": False})["jti"]
    assert ask(client, token).status_code == ask(other_worker, token).status_code == 200

    assert revoke(client, token_id=token_id).status_code == 200
    time.sleep(BOUND_SECONDS)
    assert ask(client, token).status_code == ask(other_worker, token).status_code == 401
    assert ask(other_worker, other).status_code == 200


def test_all_tokens_of_a_user_are_revoked_and_later_ones_count(client, other_worker):
    tokens = [make_token(user="rotated") for _ in range(3)]
    assert revoke(client, user_id="rotated").status_code == 200
    time.sleep(BOUND_SECONDS + 0.1)

    assert {ask(other_worker, token).status_code for token in tokens} == {401}
    assert ask(other_worker, make_token(user="rotated")).status_code == 200
    assert ask(other_worker, make_token(user="untouched")).status_code == 200


def test_without_a_database_a_token_may_be_revoked_and_opens_nothing(mlflow_url):
    settings = make_settings("postgresql://mhras:hidden@127.0.0.1:1/mhras", mlflow_url)
    with run_app(settings, MemoryReader()) as client:
        response = ask(client, make_token())

    assert response.status_code == 503


def test_a_caller_without_a_valid_token_is_audited_within_a_budget(client, engine):
    for _ in range(40):
        ask(client, "no.such.token")

    with engine.connect() as connection:
        query = text(
            "SELECT user_id, action, details ->> 'reason' FROM audit_log"
            " WHERE event_type = 'unauthenticated_request'"
        )
        rows = connection.execute(query).all()
    assert set(rows) == {("anonymous", "GET /", "unauthenticated")}
    assert len(rows) < 40


def test_everybody_is_locked_out_by_one_command(database_url, client, engine):
    import os
    import subprocess
    import sys

    from tests.fixtures.api import SALT, SIGNING_KEY

    token = make_token(user="anybody")
    command = [sys.executable, "-m", "serving.tokens", "revoke", "--everyone"]
    result = subprocess.run(
        [*command, "--reason", "the key leaked", "--by", "ops"],
        env={
            "PATH": os.environ["PATH"],
            "DATABASE_URL": database_url,
            "JWT_SECRET_KEY": JWT_SECRET,
            "ANONYMIZATION_SALT": SALT,
            "AUDIT_SIGNING_KEY": SIGNING_KEY,
        },
        capture_output=True,
        text=True,
    )

    assert result.stdout == "revoked: every token\n", result.stderr
    time.sleep(BOUND_SECONDS)
    assert ask(client, token).status_code == 401
    with engine.connect() as connection:
        query = text("SELECT user_role FROM audit_log WHERE user_id = 'ops'")
        assert connection.scalars(query).all() == ["operator"]


@pytest.mark.parametrize(
    "body", [b"<html>maintenance</html>", b"\xff\xfe", b"[]", b'{"keys": []}', b'{"keys": [1]}']
)
def test_a_provider_that_sends_no_keys_costs_no_known_key(provider, monkeypatch, body):
    keys = ProviderKeys(provider.url)
    token = provider.sign()
    known = keys.find(token)
    monkeypatch.setattr(provider, "body", body)
    monkeypatch.setattr(verifier, "KEYS_LIVE_SECONDS", 0)

    assert keys.find(token) == known
    keys._refresh()
    assert keys.find(token) == known


def test_a_known_key_waits_for_no_provider_that_hangs(provider, monkeypatch):
    keys = ProviderKeys(provider.url)
    token = provider.sign()
    keys.find(token)
    hangs = threading.Event()
    monkeypatch.setattr(keys, "_refresh", lambda: hangs.wait(20))
    monkeypatch.setattr(verifier, "KEYS_LIVE_SECONDS", 0)
    found = [keys.find(token) for _ in range(3)]
    hangs.set()

    assert len(found) == 3


def test_keys_are_not_fetched_from_where_a_redirect_leads(provider):
    """An attacker who answers for the provider once could name another server."""
    with run_provider() as attacker:
        provider.moved_to = attacker.url
        try:
            with pytest.raises(IdentityProviderUnavailableError):
                ProviderKeys(provider.url).find(attacker.sign())
        finally:
            provider.moved_to = ""
    assert attacker.requests == 0


def test_a_token_counts_no_longer_than_the_key_that_signed_it(hospital, provider, monkeypatch):
    """A provider removes a key that leaked; tokens that were verified before end with it."""
    token = provider.sign(jti="before")
    assert [ask(hospital, token).status_code for _ in range(2)] == [200, 200]
    monkeypatch.delitem(provider.keys, "rsa")
    monkeypatch.setattr(verifier, "KEYS_LIVE_SECONDS", 0)
    monkeypatch.setattr(verifier, "REFRESH_PAUSE_SECONDS", 0)

    assert wait_for_status(hospital, token, 401) == 401
    assert ask(hospital, provider.sign(EC_KEY, "ec", "ES256")).status_code == 200


def test_a_refresh_with_the_same_keys_forgets_no_token(provider):
    keys = ProviderKeys(provider.url)
    keys.find(provider.sign())
    edition = keys.get_edition()
    keys._refresh()

    assert keys.get_edition() == edition


def wait_for_status(client, token, status):
    """Return the last status, after at most 100 requests: keys are refreshed beside them."""
    for _ in range(100):
        answer = ask(client, token).status_code
        if answer == status:
            break
        time.sleep(0.05)
    return answer
