"""Published FHIR R4 examples and Synthea patients through the whole ingestion."""

import gzip
import json
import re
from pathlib import Path

import polars as pl
import pytest

from flows.lake.report import IngestionReport, TableCounts
from flows.lake.tables import QUARANTINE
from flows.sources.contract import ITEM_COLUMNS
from tests.fixtures.ingestion import World, name, world

__all__ = ["world"]

FOLDERS = {
    "us-core-9.0.0-examples.zip": 42,
    "bulk-10-patients": 5_584,
    "synthea-bundles": 8_224,
}


def link(world: World, source: Path) -> None:
    """Put a file, or all files of a folder, into the drop."""
    for path in [source] if source.is_file() else source.iterdir():
        (world.drop / path.name).symlink_to(path)


def list_patients(path: Path) -> list[str]:
    if path.suffix == ".zip":
        return ["example", "deceased-example"]
    found: list[str] = []
    for file in sorted(path.glob("*.gz")):
        text = gzip.decompress(file.read_bytes()).decode()
        documents = text.splitlines() if ".ndjson" in file.name else [text]
        for document in map(json.loads, documents):
            entries = document.get("entry", [{"resource": document}])
            found += [
                e["resource"]["id"] for e in entries if e["resource"]["resourceType"] == "Patient"
            ]
    return found


@pytest.fixture
def fhir(shared_data: Path) -> Path:
    return shared_data / "fhir-r4"


@pytest.mark.parametrize("folder", sorted(FOLDERS))
def test_without_consent_everything_is_withheld_and_counted(
    world: World, fhir: Path, folder: str
) -> None:
    link(world, fhir / folder)
    report = world.ingest()
    assert report.records == FOLDERS[folder]
    assert sum(counts.landed for counts in report.tables.values()) == 0
    for counts in report.tables.values():
        assert counts.read == counts.withheld + counts.quarantined
    assert all(world.read(table).is_empty() for table in ("people", "surveys", "emr_events"))


@pytest.mark.parametrize("folder", sorted(FOLDERS))
def test_with_consent_every_resource_lands_or_is_accounted_for(
    world: World, fhir: Path, folder: str
) -> None:
    link(world, fhir / folder)
    patients = list_patients(fhir / folder)
    world.consent(patients)
    report = world.ingest()
    assert report.records == FOLDERS[folder] + len(patients)
    assert world.read("people").height == report.tables["people"].inserted == len(patients)
    assert world.read("emr_events").height == report.tables["emr_events"].inserted
    assert sum(counts.withheld for counts in report.tables.values()) == 0
    again = world.ingest()
    assert sum(counts.landed for counts in again.tables.values()) == 0
    assert_no_patient_is_named(world, patients, report)


def assert_no_patient_is_named(world: World, patients: list[str], report: IngestionReport) -> None:
    landed = [world.read(table).write_csv() for table in ("people", "emr_events", QUARANTINE)]
    text = "".join(landed) + str(report)
    named = [patient for patient in patients if re.search(rf"\b{patient}\b", text)]
    # "example" is a word as well as the identifier of the US Core patient.
    assert [patient for patient in named if len(patient) > 20] == []


def test_the_published_phq9_example_totals_twelve(world: World, fhir: Path) -> None:
    link(world, fhir / "us-core-9.0.0-examples.zip")
    world.consent(["example"])
    report = world.ingest()
    (survey,) = world.read("surveys").to_dicts()
    assert survey["anonymized_id"] == name("example")
    assert [survey[item] for item in ITEM_COLUMNS] == [2, 2, 2, 2, 1, 1, 2, 0, 0]
    assert str(survey["answered_at"]) == "2022-11-29 20:50:32.718000+00:00"
    # The same survey as a response, as nine Observations, as their panel and as its total.
    assert report.tables["surveys"] == TableCounts(read=12, inserted=1, combined=11)


def test_the_phq9_as_observations_gives_the_same_survey(
    world: World, fhir: Path, tmp_path: Path
) -> None:
    import zipfile

    with zipfile.ZipFile(fhir / "us-core-9.0.0-examples.zip") as archive:
        observations = [one for one in archive.namelist() if "Observation-PHQ9" in one]
        response = [one for one in archive.namelist() if "QuestionnaireResponse-phq-9" in one]
        archive.extractall(world.drop, observations)
        world.consent(["example"])
        world.ingest()
        survey = world.read("surveys").select(*ITEM_COLUMNS, "answered_at")
        archive.extractall(tmp_path / "other", response)
    report = world.ingest(tmp_path / "other")
    assert survey.height == 1
    assert report.tables["surveys"] == TableCounts(read=1, unchanged=1)


def test_what_us_core_leaves_out_is_quarantined_with_its_reason(world: World, fhir: Path) -> None:
    link(world, fhir / "us-core-9.0.0-examples.zip")
    world.consent(["example"])
    report = world.ingest()
    assert [(table, reason) for table, _, _, reason in world.read_quarantine()] == [
        ("emr_events", "period.start: is missing or not precise to the day"),
        ("emr_events", "medicationReference: the Medication is not in the drop"),
    ]
    assert report.tables["emr_events"].quarantined == 2
    assert report.tables["people"] == TableCounts(read=2, inserted=1, withheld=1)


def test_psychiatric_encounters_and_diagnoses_are_found(world: World, fhir: Path) -> None:
    link(world, fhir / "synthea-bundles")
    world.consent(list_patients(fhir / "synthea-bundles"))
    world.ingest()
    events = world.read("emr_events")
    settings = (
        events.filter(pl.col("kind") == "encounter")["setting"].value_counts().sort("setting")
    )
    found = dict(settings.iter_rows())
    assert set(found) >= {"outpatient", "inpatient", "emergency", "psychiatric_outpatient"}
    diagnoses = events.filter(pl.col("kind") == "diagnosis")["code"].to_list()
    assert diagnoses.count("370143000") == 3
    assert diagnoses.count("7200002") == 5
    assert events["started_at"].min() < events["started_at"].max()
    assert events.filter(pl.col("available_at") < pl.col("started_at")).is_empty()


def test_the_whole_fhir_folder_is_one_drop(world: World, fhir: Path) -> None:
    report = world.ingest(fhir, share=0.05)
    assert report.records == sum(FOLDERS.values())
    assert report.other_files == 1
