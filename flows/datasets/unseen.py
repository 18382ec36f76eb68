"""Labelled rows that a release was not trained on: of another lake, or newer than its training."""

from dataclasses import dataclass
from datetime import date, datetime

import polars as pl
from sqlalchemy import Engine

from feature_repo.feast_library import FeatureStore
from feature_repo.stored_views import JOIN_KEY
from flows.datasets.labels import INDEX_DATE, LABEL
from flows.datasets.loading import NotEnoughLabelsError, collect_entities, join_rows
from flows.datasets.rows import ModelRows
from flows.lake.consents import read_consented_types
from flows.lake.tables import scan_table
from monitoring.outcome_drift import MIN_LABELS, MIN_OUTCOMES, is_enough

#: Tables that labels come from.
LABELLING_TABLES = ("surveys", "emr_events", "outcomes")


@dataclass(frozen=True)
class UnseenSet:
    """Labelled rows that a release was not trained on.

    `frame` has anonymized_id, index_date, the labels of both outcomes and age, `rows` the model
    inputs of the same rows, `people` (anonymized_id, sex, ethnicity). Of an external validation
    `known` individuals were left out, because this state holds data of them.
    """

    frame: pl.DataFrame
    rows: ModelRows
    people: pl.DataFrame
    known: int = 0

    def find_period(self) -> tuple[date, date]:
        """Return the first and the last index date."""
        dates = self.frame[INDEX_DATE].cast(pl.Date).to_list()
        return min(dates), max(dates)


def load_newest_set(
    store: FeatureStore, engine: Engine, lake_url: str, fitted_until: date, made_at: datetime
) -> UnseenSet:
    """Return the labelled rows that a release made at `made_at` cannot have been trained on.

    Their index date is later than `fitted_until`, the last one it was trained on, or all data of
    their individual landed after it was made. Raises NotEnoughLabelsError.
    """
    consented = read_consented_types(engine, purposes=["training"])
    entities = collect_entities(engine, lake_url, consented).entities
    newcomers = find_newcomers(lake_url, made_at)
    is_newer = pl.col(INDEX_DATE) > fitted_until
    newest = entities.filter(is_newer | pl.col(JOIN_KEY).is_in(newcomers.implode()))
    came = f"are later than {fitted_until} or of individuals who came since"
    require_enough(newest, came)
    frame, rows = join_rows(store, newest, consented)
    people = scan_table(lake_url, "people").select(JOIN_KEY, "sex", "ethnicity").collect()
    return UnseenSet(frame, rows, people)


def find_newcomers(lake_url: str, made_at: datetime) -> pl.Series:
    """Return the individuals of whom every record that labels come from landed after a moment."""
    landed = pl.concat(
        scan_table(lake_url, name).select(JOIN_KEY, "ingested_at") for name in LABELLING_TABLES
    )
    first = landed.group_by(JOIN_KEY).agg(pl.col("ingested_at").min())
    return first.filter(pl.col("ingested_at") > made_at).collect(engine="streaming")[JOIN_KEY]


def require_enough(entities: pl.DataFrame, which: str, addition: str = "") -> None:
    """Raise NotEnoughLabelsError where too little is labelled to assess a release on.

    `which` says of the index dates which they are, `addition` ends the message.
    """
    outcomes = int(entities[LABEL].sum() or 0)
    if not is_enough(entities.height, outcomes):
        raise NotEnoughLabelsError(
            f"{entities.height} labelled index dates {which}, {outcomes} with the outcome; at "
            f"least {MIN_LABELS} are needed, and {MIN_OUTCOMES} with and without it{addition}"
        )
