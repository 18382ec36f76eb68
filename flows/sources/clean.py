"""Checks of the rows of a drop: good rows in the lake's types, bad rows with their reason."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from feature_repo.consent_terms import DATA_TYPES, PURPOSES
from feature_repo.instruments import GAD7
from flows.sources.contract import (
    CONSENTS,
    EMR_EVENTS,
    ENCOUNTER_SETTINGS,
    EVENT_KINDS,
    INSTANT,
    ITEM_COLUMNS,
    OUTCOMES,
    PEOPLE,
    SEXES,
    SURVEYS,
    WEARABLE_DAYS,
    Table,
)
from flows.sources.parse import (
    Parsed,
    Parser,
    between,
    describe_range,
    one_of,
    parse_birth_year,
    parse_instant,
    parse_instrument,
    parse_item,
    parse_past_date,
    parse_past_instant,
    parse_terms,
    parse_text,
    parse_truth,
    required,
)

#: What a consent that ended says: an individual's consents granted until then are withdrawn.
#: Comes from FHIR only; a drop's `consents` cannot say it.
WITHDRAWALS = Table(
    name="withdrawals",
    required=("granted_at",),
    optional=(),
    columns={"granted_at": INSTANT},
    key=("granted_at",),
    data_type=None,
)

#: Limits of one day, beyond which a reading is taken for an error of device or unit.
#: Minutes: a day has 1,440. Steps: the largest of 7,410 LifeSnaps days is 43,112, a 100-mile
#: race about 200,000. Resting heart rate: 25 is below the lowest documented athletes, 220 the
#: usual maximum of exertion. RMSSD: long recordings of healthy adults stay below 200 ms
#: (means of 19-75 ms over 44 studies, Nunan 2010, PACE 33:1407); 300 leaves room for arrhythmia.
PLAUSIBLE: dict[str, tuple[float, float, str]] = {
    "steps": (0, 200_000, "steps"),
    "active_minutes": (0, 1440, "minutes"),
    "sleep_minutes": (0, 1440, "minutes"),
    "sleep_efficiency": (0, 100, "percent"),
    "resting_heart_rate": (25, 220, "beats per minute"),
    "hrv_rmssd": (0, 300, "ms"),
    "wear_minutes": (0, 1440, "minutes"),
}

PARSERS: dict[str, dict[str, Parser]] = {
    PEOPLE.name: {
        "birth_date": parse_birth_year,
        "sex": one_of(SEXES, default="unknown"),
        "ethnicity": parse_text,
    },
    SURVEYS.name: {
        "instrument": required(parse_instrument),
        "answered_at": required(parse_past_instant),
        **dict.fromkeys(ITEM_COLUMNS, parse_item),
    },
    WEARABLE_DAYS.name: {
        "date": required(parse_past_date),
        **{name: between(*limits) for name, limits in PLAUSIBLE.items()},
    },
    EMR_EVENTS.name: {
        "kind": required(one_of(EVENT_KINDS)),
        "system": required(parse_text),
        "code": required(parse_text),
        "started_at": required(parse_past_instant),
        "ended_at": parse_instant,
        "setting": one_of(ENCOUNTER_SETTINGS),
    },
    CONSENTS.name: {
        "data_types": parse_terms(DATA_TYPES),
        "purposes": parse_terms(PURPOSES),
        "granted_at": required(parse_past_instant),
        "expires_at": required(parse_instant),
    },
    OUTCOMES.name: {
        "index_date": required(parse_past_date),
        "outcome": required(parse_truth),
    },
    WITHDRAWALS.name: {"granted_at": required(parse_past_instant)},
}

#: Columns of a file that land under another name.
RENAMED = {"birth_date": "birth_year"}

#: Rules over several columns: where the expression is true the row is bad.
CROSS_CHECKS: dict[str, list[tuple[pl.Expr, str]]] = {
    SURVEYS.name: [
        (
            (pl.col("instrument") == GAD7.name) & pl.col(name).is_not_null(),
            f"{name}: {GAD7.name} has {GAD7.item_count} items",
        )
        for name in ITEM_COLUMNS[GAD7.item_count :]
    ],
    EMR_EVENTS.name: [
        (pl.col("ended_at") < pl.col("started_at"), "ended_at: is before started_at"),
        (
            (pl.col("kind") != "encounter") & pl.col("setting").is_not_null(),
            "setting: only an encounter has one",
        ),
    ],
    CONSENTS.name: [
        (pl.col("expires_at") <= pl.col("granted_at"), "expires_at: is not after granted_at")
    ],
}

#: When a row could first have been known: a wearable day when it is over.
KNOWN_AT: dict[str, pl.Expr] = {
    PEOPLE.name: pl.datetime(
        pl.col("birth_year").cast(pl.Int32).fill_null(1900), 1, 1, time_zone="UTC"
    ),
    SURVEYS.name: pl.col("answered_at"),
    WEARABLE_DAYS.name: (pl.col("date") + timedelta(days=1)).cast(INSTANT),
    EMR_EVENTS.name: pl.col("started_at"),
    OUTCOMES.name: pl.col("index_date").cast(INSTANT),
}

#: Columns of a reader's rows that say where a row comes from and whose it is.
#: `part`: the row is one record of several that make up a row of the table (FHIR
#: Observations); `part_at`: the period it covers, which tells a repeated record.
#: `recorded_at`: when the record was made, if that is known and later than the event.
ORIGIN = {
    "anonymized_id": pl.String,
    "key_id": pl.String,
    "bucket": pl.Int32,
    "row_number": pl.Int64,
    "part": pl.String,
    "part_at": pl.String,
    "recorded_at": pl.String,
}


@dataclass(frozen=True)
class Checked:
    """`good` rows in the lake's types; `rejected` rows as row_number and reason."""

    good: pl.DataFrame
    rejected: pl.DataFrame


def check_rows(table: Table, rows: pl.DataFrame, now: datetime) -> Checked:
    """Divide `rows` of a reader (any column types) into good and rejected ones."""
    rows = _complete_columns(table, rows)
    parsed = {name: _parse(table, name, rows, now) for name in PARSERS[table.name]}
    read = rows.select(
        *ORIGIN,
        *(column.value.alias(RENAMED.get(name, name)) for name, column in parsed.items()),
        pl.concat_list(column.problem for column in parsed.values()).alias("problems"),
    )
    judged = read.with_columns(reason=_describe_problems(table))
    bad = pl.col("reason") != ""
    good = judged.filter(~bad).drop("problems", "reason")
    return Checked(
        good=_date_availability(table, good),
        rejected=judged.filter(bad).select("row_number", "reason"),
    )


def find_implausible() -> pl.Expr:
    """Return what is wrong with a wearable day put together from several records, or null."""
    return pl.coalesce(
        pl.when(~pl.col(name).is_between(low, high)).then(
            pl.lit(describe_range(name, low, high, unit))
        )
        for name, (low, high, unit) in PLAUSIBLE.items()
    )


def _complete_columns(table: Table, rows: pl.DataFrame) -> pl.DataFrame:
    names = [*ORIGIN, *PARSERS[table.name]]
    absent = [name for name in names if name not in rows.columns]
    return rows.with_columns(
        pl.lit(None, dtype=ORIGIN.get(name, pl.String)).alias(name) for name in absent
    ).select(names)


def _parse(table: Table, name: str, rows: pl.DataFrame, now: datetime) -> Parsed:
    return PARSERS[table.name][name](name, rows.schema[name], now)


def _describe_problems(table: Table) -> pl.Expr:
    nameless = pl.when(pl.col("anonymized_id").is_null()).then(pl.lit("person_id: is missing"))
    crossed = [
        pl.when(wrong).then(pl.lit(reason)) for wrong, reason in CROSS_CHECKS.get(table.name, [])
    ]
    problems = pl.concat_list(nameless, "problems", *crossed)
    return problems.list.drop_nulls().list.join("; ")


def _date_availability(table: Table, good: pl.DataFrame) -> pl.DataFrame:
    if table.name not in KNOWN_AT:
        return good
    recorded = parse_instant("recorded_at", good.schema["recorded_at"], datetime.max).value
    known = pl.max_horizontal(KNOWN_AT[table.name].cast(INSTANT), recorded)
    return good.with_columns(available_at=known.cast(INSTANT)).drop("recorded_at")
