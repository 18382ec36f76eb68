"""Which of the kept records stand: the newest version of each resource, and rows as corrected."""

from dataclasses import dataclass
from datetime import datetime

import polars as pl

from flows.lake.joined import list_details
from flows.lake.parts import ROW, VERSION
from flows.sources.contract import INSTANT, PART_COLUMNS, Table

ROW_KEY = ["anonymized_id", "source_id"]
RECORD_KEY = [*ROW_KEY, "slot"]
STAMPED = ["available_at", "ingested_at"]
DIFFERENT_ROWS = "the drop has different rows for one person and key"
TWO_CONTENTS = "one resource in one version has two contents"


@dataclass(frozen=True)
class Current:
    """The records that stand, with `pid`, and the fate of those that do not.

    `repeated`: pid of a record that says what another (`as_pid`) says. `superseded`: pids of
    records of an older or retracted version. `rejected`: pid and reason.
    """

    records: pl.DataFrame
    repeated: pl.DataFrame
    superseded: pl.DataFrame
    rejected: pl.DataFrame


def choose_current(
    table: Table, stored: pl.DataFrame, new: pl.DataFrame, retractions: pl.DataFrame, now: datetime
) -> Current:
    """Return the records that stand of what was known and what is new, whatever came first.

    `stored` and `new` have the columns of schema_of_parts and `pid`.
    """
    is_row = pl.col("source_id").str.starts_with(ROW)
    rows = _join_table_rows(table, stored.filter(is_row), new.filter(is_row), now)
    resources = _choose_versions(
        table, stored.filter(~is_row), new.filter(~is_row), retractions, now
    )
    return Current(
        *(
            pl.concat([getattr(rows, name), getattr(resources, name)], how="vertical_relaxed")
            for name in ("records", "repeated", "superseded", "rejected")
        )
    )


def _join_table_rows(
    table: Table, stored: pl.DataFrame, new: pl.DataFrame, now: datetime
) -> Current:
    """Let rows of table files add to and correct earlier ones; what they leave out stands."""
    details = list_details(table)
    differs = pl.any_horizontal(
        pl.lit(False),
        *((pl.col(name).drop_nulls().n_unique() > 1).over(ROW_KEY) for name in details),
    )
    judged = new.with_columns(differs=differs)
    good = judged.filter(~pl.col("differs")).drop("differs")
    first = pl.col("pid").first().over(ROW_KEY)
    repeated = good.with_columns(as_pid=first).filter(pl.col("pid") != pl.col("as_pid"))
    merged = good.group_by(ROW_KEY, maintain_order=True).agg(
        pl.exclude(*details).first(), *(pl.col(name).drop_nulls().first() for name in details)
    )
    before = stored.select(*ROW_KEY, *(pl.col(n).alias(f"{n}_before") for n in STAMPED + details))
    joined = merged.join(before, on=ROW_KEY, how="left")
    corrects = pl.any_horizontal(
        pl.lit(False), *(pl.col(name) != pl.col(f"{name}_before") for name in details)
    ).fill_null(False)
    adds = pl.any_horizontal(
        pl.lit(False),
        *(pl.col(n).is_not_null() & pl.col(f"{n}_before").is_null() for n in details),
    )
    is_known = pl.col("ingested_at_before").is_not_null()
    stamped = joined.with_columns(
        available_at=pl.when(corrects)
        .then(pl.max_horizontal("available_at", pl.lit(now).cast(INSTANT)))
        .when(adds)
        .then(pl.max_horizontal("available_at", "available_at_before"))
        .otherwise(pl.coalesce("available_at_before", "available_at")),
        ingested_at=pl.when(is_known & ~corrects & ~adds)
        .then("ingested_at_before")
        .otherwise("ingested_at"),
        **{name: pl.coalesce(name, f"{name}_before") for name in details},
    )
    untouched = stored.join(merged.select(ROW_KEY), on=ROW_KEY, how="anti")
    return Current(
        records=pl.concat([untouched, stamped.select(stored.columns)]),
        repeated=repeated.select("pid", "as_pid"),
        superseded=new.clear().select("pid"),
        rejected=judged.filter("differs").select("pid", reason=pl.lit(DIFFERENT_ROWS)),
    )


def _choose_versions(
    table: Table, stored: pl.DataFrame, new: pl.DataFrame, retractions: pl.DataFrame, now: datetime
) -> Current:
    content = list(dict.fromkeys([*RECORD_KEY, *PART_COLUMNS, *table.columns]))
    known = _find_known(content, stored, new, retractions)
    new = new.join(known, on="pid", how="anti")
    stored = stored.join(known, on=ROW_KEY, how="anti")
    alone = _find_alone(stored, new, retractions)
    new = new.join(alone, on="pid", how="anti")
    numbered = new.with_columns(as_pid=pl.col("pid").first().over(content))
    first = numbered.filter(pl.col("pid") == pl.col("as_pid")).drop("as_pid")
    repeated = numbered.filter(pl.col("pid") != pl.col("as_pid")).select("pid", "as_pid")
    known_ids = stored.select(ROW_KEY).unique().with_columns(was_known=pl.lit(True))
    stamps = stored.select(*content, *(pl.col(n).alias(f"{n}_before") for n in STAMPED))
    first = first.join(stamps, on=content, how="left", nulls_equal=True).join(
        known_ids, on=ROW_KEY, how="left"
    )
    replaces = pl.col("was_known") & pl.col("ingested_at_before").is_null()
    first = first.with_columns(
        available_at=pl.when(replaces.fill_null(False))
        .then(pl.max_horizontal("available_at", pl.lit(now).cast(INSTANT)))
        .otherwise(pl.coalesce("available_at_before", "available_at")),
        ingested_at=pl.coalesce("ingested_at_before", "ingested_at"),
    ).select(stored.columns)
    standing = _keep_newest(stored, first, retractions)
    twice = (pl.len().over("anonymized_id", "source_id", "slot") > 1) & pl.col("is_new")
    judged = standing.with_columns(twice=twice)
    lost = first.join(standing.select("pid"), on="pid", how="anti")
    return Current(
        records=pl.concat([alone, known, judged.filter(~pl.col("twice")).select(stored.columns)]),
        repeated=repeated,
        superseded=lost.select("pid"),
        rejected=judged.filter("twice").select("pid", reason=pl.lit(TWO_CONTENTS)),
    )


def _find_alone(stored: pl.DataFrame, new: pl.DataFrame, retractions: pl.DataFrame) -> pl.DataFrame:
    """Return the new records of resources of which nothing else is known: they stand."""
    return (
        new.filter(pl.struct(ROW_KEY).is_unique())
        .join(stored, on=ROW_KEY, how="anti")
        .join(retractions, on="source_id", how="anti")
        .select(stored.columns)
    )


def _find_known(
    content: list[str], stored: pl.DataFrame, new: pl.DataFrame, retractions: pl.DataFrame
) -> pl.DataFrame:
    """Return the new records of resources that are known as they come, with the stored stamps.

    Most of a repeated export is such: it has the very records that are stored, each once, and
    none is retracted. Their versions need no comparison.
    """
    if stored.is_empty() or new.is_empty():
        return new.select(stored.columns).clear()
    before = stored.select(*content, *STAMPED)
    met = new.join(before, on=RECORD_KEY, how="left", suffix="_before")
    is_same = pl.all_horizontal(
        pl.col("ingested_at_before").is_not_null(),
        *(pl.col(n).eq_missing(pl.col(f"{n}_before")) for n in content if n not in RECORD_KEY),
    )
    once = pl.struct(RECORD_KEY).is_unique()
    differs = met.filter(~(is_same & once)).select(ROW_KEY)
    absent = stored.join(new, on=RECORD_KEY, how="anti").select(ROW_KEY)
    return (
        met.join(pl.concat([differs, absent]), on=ROW_KEY, how="anti")
        .join(retractions, on="source_id", how="anti")
        .with_columns(pl.col(f"{name}_before").alias(name) for name in STAMPED)
        .select(stored.columns)
    )


def _keep_newest(
    stored: pl.DataFrame, new: pl.DataFrame, retractions: pl.DataFrame
) -> pl.DataFrame:
    """Return, by resource, the records of its newest version, none where that is a retraction.

    A resource is one individual's: records of others decide nothing, so that it does not matter
    who else is in the same bucket.

    Versions compare by their numbers where all have one, then by when they were last updated,
    then by whether they correct; of equal ones that of the later ingestion stands.
    """
    ids = pl.concat([stored.select(ROW_KEY), new.select(ROW_KEY)]).unique()
    tombs = retractions.select("source_id", *VERSION).join(ids, on="source_id")
    columns = [*ROW_KEY, *VERSION, "pid", "is_new", "is_tomb"]
    everything = pl.concat(
        [
            stored.with_columns(is_new=pl.lit(False), is_tomb=pl.lit(False)).select(columns),
            new.with_columns(is_new=pl.lit(True), is_tomb=pl.lit(False)).select(columns),
            tombs.with_columns(pid=pl.lit(None), is_new=pl.lit(False), is_tomb=pl.lit(True)).select(
                columns
            ),
        ],
        how="vertical_relaxed",
    )
    numbered = pl.col("version_number").is_not_null().all().over(ROW_KEY)
    order = ["first_number", "version_at", "version_number", "rank", "is_tomb", "is_new"]
    ordered = everything.with_columns(
        first_number=pl.when(numbered).then("version_number"),
        rank=pl.col("version_rank").fill_null(0),
    ).sort(*ROW_KEY, *order, nulls_last=False)
    ordered = ordered.with_columns(
        resource=_count_changes(ROW_KEY), version=_count_changes([*ROW_KEY, *order])
    )
    is_last = pl.col("version") == pl.col("version").last().over("resource")
    newest = ordered.filter(is_last, ~pl.col("is_tomb")).select("pid", "is_new")
    return pl.concat([stored, new]).join(newest, on="pid")


def _count_changes(names: list[str]) -> pl.Expr:
    """Return how often the values of some columns have changed from one row to the next."""
    changes = pl.any_horizontal(pl.col(n).ne_missing(pl.col(n).shift()) for n in names)
    return changes.cum_sum()
