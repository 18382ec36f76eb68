"""The whole ingestion: files in, Delta tables, consents and quarantine out."""

import gzip
import json
import logging
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from flows.lake.quarantine import describe_report
from flows.lake.report import CountsDoNotAddUpError, IngestionReport, TableCounts
from flows.lake.tables import QUARANTINE, describe_table
from flows.runtime.locks import AlreadyRunningError, run_alone
from flows.sources.drop import EmptyDropError
from tests.fixtures.ingestion import (
    LANDED,
    SURVEY_HEADER,
    World,
    name,
    survey,
    world,
    write_everything,
)

__all__ = ["world"]

# Bad input: each ends as a clear message or a quarantined row, and the rest lands


def test_an_empty_drop_is_refused(world: World) -> None:
    with pytest.raises(EmptyDropError, match="no file of the input contract"):
        world.ingest()


def test_one_bad_file_does_not_keep_the_others_from_landing(world: World) -> None:
    world.consent(["a", "b"])
    world.write("surveys.csv", SURVEY_HEADER, survey("a"))
    world.write("people.csv", "person_id,birth_date", "a,1980")
    (world.drop / "wearable_days.csv").write_bytes(b"person_id,date\na,2025-01-0\xff\n")
    (world.drop / "emr_events.csv").write_bytes(b"")
    (world.drop / "outcomes.parquet").write_bytes(b"PAR1")
    (world.drop / "Patient.ndjson").symlink_to(world.drop / "gone")
    (world.drop / "Condition.ndjson.gz").write_bytes(gzip.compress(b"{}\n" * 999)[:-9])
    message, report = world.ingest_badly()
    for expected in (
        "the rest is landed, but: ",
        "people.csv: required column sex is missing",
        "wearable_days.csv: row 2, column date, is not UTF-8",
        "emr_events.csv: is empty",
        "Patient.ndjson: cannot be opened (FileNotFoundError)",
        "outcomes.parquet: is not a readable Parquet file",
        "Condition.ndjson.gz: the compressed stream is damaged or ends early",
    ):
        assert message.count(expected) == 1
    assert report.tables["surveys"].inserted == 1
    assert world.read("surveys")["anonymized_id"].to_list() == [name("a")]


def test_impossible_rows_are_quarantined_with_reason_and_place_and_the_others_land(
    world: World,
) -> None:
    world.consent(["a"])
    rows = [survey("a", f"2025-01-0{day}", answer) for day, answer in enumerate("4x1", 1)]
    rows += [survey("a", "2025-01-04", "-1"), survey("a", "2199-01-01"), survey("", "2025-01-05")]
    rows += [survey("a", "2025-01-06") + ",5"]
    world.write("surveys.csv", SURVEY_HEADER, *rows)
    report = world.ingest()
    assert world.read("surveys")["answered_at"].dt.day().to_list() == [3]
    quarantined = world.read_quarantine()
    assert [(file, row) for _, file, row, _ in quarantined] == [
        ("surveys.csv", row) for row in (2, 3, 5, 6, 7, 8)
    ]
    reasons = {row: reason for _, _, row, reason in quarantined}
    assert reasons[2].startswith("item_1: is 4, allowed are 0 to 3; item_2: is 4")
    assert reasons[3].startswith("item_1: is not a number, allowed are 0 to 3")
    assert reasons[5].startswith("item_1: is -1")
    assert reasons[6] == "answered_at: is in the future"
    assert reasons[7] == "person_id: is missing"
    assert reasons[8] == "has 13 fields, the header 12"
    assert report.tables["surveys"] == TableCounts(read=7, inserted=1, quarantined=6)


def test_a_run_fails_above_the_allowed_share_after_the_good_rows_landed(world: World) -> None:
    world.consent(["a"])
    good = [survey("a", f"2025-01-{day:02}") for day in range(1, 19)]
    world.write("surveys.csv", SURVEY_HEADER, *good, survey("a", "2199-01-01"))
    message, report = world.ingest_badly(share=0.05)
    assert "surveys: 1 of 19 records are quarantined (5.3%, allowed are 5.0%)" in message
    assert report.tables["surveys"].inserted == 18
    assert world.read("surveys").height == 18
    assert world.ingest(share=0.06).tables["surveys"].unchanged == 18


def test_repeated_rows_count_once_and_contradicting_ones_are_refused(world: World) -> None:
    world.consent(["a", "b"])
    clash = [survey("b", answer="0"), survey("b", answer="3")]
    world.write("surveys.csv", SURVEY_HEADER, survey("a"), survey("a"), *clash)
    world.write("surveys_2.csv", SURVEY_HEADER, survey("a"))
    report = world.ingest()
    assert report.tables["surveys"] == TableCounts(read=5, inserted=1, duplicate=2, quarantined=2)
    assert [(row, reason) for _, _, row, reason in world.read_quarantine()] == [
        (number, "the drop has different rows for one person and instrument, answered_at")
        for number in (4, 5)
    ]


def test_an_event_told_open_and_ended_is_one_event_that_ended(world: World) -> None:
    world.consent(["a"])
    rows = ["a,encounter,s,c,2025-01-01,,inpatient", "a,encounter,s,c,2025-01-01,2025-01-09,"]
    rows += ["a,encounter,s,d,2025-01-01,2025-01-02,", "a,encounter,s,d,2025-01-01,2025-01-03,"]
    world.write("emr_events.csv", "person_id,kind,system,code,started_at,ended_at,setting", *rows)
    report = world.ingest()
    assert report.tables["emr_events"] == TableCounts(read=4, inserted=1, combined=1, quarantined=2)
    (event,) = world.read("emr_events").to_dicts()
    assert (event["ended_at"].day, event["setting"]) == (9, "inpatient")


def test_a_truncated_line_and_unknown_codes_do_not_stop_fhir(world: World) -> None:
    world.consent(["p1"])
    item = {
        "resourceType": "Observation",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "44260-8"}]},
        "subject": {"reference": "Patient/p1"},
        "effectiveDateTime": "2025-01-01",
        "valueInteger": 1,
    }
    other = item | {"code": {"coding": [{"system": "http://loinc.org", "code": "99999-9"}]}}
    lines = [json.dumps(item), json.dumps(other), json.dumps(item)[:40]]
    (world.drop / "Observation.ndjson").write_text("\n".join(lines))
    report = world.ingest()
    assert world.read("surveys")["item_9"].to_list() == [1]
    assert report.ignored == {"Observation with another code": 1}
    assert world.read_quarantine() == [
        ("unreadable", "Observation.ndjson", 3, "line: is not a complete JSON object")
    ]
    assert report.records == 1 + 3


def test_columns_outside_the_contract_are_given_by_number(world: World) -> None:
    world.consent(["a"])
    world.write("people.csv", "person_id,birth_date,sex,phone", "a,1980,male,555")
    notes = world.ingest().notes
    assert notes == ["people.csv: not read, because not in the contract: column 4"]


# Again and again


def test_a_second_run_changes_nothing(world: World) -> None:
    write_everything(world, "a")
    world.consent(["a"])
    world.write("surveys.csv", SURVEY_HEADER, survey("a"), survey("a", "2199-01-01"))
    world.ingest()
    before = {table: describe_table(world.lake_url, table) for table in (*LANDED, QUARANTINE)}
    report = world.ingest()
    after = {table: describe_table(world.lake_url, table) for table in (*LANDED, QUARANTINE)}
    assert after == before
    assert sum(counts.landed for counts in report.tables.values()) == 0
    assert {report.tables[table].unchanged for table in (*LANDED, "consents")} == {1}
    assert report.states["surveys"] == before["surveys"]


def test_a_correction_becomes_available_when_it_is_ingested(world: World) -> None:
    world.consent(["a"])
    world.write("surveys.csv", SURVEY_HEADER, survey("a"), survey("a", "2025-02-01"))
    world.ingest()
    first = world.read("surveys").sort("answered_at")
    assert first["available_at"].equals(first["answered_at"].alias("available_at"))
    started = datetime.now(UTC)
    world.write("surveys.csv", SURVEY_HEADER, survey("a", answer="2"), survey("a", "2025-02-01"))
    assert world.ingest().tables["surveys"] == TableCounts(read=2, corrected=1, unchanged=1)
    second = world.read("surveys").sort("answered_at")
    assert second["item_1"].to_list() == [2, 1]
    assert second["available_at"][0] == second["ingested_at"][0] >= started
    assert second["available_at"][1] == first["available_at"][1]


def test_two_ingestions_do_not_run_at_once(world: World) -> None:
    write_everything(world, "a")
    with run_alone("ingestion"), pytest.raises(AlreadyRunningError):
        world.ingest()
    world.ingest()


def test_what_a_killed_run_staged_is_gone_and_never_lands(world: World) -> None:
    left = Path(world.lake_url) / "_mhras_staging" / "surveys" / "0"
    left.mkdir(parents=True)
    (left / "0-0.parquet").write_bytes(b"half a file")
    write_everything(world, "a")
    world.consent(["a"])
    assert world.ingest().tables["surveys"].inserted == 1
    assert not left.exists()


# Privacy and accounting

PEOPLE = [f"secret-person-{number}" for number in range(40)]


def test_no_identifier_reaches_lake_quarantine_logs_or_artifacts(
    world: World, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    world.consent(PEOPLE)
    header = "person_id,birth_date,sex"
    world.write("people.csv", header, *(f"{person},1980-05-17,male" for person in PEOPLE))
    bad = [survey(person, "2199-01-01") for person in PEOPLE]
    shifted = [survey("PHQ-9", "2025-01-01", person) for person in PEOPLE]
    good = [survey(person) for person in PEOPLE]
    world.write("surveys.csv", SURVEY_HEADER, *good, *bad, *shifted)
    patient = {"resourceType": "Patient", "id": PEOPLE[0], "birthDate": "1980-05-17"}
    (world.drop / f"{PEOPLE[0]}.json").write_text(json.dumps(patient))
    (world.drop / f"{PEOPLE[1]}.json").write_text(json.dumps(patient)[:-5])
    message, report = world.ingest_badly()
    assert report.tables["surveys"].quarantined == 80
    texts = [message, caplog.text, *capfd.readouterr(), describe_report(report, report.errors)]
    assert "secret-person" not in "".join(texts)
    assert "1980-05-17" not in "".join(texts)
    files = [path for path in Path(world.lake_url).rglob("*") if path.is_file()]
    assert sum(path.suffix == ".parquet" for path in files) > 10
    for path in files:
        assert b"secret-person" not in path.read_bytes()
        assert "secret-person" not in str(path)
    # Compression may hide a text from a scan of bytes; the values cannot hide.
    for table in ("people", "surveys", QUARANTINE):
        assert "secret-person" not in world.read(table).write_csv()


def test_the_lake_holds_a_year_of_birth_and_no_date(world: World) -> None:
    write_everything(world, "a")
    world.consent(["a"])
    world.ingest()
    person = world.read("people").to_dicts()[0]
    assert person["birth_year"] == 1980
    assert person["anonymized_id"] == name("a")
    assert person["available_at"] == datetime(1980, 1, 1, tzinfo=UTC)


def test_counts_that_do_not_add_up_stop_the_run() -> None:
    report = IngestionReport("run", records=3)
    report.tables["surveys"] = TableCounts(read=3, inserted=2)
    with pytest.raises(CountsDoNotAddUpError, match="surveys: 3 read, 2 accounted for"):
        report.check()
    report.tables["surveys"].withheld = 1
    report.check()
    report.records = 4
    with pytest.raises(CountsDoNotAddUpError, match="4 records"):
        report.check()


def test_parquet_and_csv_of_one_table_land_alike(world: World) -> None:
    world.consent(["a", "7"])
    world.write("wearable_days.csv", "person_id,date,steps", "a,2025-01-01,1000.5")
    frame = pl.DataFrame({"person_id": [7], "date": [datetime(2025, 1, 1)], "steps": [1000.5]})
    (world.drop / "wearable_days").mkdir()
    frame.write_parquet(world.drop / "wearable_days" / "part-0.parquet")
    world.ingest()
    days = world.read("wearable_days")
    assert set(days["anonymized_id"]) == {name("a"), name("7")}
    assert days.select("date", "steps").n_unique() == 1
