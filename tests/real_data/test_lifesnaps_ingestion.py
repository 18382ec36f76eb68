"""LifeSnaps (71 people, real Fitbit days) as wearable days of the input contract."""

from pathlib import Path

import polars as pl

from tests.fixtures.ingestion import World, world

__all__ = ["world"]


def convert_lifesnaps(source: Path) -> pl.DataFrame:
    """Return the daily table as wearable_days; zero HRV means that none was measured."""
    raw = pl.read_csv(source / "daily_fitbit_sema.csv.gz", infer_schema_length=None)
    active = ["lightly_active_minutes", "moderately_active_minutes", "very_active_minutes"]
    return raw.select(
        pl.col("id").alias("person_id"),
        "date",
        "steps",
        pl.sum_horizontal(active, ignore_nulls=False).alias("active_minutes"),
        pl.col("minutesAsleep").alias("sleep_minutes"),
        "sleep_efficiency",
        pl.col("resting_hr").alias("resting_heart_rate"),
        pl.when(pl.col("rmssd") > 0).then("rmssd").alias("hrv_rmssd"),
    )


def test_lifesnaps_days_land_whole_from_csv_and_again_from_parquet(
    world: World, shared_data: Path
) -> None:
    days = convert_lifesnaps(shared_data / "lifesnaps-daily")
    days.write_csv(world.drop / "wearable_days.csv")
    world.consent(days["person_id"].unique(), types="wearable")
    report = world.ingest(share=0.0)
    landed = world.read("wearable_days")
    assert report.tables["wearable_days"].inserted == landed.height == 7_410
    assert landed["anonymized_id"].n_unique() == 71
    for channel in ("steps", "sleep_minutes", "resting_heart_rate", "hrv_rmssd"):
        assert landed[channel].null_count() == days[channel].null_count()
    assert landed["steps"].max() == 43_112
    assert landed["wear_minutes"].null_count() == 7_410
    (world.drop / "wearable_days.csv").unlink()
    days.write_parquet(world.drop / "wearable_days.parquet")
    again = world.ingest(share=0.0)
    assert again.tables["wearable_days"].unchanged == 7_410
