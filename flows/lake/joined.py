"""What joining records gives: rows, which record went into which, and which went into none."""

from dataclasses import dataclass

import polars as pl

from flows.sources.contract import Table


@dataclass(frozen=True)
class Joined:
    """`rows` have the table's columns, key_id, bucket, available_at and `rid`.

    `members` says by `pid` which record is in which row (`rid`); `rejected` has `pid` and
    `reason` of records that no row can be made of.
    """

    rows: pl.DataFrame
    members: pl.DataFrame
    rejected: pl.DataFrame


def list_details(table: Table) -> list[str]:
    """Return the columns of a table besides its key."""
    return [name for name in table.columns if name not in table.key]


def explain_difference(table: Table) -> str:
    key = f" and {', '.join(table.key)}" if table.key else ""
    return f"the drop has different rows for one person{key}"


def reject(records: pl.DataFrame, reason: pl.Expr | str) -> pl.DataFrame:
    """Return `pid` and `reason` of records that are refused."""
    given = pl.lit(reason) if isinstance(reason, str) else reason
    return records.select("pid", given.cast(pl.String).alias("reason"))


def join_rows(table: Table, records: pl.DataFrame) -> Joined:
    """Return one row per key from records that say more and less of it.

    An event of care that is there open and ended is one event, which ended. Records whose values
    differ are all refused: nothing tells which is right, and a wrong answer to a questionnaire is
    worse than a missing one.
    """
    key = ["anonymized_id", *table.key]
    details = list_details(table)
    differs = pl.any_horizontal(
        pl.lit(False), *((pl.col(name).drop_nulls().n_unique() > 1).over(key) for name in details)
    )
    judged = records.with_columns(differs=differs)
    good = judged.filter(~pl.col("differs"))
    rows = good.group_by(key, maintain_order=True).agg(
        pl.col("key_id", "bucket").first(),
        pl.col("available_at").max(),
        *(pl.col(name).drop_nulls().first() for name in details),
    )
    rows = rows.with_row_index("rid")
    members = good.join(rows.select("rid", *key), on=key, nulls_equal=True).select("pid", "rid")
    return Joined(rows, members, reject(judged.filter("differs"), explain_difference(table)))
