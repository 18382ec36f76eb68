"""What a stored feature view holds, in plain words that need no feature store to read.

The views themselves are Feast's (one file each beside this one); training writes their
description into the release's manifest, and serving reads rows by it without importing Feast.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

#: Names an individual in every view, table and key.
JOIN_KEY = "anonymized_id"

#: Length of every weekly array, oldest week first.
SEQUENCE_WEEKS = 26


@dataclass(frozen=True)
class StoredFeature:
    """One feature; `data_type` is the consent its value needs (None: none of them)."""

    name: str
    data_type: str | None
    is_sequence: bool = False


@dataclass(frozen=True)
class StoredView:
    """A view by name; rows older than `ttl` say nothing (None: they stand for all time)."""

    name: str
    ttl: timedelta | None
    features: tuple[StoredFeature, ...]

    def is_fresh(self, moment: datetime, now: datetime) -> bool:
        """Return True if a row of `moment` is still valid; the online store never expires rows."""
        return self.ttl is None or now - moment <= self.ttl


@dataclass(frozen=True)
class StoredRow:
    """What the online store holds of one individual.

    `values` by feature name, a number or the list of a sequence; `moments` by view name, the
    moment its values stand for, left out where nothing is stored.
    """

    values: dict[str, Any] = field(default_factory=dict)
    moments: dict[str, datetime] = field(default_factory=dict)


#: Members that take the weekly sequence, and so can be scored when the data land.
SEQUENCE_MEMBERS = ("rnn", "tft")

#: The sequence members' embeddings of the stored weeks, and of exactly which weeks and version
#: they are. No input of any other model: serving takes them instead of embedding the same again.
SEQUENCE_OUTPUTS = StoredView(
    name="sequence_outputs",
    ttl=timedelta(days=14),
    features=tuple(
        StoredFeature(f"{member}_{part}", None, is_sequence=part == "embedding")
        for member in SEQUENCE_MEMBERS
        for part in ("embedding", "key")
    ),
)
