"""LifeSnaps (71 people, real Fitbit days) as wearable days of the input contract."""

from pathlib import Path

from tests.fixtures.ingestion import World, world
from tests.fixtures.lifesnaps import convert_lifesnaps

__all__ = ["world"]


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
