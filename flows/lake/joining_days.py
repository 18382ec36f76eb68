"""Wearable days from all that was read of them: table rows, device totals, timed readings.

By channel, and in this order: a row of a table file, which its maker has settled; the total that
a device made for the day; readings summed over time (steps, minutes) or averaged (rates). Of
several devices the one worn goes before an unknown one and a phone.
"""

import polars as pl

from flows.lake.joined import Joined, join_rows, reject
from flows.lake.readings import sum_readings
from flows.sources.contract import DAY_TOTAL, WEARABLE_CHANNELS, WEARABLE_DAYS, WEARABLE_LIMITS
from flows.sources.parse import describe_range

DAY = ["anonymized_id", "date"]
READING = ["device", "device_rank", "span_start", "span_end", "value"]

#: Channels that add up over a day; the others are averaged.
ADDITIVE_CHANNELS = ("steps", "active_minutes", "sleep_minutes", "wear_minutes")


def join_days(records: pl.DataFrame) -> Joined:
    """Return one row per individual and date.

    A channel whose readings come to more than a day can hold is refused with its readings; the
    day's other channels stand.
    """
    whole = join_rows(WEARABLE_DAYS, records.filter(pl.col("part").is_null()))
    pieces = records.filter(pl.col("part").is_not_null())
    if pieces.is_empty():
        return whole
    days = whole.rows.select(*DAY, *WEARABLE_CHANNELS)
    refused = [whole.rejected]
    for channel in WEARABLE_CHANNELS:
        readings = pieces.drop_nulls(channel)
        if readings.is_empty():
            continue
        values = _measure(channel, readings.with_columns(value=pl.col(channel).cast(pl.Float64)))
        low, high, unit = WEARABLE_LIMITS[channel]
        possible = values.filter(pl.col("value").is_between(low, high))
        impossible = values.join(possible.select(DAY), on=DAY, how="anti")
        lost = readings.join(impossible.select(DAY), on=DAY)
        refused.append(reject(lost, describe_range(channel, low, high, unit)))
        days = _fill(days, channel, possible)
    rejected = pl.concat(refused)
    used = records.join(rejected.select("pid"), on="pid", how="anti")
    stamps = used.group_by(DAY).agg(
        pl.col("key_id", "bucket").first(), pl.col("available_at").max()
    )
    rows = stamps.join(days, on=DAY, how="left").sort(DAY).with_row_index("rid")
    members = used.join(rows.select("rid", *DAY), on=DAY).select("pid", "rid")
    return Joined(rows, members, rejected)


def _measure(channel: str, readings: pl.DataFrame) -> pl.DataFrame:
    """Return `value` per day of one channel's readings: a device's total before what it adds to."""
    is_total = pl.col("part") == DAY_TOTAL
    totals = _choose_device(readings.filter(is_total), pl.col("value").max())
    rest = readings.filter(~is_total).join(totals, on=DAY, how="anti")
    if channel not in ADDITIVE_CHANNELS:
        return pl.concat([totals, _choose_device(rest, pl.col("value").mean())])
    return pl.concat([totals, *_add_up(rest)], how="vertical_relaxed")


def _choose_device(readings: pl.DataFrame, summary: pl.Expr) -> pl.DataFrame:
    """Return `value` per day as the device of the best priority has it; of equals the greater."""
    by_device = readings.group_by(*DAY, "device").agg(
        pl.col("device_rank").fill_null(1).min(), summary.alias("value")
    )
    ordered = by_device.sort(*DAY, "device_rank", -pl.col("value"))
    return ordered.unique(DAY, keep="first", maintain_order=True).select(*DAY, "value")


def _add_up(readings: pl.DataFrame) -> list[pl.DataFrame]:
    """Return the sums of days by time, and of days of which no time but the date is known."""
    timed = readings.drop_nulls("span_start")
    summed = sum_readings(timed.select(*DAY, *READING), DAY)
    dated = readings.filter(pl.col("span_start").is_null()).join(summed, on=DAY, how="anti")
    return [summed, _choose_device(dated, pl.col("value").sum())]


def _fill(days: pl.DataFrame, channel: str, values: pl.DataFrame) -> pl.DataFrame:
    """Return days with a channel's values where no row of a table file has one."""
    joined = days.join(values, on=DAY, how="full", coalesce=True)
    filled = pl.coalesce(pl.col(channel), pl.col("value").cast(pl.Float32))
    return joined.with_columns(filled.alias(channel)).drop("value")
