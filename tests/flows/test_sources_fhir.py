import gzip
import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.instruments import GAD7, PHQ9
from flows.sources.batch import Batch, UnreadableFileError
from flows.sources.clean import WITHDRAWALS, check_rows
from flows.sources.contract import ITEM_COLUMNS, TABLES
from flows.sources.drop import find_files
from flows.sources.fhir import find_medications, read_fhir
from flows.sources.fhir_events import name_setting
from flows.sources.fhir_people import US_CORE, read_ethnicity
from flows.sources.pseudonymise import PersonKey
from flows.sources.settle import Settled, settle_rows

KEY = PersonKey("a salt for tests, 256 bit or more of it")
NOW = datetime(2025, 6, 1, tzinfo=UTC)
LOINC = "http://loinc.org"
SUBJECT = {"reference": "Patient/p1"}


def read(folder: Path, consents: bool = False) -> list[Batch]:
    files = find_files(str(folder)).fhir
    context = find_medications(files)
    return [batch for file in files for batch in read_fhir(file, KEY, context, consents)]


def write(folder: Path, *resources: Any, name: str = "Observation.ndjson") -> Path:
    lines = [one if isinstance(one, str) else json.dumps(one) for one in resources]
    (folder / name).write_text("\n".join(lines))
    return folder


def rows_of(folder: Path, table: str, consents: bool = False) -> list[dict[str, Any]]:
    batches = read(folder, consents)
    assert [one.reason for batch in batches for one in batch.rejected] == []
    frames = [batch.rows[table] for batch in batches if table in batch.rows]
    return pl.concat(frames).to_dicts() if frames else []


def reasons(folder: Path, *resources: Any, consents: bool = False) -> list[str]:
    batches = read(write(folder, *resources), consents)
    return [one.reason for batch in batches for one in batch.rejected]


def settle(folder: Path, table: str) -> Settled:
    """Put together what the drop says of a table."""
    contract = TABLES[table]
    frames = [batch.rows[table] for batch in read(folder) if table in batch.rows]
    checked = check_rows(contract, pl.concat(frames), NOW)
    assert checked.rejected.rows() == []
    return settle_rows(contract, checked.good.with_columns(source=pl.lit(0, dtype=pl.Int32)))


def code(*loincs: str, text: str | None = None) -> dict[str, Any]:
    return {"coding": [{"system": LOINC, "code": loinc} for loinc in loincs], "text": text}


def observation(loinc: str, at: str = "2025-01-01T10:00:00Z", **values: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "status": "final",
        "code": code(loinc),
        "subject": SUBJECT,
        "effectiveDateTime": at,
    } | values


def response(answers: dict[str, dict[str, Any]], **values: Any) -> dict[str, Any]:
    items = [{"linkId": f"/{loinc}", "answer": [answer]} for loinc, answer in answers.items()]
    return {
        "resourceType": "QuestionnaireResponse",
        "status": "completed",
        "subject": SUBJECT,
        "authored": "2025-01-01T10:00:00Z",
        "item": items,
    } | values


# What cannot be read


def test_a_truncated_line_is_rejected_with_its_number_and_the_others_are_read(
    tmp_path: Path,
) -> None:
    whole = json.dumps({"resourceType": "Patient", "id": "p1", "birthDate": "1980"})
    write(tmp_path, whole, whole[:30], '{"id": "p2"}', "[1]", whole, name="Patient.ndjson")
    (batch,) = read(tmp_path)
    assert [(one.table, one.row_number, one.reason) for one in batch.rejected] == [
        ("unreadable", 2, "line: is not a complete JSON object"),
        ("unreadable", 3, "resourceType: is missing, so it is no FHIR resource"),
        ("unreadable", 4, "resourceType: is missing, so it is no FHIR resource"),
    ]
    assert batch.rows["people"]["row_number"].to_list() == [1, 5]
    assert batch.records == 5


def test_a_line_that_is_not_utf8_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "Patient.ndjson").write_bytes(b'{"resourceType": "Patient", "id": "\xff"}\n')
    (batch,) = read(tmp_path)
    assert batch.rejected[0].reason == "line: is not UTF-8"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.json", b'{"resourceType": "Bundle", ', "is not complete JSON in UTF-8"),
        ("x.json", b"", "is not complete JSON in UTF-8"),
        ("x.zip", b"no archive", "is not a readable zip archive"),
        ("x.ndjson.gz", gzip.compress(b'{"resourceType": "X"}\n' * 99)[:-12], "ends early"),
    ],
    ids=["json", "empty", "zip", "gzip"],
)
def test_a_damaged_file_is_refused_by_the_digest_in_its_label(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    label = find_files(str(tmp_path)).files[0].label
    with pytest.raises(UnreadableFileError, match=message) as caught:
        read(tmp_path)
    assert str(caught.value).startswith(label)
    assert label.startswith("fhir-")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"subject": None}, "subject.reference: is missing"),
        ({"subject": {"reference": "Group/g"}}, "subject.reference: does not name a Patient"),
        ({"subject": {"identifier": {"value": "x"}}}, "subject.reference: is missing"),
        ({"effectiveDateTime": "2025-01"}, "effectiveDateTime: is missing or not precise"),
        ({"valueCodeableConcept": code("LA15694-5")}, "item_9: is neither a number nor one of"),
        ({"valueString": "often"}, "item_9: is neither a number nor one of"),
    ],
)
def test_an_answer_that_cannot_be_used_is_rejected_with_its_reason(
    tmp_path: Path, change: dict[str, Any], expected: str
) -> None:
    whole = observation("44260-8", valueCodeableConcept=code("LA6569-3"))
    if "valueString" in change:
        del whole["valueCodeableConcept"]
    (reason,) = reasons(tmp_path, whole | change)
    assert reason.startswith(expected)


def test_what_nobody_needs_is_counted_by_kind(tmp_path: Path) -> None:
    write(
        tmp_path,
        observation("8867-4", valueQuantity={"value": 44}),
        observation("99999-9"),
        {"resourceType": "Procedure"},
        observation("44260-8", status="entered-in-error"),
        observation("44260-8", status="Jane Doe"),
        response({"12345-6": {"valueInteger": 1}}),
        {
            "resourceType": "Condition",
            "verificationStatus": {"coding": [{"code": "refuted"}]},
            "subject": SUBJECT,
        },
    )
    (batch,) = read(tmp_path)
    assert batch.ignored == Counter(
        {
            "Observation with another code": 2,
            "Procedure": 1,
            "Observation with status entered-in-error": 1,
            "Observation with status that FHIR does not define": 1,
            "QuestionnaireResponse without an item of PHQ-9 or GAD-7": 1,
            "Condition that is refuted": 1,
        }
    )


# Questionnaires

ANSWERS: list[dict[str, Any]] = [
    {"valueCoding": {"system": LOINC, "code": "LA6570-1"}},
    {"valueInteger": 2},
    {"valueDecimal": 2.0},
    {
        "valueCoding": {
            "code": "more-than-half",
            "extension": [
                {
                    "url": "http://hl7.org/fhir/StructureDefinition/ordinalValue",
                    "valueDecimal": 2,
                }
            ],
        }
    },
]


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_may_be_a_code_a_number_or_an_ordinal(
    tmp_path: Path, answer: dict[str, Any]
) -> None:
    write(tmp_path, response({PHQ9.item_loincs[8]: answer}))
    (row,) = rows_of(tmp_path, "surveys")
    assert (row["instrument"], row["item_9"], row["item_1"]) == ("PHQ-9", 2, None)
    assert row["anonymized_id"] == KEY.pseudonymise("p1")


def test_a_total_that_is_not_the_sum_of_its_items_is_rejected(tmp_path: Path) -> None:
    answers: dict[str, dict[str, Any]] = {code: {"valueInteger": 1} for code in GAD7.item_loincs}
    wrong = response(answers | {GAD7.total_loinc: {"valueDecimal": 8}})
    assert reasons(tmp_path, wrong) == ["GAD-7 total: 8 is stated, the items add to 7"]


def test_one_response_with_both_questionnaires_gives_two_surveys(tmp_path: Path) -> None:
    both = {loinc: {"valueInteger": 1} for loinc in (*PHQ9.item_loincs, *GAD7.item_loincs)}
    (batch,) = read(write(tmp_path, response(both)))
    assert sorted(batch.rows["surveys"]["instrument"]) == ["GAD-7", "PHQ-9"]
    assert (batch.records, batch.split) == (1, 1)


def test_nested_items_are_found(tmp_path: Path) -> None:
    nested = response({})
    inner = response({PHQ9.item_loincs[0]: {"valueInteger": 3}})["item"]
    nested["item"] = [{"linkId": "group", "item": inner}]
    (row,) = rows_of(write(tmp_path, nested), "surveys")
    assert row["item_1"] == 3


def test_single_answers_of_one_time_make_one_survey(tmp_path: Path) -> None:
    items = [observation(loinc, valueInteger=1) for loinc in PHQ9.item_loincs]
    other = observation(PHQ9.item_loincs[0], at="2025-02-01", valueInteger=3)
    panel = observation(PHQ9.panel_loinc, hasMember=[{"reference": "Observation/x"}])
    settled = settle(write(tmp_path, *items, panel, other), "surveys")
    totals = settled.rows.sort("answered_at").select(pl.sum_horizontal(ITEM_COLUMNS)).to_series()
    assert totals.to_list() == [9, 3]
    assert (settled.combined, settled.duplicate, settled.rejected.height) == (9, 0, 0)


def test_a_panel_may_hold_its_answers_as_components(tmp_path: Path) -> None:
    parts = [{"code": code(loinc), "valueInteger": 2} for loinc in GAD7.item_loincs]
    settled = settle(write(tmp_path, observation(GAD7.panel_loinc, component=parts)), "surveys")
    assert settled.rows.select(ITEM_COLUMNS).row(0) == (*[2] * 7, None, None)


def test_contradicting_or_absent_answers_are_not_guessed(tmp_path: Path) -> None:
    twice = [observation("44260-8", valueInteger=answer) for answer in (0, 3)]
    empty = observation("44249-1", at="2025-02-01", dataAbsentReason=code("x"))
    settled = settle(write(tmp_path, *twice, empty), "surveys")
    assert settled.rows.is_empty()
    assert sorted(settled.rejected["reason"]) == [
        "different answers to one item at one time",
        "different answers to one item at one time",
        "no item of this survey has an answer",
    ]


# Wearables


def quantity(value: float, unit: str) -> dict[str, Any]:
    return {"value": value, "unit": unit, "system": "http://unitsofmeasure.org", "code": unit}


def test_readings_of_a_day_become_one_row_in_the_units_of_the_contract(tmp_path: Path) -> None:
    night = {"start": "2024-12-31T23:00:00+01:00", "end": "2025-01-01T06:00:00+01:00"}
    sleep = observation("93832-4", valueQuantity=quantity(6.5, "h"), effectivePeriod=night)
    del sleep["effectiveDateTime"]
    hrv = observation("80404-7", valueQuantity=quantity(0.04, "s"))
    hrv["code"]["text"] = "HRV (RMSSD)"
    nap = observation("93832-4", at="2025-01-01T15:00:00Z", valueQuantity=quantity(1800, "s"))
    pulse = [
        observation(
            "40443-4", at=f"2025-01-01T0{hour}:00:00Z", valueQuantity=quantity(60 + hour, "/min")
        )
        for hour in (0, 4)
    ]
    steps = [
        observation(
            "55423-8", at=f"2025-01-01T1{hour}:00:00Z", valueQuantity=quantity(500, "{steps}")
        )
        for hour in range(4)
    ]
    settled = settle(write(tmp_path, sleep, nap, hrv, *pulse, *steps, steps[0]), "wearable_days")
    (row,) = settled.rows.to_dicts()
    assert str(row["date"]) == "2025-01-01"
    assert row["sleep_minutes"] == 420
    assert row["hrv_rmssd"] == 40
    assert row["resting_heart_rate"] == 62
    assert row["steps"] == 2000
    assert row["wear_minutes"] is None
    assert (settled.combined, settled.duplicate) == (8, 1)


def test_the_devices_own_total_of_the_day_goes_before_the_sum(tmp_path: Path) -> None:
    part = observation("55423-8", valueQuantity=quantity(500, "{steps}"))
    total = observation("41950-7", at="2025-01-01", valueQuantity=quantity(9000, "{steps}/(24.h)"))
    settled = settle(write(tmp_path, part, total), "wearable_days")
    assert settled.rows["steps"].to_list() == [9000]


def test_a_unit_that_is_not_known_is_never_guessed(tmp_path: Path) -> None:
    (reason,) = reasons(tmp_path, observation("93832-4", valueQuantity=quantity(7, "furlong")))
    assert reason.startswith("valueQuantity.code: is not one of min")
    (reason,) = reasons(tmp_path, observation("93832-4", valueQuantity={"value": 7}))
    assert reason.startswith("valueQuantity.code: is not one of min")


def test_sdnn_is_not_taken_for_rmssd(tmp_path: Path) -> None:
    (batch,) = read(write(tmp_path, observation("80404-7", valueQuantity=quantity(40, "ms"))))
    assert batch.ignored == Counter({"Observation with another code": 1})


def test_a_day_whose_sum_is_impossible_is_refused_whole(tmp_path: Path) -> None:
    naps = [
        observation("93832-4", at=f"2025-01-01T0{hour}:00:00Z", valueQuantity=quantity(16, "h"))
        for hour in (1, 2)
    ]
    settled = settle(write(tmp_path, *naps), "wearable_days")
    assert settled.rows.is_empty()
    assert settled.rejected["reason"].unique().to_list() == [
        "sleep_minutes: is outside 0 to 1440 minutes"
    ]
    assert settled.rejected.height == 2


# People, events, consents


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
    assert name_setting(class_code, concepts) == setting


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
    settled = settle(write(tmp_path, condition), "emr_events")
    (row,) = settled.rows.to_dicts()
    assert (row["code"], row["started_at"].year) == ("F32.1", 2020)
    assert row["available_at"] == datetime(2021, 6, 1, 8, tzinfo=UTC)


def medication_request(**medication: Any) -> dict[str, Any]:
    return {
        "resourceType": "MedicationRequest",
        "status": "active",
        "subject": SUBJECT,
        "authoredOn": "2025-01-01",
    } | medication


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


def consent(status: str = "active", **provision: Any) -> dict[str, Any]:
    whole = {
        "type": "permit",
        "period": {"start": "2024-01-01", "end": "2026-01-01"},
        "class": [{"code": "QuestionnaireResponse"}, {"code": "wearable"}],
        "purpose": [{"code": "TREAT"}, {"code": "HRESCH"}],
    }
    return {
        "resourceType": "Consent",
        "status": status,
        "patient": SUBJECT,
        "dateTime": "2024-02-01",
        "provision": whole | provision,
    }


def test_a_consent_becomes_what_it_permits_and_no_more(tmp_path: Path) -> None:
    (row,) = rows_of(write(tmp_path, consent()), "consents", consents=True)
    assert row["data_types"] == ["survey", "wearable"]
    assert row["purposes"] == ["screening", "training"]
    assert (row["granted_at"], row["expires_at"]) == ("2024-01-01", "2026-01-01")
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


@pytest.mark.parametrize("ended", [consent("inactive"), consent("rejected"), consent(type="deny")])
def test_a_consent_that_ended_or_denies_is_a_withdrawal(
    tmp_path: Path, ended: dict[str, Any]
) -> None:
    (row,) = rows_of(write(tmp_path, ended), WITHDRAWALS.name, consents=True)
    assert row["granted_at"] == "2024-02-01"


# Whatever comes

EXAMPLES: list[dict[str, Any]] = [
    observation("44260-8", valueInteger=1),
    observation("93832-4", valueQuantity=quantity(7, "h")),
    response({PHQ9.item_loincs[0]: ANSWERS[3]}),
    medication_request(medicationCodeableConcept={"coding": [{"system": "rx", "code": "1"}]}),
    consent(),
    {"resourceType": "Patient", "id": "p1", "birthDate": "1980-01-01", "gender": "female"},
    {
        "resourceType": "Encounter",
        "status": "finished",
        "class": {"code": "AMB"},
        "type": [{"coding": [{"system": "s", "code": "c"}]}],
        "subject": SUBJECT,
        "period": {"start": "2025-01-01"},
    },
]
anything = st.recursive(
    st.just(10**400)
    | st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2)
    ),
    max_leaves=4,
)


@st.composite
def damaged(draw: st.DrawFn) -> dict[str, Any]:
    """A resource with one element, at any depth, replaced by anything."""
    resource = json.loads(json.dumps(draw(st.sampled_from(EXAMPLES))))
    node: Any = resource
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = draw(st.sampled_from([key for key in keys if key != "resourceType"]))
        if isinstance(node[key], dict | list) and node[key] and draw(st.booleans()):
            node = node[key]
            continue
        node[key] = draw(anything)
        return dict(resource)


@settings(max_examples=300, deadline=None)
@given(damaged())
def test_no_damaged_resource_breaks_the_reader_or_gets_lost(
    tmp_path_factory: pytest.TempPathFactory, resource: dict[str, Any]
) -> None:
    folder = write(tmp_path_factory.mktemp("drop"), resource)
    batches = [*read(folder), *read(folder, consents=True)]
    rows = sum(frame.height for batch in batches for frame in batch.rows.values())
    accounted = rows + sum(len(batch.rejected) + batch.ignored.total() for batch in batches)
    assert accounted == 1 + sum(batch.split for batch in batches)
    for batch in batches:
        for table, frame in batch.rows.items():
            checked = check_rows(TABLES.get(table, WITHDRAWALS), frame, NOW)
            assert checked.good.height + checked.rejected.height == frame.height
