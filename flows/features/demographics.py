"""Features of the person (feature view demographics)."""

from datetime import UTC, datetime

import polars as pl

from feature_repo.feature_tables import CREATED_TIMESTAMP, EVENT_TIMESTAMP
from feature_repo.stored_views import JOIN_KEY
from flows.sources.contract import INSTANT

#: Year of birth and sex do not change, so the rows stand for all time. (Not 1970-01-01: Feast
#: answers a timestamp of zero for "nothing stored".)
ALWAYS = datetime(1971, 1, 1, tzinfo=UTC)


def compute_demographics(people: pl.DataFrame) -> pl.DataFrame:
    """Return one row per individual; an unknown sex is neither female nor male."""
    sex_known = pl.col("sex") != "unknown"
    return people.select(
        JOIN_KEY,
        pl.col("birth_year"),
        pl.when(sex_known).then(pl.col("sex") == "female").alias("sex_female"),
        pl.when(sex_known).then(pl.col("sex") == "male").alias("sex_male"),
        pl.lit(ALWAYS).cast(INSTANT).alias(EVENT_TIMESTAMP),
        pl.lit(ALWAYS).cast(INSTANT).alias(CREATED_TIMESTAMP),
    )
