"""One person stays one, however a file writes the identifier."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.pseudonyms import normalise_identifier, pseudonymise

SALT = "a-salt-of-tests-with-more-than-32-bytes"
IDENTIFIERS = st.text(min_size=1, max_size=20).filter(normalise_identifier)


@pytest.mark.parametrize("empty", ["", " ", "\ufeff", "\u200b"])
def test_an_identifier_without_a_visible_character_is_refused(empty):
    with pytest.raises(ValueError, match="empty"):
        pseudonymise(empty, SALT)


@given(IDENTIFIERS)
def test_composition_and_unseen_characters_make_no_second_person(identifier):
    expected = pseudonymise(identifier, SALT)
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        written = unicodedata.normalize(form, identifier)
        assert pseudonymise(f" \ufeff{written}\u200b ", SALT) == expected


@given(st.integers(0, 10**9))
def test_full_width_digits_are_digits(number):
    wide = str(number).translate({ord("0") + n: 0xFF10 + n for n in range(10)})
    assert pseudonymise(wide, SALT) == pseudonymise(str(number), SALT)


def test_upper_and_lower_case_are_two_identifiers():
    assert pseudonymise("A1", SALT) != pseudonymise("a1", SALT)


@given(IDENTIFIERS)
def test_where_case_is_folded_it_makes_no_second_person(identifier):
    expected = pseudonymise(identifier, SALT, folds_case=True)
    for written in (identifier.lower(), identifier.casefold(), identifier.swapcase().casefold()):
        assert pseudonymise(written, SALT, folds_case=True) == expected
