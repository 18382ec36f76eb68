"""What readers hand on: rows by pseudonym, rejected records, and how many there were."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import polars as pl

#: Where records are counted that are so malformed that they belong to no table.
UNREADABLE = "unreadable"


class UnreadableFileError(ValueError):
    """A file that cannot be read at all; names the file and what is wrong with it."""


@dataclass(frozen=True)
class Rejected:
    """A record that became no row: `reason` names element and rule, never a person."""

    table: str
    row_number: int
    reason: str


@dataclass
class Batch:
    """Some records of one file.

    `rows` holds, by table, what could be made of them: contract columns of any type,
    `row_number`, and in place of person_id the columns anonymized_id, key_id and bucket.
    `ignored` counts by kind the records that the contract has no use for; `split` those
    rows that a record gave beyond its first. `retractions` name resources that are no facts,
    `notes` are for people, and `noted` counts by kind what was read but left open. `deaths` names
    who has died: source_id, anonymized_id and version; `alive` has the retractions of deaths.
    """

    records: int
    rows: dict[str, pl.DataFrame] = field(default_factory=dict)
    rejected: list[Rejected] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    split: int = 0
    retractions: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    noted: Counter[str] = field(default_factory=Counter)
    deaths: list[dict[str, Any]] = field(default_factory=list)
    alive: list[dict[str, Any]] = field(default_factory=list)
