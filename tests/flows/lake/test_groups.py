"""Buckets that land together: how many, and that their individuals stay apart."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.pseudonyms import BUCKET_COUNT, assign_bucket
from flows.lake.groups import group_buckets
from flows.lake.report import IngestionReport
from flows.lake.tables import count_rows, get_version
from tests.fixtures.fhir import observation, quantity
from tests.fixtures.quiet_ingestion import KEY, ingest_quietly, read_rows, write_drop

PEOPLE = ("p1", "p2", "p3")


def land(folder: Path, resources: list[dict[str, Any]], rows: list[str]) -> IngestionReport:
    return ingest_quietly(write_drop(folder, resources, rows), str(folder / "lake"), PEOPLE)


def read_steps(folder: Path) -> dict[str, float]:
    names = {KEY.pseudonymise(person): person for person in PEOPLE}
    return {names[row[0]]: row[2] for row in read_rows(str(folder / "lake"))["wearable_days"]}


def steps(person: str, value: int, **more: Any) -> dict[str, Any]:
    subject = {"reference": f"Patient/{person}"}
    return observation(
        "41950-7", "2025-03-03", subject=subject, valueQuantity=quantity(value, "/d"), **more
    )


@pytest.mark.parametrize("person", PEOPLE)
def test_rows_of_a_file_and_records_of_another_person_both_count(
    tmp_path: Path, person: str
) -> None:
    days = [f"{other},2025-03-03,200,," for other in PEOPLE if other != person]
    report = land(tmp_path, [steps(person, 100)], days)
    assert read_steps(tmp_path) == dict.fromkeys(PEOPLE, 200) | {person: 100}
    again = land(tmp_path, [steps(person, 100)], days)
    assert report.tables["wearable_days"].inserted == again.tables["wearable_days"].unchanged == 3


def test_without_versions_one_id_of_two_people_is_two_resources(
    tmp_path: Path,
) -> None:
    land(tmp_path, [steps("p1", 100, id="a"), steps("p2", 200, id="a")], [])
    assert read_steps(tmp_path) == {"p1": 100, "p2": 200}


def test_a_small_drop_lands_in_one_commit_of_a_table(tmp_path: Path) -> None:
    land(tmp_path, [steps(person, 100) for person in PEOPLE], [])
    lake = str(tmp_path / "lake")
    assert get_version(lake, "wearable_days") == 1  # version 0 is the empty table
    buckets = Counter(assign_bucket(str(KEY.pseudonymise(person))) for person in PEOPLE)
    assert count_rows(lake, "wearable_days") == buckets


@given(st.dictionaries(st.integers(0, BUCKET_COUNT - 1), st.integers(0, 50)))
def test_groups_hold_every_bucket_once_and_no_more_rows_than_allowed(rows: dict[int, int]) -> None:
    groups = group_buckets(rows, limit=60)
    assert [bucket for group in groups for bucket in group] == sorted(rows)
    assert all(sum(rows[bucket] for bucket in group) <= 60 for group in groups)


def test_a_bucket_of_more_rows_than_a_group_holds_lands_alone() -> None:
    assert group_buckets({3: 10, 4: 100, 5: 10, 6: 10}, limit=60) == [[3], [4], [5, 6]]
