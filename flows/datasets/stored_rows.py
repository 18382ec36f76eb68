"""What a batch screening would read of everyone: stored features, no answers of the day."""

from datetime import datetime

import numpy as np
import polars as pl
from prefect import task
from prefect.cache_policies import NO_CACHE

from feature_repo.answer_features import INDEX_DAY, REQUEST_FIELDS, SECONDS_PER_DAY
from feature_repo.catalogue import list_model_inputs
from feature_repo.feast_library import FeatureStore
from feature_repo.feature_tables import EVENT_TIMESTAMP, locate_feature_table
from feature_repo.online_store import REPOSITORY
from feature_repo.stored_views import JOIN_KEY
from feature_repo.weekly_sequence import weekly_sequence
from flows.datasets.labels import INDEX_DATE, LABEL, WORSENED
from flows.datasets.loading import join_rows
from flows.datasets.rows import Matrix
from flows.lake.consents import read_consented_types
from flows.lake.tables import storage_options
from flows.runtime.database import open_database
from flows.runtime.retries import IO_RETRIES
from flows.sources.contract import INSTANT


@task(cache_policy=NO_CACHE, **IO_RETRIES)
def load_stored_features() -> Matrix:
    """Return the model inputs of everyone who consents to training, float32 [people, columns].

    As of the last moment that features were computed for. People of whom nothing is stored are
    left out, as a batch leaves them out.
    """
    with open_database() as engine:
        consented = read_consented_types(engine, purposes=["training"])
    moment = find_last_moment()
    needed = np.array([column.data_type is not None for column in list_model_inputs()])
    if moment is None or consented.is_empty():
        return np.empty((0, len(needed)), np.float32)
    entities = make_stored_entities(consented[JOIN_KEY].sort(), moment)
    _, rows = join_rows(FeatureStore(repo_path=str(REPOSITORY)), entities, consented)
    return rows.features[np.isfinite(rows.features[:, needed]).any(axis=1)]


def find_last_moment() -> datetime | None:
    """Return the newest moment of the feature tables, None where they are empty."""
    table = locate_feature_table(weekly_sequence.name)
    moments = pl.scan_delta(table, storage_options=storage_options()).select(EVENT_TIMESTAMP)
    newest: datetime | None = moments.max().collect(engine="streaming").item()
    return newest


def make_stored_entities(individuals: pl.Series, moment: datetime) -> pl.DataFrame:
    """Return an entity frame of individuals at a moment, without answers and without labels."""
    answers = [pl.lit(None, pl.Float64).alias(name) for name in REQUEST_FIELDS if name != INDEX_DAY]
    return pl.DataFrame({JOIN_KEY: individuals}).with_columns(
        pl.lit(moment).cast(INSTANT).alias(EVENT_TIMESTAMP),
        pl.lit(moment.date()).alias(INDEX_DATE),
        pl.lit(moment.timestamp() / SECONDS_PER_DAY).alias(INDEX_DAY),
        *(pl.lit(None, pl.Boolean).alias(label) for label in (LABEL, WORSENED)),
        *answers,
    )
