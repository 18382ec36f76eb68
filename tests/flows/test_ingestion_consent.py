"""Ingestion lands what a consent in force permits, and nothing else."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from flows.lake.consents import (
    read_consented_types,
)
from flows.lake.report import TableCounts
from serving.database.sessions import create_database_engine
from serving.database.tables import Consent
from tests.fixtures.ingestion import (
    LANDED,
    SURVEY_HEADER,
    World,
    count_landed,
    name,
    survey,
    world,
    write_everything,
)

__all__ = ["world"]


def test_without_consent_nothing_lands_and_all_is_counted(world: World) -> None:
    write_everything(world, "a")
    report = world.ingest()
    assert count_landed(world) == dict.fromkeys(LANDED, 0)
    assert {table: report.tables[table].withheld for table in LANDED} == dict.fromkeys(LANDED, 1)


@pytest.mark.parametrize(
    ("types", "tables"),
    [
        ("survey", {"people", "outcomes", "surveys"}),
        ("wearable;emr", {"people", "outcomes", "wearable_days", "emr_events"}),
    ],
)
def test_only_the_consented_data_types_land(world: World, types: str, tables: set[str]) -> None:
    write_everything(world, "a")
    world.consent(["a"], types=types, purposes="screening")
    world.ingest()
    assert {table for table, rows in count_landed(world).items() if rows} == tables


def write_consent(world: World, granted: str, expires: str) -> None:
    header = "person_id,data_types,purposes,granted_at,expires_at"
    world.write("consents.csv", header, f"a,survey,training,{granted},{expires}")


def test_a_consent_that_has_expired_or_not_begun_lands_nothing(world: World) -> None:
    write_everything(world, "a")
    write_consent(world, "2020-01-01", "2021-01-01")
    assert world.ingest().tables["surveys"].withheld == 1
    soon = (datetime.now(UTC) + timedelta(hours=12)).isoformat()
    write_consent(world, soon, "2099-01-01")
    assert world.ingest().tables["surveys"].withheld == 1


def test_a_withdrawn_consent_stays_withdrawn_when_its_drop_comes_again(world: World) -> None:
    write_everything(world, "a")
    world.consent(["a"])
    world.ingest()
    now = datetime.now(UTC)
    world.change_database(lambda session: session.execute(update(Consent).values(withdrawn_at=now)))
    world.consent(["a"], types="survey")
    report = world.ingest()
    assert report.tables["consents"].corrected == 1
    assert report.tables["surveys"].withheld == 1
    withdrawn = world.change_database(lambda session: session.scalars(select(Consent)).one())
    assert withdrawn.withdrawn_at == now


def consent_of(person: str, **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "Consent",
        "status": "active",
        "patient": {"reference": f"Patient/{person}"},
        "dateTime": "2024-01-01",
        "provision": {
            "type": "permit",
            "period": {"start": "2024-01-01", "end": "2099-01-01"},
            "class": [{"code": "QuestionnaireResponse"}],
            "purpose": [{"code": "TREAT"}],
        },
        **more,
    }


def test_a_fhir_consent_permits_and_its_end_withdraws(world: World) -> None:
    world.write("surveys.csv", SURVEY_HEADER, survey("p1"))
    consent = consent_of("p1")
    path = world.drop / "Consent.ndjson"
    path.write_text(json.dumps(consent))
    assert world.ingest().tables["surveys"].inserted == 1
    path.write_text(json.dumps(consent | {"status": "inactive"}))
    report = world.ingest()
    assert report.tables["withdrawals"] == TableCounts(read=1, corrected=1)
    assert report.tables["surveys"].withheld == 1


def test_of_several_consents_every_type_in_force_counts(world: World) -> None:
    header = "person_id,data_types,purposes,granted_at,expires_at"
    rows = [
        "a,survey,training,2020-01-01,2099-01-01",
        "a,emr,screening,2021-01-01,2099-01-01",
        "a,wearable,screening,2019-01-01,2020-01-01",
    ]
    world.write("consents.csv", header, *rows)
    world.ingest()
    engine = create_database_engine(world.database_url)
    granted = read_consented_types(engine, datetime.now(UTC)).to_dicts()
    engine.dispose()
    assert granted == [{"anonymized_id": name("a"), "survey": True, "wearable": False, "emr": True}]


def read_in_force(world: World) -> set[str]:
    engine = create_database_engine(world.database_url)
    people = read_consented_types(engine, purposes=["screening"])["anonymized_id"]
    engine.dispose()
    return set(people)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_consent_whose_newer_version_is_of_another_person_ends(
    world: World, order: tuple[int, int]
) -> None:
    versions = [
        consent_of(who, id="c", meta={"versionId": n}) for who, n in (("p1", "1"), ("p2", "2"))
    ]
    for number in order:
        (world.drop / "Consent.ndjson").write_text(json.dumps(versions[number]))
        world.ingest()
    assert read_in_force(world) == {name("p2")}


PATIENT = {"resourceType": "Patient", "id": "p1", "birthDate": "1980"}
DEAD = PATIENT | {"deceasedBoolean": True, "meta": {"versionId": "1"}}
CORRECTED = PATIENT | {"meta": {"versionId": "2"}}


@pytest.mark.parametrize(
    ("patients", "screened"),
    [
        ([DEAD], set()),
        ([DEAD, CORRECTED], {name("p1")}),
        ([CORRECTED, DEAD], {name("p1")}),
        ([DEAD, PATIENT], set()),
        ([CORRECTED, DEAD | {"meta": {"versionId": "2"}}], set()),
    ],
)
def test_a_death_stands_until_a_newer_version_of_the_patient_states_none(
    world: World, patients: list[dict[str, Any]], screened: set[str]
) -> None:
    header = "person_id,data_types,purposes,granted_at,expires_at"
    world.write("consents.csv", header, "p1,survey,training;screening,2020-01-01,2099-01-01")
    for patient in patients:
        (world.drop / "Patient.ndjson").write_text(json.dumps(patient))
        report = world.ingest()
        assert not any("not known here" in note for note in report.notes)
    assert read_in_force(world) == screened
