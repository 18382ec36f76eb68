"""The input contract: which tables a drop may hold, and which columns land.

`drop_columns` are what a file must or may carry; `lake_columns` are what lands in
the Delta table after pseudonymisation. Validation, readers, the lake and the
documentation (`flows/sources/README.md`) all derive from these definitions.
"""

from dataclasses import dataclass

import polars as pl
from polars.datatypes import DataTypeClass

from feature_repo.instruments import PHQ9

SEXES = ("female", "male", "other", "unknown")
EVENT_KINDS = ("diagnosis", "medication", "encounter")
ENCOUNTER_SETTINGS = (
    "outpatient",
    "inpatient",
    "emergency",
    "psychiatric_outpatient",
    "psychiatric_inpatient",
    "psychiatric_emergency",
)
WEARABLE_CHANNELS = (
    "steps",
    "active_minutes",
    "sleep_minutes",
    "sleep_efficiency",
    "resting_heart_rate",
    "hrv_rmssd",
    "wear_minutes",
)
ITEM_COLUMNS = tuple(f"item_{number}" for number in range(1, PHQ9.item_count + 1))

#: Kinds of `part`: an answer of a survey; a reading of a span within a
#: day; a total that the device itself made for the day.
SURVEY_ITEM = "item"
DAY_SPAN = "span"
DAY_TOTAL = "total"

INSTANT = pl.Datetime("us", "UTC")

#: Polars types by column.
ColumnTypes = dict[str, DataTypeClass | pl.DataType]

#: Columns every landed table has besides its own.
#: `available_at`: when the row could first have been known (event time at a first landing,
#: time of ingestion for a later correction): what keeps corrections out of the past.
COMMON_LAKE_COLUMNS: ColumnTypes = {
    "anonymized_id": pl.String,
    "key_id": pl.String,
    "bucket": pl.Int32,
    "ingested_at": INSTANT,
    "available_at": INSTANT,
}


@dataclass(frozen=True)
class Table:
    """One table of the contract.

    `required` and `optional` are columns of the file besides `person_id`;
    `columns` those of the landed table besides COMMON_LAKE_COLUMNS; `key` makes a row
    unique within an individual; `data_type` is the consent the rows need (None: any).
    """

    name: str
    required: tuple[str, ...]
    optional: tuple[str, ...]
    columns: ColumnTypes
    key: tuple[str, ...]
    data_type: str | None

    @property
    def schema(self) -> ColumnTypes:
        return COMMON_LAKE_COLUMNS | self.columns


PEOPLE = Table(
    name="people",
    required=("birth_date", "sex"),
    optional=("ethnicity",),
    # The day of birth identifies; the year is all that features need.
    columns={"birth_year": pl.Int16, "sex": pl.String, "ethnicity": pl.String},
    key=(),
    data_type=None,
)

SURVEYS = Table(
    name="surveys",
    required=("instrument", "answered_at", *ITEM_COLUMNS[:7]),
    optional=ITEM_COLUMNS[7:],
    columns={
        "instrument": pl.String,
        "answered_at": INSTANT,
        **dict.fromkeys(ITEM_COLUMNS, pl.Int8),
    },
    key=("instrument", "answered_at"),
    data_type="survey",
)

WEARABLE_DAYS = Table(
    name="wearable_days",
    required=("date",),
    optional=WEARABLE_CHANNELS,
    columns={"date": pl.Date, **dict.fromkeys(WEARABLE_CHANNELS, pl.Float32)},
    key=("date",),
    data_type="wearable",
)

EMR_EVENTS = Table(
    name="emr_events",
    required=("kind", "system", "code", "started_at"),
    optional=("ended_at", "setting"),
    columns={
        "kind": pl.String,
        "system": pl.String,
        "code": pl.String,
        "started_at": INSTANT,
        "ended_at": INSTANT,
        "setting": pl.String,
    },
    key=("kind", "system", "code", "started_at"),
    data_type="emr",
)

CONSENTS = Table(
    name="consents",
    required=("data_types", "purposes", "granted_at", "expires_at"),
    optional=(),
    columns={
        "data_types": pl.List(pl.String),
        "purposes": pl.List(pl.String),
        "granted_at": INSTANT,
        "expires_at": INSTANT,
    },
    key=("granted_at",),
    data_type=None,
)

OUTCOMES = Table(
    name="outcomes",
    required=("index_date", "outcome"),
    optional=(),
    columns={"index_date": pl.Date, "outcome": pl.Boolean},
    key=("index_date",),
    data_type=None,
)

TABLES = {
    table.name: table for table in (PEOPLE, SURVEYS, WEARABLE_DAYS, EMR_EVENTS, CONSENTS, OUTCOMES)
}
