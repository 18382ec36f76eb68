"""Checks of the rows of a drop: good rows in the lake's types, bad rows with their reason."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl
from polars.datatypes import DataTypeClass

from feature_repo.consent_terms import DATA_TYPES, PURPOSES
from feature_repo.instruments import INSTRUMENTS
from flows.sources.contract import (
    CONSENTS,
    EMR_EVENTS,
    ENCOUNTER_SETTINGS,
    EVENT_KINDS,
    INSTANT,
    ITEM_COLUMNS,
    OUTCOMES,
    PART_COLUMNS,
    PEOPLE,
    SEXES,
    SURVEYS,
    WEARABLE_DAYS,
    WEARABLE_LIMITS,
    ColumnTypes,
    Table,
)
from flows.sources.parse import (
    Parsed,
    Parser,
    between,
    describe_instrument,
    matching,
    one_of,
    parse_birth_year,
    parse_instant,
    parse_instrument,
    parse_item,
    parse_past_date,
    parse_past_instant,
    parse_terms,
    parse_total,
    parse_truth,
    required,
)

#: What a denial says: an individual's consents granted until `granted_at` (missing: until now)
#: end, for these data types and purposes (none: for all). Comes from FHIR only.
WITHDRAWALS = Table(
    name="withdrawals",
    required=("granted_at",),
    optional=("data_types", "purposes"),
    columns={
        "granted_at": INSTANT,
        "data_types": pl.List(pl.String),
        "purposes": pl.List(pl.String),
    },
    key=("granted_at",),
    data_type=None,
)

#: What may land as a category, a code system and a code: their forms, so that no column takes
#: free text, which may hold a name or an address.
CATEGORY = r"[\p{L}][\p{L}\p{M} ,()/&'.+-]{0,63}|[0-9A-Za-z.-]{1,16}"
SYSTEM = r"[A-Za-z][A-Za-z0-9 :/._#?=&%+~-]{0,199}|[0-9.]{1,200}"
CODE = r"[!-?A-~†‡]{1,64}"

PARSERS: dict[str, dict[str, Parser]] = {
    PEOPLE.name: {
        "birth_date": parse_birth_year,
        "sex": one_of(SEXES, default="unknown"),
        "ethnicity": matching(CATEGORY, "is no category of letters, at most 64"),
    },
    SURVEYS.name: {
        "instrument": required(parse_instrument),
        "answered_at": required(parse_past_instant),
        **dict.fromkeys(ITEM_COLUMNS, parse_item),
        "total": parse_total,
    },
    WEARABLE_DAYS.name: {
        "date": required(parse_past_date),
        **{name: between(*limits) for name, limits in WEARABLE_LIMITS.items()},
    },
    EMR_EVENTS.name: {
        "kind": required(one_of(EVENT_KINDS)),
        "system": required(matching(SYSTEM, "is no URI, OID or name, at most 200 characters")),
        "code": required(matching(CODE, "is no code without spaces, at most 64 characters")),
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
    WITHDRAWALS.name: {
        "granted_at": parse_instant,
        "data_types": parse_terms(DATA_TYPES, may_be_empty=True),
        "purposes": parse_terms(PURPOSES, may_be_empty=True),
    },
}

#: Columns of a file that land under another name.
RENAMED = {"birth_date": "birth_year"}


def _refuse_surplus(number: int, name: str) -> tuple[pl.Expr, pl.Expr]:
    """Refuse an answer to an item that the instrument does not have."""
    counts = {instrument.name: instrument.item_count for instrument in INSTRUMENTS.values()}
    count = pl.col("instrument").replace_strict(counts, default=None, return_dtype=pl.Int8)
    wrong = pl.col(name).is_not_null() & (count < number)
    return wrong, pl.format(f"{name}: {{}} has {{}} items", pl.col("instrument"), count)


def _compare_total() -> tuple[pl.Expr, pl.Expr]:
    """Refuse a survey whose own total is not the sum of its items: one of them is wrong."""
    added = add_items()
    wrong = (pl.col("total") != added).fill_null(False)
    reason = pl.format("total: {} is stated, the items add to {}", pl.col("total"), added)
    return wrong, reason


def add_items() -> pl.Expr:
    """Return the sum of all items of a survey's instrument, null when one is missing."""
    total = pl.lit(None, dtype=pl.Int32)
    for instrument in INSTRUMENTS.values():
        if instrument.item_count:
            items = [pl.col(name).cast(pl.Int32) for name in ITEM_COLUMNS[: instrument.item_count]]
            summed = pl.sum_horizontal(items, ignore_nulls=False)
            total = pl.when(pl.col("instrument") == instrument.name).then(summed).otherwise(total)
    return total


#: Rules over several columns: where the expression is true the row is bad.
CROSS_CHECKS: dict[str, list[tuple[pl.Expr, pl.Expr]]] = {
    SURVEYS.name: [
        *(_refuse_surplus(number, name) for number, name in enumerate(ITEM_COLUMNS, 1)),
        _compare_total(),
    ],
    EMR_EVENTS.name: [
        (pl.col("ended_at") < pl.col("started_at"), pl.lit("ended_at: is before started_at")),
        (
            (pl.col("kind") != "encounter") & pl.col("setting").is_not_null(),
            pl.lit("setting: only an encounter has one"),
        ),
    ],
    CONSENTS.name: [
        (
            pl.col("expires_at") <= pl.col("granted_at"),
            pl.lit("expires_at: is not after granted_at"),
        )
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
#: `recorded_at`: when the record was made, if that is known and later than the event.
ORIGIN: ColumnTypes = {
    "anonymized_id": pl.String,
    "key_id": pl.String,
    "bucket": pl.Int32,
    "row_number": pl.Int64,
    "recorded_at": pl.String,
    # Of consents: whether a grant takes the place of older ones, whether a denial reaches only
    # what was granted before its own date, and when the permitted period begins.
    "replaces": pl.Boolean,
    "only_before": pl.Boolean,
    "began_at": INSTANT,
    **PART_COLUMNS,
}


@dataclass(frozen=True)
class Checked:
    """`good` rows in the lake's types; `rejected` rows as row_number and reason.

    `unread` holds, of consents, whose rows were rejected and since when they would have been
    given: anonymized_id, key_id, bucket, granted_at. `scales` holds, of surveys, the least and
    the greatest answer (low, high) to an instrument, in good rows and bad ones.
    """

    good: pl.DataFrame
    rejected: pl.DataFrame
    unread: pl.DataFrame | None = None
    scales: pl.DataFrame | None = None


def check_rows(table: Table, rows: pl.DataFrame, now: datetime) -> Checked:
    """Divide `rows` of a reader (any column types) into good and rejected ones."""
    rows = _complete_columns(table, rows)
    if table is SURVEYS:
        rows = rows.with_columns(describe_instrument("instrument"))
    parsed = {name: _parse(table, name, rows, now) for name in PARSERS[table.name]}
    read = rows.select(
        *(_read_origin(name, rows.schema[name]) for name in ORIGIN),
        *(column.value.alias(RENAMED.get(name, name)) for name, column in parsed.items()),
        pl.concat_list(column.problem for column in parsed.values()).alias("problems"),
    )
    judged = read.with_columns(reason=_describe_problems(table))
    bad = pl.col("reason") != ""
    good = judged.filter(~bad).drop("problems", "reason")
    rejected = judged.filter(bad)
    whose = ("anonymized_id", "key_id", "bucket", "granted_at")
    return Checked(
        good=_date_availability(table, good),
        rejected=rejected.select("row_number", "reason"),
        unread=rejected.select(whose).drop_nulls("anonymized_id") if table is CONSENTS else None,
        scales=_list_scales(judged) if table is SURVEYS else None,
    )


def _list_scales(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.group_by("instrument").agg(
        pl.min_horizontal(pl.col(name).min() for name in ITEM_COLUMNS).alias("low"),
        pl.max_horizontal(pl.col(name).max() for name in ITEM_COLUMNS).alias("high"),
    )


def find_shifted_scale(scales: pl.DataFrame) -> str | None:
    """Return what is wrong with the surveys of a file whose items begin at 1 instead of 0.

    Then nobody answers 0 and somebody the highest answer and one more; most rows look as if they
    were right, and land a point an item too high.
    """
    of_file = scales.group_by("instrument").agg(pl.col("low").min(), pl.col("high").max())
    for name, low, high in of_file.drop_nulls().iter_rows():
        highest = INSTRUMENTS[name].max_answer
        if (low, high) == (1, highest + 1):
            return (
                f"items of {name} run from 1 to {high}, not from 0 to {highest}: "
                "subtract 1 from every item"
            )
    return None


def _read_origin(name: str, dtype: pl.DataType) -> pl.Expr:
    if ORIGIN[name] == INSTANT:
        return parse_instant(name, dtype, datetime.max).value.alias(name)
    return pl.col(name).cast(ORIGIN[name])


def _complete_columns(table: Table, rows: pl.DataFrame) -> pl.DataFrame:
    names = [*ORIGIN, *PARSERS[table.name]]
    absent = [name for name in names if name not in rows.columns]
    return rows.with_columns(
        pl.lit(None, dtype=_type_of_absent(name)).alias(name) for name in absent
    ).select(names)


def _type_of_absent(name: str) -> DataTypeClass | pl.DataType:
    expected = ORIGIN.get(name, pl.String)
    return pl.String if expected == INSTANT else expected


def _parse(table: Table, name: str, rows: pl.DataFrame, now: datetime) -> Parsed:
    return PARSERS[table.name][name](name, rows.schema[name], now)


def _describe_problems(table: Table) -> pl.Expr:
    nameless = pl.when(pl.col("anonymized_id").is_null()).then(pl.lit("person_id: is missing"))
    crossed = [pl.when(wrong).then(reason) for wrong, reason in CROSS_CHECKS.get(table.name, [])]
    problems = pl.concat_list(nameless, "problems", *crossed)
    return problems.list.drop_nulls().list.join("; ")


def _date_availability(table: Table, good: pl.DataFrame) -> pl.DataFrame:
    if table.name not in KNOWN_AT:
        return good
    recorded = parse_instant("recorded_at", good.schema["recorded_at"], datetime.max).value
    known_at = pl.max_horizontal(KNOWN_AT[table.name].cast(INSTANT), recorded)
    return good.with_columns(available_at=known_at.cast(INSTANT)).drop("recorded_at")
