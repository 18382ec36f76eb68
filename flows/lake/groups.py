"""Which buckets land together: as many as memory holds, because each pass has a fixed cost."""

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from flows.lake.parts import find_retracted_buckets, name_parts
from flows.lake.staging import count_staged
from flows.lake.tables import count_rows
from flows.sources.contract import Table

#: Rows in memory at once, about, where a single bucket has fewer: staged ones, the records kept of
#: earlier ones, and the rows of the table.
ROWS_AT_ONCE = 25_000


def plan_groups(
    lake_url: str, staging: Path, table: Table, retracted: pl.Series
) -> list[list[int]]:
    """Return the buckets with staged records or records of `retracted` resources, in groups."""
    staged = count_staged(staging, table.name)
    known = count_rows(lake_url, table.name), count_rows(lake_url, name_parts(table.name))
    buckets = staged.keys() | find_retracted_buckets(lake_url, table, retracted)
    rows = {bucket: sum(counts.get(bucket, 0) for counts in (staged, *known)) for bucket in buckets}
    return group_buckets(rows)


def group_buckets(rows: Mapping[int, int], limit: int = ROWS_AT_ONCE) -> list[list[int]]:
    """Return the buckets in order, in groups of at most `limit` rows or of a single bucket."""
    groups: list[list[int]] = []
    size = 0
    for bucket in sorted(rows):
        if not groups or size + rows[bucket] > limit:
            groups.append([])
            size = 0
        groups[-1].append(bucket)
        size += rows[bucket]
    return groups
