import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import polars as pl
import pytest

from flows.lake.merging import DuplicateKeyError, MergeCounts, merge_rows
from flows.lake.tables import QUARANTINE, append_quarantine, describe_table, get_version, scan_table
from flows.sources.contract import TABLES, WEARABLE_DAYS
from flows.sources.drop import find_files
from tests.fixtures.object_store import KEY_ID, SECRET, run_object_store
from tests.fixtures.wearable_days import DAY, INGESTED, make_days


@pytest.fixture
def lake(tmp_path: Path) -> str:
    return str(tmp_path / "lake")


def test_a_key_given_twice_is_refused_without_naming_it(lake: str) -> None:
    days = make_days(1, 3)
    with pytest.raises(DuplicateKeyError, match="wearable_days: 3 rows repeat the key") as caught:
        merge_rows(lake, "wearable_days", pl.concat([days, days]))
    assert days["anonymized_id"][0] not in str(caught.value)
    assert get_version(lake, "wearable_days") is None


@pytest.mark.parametrize("table", sorted(TABLES))
def test_an_absent_table_is_empty_with_the_schema_of_the_contract(lake: str, table: str) -> None:
    assert get_version(lake, table) is None
    assert describe_table(lake, table).rows == 0
    empty = scan_table(lake, table).collect()
    assert empty.is_empty()
    assert dict(empty.schema) == {
        name: _instance(kind) for name, kind in TABLES[table].schema.items()
    }


def _instance(kind: object) -> object:
    return kind() if isinstance(kind, type) else kind


def test_rows_land_in_their_bucket_with_the_types_of_the_contract(lake: str) -> None:
    assert merge_rows(lake, "wearable_days", make_days(20, 5)) == MergeCounts(inserted=100)
    landed = scan_table(lake, "wearable_days")
    assert landed.collect_schema() == scan_table("/nowhere", "wearable_days").collect_schema()
    one = scan_table(lake, "wearable_days", bucket=3).collect()
    assert one["bucket"].unique().to_list() == [3]
    assert one["anonymized_id"].n_unique() == 2


def test_merging_again_changes_nothing_not_even_the_version(lake: str) -> None:
    merge_rows(lake, "wearable_days", make_days(20, 5))
    before = describe_table(lake, "wearable_days")
    assert merge_rows(lake, "wearable_days", make_days(20, 5)) == MergeCounts(unchanged=100)
    assert describe_table(lake, "wearable_days") == before


def test_a_corrected_row_is_available_only_since_its_ingestion(lake: str) -> None:
    merge_rows(lake, "wearable_days", make_days(2, 2))
    later = INGESTED + timedelta(days=5)
    changed = make_days(2, 3).with_columns(
        steps=pl.when(pl.col("date") == DAY.date()).then(7.0).otherwise("steps"),
        ingested_at=pl.lit(later),
    )
    assert merge_rows(lake, "wearable_days", changed) == MergeCounts(2, 2, 2)
    rows = scan_table(lake, "wearable_days").sort("anonymized_id", "date").collect()
    assert rows.height == 6
    assert rows["steps"].to_list() == [7.0, 1000.0, 1000.0] * 2
    first, second, third = rows["available_at"].to_list()[:3]
    assert first == later
    assert (second, third) == (DAY + timedelta(2), DAY + timedelta(3))


def test_a_value_that_goes_missing_is_a_correction_too(lake: str) -> None:
    merge_rows(lake, "wearable_days", make_days(1, 1))
    gone = make_days(1, 1).with_columns(steps=pl.lit(None))
    assert merge_rows(lake, "wearable_days", gone) == MergeCounts(corrected=1)
    assert scan_table(lake, "wearable_days").collect()["steps"].to_list() == [None]


def test_the_digest_follows_the_content_and_the_version(lake: str) -> None:
    merge_rows(lake, "wearable_days", make_days(1, 1))
    before = describe_table(lake, "wearable_days")
    merge_rows(lake, "wearable_days", make_days(1, 2))
    after = describe_table(lake, "wearable_days")
    assert (before.rows, after.rows) == (1, 2)
    assert after.version == (before.version or 0) + 1
    assert before.digest != after.digest


def make_rejected(run_id: str, digest: str = "d1") -> pl.DataFrame:
    rows = [(2, "item_3: is 4, allowed are 0 to 3"), (9, "answered_at: is missing")]
    frame = pl.DataFrame(rows, schema=["row_number", "reason"], orient="row")
    return frame.with_columns(
        run_id=pl.lit(run_id),
        table=pl.lit("surveys"),
        source_file=pl.lit("surveys.csv"),
        source_digest=pl.lit(digest),
        quarantined_at=pl.lit(INGESTED),
    )


def test_the_same_bad_row_of_the_same_file_is_quarantined_once(lake: str) -> None:
    assert append_quarantine(lake, make_rejected("first")) == 2
    assert append_quarantine(lake, make_rejected("second")) == 0
    assert append_quarantine(lake, make_rejected("third", digest="d2")) == 2
    runs = scan_table(lake, QUARANTINE).collect()["run_id"]
    assert sorted(runs) == ["first"] * 2 + ["third"] * 2


WRITER = """
import sys
from tests.fixtures.wearable_days import make_days
from flows.lake.merging import merge_rows
print("ready", flush=True)
for steps in range(1, 1000):
    merge_rows(sys.argv[1], "wearable_days", make_days(48, 60, steps=float(steps)))
    print("merged", flush=True)
"""


def test_a_kill_in_the_middle_of_a_merge_leaves_a_whole_table(lake: str) -> None:
    merge_rows(lake, "wearable_days", make_days(48, 60, steps=0.0))
    # Killed within the first merge, then some way into a later one.
    for merges, delay in ((0, 0.05), (1, 0.05), (2, 0.15)):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, lake], stdout=subprocess.PIPE, env=os.environ
        )
        assert writer.stdout
        assert writer.stdout.readline() == b"ready\n"
        for _ in range(merges):
            assert writer.stdout.readline() == b"merged\n"
        time.sleep(delay)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        rows = scan_table(lake, "wearable_days").collect()
        assert rows.height == 48 * 60
        assert rows.select("anonymized_id", "date").is_unique().all()
        # Every bucket is as one merge left it, before or after the one that was killed.
        assert rows.group_by("bucket").agg(pl.col("steps").n_unique())[
            "steps"
        ].unique().to_list() == [1]
    assert rows["steps"].max() > 0, "no writer got as far as a commit: the test proves nothing"
    merge_rows(lake, "wearable_days", make_days(48, 60, steps=5000.0))
    assert scan_table(lake, "wearable_days").collect()["steps"].unique().to_list() == [5000.0]


def test_a_million_wearable_days_land_whole(lake: str) -> None:
    people = [f"{person:032x}" for person in range(1400)]
    days = pl.date_range(DAY, DAY + timedelta(days=729), eager=True)
    frame = (
        pl.DataFrame({"anonymized_id": people})
        .join(pl.DataFrame({"date": days}), how="cross")
        .with_columns(
            bucket=pl.col("anonymized_id").str.slice(28).str.to_integer(base=16) % 16,
            key_id=pl.lit("0" * 8),
            ingested_at=pl.lit(INGESTED),
            available_at=pl.lit(INGESTED),
            **{name: pl.lit(1.0) for name in WEARABLE_DAYS.columns if name != "date"},
        )
    )
    assert merge_rows(lake, "wearable_days", frame).inserted == 1400 * 730


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An S3 bucket of an object store on loopback."""
    for name, value in {
        "ACCESS_KEY_ID": KEY_ID,
        "SECRET_ACCESS_KEY": SECRET,
        "REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    with run_object_store("lake") as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        yield "s3://lake/tables"


def test_a_lake_may_lie_in_an_object_store(bucket: str) -> None:
    assert merge_rows(bucket, "wearable_days", make_days(3, 3)) == MergeCounts(inserted=9)
    changed = make_days(3, 4, steps=2.0)
    assert merge_rows(bucket, "wearable_days", changed) == MergeCounts(3, 9, 0)
    assert describe_table(bucket, "wearable_days").rows == 12
    assert scan_table(bucket, "wearable_days", bucket=1).collect()["steps"].to_list() == [2.0] * 4
    httpx.put(f"{os.environ['AWS_ENDPOINT_URL']}/lake/drop/surveys.csv", content=b"person_id\n")
    (file,) = find_files("s3://lake/drop").files
    assert (file.label, file.table) == ("surveys.csv", "surveys")
