import base64
import hmac
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import jwt
import pytest

from serving.auth.tokens import TOKEN_TYPE, issue_token, read_token
from serving.errors import Principal, UnauthenticatedError
from serving.roles import Role
from tests.fixtures.api import SIGNING_KEY

SECRET = "a-secret-of-tests-that-is-long-enough-for-hs512-too-and-then-some-more"
OTHER_SECRET = "another-secret-that-is-long-enough-too"


def forge(secret=SECRET, algorithm="HS256", typ=TOKEN_TYPE, drop=(), **changes):
    now = datetime.now(UTC)
    claims = {
        "sub": "clinician_001",
        "role": "clinician",
        "aud": "mhras",
        "iss": "mhras",
        "jti": "1",
        "iat": now,
        "nbf": now,
        "exp": now + timedelta(minutes=5),
    } | changes
    # Times are said relative to now: parameters are made long before their test runs.
    settled = {
        name: now + value if isinstance(value, timedelta) else value
        for name, value in claims.items()
    }
    kept = {name: value for name, value in settled.items() if name not in drop}
    return jwt.encode(kept, secret, algorithm, headers={"typ": typ})


def test_the_forge_itself_makes_a_good_token():
    assert read_token(forge(), SECRET) == Principal("clinician_001", Role.CLINICIAN)


@pytest.mark.parametrize("claim", ["exp", "nbf", "iat", "aud", "iss", "sub", "jti", "role"])
def test_a_token_without_a_claim_is_refused(claim):
    with pytest.raises(UnauthenticatedError):
        read_token(forge(drop=[claim]), SECRET)


@pytest.mark.parametrize(
    "changes",
    [
        {"secret": OTHER_SECRET},
        {"algorithm": "HS512"},
        {"typ": "JWT"},
        {"aud": "another-service"},
        {"iss": "another-issuer"},
        {"role": "owner"},
        {"role": ["admin"]},
        {"sub": "two words\n"},
        {"exp": timedelta(seconds=-1)},
        {"nbf": timedelta(minutes=1)},
        {"exp": timedelta(minutes=61)},
    ],
    ids=str,
)
def test_a_token_that_is_not_ours_or_not_now_is_refused(changes):
    with pytest.raises(UnauthenticatedError):
        read_token(forge(**changes), SECRET)


def test_an_unsigned_token_is_refused():
    with pytest.raises(UnauthenticatedError):
        read_token(forge(secret=None, algorithm="none"), SECRET)


def test_a_token_whose_payload_was_changed_is_refused():
    header, _, signature = forge().split(".")
    payload = forge(role="admin").split(".")[1]

    with pytest.raises(UnauthenticatedError):
        read_token(f"{header}.{payload}.{signature}", SECRET)


@pytest.mark.parametrize("role", Role)
def test_an_issued_token_speaks_for_its_user_and_role(role):
    token = issue_token(SECRET, "u.name+1@example.org", role, timedelta(minutes=60))

    assert read_token(token, SECRET) == Principal("u.name+1@example.org", role)


@pytest.mark.parametrize("minutes", [0, -1, 61])
def test_a_lifetime_out_of_bounds_is_not_issued(minutes):
    with pytest.raises(ValueError, match="1 to 60 minutes"):
        issue_token(SECRET, "u", Role.ADMIN, timedelta(minutes=minutes))


def run_command(**environment):
    command = [sys.executable, "-m", "serving.tokens", "issue", "--user", "u", "--role", "auditor"]
    return subprocess.run(
        command, env={"PATH": os.environ["PATH"]} | environment, capture_output=True, text=True
    )


def test_the_command_prints_a_token_and_nothing_else():
    result = run_command(
        JWT_SECRET_KEY=SECRET,
        ANONYMIZATION_SALT=SECRET,
        AUDIT_SIGNING_KEY=SIGNING_KEY,
        DATABASE_URL="postgresql://localhost/mhras",
    )

    assert read_token(result.stdout.strip(), SECRET) == Principal("u", Role.AUDITOR)


def test_the_command_without_a_secret_says_how_to_make_one():
    result = run_command()

    assert (result.returncode, result.stdout) == (1, "")
    assert "openssl rand -base64 32" in result.stderr


def encode(raw):
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def sign(header, payload):
    """Return a token of exactly these bytes, signed with the right secret."""
    signed = encode(header) + b"." + encode(payload)
    signature = hmac.digest(SECRET.encode(), signed, "sha256")
    return (signed + b"." + encode(signature)).decode()


HEADER = json.dumps({"alg": "HS256", "typ": TOKEN_TYPE}).encode()


def make_payload(**changes):
    now = int(datetime.now(UTC).timestamp())
    claims = {"sub": "u", "role": "clinician", "aud": "mhras", "iss": "mhras", "jti": "1"}
    return json.dumps(claims | {"iat": now, "nbf": now, "exp": now + 60} | changes).encode()


def test_a_token_of_exact_bytes_is_good():
    assert read_token(sign(HEADER, make_payload()), SECRET).user_id == "u"


@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
@pytest.mark.parametrize("kind", [str, bool])
def test_times_that_are_no_numbers_are_refused(name, kind):
    with pytest.raises(UnauthenticatedError):
        read_token(sign(HEADER, make_payload(**{name: kind(2_000_000_000)})), SECRET)


@pytest.mark.parametrize(
    ("header", "payload"),
    [
        (HEADER, make_payload()[:-1] + b', "role": "admin"}'),
        (HEADER[:-1] + b', "alg": "HS256"}', make_payload()),
        (HEADER, b"\xef\xbb\xbf" + make_payload()),
        (b"\xef\xbb\xbf" + HEADER, make_payload()),
        (HEADER, make_payload().decode().encode("utf-16")),
        (HEADER, b"[]"),
    ],
    ids=["claim twice", "header twice", "mark", "mark in header", "UTF-16", "array"],
)
def test_a_token_that_two_readers_could_take_for_two_is_refused(header, payload):
    with pytest.raises(UnauthenticatedError):
        read_token(sign(header, payload), SECRET)


@pytest.mark.parametrize("change", ["{}=", "{}==", "{} ", "\ufeff{}", "{}\n", "{}."])
def test_a_token_with_anything_around_it_is_refused(change):
    with pytest.raises(UnauthenticatedError):
        read_token(change.format(sign(HEADER, make_payload())), SECRET)


def test_spare_bits_of_a_signature_are_refused():
    token = sign(HEADER, make_payload())
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    spare = alphabet[alphabet.index(token[-1]) ^ 1]
    with pytest.raises(UnauthenticatedError):
        read_token(token[:-1] + spare, SECRET)
