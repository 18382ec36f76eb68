"""What a day's readings add up to, when spans overlap, nest, repeat or come from two devices.

Time is counted once. Spans are taken in the order of their device's priority (worn before phone),
longer ones first; of a later one only the time that none before it covers counts, and nothing of
it where it is covered for the greater part: two devices of one walk never agree to the second.
Running totals, spans that begin together and grow, are nested spans and count as the longest.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

#: Of a span covered for this share by better ones, nothing counts.
MOSTLY_COVERED = 0.5

#: Readings without a span that only rise, at least so many a day, are a running total.
RISING_READINGS = 3


@dataclass(frozen=True)
class Span:
    """A reading of the time from `start` to `end` (microseconds), by a device's priority."""

    rank: int
    start: int
    end: int
    value: float


def add_spans(spans: Sequence[Span]) -> float:
    """Return the sum of spans, time counted once.

    Spans of one length and time are in the order of their values, greatest first, so that the
    result does not depend on the order in which they came.
    """
    ordered = sorted(spans, key=lambda s: (s.rank, s.start - s.end, s.start, -s.value))
    covered: list[tuple[int, int]] = []
    total = 0.0
    for span in ordered:
        length = span.end - span.start
        taken = sum(_overlap(span, interval) for interval in covered)
        if length == 0:
            total += 0.0 if any(a <= span.start < b for a, b in covered) else span.value
            continue
        if taken <= MOSTLY_COVERED * length:
            total += span.value * (length - taken) / length
        covered = _cover(covered, span.start, span.end)
    return total


def _overlap(span: Span, covered: tuple[int, int]) -> int:
    return max(0, min(span.end, covered[1]) - max(span.start, covered[0]))


def _cover(covered: list[tuple[int, int]], start: int, end: int) -> list[tuple[int, int]]:
    """Return disjoint intervals that also cover start to end."""
    apart = [(a, b) for a, b in covered if b < start or a > end]
    touching = [(a, b) for a, b in covered if not (b < start or a > end)]
    first = min([start, *(a for a, _ in touching)])
    last = max([end, *(b for _, b in touching)])
    return [*apart, (first, last)]


def sum_readings(readings: pl.DataFrame, day: list[str]) -> pl.DataFrame:
    """Return `value` per day of timed readings (device_rank, device, span_start, span_end, value).

    Days without any overlap, which are most, are plain sums.
    """
    ends = pl.col("span_end").fill_null(pl.col("span_start"))
    timed = readings.with_columns(span_end=ends).sort(*day, "span_start", "span_end")
    reached = pl.col("span_end").cum_max().shift(1).over(day)
    is_met = (pl.col("span_start") < reached) | (pl.col("span_start") == reached) & _is_point()
    marked = timed.with_columns(overlaps=is_met.fill_null(False).any().over(day))
    plain = marked.filter(~pl.col("overlaps")).group_by(day).agg(_sum_or_last())
    overlapping = marked.filter("overlaps")
    if overlapping.is_empty():
        return plain
    return pl.concat([plain, _merge(overlapping, day)], how="vertical_relaxed")


def _is_point() -> pl.Expr:
    return pl.col("span_start") == pl.col("span_end")


def _sum_or_last() -> pl.Expr:
    """Return the sum of readings, of points that rise through the day the last one."""
    value = pl.col("value")
    rises = (
        _is_point().all() & (pl.len() >= RISING_READINGS) & (value.diff().drop_nulls() > 0).all()
    )
    one_device = pl.col("device").n_unique() == 1
    return pl.when(rises & one_device).then(value.last()).otherwise(value.sum()).alias("value")


def _merge(readings: pl.DataFrame, day: list[str]) -> pl.DataFrame:
    rows = []
    for key, group in readings.partition_by(day, as_dict=True).items():
        columns = group.select(
            pl.col("device_rank").fill_null(1),
            pl.col("span_start").cast(pl.Int64),
            pl.col("span_end").cast(pl.Int64),
            "value",
        )
        rows.append((*key, add_spans([Span(*row) for row in columns.iter_rows()])))
    schema = {name: readings.schema[name] for name in day} | {"value": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")
