"""The readers' first act: the identifier of a person gives way to a pseudonym."""

import polars as pl

from feature_repo.pseudonyms import (
    assign_bucket,
    derive_key_id,
    hide_reference,
    normalise_identifier,
    pseudonymise,
)
from flows.sources.parse import MISSING_TOKENS

#: A number as a spreadsheet writes a long one: its last digits are lost.
ROUNDED = r"^\d(?:\.\d+)?[eE]\+\d+$"
#: A whole number as a table of numbers with a gap writes it: 93705.0 is person 93705.
AS_FLOAT = r"^(\d+)\.0+$"


class RoundedIdentifierError(ValueError):
    """Identifiers that lost their last digits, so that different people share one."""


class PersonKey:
    """Turns identifiers into pseudonyms under one salt; keeps none of them."""

    def __init__(self, salt: str, *, folds_case: bool = False) -> None:
        self._salt = salt
        self._folds_case = folds_case
        self.key_id = derive_key_id(salt)

    def pseudonymise(self, person_id: str | None) -> str | None:
        """Return the pseudonym, or None when there is no identifier."""
        if person_id is None or normalise_identifier(person_id) in ("", *MISSING_TOKENS):
            return None
        return pseudonymise(person_id, self._salt, folds_case=self._folds_case)

    def hide_reference(self, reference: str) -> str:
        """Return a keyed hash, 16 hex characters, of a resource's or a device's name."""
        return hide_reference(reference, self._salt)

    def replace_identifiers(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return `rows` with anonymized_id, key_id and bucket in place of person_id."""
        people = _as_text(rows["person_id"])
        distinct = people.unique()
        pseudonyms = pl.Series([self.pseudonymise(person) for person in distinct], dtype=pl.String)
        hidden = people.replace_strict(distinct, pseudonyms, return_dtype=pl.String)
        return self.add_key(rows.drop("person_id").with_columns(anonymized_id=hidden))

    def add_key(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Add key_id and bucket to rows that have an anonymized_id."""
        pseudonyms = rows["anonymized_id"]
        distinct = pseudonyms.unique().drop_nulls()
        buckets = pl.Series([assign_bucket(pseudonym) for pseudonym in distinct], dtype=pl.Int32)
        return rows.with_columns(
            key_id=pl.lit(self.key_id),
            bucket=pseudonyms.replace_strict(
                distinct, buckets, default=None, return_dtype=pl.Int32
            ),
        )


def _as_text(people: pl.Series) -> pl.Series:
    # A column of whole numbers with a gap is stored as floats: 93705.0 is person 93705.
    if people.dtype.is_float() and (people.drop_nulls() == people.drop_nulls().floor()).all():
        people = people.cast(pl.Int64)
    if people.dtype.is_nested():
        people = pl.Series(people.name, [None] * people.len(), dtype=pl.String)
    texts = people.cast(pl.String).str.strip_chars()
    rounded = texts.str.contains(ROUNDED).fill_null(False)
    if rounded.any():
        raise RoundedIdentifierError(
            "person_id holds numbers such as 2.02E+11, whose last digits a spreadsheet cut off: "
            "export the column as text"
        )
    return texts.str.replace(AS_FLOAT, "$1")
