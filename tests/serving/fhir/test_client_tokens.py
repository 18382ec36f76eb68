"""Only a registered client's own token, for the URL called and once, opens anything."""

import base64
import json
import time
import uuid

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from sqlalchemy import select
from sqlalchemy.orm import Session

from serving.database.tables import AuditRow
from serving.fhir.clients import load_clients
from serving.settings import MissingSettingError
from tests.fixtures.api import JWT_SECRET, make_headers, make_settings, run_app
from tests.fixtures.ehr import (
    CLINIC,
    FEEDBACK,
    HOOK,
    OTHER,
    PAGE,
    PUBLIC_URL,
    READER,
    make_hook,
)

NOW = int(time.time())
STRANGER = ec.generate_private_key(ec.SECP384R1())


def flip(token, part, place):
    """Return a token with one character of a part changed."""
    parts = token.split(".")
    text = parts[part]
    other = "A" if text[place] != "A" else "B"
    parts[part] = text[:place] + other + text[place + 1 :]
    return ".".join(parts)


def forge_hmac(algorithm):
    claims = jwt.decode(CLINIC.make_token(HOOK), options={"verify_signature": False})
    headers = {"typ": "JWT", "kid": "clinic-a-1"}
    return jwt.encode(claims, JWT_SECRET * 2, algorithm, headers=headers)


def forge_none():
    claims = jwt.decode(CLINIC.make_token(HOOK), options={"verify_signature": False})
    return jwt.encode(claims, None, "none", headers={"typ": "JWT", "kid": "clinic-a-1"})


def sign_with(key, algorithm, kid="clinic-a-1"):
    claims = jwt.decode(CLINIC.make_token(HOOK), options={"verify_signature": False})
    return jwt.encode(claims, key, algorithm, headers={"typ": "JWT", "kid": kid})


def repeat_claim():
    """Return a token whose payload names the audience twice, rightly signed."""
    head, payload, _ = CLINIC.make_token(HOOK).split(".")
    raw = base64.urlsafe_b64decode(payload + "==")
    twice = raw[:-1] + b',"aud":"https://elsewhere.example"}'
    body = base64.urlsafe_b64encode(twice).rstrip(b"=").decode()
    signature = jwt.algorithms.ECAlgorithm(jwt.algorithms.ECAlgorithm.SHA384).sign(
        f"{head}.{body}".encode(), CLINIC.key
    )
    return f"{head}.{body}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


FORGED = {
    "nothing": lambda: "",
    "no token": lambda: "abc",
    "algorithm none": forge_none,
    **{
        f"{name} of the shared secret": (lambda name=name: forge_hmac(name))
        for name in ("HS256", "HS384", "HS512")
    },
    "another key": lambda: sign_with(STRANGER, "ES384"),
    "another client's key": lambda: sign_with(OTHER.key, "RS384"),
    "another client's key by its name": lambda: sign_with(OTHER.key, "RS384", "clinic-b-1"),
    "an unknown key id": lambda: sign_with(CLINIC.key, "ES384", "clinic-a-2"),
    "a smaller curve": lambda: sign_with(ec.generate_private_key(ec.SECP256R1()), "ES256"),
    "a short RSA key": lambda: sign_with(rsa.generate_private_key(65537, 2048), "RS256"),
    "no key id": lambda: CLINIC.make_token(HOOK, header={"kid": None}),
    "a type of people's tokens": lambda: CLINIC.make_token(HOOK, header={"typ": "at+jwt"}),
    "no type": lambda: CLINIC.make_token(HOOK, header={"typ": None}),
    "keys of its own": lambda: CLINIC.make_token(HOOK, header={"jku": "https://evil.example/k"}),
    "a key in the header": lambda: CLINIC.make_token(HOOK, header={"jwk": {"kty": "EC"}}),
    "a certificate address": lambda: CLINIC.make_token(HOOK, header={"x5u": "https://e.example"}),
    "an extension": lambda: CLINIC.make_token(HOOK, header={"crit": ["exp"]}),
    "an unknown issuer": lambda: CLINIC.make_token(HOOK, iss="https://evil.example"),
    "another client's name": lambda: CLINIC.make_token(HOOK, iss=OTHER.issuer),
    "no issuer": lambda: CLINIC.make_token(HOOK, iss=None),
    "no audience": lambda: CLINIC.make_token(HOOK, aud=None),
    "the base address as audience": lambda: CLINIC.make_token(HOOK, aud=PUBLIC_URL),
    "another endpoint": lambda: CLINIC.make_token(FEEDBACK),
    "another server": lambda: CLINIC.make_token(HOOK, aud=f"https://evil.example{HOOK}"),
    "no expiry": lambda: CLINIC.make_token(HOOK, exp=None),
    "expired": lambda: CLINIC.make_token(HOOK, exp=NOW - 600, iat=NOW - 700),
    "a year of life": lambda: CLINIC.make_token(HOOK, exp=NOW + 31_536_000),
    "an hour of life": lambda: CLINIC.make_token(HOOK, exp=NOW + 3600),
    "expiry as text": lambda: CLINIC.make_token(HOOK, exp=str(NOW + 60)),
    "no time of issue": lambda: CLINIC.make_token(HOOK, iat=None),
    "issued in the future": lambda: CLINIC.make_token(HOOK, iat=NOW + 3600),
    "not yet valid": lambda: CLINIC.make_token(HOOK, nbf=NOW + 3600),
    "no id": lambda: CLINIC.make_token(HOOK, jti=None),
    "an empty id": lambda: CLINIC.make_token(HOOK, jti=""),
    "a long id": lambda: CLINIC.make_token(HOOK, jti="x" * 300),
    "an id that is no text": lambda: CLINIC.make_token(HOOK, jti=7),
    "a claim twice": repeat_claim,
    "padding": lambda: CLINIC.make_token(HOOK) + "==",
    "a byte order mark": lambda: "\ufeff" + CLINIC.make_token(HOOK),
    "a clinician's token": lambda: make_headers()["Authorization"].removeprefix("Bearer "),
}


def call(client, token, path=HOOK, **options):
    raw = f"Bearer {token}".encode()
    body = options.pop("json", make_hook(uuid.uuid4().hex[:12]))
    return client.post(path, json=body, headers={b"Authorization": raw}, **options)


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED.keys())
def test_a_forged_token_is_refused_as_an_operation_outcome(client, forge):
    response = call(client, forge())

    assert response.status_code == 401, response.text
    assert response.headers["Content-Type"] == "application/fhir+json"
    assert response.json()["resourceType"] == "OperationOutcome"
    assert response.json()["issue"][0]["code"] == "login"


def test_every_flipped_character_of_a_token_is_refused(client):
    token = CLINIC.make_token(HOOK)
    for part, text in enumerate(token.split(".")):
        for place in range(0, len(text), 3):
            assert call(client, flip(token, part, place)).status_code == 401


@pytest.mark.parametrize("owner", [CLINIC, OTHER], ids=["ES384", "RS384"])
def test_a_good_token_counts_once(client, owner):
    token = owner.make_token(HOOK)

    assert call(client, token).status_code == 200
    assert call(client, token).status_code == 401


def test_a_client_without_the_scope_is_refused_and_audited(client, engine):
    response = call(client, READER.make_token(HOOK))

    assert response.status_code == 403
    with Session(engine) as session:
        row = session.scalars(select(AuditRow).where(AuditRow.user_id == "ehr:reader")).one()
    assert (row.action, row.result) == ("cds", "failure")


def test_only_registered_pages_may_call_and_only_cds_services(client):
    def preflight(path, origin):
        headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        return client.options(path, headers=headers).headers.get("Access-Control-Allow-Origin")

    assert preflight(HOOK, PAGE) == PAGE
    assert preflight(HOOK, "https://evil.example") is None
    assert preflight("/screen", PAGE) is None


def test_without_registered_clients_the_service_is_off(application_url, mlflow_url, reader):
    with run_app(make_settings(application_url, mlflow_url), reader) as client:
        assert client.get("/cds-services").status_code == 404
        assert call(client, CLINIC.make_token(HOOK)).status_code == 404


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"scopes": ["everything"]}, "scopes"),
        ({"scopes": []}, "scopes"),
        ({"jwks": None}, "jwks"),
        ({"id": "Upper Case"}, "id"),
        ({"key": "x"}, "key"),
        ({"origins": ["*"]}, "origins"),
    ],
)
def test_a_registration_that_is_wrong_stops_the_start(tmp_path, change, named):

    path = tmp_path / "clients.json"
    path.write_text(json.dumps([CLINIC.register() | change]))
    with pytest.raises(MissingSettingError, match=named):
        load_clients(str(path))
