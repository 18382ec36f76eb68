"""People, events of care and consents in FHIR."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flows.sources.clean import WITHDRAWALS
from flows.sources.fhir_events import name_setting
from flows.sources.fhir_people import US_CORE, read_ethnicity
from tests.fixtures.fhir import (
    KEY,
    SUBJECT,
    consent,
    join,
    medication_request,
    observation,
    read,
    reasons,
    rows_of,
    write,
)


def test_references_of_every_kind_name_one_person(tmp_path: Path) -> None:
    uuid = "5a3b9c1e-0000-4000-8000-000000000001"
    kinds = [
        f"Patient/{uuid}",
        f"urn:uuid:{uuid}",
        f"https://fhir.example.org/r4/Patient/{uuid}",
        f"https://fhir.example.org/r4/Patient/{uuid}/_history/3",
    ]
    resources = [
        observation("44260-8", at=f"2025-01-0{day}", valueInteger=1, subject={"reference": kind})
        for day, kind in enumerate(kinds, 1)
    ]
    rows = rows_of(write(tmp_path, *resources), "surveys")
    assert {row["anonymized_id"] for row in rows} == {KEY.pseudonymise(uuid)}


def test_a_bundles_full_url_names_the_patient_it_holds(tmp_path: Path) -> None:
    entries = [
        {"fullUrl": "urn:uuid:another", "resource": {"resourceType": "Patient", "id": "p9"}},
        {
            "fullUrl": "urn:uuid:o",
            "resource": observation(
                "44260-8", valueInteger=1, subject={"reference": "urn:uuid:another"}
            ),
        },
        {"fullUrl": "urn:uuid:nothing"},
    ]
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    (batch,) = read(write(tmp_path, bundle, name="x.json"))
    assert batch.rows["people"]["anonymized_id"][0] == KEY.pseudonymise("p9")
    assert batch.rows["surveys"]["anonymized_id"][0] == KEY.pseudonymise("p9")
    assert [(one.row_number, one.table) for one in batch.rejected] == [(3, "unreadable")]


@pytest.mark.parametrize(
    ("ethnicity", "races", "expected"),
    [
        ("2135-2", ["2106-3"], "hispanic"),
        ("2186-5", ["2054-5"], "black"),
        ("2186-5", ["2106-3", "2054-5"], "other"),
        (None, ["2028-9"], "asian"),
        (None, [], None),
    ],
)
def test_ethnicity_comes_from_the_us_core_extensions(
    ethnicity: str | None, races: list[str], expected: str | None
) -> None:
    def extend(name: str, codes: list[str]) -> dict[str, Any]:
        parts = [{"url": "ombCategory", "valueCoding": {"code": one}} for one in codes]
        return {"url": US_CORE + name, "extension": parts}

    extensions = [extend("us-core-race", races)]
    extensions += [extend("us-core-ethnicity", [ethnicity])] if ethnicity else []
    assert read_ethnicity({"extension": extensions}) == expected


@pytest.mark.parametrize(
    ("class_code", "system", "type_code", "setting"),
    [
        ("EMER", "http://snomed.info/sct", "50849002", "emergency"),
        ("EMER", "http://hl7.org/fhir/sid/icd-10-cm", "F32.2", "psychiatric_emergency"),
        ("IMP", "http://snomed.info/sct", "394587001", "psychiatric_inpatient"),
        ("ACUTE", "http://hl7.org/fhir/sid/icd-10", "I10", "inpatient"),
        ("AMB", "http://snomed.info/sct", "47505003", "psychiatric_outpatient"),
        ("VR", "http://www.ama-assn.org/go/cpt", "99211", "outpatient"),
    ],
)
def test_an_encounter_is_psychiatric_by_its_codes(
    class_code: str, system: str, type_code: str, setting: str
) -> None:
    concepts = [{"coding": [{"system": system, "code": type_code}]}]
    assert name_setting([{"code": class_code}], concepts) == setting


def test_a_diagnosis_is_known_since_it_was_recorded(tmp_path: Path) -> None:
    condition = {
        "resourceType": "Condition",
        "code": {
            "coding": [
                {"system": "http://snomed.info/sct", "code": "1"},
                {"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "F32.1"},
            ]
        },
        "subject": SUBJECT,
        "onsetDateTime": "2020-05-01",
        "recordedDate": "2021-06-01T08:00:00Z",
    }
    joined = join(write(tmp_path, condition), "emr_events")
    (row,) = joined.rows.to_dicts()
    assert (row["code"], row["started_at"].year) == ("F32.1", 2020)
    assert row["available_at"] == datetime(2021, 6, 1, 8, tzinfo=UTC)


def test_a_medication_may_be_coded_contained_or_referenced(tmp_path: Path) -> None:
    drug = {"coding": [{"system": "rx", "code": "36437"}]}
    held = {"resourceType": "Medication", "id": "m", "code": drug}
    write(tmp_path, held, name="Medication.ndjson")
    write(
        tmp_path,
        medication_request(medicationCodeableConcept=drug),
        medication_request(medicationReference={"reference": "#m"}, contained=[held]),
        medication_request(medicationReference={"reference": "https://x.org/Medication/m"}),
        name="MedicationRequest.ndjson",
    )
    assert [row["code"] for row in rows_of(tmp_path, "emr_events")] == ["36437"] * 3


def test_a_medication_that_is_not_in_the_drop_is_rejected(tmp_path: Path) -> None:
    elsewhere = medication_request(medicationReference={"reference": "Medication/gone"})
    empty = medication_request(medicationReference={"reference": "#gone"})
    assert reasons(tmp_path, elsewhere, empty) == [
        "medicationReference: the Medication is not in the drop",
        "code: has no coding with a system",
    ]


def test_a_consent_becomes_what_it_permits_and_no_more(tmp_path: Path) -> None:
    (row,) = rows_of(write(tmp_path, consent()), "consents", consents=True)
    assert row["data_types"] == ["survey", "wearable"]
    assert row["purposes"] == ["screening", "training"]
    # Given when it was signed, though the period it permits began before.
    assert (row["granted_at"], row["expires_at"]) == ("2024-02-01", "2026-01-01")
    assert read(tmp_path)[0].records == 0


@pytest.mark.parametrize(
    ("provision", "expected"),
    [
        ({"class": [{"code": "Observation"}]}, "provision.class: names none of"),
        ({"purpose": []}, "provision.purpose: names none of"),
        ({"period": {"start": "2024-01-01"}}, "provision.period.end: is missing"),
        ({"type": None}, "provision.type: is not permit"),
        ({"provision": [{"type": "deny"}]}, "provision.provision: exceptions cannot be kept to"),
    ],
)
def test_a_consent_that_does_not_say_enough_permits_nothing(
    tmp_path: Path, provision: dict[str, Any], expected: str
) -> None:
    (reason,) = reasons(tmp_path, consent(**provision), consents=True)
    assert reason.startswith(expected)


@pytest.mark.parametrize(
    ("signed", "begins", "granted"),
    [
        # As texts these are in the other order.
        ("2024-02-01T00:30:00Z", "2024-02-01T09:00:00+09:00", "2024-02-01T00:30:00Z"),
        ("2024-02-01T09:00:00+09:00", "2024-02-01T00:30:00Z", "2024-02-01T00:30:00Z"),
        ("2024-02-01", "2024-01-31T23:30:00-05:00", "2024-01-31T23:30:00-05:00"),
    ],
)
def test_a_consent_begins_at_the_latest_instant_whatever_the_offsets(
    tmp_path: Path, signed: str, begins: str, granted: str
) -> None:
    given = consent(period={"start": begins, "end": "2026-01-01"}) | {"dateTime": signed}
    (row,) = rows_of(write(tmp_path, given), "consents", consents=True)

    assert row["granted_at"] == granted


@pytest.mark.parametrize("ended", [consent("inactive"), consent("rejected"), consent(type="deny")])
def test_a_consent_that_ended_or_denies_is_a_withdrawal(
    tmp_path: Path, ended: dict[str, Any]
) -> None:
    (row,) = rows_of(write(tmp_path, ended), WITHDRAWALS.name, consents=True)
    assert row["granted_at"] == "2024-02-01"


def deny(*classes: str, purposes: tuple[str, ...] = ()) -> dict[str, Any]:
    exception: dict[str, Any] = {"type": "deny"}
    if classes:
        exception["class"] = [{"code": name} for name in classes]
    if purposes:
        exception["purpose"] = [{"code": name} for name in purposes]
    return exception


@pytest.mark.parametrize(
    ("denial", "data_types", "purposes"),
    [
        (deny("wearable"), ["survey"], ["screening", "training"]),
        (deny("wearable", purposes=("TREAT", "HRESCH")), ["survey"], ["screening", "training"]),
        (deny(purposes=("HRESCH",)), ["survey", "wearable"], ["screening"]),
        (deny("survey", "wearable", purposes=("HRESCH",)), ["survey", "wearable"], ["screening"]),
        # Of one data type for one purpose: a consent holds no such pairs, so it is not used.
        (deny("wearable", purposes=("HRESCH",)), ["survey"], ["screening", "training"]),
        (deny("emr"), ["survey", "wearable"], ["screening", "training"]),
    ],
    ids=["class", "class for all", "purpose", "all for a purpose", "a pair", "not permitted"],
)
def test_an_exception_takes_away_at_least_what_it_denies(
    tmp_path: Path, denial: dict[str, Any], data_types: list[str], purposes: list[str]
) -> None:
    drop = write(tmp_path, consent(provision=[denial]))
    (row,) = rows_of(drop, "consents", consents=True)

    assert (row["data_types"], row["purposes"]) == (data_types, purposes)


@pytest.mark.parametrize(
    "denial", [deny("survey", "wearable"), deny(purposes=("TREAT", "HRESCH"))], ids=str
)
def test_an_exception_from_everything_leaves_no_consent(
    tmp_path: Path, denial: dict[str, Any]
) -> None:
    assert rows_of(write(tmp_path, consent(provision=[denial])), "consents", consents=True) == []


@pytest.mark.parametrize(
    "denial",
    [
        deny("Observation"),
        deny(purposes=("HMARKT",)),
        deny("wearable") | {"actor": [{"reference": {"reference": "Practitioner/1"}}]},
        deny("wearable") | {"dataPeriod": {"start": "2024-01-01"}},
    ],
    ids=["unknown class", "unknown purpose", "of one reader", "of a time"],
)
def test_a_consent_with_an_exception_that_cannot_be_kept_to_is_not_used(
    tmp_path: Path, denial: dict[str, Any]
) -> None:
    (reason,) = reasons(tmp_path, consent(provision=[denial]), consents=True)
    assert reason.startswith("provision.provision: exceptions cannot be kept to")


def test_a_permit_inside_a_permit_cannot_be_kept_to(tmp_path: Path) -> None:
    inner = {"type": "permit", "class": [{"code": "wearable"}]}
    (reason,) = reasons(tmp_path, consent(provision=[inner]), consents=True)
    assert reason == "provision.provision: exceptions cannot be kept to"


def test_a_patient_of_whom_a_death_was_wrong_takes_it_back(tmp_path: Path) -> None:
    patient = {"resourceType": "Patient", "id": "p1", "meta": {"versionId": "1"}}
    dead = patient | {"deceasedDateTime": "2024-05-01"}
    alive = patient | {"meta": {"versionId": "2"}, "deceasedBoolean": False}
    (batch,) = read(write(tmp_path, dead, alive, name="Patient.ndjson"), consents=True)

    assert [one["anonymized_id"] for one in batch.deaths] == [KEY.pseudonymise("p1")]
    (death,), (retraction,) = batch.deaths, batch.alive
    assert retraction["source_id"] == death["source_id"]
    assert retraction["version_number"] > death["version_number"]


@pytest.mark.parametrize(
    ("newer", "taken_back"),
    [
        ({"meta": {"versionId": "2"}}, 1),
        ({"meta": {"lastUpdated": "2025-01-01T00:00:00Z"}}, 1),
        ({"deceasedBoolean": False}, 1),
        ({}, 0),
    ],
)
def test_a_version_that_states_no_death_takes_an_older_one_back(
    tmp_path: Path, newer: dict[str, Any], taken_back: int
) -> None:
    patient = {"resourceType": "Patient", "id": "p1", **newer}
    (batch,) = read(write(tmp_path, patient, name="Patient.ndjson"), consents=True)
    assert len(batch.alive) == taken_back
    assert batch.retractions == []
