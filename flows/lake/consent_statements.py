"""FHIR's grants and denials, kept so that they come out alike in any order.

They lie in the lake (`parts/consents`) with the resource they came from, so that a denial also
reaches a consent that comes later, a newer version replaces an older one, and a deleted consent
ends.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import polars as pl
from sqlalchemy import Engine

from feature_repo.pseudonyms import BUCKET_COUNT, assign_bucket
from flows.lake.consent_database import (
    DEATH,
    DENIAL,
    GRANT,
    end_denied,
    list_rules,
    withdraw_exactly,
    write_grants,
    write_rows,
)
from flows.lake.merging import MergeCounts
from flows.lake.parts import read_parts, schema_of_parts, write_parts
from flows.lake.standing import choose_current
from flows.sources.contract import CONSENTS, INSTANT, Table
from flows.sources.parse import parse_instant
from serving.database.sessions import open_session

#: Statements of a drop are numbered below, those that were known from here on.
NUMBERED_BELOW = 1 << 31

#: Names the statement that a consent which could not be read amounts to.
UNREAD = "unread "

#: What a statement says. `granted_at` of a denial: until when it reaches back, null: until it was
#: first met. Lists are `;`-separated; of a denial, none means all.
STATEMENTS = Table(
    name=CONSENTS.name,
    required=(),
    optional=(),
    columns={
        "kind": pl.String,
        "granted_at": INSTANT,
        "expires_at": INSTANT,
        "data_types": pl.String,
        "purposes": pl.String,
        "replaces": pl.Boolean,
        "only_before": pl.Boolean,
        "began_at": INSTANT,
    },
    key=(),
    data_type=None,
)


def make_statements(
    grants: pl.DataFrame,
    denials: pl.DataFrame,
    unread: pl.DataFrame,
    deaths: list[dict[str, Any]],
    now: datetime,
) -> pl.DataFrame:
    """Return FHIR's grants and denials, what could not be read, and deaths, as statements."""
    frames = [
        _conform(grants, GRANT, now),
        _conform(denials, DENIAL, now),
        _conform(_deny_unread(unread), DENIAL, now),
        _conform(_end_screening(deaths, now), DEATH, now),
    ]
    ordered = pl.concat(frames).sort("anonymized_id", "source_id", "kind", "granted_at")
    number = pl.int_range(pl.len()).over("anonymized_id", "source_id", "kind")
    slot = pl.format("{} {}", "kind", number)
    return ordered.with_columns(slot=slot).with_row_index("pid")


def _deny_unread(unread: pl.DataFrame) -> pl.DataFrame:
    """A consent that cannot be read may narrow what stood before it: that ends."""
    since = pl.col("granted_at").cast(pl.String).fill_null("undated")
    return unread.with_columns(
        source_id=pl.concat_str(pl.lit(UNREAD), since),
        only_before=pl.lit(True),
        data_types=pl.lit([], dtype=pl.List(pl.String)),
        purposes=pl.lit([], dtype=pl.List(pl.String)),
    ).unique(["anonymized_id", "source_id"], maintain_order=True)


def _end_screening(deaths: list[dict[str, Any]], now: datetime) -> pl.DataFrame:
    """The dead are not screened, whenever they consented; what they gave may be learnt from."""
    schema = {
        "source_id": pl.String,
        "anonymized_id": pl.String,
        "version_number": pl.Int64,
        "version_at": pl.String,
        "version_rank": pl.Int8,
    }
    rows = pl.DataFrame(deaths, schema=schema)
    buckets = pl.Series([assign_bucket(person) for person in rows["anonymized_id"]], dtype=pl.Int32)
    return rows.with_columns(
        version_at=parse_instant("version_at", pl.String(), now).value,
        bucket=buckets,
        granted_at=pl.lit(FOR_EVER).cast(INSTANT),
        data_types=pl.lit([], dtype=pl.List(pl.String)),
        purposes=pl.lit(["screening"], dtype=pl.List(pl.String)),
    )


#: Later than any consent can be given.
FOR_EVER = datetime(9999, 12, 31, tzinfo=UTC)


def _conform(rows: pl.DataFrame, kind: str, now: datetime) -> pl.DataFrame:
    moment = pl.lit(now).cast(INSTANT)
    absent = [name for name in schema_of_parts(STATEMENTS) if name not in rows.columns]
    lists = [write_list("data_types"), write_list("purposes")]
    complete = rows.with_columns(lists).with_columns(pl.lit(None).alias(name) for name in absent)
    stated = complete.with_columns(
        kind=pl.lit(kind), slot=pl.lit(""), ingested_at=moment, available_at=moment
    )
    return stated.select(
        pl.col(name).cast(dtype) for name, dtype in schema_of_parts(STATEMENTS).items()
    )


def write_list(name: str) -> pl.Expr:
    """Return a list of terms as `;`-separated text."""
    return pl.col(name).list.join(";").alias(name)


@dataclass
class Applied:
    """Results by table rows and by statements.

    `superseded` and `duplicate` are by kind; `ended` holds whose consents were ended or narrowed.
    """

    rows: MergeCounts = field(default_factory=MergeCounts)
    grants: MergeCounts = field(default_factory=MergeCounts)
    denials: MergeCounts = field(default_factory=MergeCounts)
    superseded: dict[str, int] = field(default_factory=lambda: {GRANT: 0, DENIAL: 0})
    duplicate: dict[str, int] = field(default_factory=lambda: {GRANT: 0, DENIAL: 0})
    ended: set[str] = field(default_factory=set)

    def __add__(self, other: "Applied") -> "Applied":
        return Applied(
            self.rows + other.rows,
            self.grants + other.grants,
            self.denials + other.denials,
            {kind: number + other.superseded[kind] for kind, number in self.superseded.items()},
            {kind: number + other.duplicate[kind] for kind, number in self.duplicate.items()},
            self.ended | other.ended,
        )


def apply_statements(
    engine: Engine,
    lake_url: str,
    rows: pl.DataFrame,
    statements: pl.DataFrame,
    retractions: pl.DataFrame,
    now: datetime,
) -> Applied:
    """Make PostgreSQL agree with all statements known of everyone concerned.

    `rows` are the grants of table files, which older denials reach as well; `retractions` all
    that are known.
    """
    applied = Applied()
    whose = ["anonymized_id", "bucket"]
    people = pl.concat([statements.select(whose), rows.select(whose)]).unique()
    for bucket in range(BUCKET_COUNT):
        is_here = pl.col("bucket") == bucket
        some = people.filter(is_here)["anonymized_id"]
        stored = read_parts(lake_url, STATEMENTS, [bucket], some, retractions["source_id"])
        new, given = statements.filter(is_here), rows.filter(is_here)
        if stored.height or new.height or given.height:
            applied += _apply_bucket(engine, lake_url, bucket, given, stored, new, retractions, now)
    return applied


def _apply_bucket(
    engine: Engine,
    lake_url: str,
    bucket: int,
    given: pl.DataFrame,
    stored: pl.DataFrame,
    new: pl.DataFrame,
    retractions: pl.DataFrame,
    now: datetime,
) -> Applied:
    columns = [*schema_of_parts(STATEMENTS), "pid"]
    numbered = stored.with_columns(pid=pl.int_range(pl.len()) + NUMBERED_BELOW).select(columns)
    new = new.select(pl.col(name).cast(numbered.schema[name]) for name in columns)
    current = choose_current(STATEMENTS, numbered, new, retractions, now)
    write_parts(lake_url, STATEMENTS, [bucket], stored, current.records)
    standing = current.records.with_columns(is_new=pl.col("pid") < NUMBERED_BELOW)
    applied = Applied(
        superseded=_count_kinds(new, current.superseded["pid"]),
        duplicate=_count_kinds(new, current.repeated["pid"]),
    )
    grants = _stagger(standing.filter(pl.col("kind") == GRANT))
    before = stored.filter(pl.col("kind") == GRANT).select("anonymized_id", "granted_at")
    gone = before.join(grants, on=["anonymized_id", "granted_at"], how="anti")
    rules = list_rules(standing)
    with open_session(engine) as session:
        applied.rows = write_rows(session, given, rules)
        applied.grants = write_grants(session, grants, rules)
        withdraw_exactly(session, gone, now)
        session.flush()
        applied.ended = end_denied(session, rules, now)
    denied = standing.filter(pl.col("kind") == DENIAL, pl.col("is_new"))
    bites = denied.filter(pl.col("anonymized_id").is_in(list(applied.ended))).height
    applied.denials = MergeCounts(0, bites, denied.height - bites)
    return applied


def _count_kinds(new: pl.DataFrame, pids: pl.Series) -> dict[str, int]:
    kinds = new.filter(pl.col("pid").is_in(pids.implode()))["kind"]
    return {kind: int(kinds.eq(kind).sum()) for kind in (GRANT, DENIAL)}


def _stagger(grants: pl.DataFrame) -> pl.DataFrame:
    """Give consents of one person and instant, the key of a consent, a microsecond each."""
    ordered = grants.sort("anonymized_id", "granted_at", "source_id", "slot")
    number = pl.int_range(pl.len()).over("anonymized_id", "granted_at")
    return ordered.with_columns(
        stated_at=pl.col("granted_at"),
        granted_at=pl.col("granted_at") + pl.duration(microseconds=number),
    )
