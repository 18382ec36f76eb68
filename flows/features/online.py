"""Rows of feature tables into Feast's online store, bucket by bucket, of who consents now.

Feast's own materialisation takes all individuals of a view into memory, and ignores consents.
"""

import polars as pl
from feast import FeatureStore, FeatureView

from feature_repo.consent_terms import SCREENING
from feature_repo.individual import CREATED_TIMESTAMP, EVENT_TIMESTAMP, JOIN_KEY
from flows.lake.consents import read_consented_types
from flows.runtime.database import open_database

#: What is online is there to be screened with.
PURPOSES = (SCREENING,)


def read_consents(bucket: int) -> pl.DataFrame:
    """Return who of a bucket consents to screening now, with a Boolean per data type."""
    with open_database() as engine:
        return read_consented_types(engine, bucket=bucket)


def write_online(store: FeatureStore, view: FeatureView, rows: pl.DataFrame) -> int:
    """Put the rows of a view that hold a value online, one an individual; return how many."""
    names = [feature.name for feature in view.features]
    # A row without a value is empty, and Feast refuses to write only such rows.
    told = rows.filter(pl.any_horizontal(pl.col(names).is_not_null()))
    if told.height:
        columns = [JOIN_KEY, EVENT_TIMESTAMP, CREATED_TIMESTAMP, *names]
        store.write_to_online_store(view.name, told.select(columns).to_pandas())
    return told.height
