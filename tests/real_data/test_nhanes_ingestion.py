"""NHANES 2017-2018 PHQ-9 answers (real, public) as a drop of the input contract."""

from pathlib import Path

import polars as pl

from feature_repo.instruments import PHQ9
from flows.sources.contract import ITEM_COLUMNS
from tests.fixtures.ingestion import World, name, world
from tests.fixtures.nhanes_answers import ANSWERED_AT, DPQ_COLUMNS, convert_nhanes

__all__ = ["world"]


def test_nhanes_answers_land_as_the_codebook_counts_them(world: World, shared_data: Path) -> None:
    surveys = convert_nhanes(shared_data / "nhanes-2017-2018")
    surveys.write_parquet(world.drop / "surveys.parquet")
    world.consent(surveys["person_id"].cast(pl.Int64).cast(pl.String), types="survey")
    report = world.ingest(share=0.0)
    landed = world.read("surveys")
    assert report.tables["surveys"].inserted == landed.height == 5_533
    totals = landed.select(pl.sum_horizontal(ITEM_COLUMNS, ignore_nulls=False)).to_series()
    assert totals.drop_nulls().len() == 5_068
    assert (totals >= 10).sum() == 459
    assert (totals >= 15).sum() == 167
    assert landed.filter(totals.is_not_null())["item_9"].ge(1).sum() == 191
    first = landed.filter(pl.col("anonymized_id") == name("93705")).row(0, named=True)
    assert PHQ9.total([first[item] for item in ITEM_COLUMNS]) == 0


def test_raw_nhanes_codes_are_quarantined_not_summed(world: World, shared_data: Path) -> None:
    """Fed without conversion, refusals (7, 9) must not pass for answers."""
    raw = pl.read_csv(
        shared_data / "nhanes-2017-2018" / "DPQ_J.csv.gz", infer_schema_length=None
    ).select(
        pl.col("SEQN").alias("person_id"),
        pl.lit("PHQ-9").alias("instrument"),
        pl.lit(ANSWERED_AT).alias("answered_at"),
        *(
            pl.col(one).round().alias(item)
            for one, item in zip(DPQ_COLUMNS, ITEM_COLUMNS, strict=True)
        ),
    )
    raw.write_csv(world.drop / "surveys.csv")
    refused = raw.filter(pl.any_horizontal(pl.col(ITEM_COLUMNS) > 3)).height
    report = world.ingest()
    assert report.tables["surveys"].quarantined == refused > 0
    reasons = " ".join(reason for *_, reason in world.read_quarantine())
    assert "item_1: is 9, allowed are 0 to 3" in reasons
    assert "item_1: is 7, allowed are 0 to 3" in reasons
