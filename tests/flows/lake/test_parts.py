"""Records behind rows: what replaces them, what takes them back, and that they can be erased."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable

from flows.lake.merging import MergeCounts, merge_rows
from flows.lake.parts import (
    RETRACTIONS,
    erase_retractions,
    name_parts,
    read_retractions,
    schema_of_parts,
)
from flows.lake.tables import erase_rows, locate_table, scan_table
from flows.sources.contract import SURVEYS, TABLES
from tests.fixtures.fhir import observation, response
from tests.fixtures.quiet_ingestion import KEY, NOW, ingest_quietly, read_rows, write_drop

PERSON = {"subject": {"reference": "Patient/p1"}}


@pytest.fixture
def lake(tmp_path: Path) -> str:
    return str(tmp_path / "lake")


def land(lake: str, *resources: dict[str, Any], rows: list[str] = []) -> Any:  # noqa: B006
    Path(lake).parent.mkdir(exist_ok=True)
    return ingest_quietly(write_drop(Path(lake).parent, list(resources), rows), lake, ["p1"])


def survey(answer: int, **more: Any) -> dict[str, Any]:
    return response({"44260-8": {"valueInteger": answer}}, id="q1", **more)


def list_items(lake: str) -> list[int | None]:
    return scan_table(lake, "surveys").sort("answered_at").collect()["item_9"].to_list()


def test_an_older_version_that_comes_late_changes_nothing(lake: str) -> None:
    land(lake, survey(2, meta={"versionId": "2"}))
    report = land(lake, survey(1, meta={"versionId": "1"}))
    assert list_items(lake) == [2]
    assert report.tables["surveys"].superseded == 1


def test_a_newer_version_at_another_time_moves_the_row(lake: str) -> None:
    land(lake, survey(2, meta={"lastUpdated": "2025-01-02T00:00:00Z"}))
    newer = survey(1, meta={"lastUpdated": "2025-02-02T00:00:00Z"}, authored="2025-01-03T10:00:00Z")
    report = land(lake, newer)
    assert list_items(lake) == [1]
    assert (report.tables["surveys"].inserted, report.tables["surveys"].set_aside) == (1, 1)
    aside = pl.read_delta(locate_table(lake, "set_aside/surveys"))
    assert aside["item_9"].to_list() == [2]


def test_an_amended_response_goes_before_its_original_of_the_same_time(lake: str) -> None:
    amended = survey(2) | {"id": "q2", "status": "amended"}
    item = observation("44260-8", id="i1", valueInteger=1)
    land(lake, item, observation("44260-8", id="i2", status="amended", valueInteger=3))
    assert list_items(lake) == [3]
    land(lake, amended)
    assert scan_table(lake, "surveys").collect().height <= 1


def test_a_retraction_that_is_taken_back_by_a_newer_version_is_none(lake: str) -> None:
    land(lake, survey(2, meta={"versionId": "1"}))
    land(lake, survey(2, status="entered-in-error", meta={"versionId": "2"}))
    assert list_items(lake) == []
    land(lake, survey(3, meta={"versionId": "3"}))
    assert list_items(lake) == [3]


def test_a_preliminary_record_does_not_take_back_a_final_one(lake: str) -> None:
    land(lake, observation("44260-8", id="i1", valueInteger=3))
    land(lake, observation("44260-8", id="i1", status="preliminary", valueInteger=3))
    assert list_items(lake) == [3]


def test_a_response_and_the_items_derived_from_it_are_one_survey(lake: str) -> None:
    derived = {"derivedFrom": [{"reference": "QuestionnaireResponse/q1"}]}
    item = observation("44260-8", "2025-01-01T14:00:00Z", id="i9", valueInteger=2, **derived)
    land(lake, survey(2))
    report = land(lake, item)
    assert list_items(lake) == [2]
    assert report.tables["surveys"].unchanged == 1


def test_two_surveys_within_minutes_stay_two_if_their_answers_differ(lake: str) -> None:
    items = [
        observation("44260-8", f"2025-01-01T10:0{n}:00Z", id=f"i{n}", valueInteger=n)
        for n in (0, 3)
    ]
    land(lake, *items)
    assert list_items(lake) == [0, 3]


def test_an_added_reading_keeps_the_day_available_as_it_was(lake: str) -> None:
    land(lake, rows=["p1,2025-03-03,100,,"])
    before = scan_table(lake, "wearable_days").collect()["available_at"][0]
    land(lake, rows=["p1,2025-03-03,,400,"])
    day = scan_table(lake, "wearable_days").collect().to_dicts()[0]
    assert (day["steps"], day["sleep_minutes"], day["available_at"]) == (100, 400, before)
    land(lake, rows=["p1,2025-03-03,200,,"])
    day = scan_table(lake, "wearable_days").collect().to_dicts()[0]
    assert (day["steps"], day["available_at"]) == (200, NOW)


def test_an_older_lake_is_read_and_gains_what_it_lacks(lake: str) -> None:
    land(lake, survey(2))
    old = scan_table(lake, "surveys").drop("total").collect()
    old.write_delta(
        locate_table(lake, "surveys"),
        mode="overwrite",
        delta_write_options={"schema_mode": "overwrite", "partition_by": ["bucket"]},
    )
    assert scan_table(lake, "surveys").collect()["total"].to_list() == [None]
    land(lake, observation("44261-6", "2025-02-01T10:00:00Z", id="t", valueInteger=18))
    assert sorted(scan_table(lake, "surveys").collect()["total"].to_list(), key=str) == [18, None]


def test_an_erasure_reaches_records_and_retractions(lake: str) -> None:
    land(lake, survey(2), rows=["p1,2025-03-03,100,,"])
    delete = {"request": {"method": "DELETE", "url": "QuestionnaireResponse/q1"}}
    land(lake, {"resourceType": "Bundle", "type": "transaction", "entry": [delete]})
    assert read_retractions(lake).height == 1
    person = str(KEY.pseudonymise("p1"))
    assert erase_retractions(lake, person) == 1
    for name in TABLES:
        erase_rows(locate_table(lake, name_parts(name)), person)
    assert read_retractions(lake).is_empty()
    kept = [path.read_bytes() for path in Path(lake, "parts").rglob("*") if path.is_file()]
    assert not any(person.encode() in content for content in kept)
    assert DeltaTable(locate_table(lake, RETRACTIONS)).to_pyarrow_table().num_rows == 0


def test_a_column_that_is_null_everywhere_still_has_its_type(lake: str) -> None:
    land(lake, survey(2))
    parts = pl.scan_delta(locate_table(lake, name_parts("surveys"))).collect_schema()
    assert set(parts.names()) == set(schema_of_parts(SURVEYS))


def test_rows_of_other_ways_are_merged_whole(lake: str) -> None:
    land(lake, survey(2))
    rows = scan_table(lake, "surveys").collect()
    assert merge_rows(lake, "surveys", rows) == MergeCounts(unchanged=1)
    assert len(read_rows(lake)["surveys"]) == 1


def test_a_known_record_that_comes_twice_counts_as_a_repetition(lake: str) -> None:
    land(lake, survey(2))
    counts = land(lake, survey(2), survey(2)).tables["surveys"]
    assert (counts.unchanged, counts.duplicate) == (1, 1)


def test_a_known_record_beside_a_newer_version_of_it_is_superseded(lake: str) -> None:
    older, newer = survey(2, meta={"versionId": "1"}), survey(1, meta={"versionId": "2"})
    land(lake, older)
    counts = land(lake, older, newer).tables["surveys"]
    assert (counts.corrected, counts.superseded) == (1, 1)
    assert list_items(lake) == [1]
