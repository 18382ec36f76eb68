import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.audit.signing import KeyRing, Signer, canonicalise
from serving.settings import UnusableKeyError
from tests.fixtures.api import SIGNING_KEY

OTHER_KEY = base64.b64encode(bytes(range(32))).decode()
SIGNER = Signer(SIGNING_KEY)
KEYS = KeyRing([SIGNER.public_key])

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
def test_a_signed_document_verifies_and_no_other_key_stands_for_it(document):
    signed = SIGNER.sign(document)

    assert KEYS.holds(signed)
    assert not KeyRing([Signer(OTHER_KEY).public_key]).holds(signed)


@given(documents, documents)
def test_a_signature_does_not_carry_over_to_another_document(document, other):
    signed = SIGNER.sign(document)
    moved = other | {name: signed[name] for name in ("key_id", "signature")}

    assert KEYS.holds(moved) == (canonicalise(document) == canonicalise(other))


@pytest.mark.parametrize("signature", [None, "", "AAAA", "not base64!", 7])
def test_an_unreadable_signature_does_not_verify(signature):
    assert not KEYS.holds(SIGNER.sign({"a": 1}) | {"signature": signature})


def test_a_retired_key_still_verifies_what_it_signed():
    retired = Signer(OTHER_KEY)
    keys = KeyRing([SIGNER.public_key, retired.public_key])

    assert keys.holds(retired.sign({"a": 1}))
