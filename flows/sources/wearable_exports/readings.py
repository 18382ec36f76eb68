"""A value that an export states of a day, and how it becomes part of a wearable day."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import polars as pl

from flows.sources.batch import Batch
from flows.sources.clean import ORIGIN
from flows.sources.contract import (
    DAY_TOTAL,
    INSTANT,
    WEARABLE_CHANNELS,
    ColumnTypes,
)
from flows.sources.pseudonymise import PersonKey


@dataclass(frozen=True)
class Reading:
    """One channel of one person's day.

    `name` tells it from others of its kind: a later export with the same name replaces it. Times
    are ISO 8601 or None where only the day is known.
    """

    person: str
    day: str
    channel: str
    value: float
    device: str
    name: str
    row_number: int
    device_rank: int = 0
    part: str = DAY_TOTAL
    start: str | None = None
    end: str | None = None


def make_batch(readings: Iterable[Reading], records: int, key: PersonKey) -> Batch:
    """Return readings as rows of wearable_days, with pseudonyms in place of people."""
    rows = [_make_row(reading, key) for reading in readings]
    schema: ColumnTypes = {
        **{name: pl.String if kind == INSTANT else kind for name, kind in ORIGIN.items()},
        "date": pl.String,
        **dict.fromkeys(WEARABLE_CHANNELS, pl.Float64),
    }
    frame = pl.DataFrame(rows, schema=schema).drop("key_id", "bucket")
    return Batch(records, {"wearable_days": key.add_key(frame)} if rows else {})


def _make_row(reading: Reading, key: PersonKey) -> dict[str, Any]:
    name = f"{reading.device}/{reading.person}/{reading.channel}/{reading.name}"
    return {
        "anonymized_id": key.pseudonymise(reading.person),
        "row_number": reading.row_number,
        "source_id": key.hide_reference(name),
        "version_rank": 0,
        "part": reading.part,
        "device": key.hide_reference(reading.device),
        "device_rank": reading.device_rank,
        "span_start": reading.start,
        "span_end": reading.end,
        "date": reading.day,
        reading.channel: reading.value,
    }
