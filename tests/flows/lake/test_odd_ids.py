"""A consent under an id that is no pseudonym covers no person and stops no flow."""

import pytest
from sqlalchemy import create_engine, text

from feature_repo.pseudonyms import BUCKET_COUNT, assign_bucket
from flows.lake.consents import read_consented_types

PERSON = "ab" * 16
GRANT = text(
    "INSERT INTO consent (anonymized_id, granted_at, expires_at, data_types, purposes, key_id)"
    " VALUES (:person, now() - interval '1 day', now() + interval '1 day',"
    " '{survey,wearable,emr}', '{screening,training}', 'k')"
)


@pytest.mark.parametrize("odd", ["P-4711", "", "zz" * 16, "AB" * 16])
def test_the_consents_of_others_are_read(database_url, odd):
    engine = create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM consent"))
        connection.execute(GRANT, [{"person": odd}, {"person": PERSON}])
    read = [
        person
        for bucket in range(BUCKET_COUNT)
        for person in read_consented_types(engine, bucket=bucket)["anonymized_id"]
    ]
    of_person = read_consented_types(engine, bucket=assign_bucket(PERSON))
    engine.dispose()

    assert read == [PERSON]
    assert of_person.height == 1
