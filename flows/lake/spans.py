"""Spans of pseudonyms: a bucket is worked through by spans, so that memory stays bounded."""

from dataclasses import dataclass

import polars as pl

from feature_repo.stored_views import JOIN_KEY
from flows.lake.tables import scan_table
from flows.sources.contract import CONSENTS, TABLES

#: Individuals whose rows are in memory at once, about.
SPAN_SIZE = 2000
#: Digits of a pseudonym that spans differ by; the next one is the bucket's.
SPAN_DIGITS = 3


@dataclass(frozen=True)
class Span:
    """The pseudonyms from `first` on, as far as those before `beyond`."""

    first: str = ""
    beyond: str = "g"

    def holds(self) -> pl.Expr:
        """Return the condition that a row's individual is of the span."""
        return (pl.col(JOIN_KEY) >= self.first) & (pl.col(JOIN_KEY) < self.beyond)


EVERYBODY = Span()


def divide(individuals: int, size: int = SPAN_SIZE) -> list[Span]:
    """Return the spans of which each holds about `size` of `individuals`, or fewer.

    Their number is a power of two: as individuals join, spans are halved, and what was written
    for one holds nobody of another.
    """
    places = 16**SPAN_DIGITS
    count = min(places, 2 ** max(0, (individuals - 1) // size).bit_length())
    width = places // count
    edges = [f"{first:0{SPAN_DIGITS}x}" for first in range(0, places, width)]
    return [
        Span(first, beyond)
        for first, beyond in zip(["", *edges[1:]], [*edges[1:], EVERYBODY.beyond], strict=True)
    ]


def list_spans(lake_url: str, bucket: int) -> list[Span]:
    """Return the spans in which to go through the landed rows of a bucket."""
    return divide(count_individuals(lake_url, bucket))


def count_individuals(lake_url: str, bucket: int) -> int:
    """Return how many individuals the fullest table of a bucket holds rows of."""
    counts = [
        scan_table(lake_url, name, bucket).select(pl.col(JOIN_KEY).n_unique())
        for name in TABLES
        if name != CONSENTS.name
    ]
    return max(int(count.collect(engine="streaming").item()) for count in counts)
