"""One row per key from all that a drop says about it: parts, repetitions, contradictions."""

from dataclasses import dataclass

import polars as pl

from flows.sources.clean import find_implausible
from flows.sources.contract import (
    DAY_SPAN,
    DAY_TOTAL,
    EMR_EVENTS,
    ITEM_COLUMNS,
    SURVEYS,
    WEARABLE_CHANNELS,
    Table,
)

#: Channels that add up over a day; the others are averaged.
ADDITIVE_CHANNELS = ("steps", "active_minutes", "sleep_minutes")


@dataclass(frozen=True)
class Joined:
    """`rows` with one per key, and what became of the others.

    `combined`: records that are part of another's row. `duplicate`: repetitions.
    `rejected`: records with source, row_number and reason.
    """

    rows: pl.DataFrame
    combined: int
    duplicate: int
    rejected: pl.DataFrame


def join_records(table: Table, staged: pl.DataFrame) -> Joined:
    """Put parts together, drop repetitions, refuse rows that contradict each other.

    An event of care that is there open and ended is one event, which ended. Other than that,
    two different rows for one key are both refused: nothing tells which is right, and a wrong
    answer to a questionnaire is worse than a missing one.
    """
    joined = _join(table, staged)
    values = [name for name in table.columns if name not in table.key]
    key = ["anonymized_id", *table.key]
    distinct = joined.rows.unique([*key, *values], keep="first", maintain_order=True)
    contradicting = pl.len().over(key) > 1
    reason = f"the drop has different rows for one person{_name_key(table)}"
    return Joined(
        rows=distinct.filter(~contradicting),
        combined=joined.combined,
        duplicate=joined.duplicate + joined.rows.height - distinct.height,
        rejected=pl.concat([joined.rejected, _reject(distinct.filter(contradicting), reason)]),
    )


def _join(table: Table, staged: pl.DataFrame) -> Joined:
    if table is EMR_EVENTS:
        return _join_events(table, staged)
    if staged["part"].is_null().all():
        return _leave(staged)
    return (_join_survey_items if table is SURVEYS else _join_readings)(table, staged)


def _leave(staged: pl.DataFrame) -> Joined:
    return Joined(staged, 0, 0, _reject(staged.clear(), ""))


def _name_key(table: Table) -> str:
    return f" and {', '.join(table.key)}" if table.key else ""


def _reject(rows: pl.DataFrame, reason: str) -> pl.DataFrame:
    return rows.select("source", "row_number", reason=pl.lit(reason))


def _join_survey_items(table: Table, staged: pl.DataFrame) -> Joined:
    """Make a survey of the answers that one person gave at one time.

    A questionnaire sent whole beside its single answers is the same survey.
    """
    key = ["anonymized_id", *table.key]
    pieces, whole = _split_off(staged, key)
    given = [pl.col(name).drop_nulls() for name in ITEM_COLUMNS]
    judged = pieces.with_columns(
        differs=pl.any_horizontal((answers.n_unique() > 1).over(key) for answers in given),
        answered=pl.any_horizontal((answers.len() > 0).over(key) for answers in given),
    )
    good = judged.filter(~pl.col("differs") & pl.col("answered"))
    surveys = good.group_by(key, maintain_order=True).agg(
        pl.exclude(*ITEM_COLUMNS).first(), *(answers.first() for answers in given)
    )
    return Joined(
        rows=pl.concat([whole, surveys.select(whole.columns)]),
        combined=good.height - surveys.height,
        duplicate=0,
        rejected=pl.concat(
            [
                _reject(judged.filter("differs"), "different answers to one item at one time"),
                _reject(
                    judged.filter(~pl.col("differs") & ~pl.col("answered")),
                    "no item of this survey has an answer",
                ),
            ]
        ),
    )


def _join_readings(table: Table, staged: pl.DataFrame) -> Joined:
    """Make a wearable day of the readings that one person's devices took on it."""
    key = ["anonymized_id", *table.key]
    is_part = pl.col("part").is_not_null()
    whole, pieces = staged.filter(~is_part), staged.filter(is_part)
    once = pieces.unique([*key, "part", "part_at", *WEARABLE_CHANNELS], maintain_order=True)
    days = once.group_by(key, maintain_order=True).agg(
        pl.exclude(*WEARABLE_CHANNELS).first(),
        *(_add_up(name) for name in ADDITIVE_CHANNELS),
        *(pl.col(name).mean() for name in WEARABLE_CHANNELS if name not in ADDITIVE_CHANNELS),
    )
    judged = days.select(whole.columns).with_columns(reason=find_implausible())
    bad = judged.filter(pl.col("reason").is_not_null())
    refused = once.join(bad.select(*key, "reason"), on=key).select("source", "row_number", "reason")
    good = judged.filter(pl.col("reason").is_null()).drop("reason")
    return Joined(
        rows=pl.concat([whole, good]),
        combined=once.height - refused.height - good.height,
        duplicate=pieces.height - once.height,
        rejected=refused,
    )


def _add_up(channel: str) -> pl.Expr:
    readings = pl.col(channel)
    total = readings.filter(pl.col("part") == DAY_TOTAL).max()
    spans = readings.filter(pl.col("part") == DAY_SPAN).drop_nulls()
    summed = pl.when(spans.len() > 0).then(spans.sum())
    return pl.coalesce(total, summed).alias(channel)


def _split_off(staged: pl.DataFrame, key: list[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the rows whose key has a part among them, and the others."""
    has_part = pl.col("part").is_not_null().any().over(key)
    return staged.filter(has_part), staged.filter(~has_part)


def _join_events(table: Table, staged: pl.DataFrame) -> Joined:
    """Make one event of records of it that say more and less, as a condition before its end."""
    key = ["anonymized_id", *table.key]
    details = [name for name in table.columns if name not in table.key]
    agree = pl.all_horizontal(pl.col(name).drop_nulls().n_unique() <= 1 for name in details)
    joinable = staged.filter(agree.over(key))
    events = joinable.group_by(key, maintain_order=True).agg(
        pl.exclude(*details).first(), *(pl.col(name).drop_nulls().first() for name in details)
    )
    rows = pl.concat([staged.filter(~agree.over(key)), events.select(staged.columns)])
    repeated = joinable.height - joinable.unique([*key, *details]).height
    return Joined(
        rows, staged.height - rows.height - repeated, repeated, _reject(staged.clear(), "")
    )
