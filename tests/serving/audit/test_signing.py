import base64
import hashlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.audit.signing import KeyRing, Signer, canonicalise, make_key_ring
from serving.settings import UnusableKeyError
from tests.fixtures.api import SIGNING_KEY, make_settings

OTHER_KEY = base64.b64encode(bytes(range(32))).decode()
SIGNER = Signer(SIGNING_KEY)
KEYS = KeyRing([SIGNER.public_key])

#: Documents take a while to draw on a machine that does other work.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

texts = st.text(max_size=20)
documents = st.dictionaries(
    texts.filter(lambda name: name not in ("key_id", "signature")),
    st.one_of(st.integers(), texts, st.booleans(), st.none(), st.lists(texts, max_size=3)),
    max_size=6,
)


@pytest.mark.parametrize("seed", ["", "x", "AAAA", base64.b64encode(bytes(33)).decode()])
def test_a_key_of_another_length_is_refused_without_quoting_it(seed):
    with pytest.raises(UnusableKeyError) as refused:
        Signer(seed)
    assert not seed or seed not in str(refused.value)


@given(documents)
@patient
def test_a_signed_document_verifies_and_no_other_key_stands_for_it(document):
    signed = SIGNER.sign(document)

    assert KEYS.holds(signed)
    assert not KeyRing([Signer(OTHER_KEY).public_key]).holds(signed)


@given(documents, documents)
@patient
def test_a_signature_does_not_carry_over_to_another_document(document, other):
    signed = SIGNER.sign(document)
    moved = other | {name: signed[name] for name in ("key_id", "signature")}

    assert KEYS.holds(moved) == (canonicalise(document) == canonicalise(other))


@pytest.mark.parametrize("signature", [None, "", "AAAA", "not base64!", "ü", 7])
def test_an_unreadable_signature_does_not_verify(signature):
    assert KEYS.holds(SIGNER.sign({"a": 1}) | {"signature": signature}) is False


@pytest.mark.parametrize("key_id", [None, "", "0" * 16])
def test_a_document_of_an_unknown_key_does_not_verify(key_id):
    assert KEYS.holds(SIGNER.sign({"a": 1}) | {"key_id": key_id}) is False


@pytest.mark.parametrize("change", [lambda text: text + "\n", lambda text: f" {text}"])
def test_a_signature_has_one_spelling(change):
    signed = SIGNER.sign({"a": 1})

    assert not KEYS.holds(signed | {"signature": change(signed["signature"])})


def test_a_document_whose_names_come_in_another_order_still_verifies():
    """PostgreSQL stores jsonb in an order of its own."""
    signed = SIGNER.sign({"b": {"d": 1, "c": 2}, "a": 3})

    assert KEYS.holds(dict(reversed(signed.items())) | {"b": {"c": 2, "d": 1}})


def test_a_document_that_cannot_have_been_signed_does_not_verify():
    assert KEYS.holds(SIGNER.sign({"a": 1}) | {"a": float("nan")}) is False


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_json_does_not_have_is_not_signed(value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        SIGNER.sign({"share": value})


def test_the_id_of_a_key_is_pinned():
    """Documents that were signed once are found by it for ever."""
    raw = base64.b64decode(SIGNER.public_key)

    assert SIGNER.key_id == hashlib.sha256(b"mhras:key-id:" + raw).hexdigest()[:16]


def test_the_keys_in_force_are_the_present_and_the_retired_ones():
    retired = Signer(OTHER_KEY)
    settings = make_settings(
        "postgresql://mhras@127.0.0.1/mhras",
        "http://127.0.0.1",
        audit_retired_keys=f" {retired.public_key}, ",
    )
    keys = make_key_ring(settings)

    assert keys.holds(retired.sign({"a": 1}))
    assert keys.holds(SIGNER.sign({"a": 1}))


def test_a_retired_key_still_verifies_what_it_signed():
    retired = Signer(OTHER_KEY)
    keys = KeyRing([SIGNER.public_key, retired.public_key])

    assert keys.holds(retired.sign({"a": 1}))
