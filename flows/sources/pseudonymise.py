"""The readers' first act: the identifier of a person gives way to a pseudonym."""

import polars as pl

from feature_repo.pseudonyms import assign_bucket, derive_key_id, pseudonymise


class PersonKey:
    """Turns identifiers into pseudonyms under one salt; keeps none of them."""

    def __init__(self, salt: str) -> None:
        self._salt = salt
        self.key_id = derive_key_id(salt)

    def pseudonymise(self, person_id: str | None) -> str | None:
        """Return the pseudonym, or None when there is no identifier."""
        if person_id is None or not person_id.strip():
            return None
        return pseudonymise(person_id, self._salt)

    def replace_identifiers(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return `rows` with anonymized_id, key_id and bucket in place of person_id."""
        people = _as_text(rows["person_id"])
        known = people.unique()
        pseudonyms = pl.Series([self.pseudonymise(person) for person in known], dtype=pl.String)
        hidden = people.replace_strict(known, pseudonyms, return_dtype=pl.String)
        return self.add_key(rows.drop("person_id").with_columns(anonymized_id=hidden))

    def add_key(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Add key_id and bucket to rows that have an anonymized_id."""
        pseudonyms = rows["anonymized_id"]
        known = pseudonyms.unique().drop_nulls()
        buckets = pl.Series([assign_bucket(pseudonym) for pseudonym in known], dtype=pl.Int32)
        return rows.with_columns(
            key_id=pl.lit(self.key_id),
            bucket=pseudonyms.replace_strict(known, buckets, default=None, return_dtype=pl.Int32),
        )


def _as_text(people: pl.Series) -> pl.Series:
    # A column of whole numbers with a gap is stored as floats: 93705.0 is person 93705.
    if people.dtype.is_float() and (people.drop_nulls() == people.drop_nulls().floor()).all():
        people = people.cast(pl.Int64)
    return people.cast(pl.String)
