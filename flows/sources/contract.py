"""The input contract: which tables a drop may hold, and which columns land.

`drop_columns` are what a file must or may carry; `lake_columns` are what lands in
the Delta table after pseudonymisation. Validation, readers, the lake and the
documentation (`flows/sources/README.md`) all derive from these definitions.
"""

from dataclasses import dataclass

import polars as pl
from polars.datatypes import DataTypeClass

from feature_repo.instruments import ITEM_COLUMNS

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
#: Limits of one day by channel, beyond which a reading is taken for an error of device or unit.
#: The checks of a drop and the validation of the lake both use them: what lands is valid.
#: Minutes: a day has 1,440; one of 25 hours (the end of summer time) can be worn 1,500. Steps:
#: the largest of 7,410 LifeSnaps days is 43,112, a 100-mile race about 200,000. Resting heart
#: rate: 25 is below the lowest documented athletes, 220 the usual maximum of exertion. RMSSD: long
#: recordings of healthy adults stay below 200 ms (means of 19-75 ms over 44 studies, Nunan 2010,
#: PACE 33:1407); 300 leaves room for arrhythmia.
WEARABLE_LIMITS: dict[str, tuple[float, float, str]] = {
    "steps": (0, 200_000, "steps"),
    "active_minutes": (0, 1440, "minutes"),
    "sleep_minutes": (0, 1440, "minutes"),
    "sleep_efficiency": (0, 100, "percent"),
    "resting_heart_rate": (25, 220, "beats per minute"),
    "hrv_rmssd": (0, 300, "ms"),
    "wear_minutes": (0, 1500, "minutes"),
}
WEARABLE_CHANNELS = tuple(WEARABLE_LIMITS)

#: Kinds of `part` of a day: a reading of a span within it; a total that the device itself made.
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


#: What a record says besides the table's columns: which resource it is and in which version, and
#: of what larger record it is a part. Null for a row of a table file, which stands for itself.
#: `source_id`: keyed hash of the resource's type and id. `version_rank`: of equal versions, a
#: corrected one (1) goes before a first one (0). `named`: the record itself names the instrument.
#: `link`: the response or panel it was derived from; `members`: the items of a panel, `;` between.
#: `device`: keyed hash; `device_rank`: worn devices (0) go before unknown ones (1) and phones (2).
PART_COLUMNS: ColumnTypes = {
    "source_id": pl.String,
    "version_number": pl.Int64,
    "version_at": INSTANT,
    "version_rank": pl.Int8,
    "part": pl.String,
    "named": pl.Boolean,
    "link": pl.String,
    "members": pl.String,
    "device": pl.String,
    "device_rank": pl.Int8,
    "span_start": INSTANT,
    "span_end": INSTANT,
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
    required=("instrument", "answered_at"),
    optional=(*ITEM_COLUMNS, "total"),
    columns={
        "instrument": pl.String,
        "answered_at": INSTANT,
        **dict.fromkeys(ITEM_COLUMNS, pl.Int8),
        # As it was stated; where items are missing, all that is known of their sum.
        "total": pl.Int16,
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
