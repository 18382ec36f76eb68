"""Resources whose newer version is of another person, or belongs to another table."""

from itertools import permutations
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flows.lake.moves import SOURCES, list_staged_moves, note_places, note_withheld
from flows.lake.tables import locate_table
from tests.fixtures.fhir import observation, quantity
from tests.fixtures.quiet_ingestion import KEY, ingest_quietly, read_rows, write_drop

PEOPLE = ("p1", "p2")


def steps(person: str, version: int | None, value: int = 100, **more: Any) -> dict[str, Any]:
    meta = {"meta": {"versionId": str(version)}} if version else {}
    subject = {"reference": f"Patient/{person}"}
    count = quantity(value, "/d")
    return observation(
        "41950-7", "2025-03-03", id="a", subject=subject, valueQuantity=count, **meta, **more
    )


def land(folder: Path, *drops: list[dict[str, Any]], people: tuple[str, ...] = PEOPLE) -> Any:
    """Land drops one after another in a new lake; return the last report."""
    lake = folder / "lake"
    return [ingest_quietly(write_drop(folder, drop), str(lake), people) for drop in drops][-1]


def read_steps(folder: Path) -> dict[str, float]:
    names = {KEY.pseudonymise(person): person for person in PEOPLE}
    return {names[row[0]]: row[2] for row in read_rows(str(folder / "lake"))["wearable_days"]}


def test_a_version_of_another_person_takes_the_row_of_the_older_one_away(tmp_path: Path) -> None:
    land(tmp_path, [steps("p1", 1)])
    counts = land(tmp_path, [steps("p2", 2)]).tables["wearable_days"]
    assert read_steps(tmp_path) == {"p2": 100}
    assert (counts.inserted, counts.set_aside) == (1, 1)
    aside = pl.read_delta(locate_table(str(tmp_path / "lake"), "set_aside/wearable_days"))
    assert aside["anonymized_id"].to_list() == [KEY.pseudonymise("p1")]


def test_what_the_older_version_was_added_to_is_computed_again(tmp_path: Path) -> None:
    span = {"start": "2025-03-03T10:00:00Z", "end": "2025-03-03T11:00:00Z"}
    other = steps("p1", 1, 40) | {"id": "b", "effectivePeriod": span}
    other["code"] = {"coding": [{"system": "http://loinc.org", "code": "55423-8"}]}
    del other["effectiveDateTime"]
    land(tmp_path, [steps("p1", 1), other])
    counts = land(tmp_path, [steps("p2", 2)]).tables["wearable_days"]
    assert read_steps(tmp_path) == {"p1": 40, "p2": 100}
    assert counts.recomputed == 1


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_the_newest_version_wins_in_any_order_of_drops(
    tmp_path: Path, order: tuple[int, ...]
) -> None:
    versions = [steps("p1", 1, 100), steps("p2", 2, 200), steps("p1", 3, 300)]
    land(tmp_path, *([versions[number]] for number in order))
    assert read_steps(tmp_path) == {"p1": 300}


def test_two_versions_of_one_drop_are_one_resource(tmp_path: Path) -> None:
    counts = land(tmp_path, [steps("p2", 2), steps("p1", 1)]).tables["wearable_days"]
    assert read_steps(tmp_path) == {"p2": 100}
    assert (counts.inserted, counts.superseded) == (1, 1)


def test_the_old_row_goes_although_the_other_person_does_not_consent(tmp_path: Path) -> None:
    land(tmp_path, [steps("p1", 1)], [steps("p2", 2)], people=("p1",))
    assert read_steps(tmp_path) == {}
    land(tmp_path, [steps("p1", 1)], [steps("p2", 2)])
    assert read_steps(tmp_path) == {"p2": 100}


def test_a_version_that_is_a_survey_takes_the_wearable_day_away(tmp_path: Path) -> None:
    land(tmp_path, [steps("p1", 1)])
    subject = {"subject": {"reference": "Patient/p1"}}
    item = observation("44260-8", id="a", meta={"versionId": "2"}, valueInteger=1, **subject)
    land(tmp_path, [item])
    assert read_steps(tmp_path) == {}
    assert len(read_rows(str(tmp_path / "lake"))["surveys"]) == 1


def test_a_repeated_move_changes_nothing(tmp_path: Path) -> None:
    both = [steps("p1", 1), steps("p2", 2)]
    counts = land(tmp_path, both, both).tables["wearable_days"]
    assert (counts.unchanged, counts.superseded, counts.set_aside) == (1, 1, 0)


def test_moves_are_found_in_passes_that_each_hold_few_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.lake.moves.RECORDS_AT_ONCE", 2)
    people = enumerate(PEOPLE, 1)
    rows = [(f"{n:x}0", person, v, None, 0) for v, person in people for n in range(16)]
    frame = pl.DataFrame(rows, schema=SOURCES, orient="row")
    note_withheld(tmp_path, "surveys", frame, "0")
    note_places(tmp_path, "surveys", frame, "0")
    found = list_staged_moves(str(tmp_path / "lake"), tmp_path)
    assert len(found) == len(rows)
