"""One row per key from all that is known of it: parts, repetitions, contradictions."""

import polars as pl

from flows.lake.joined import Joined, join_rows
from flows.lake.joining_days import join_days
from flows.lake.joining_surveys import join_surveys
from flows.sources.contract import SURVEYS, WEARABLE_DAYS, Table


def join_records(table: Table, records: pl.DataFrame) -> Joined:
    """Return the rows that records of a table make; the same for any order of arrival.

    `records` have the columns of the table, PART_COLUMNS, key_id, bucket, available_at and
    `pid`, a number of their own.
    """
    if table is SURVEYS:
        return join_surveys(records)
    return join_days(records) if table is WEARABLE_DAYS else join_rows(table, records)
