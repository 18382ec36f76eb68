"""The same diagnosis or medication counts alike in every code system that is read."""

import polars as pl
import pytest

from feature_repo.clinical_codes import CONDITION_GROUPS, MEDICATION_GROUPS, normalise_system
from flows.features.care import add_groups
from flows.lake.code_coverage import count_unmapped
from flows.sources.mental_health import is_mental_health

ICD9, ICD10 = "http://hl7.org/fhir/sid/icd-9-cm", "http://hl7.org/fhir/sid/icd-10-cm"
RXNORM = "http://www.nlm.nih.gov/research/umls/rxnorm"

#: As hospitals keep them: ICD-9-CM without its dots, and what CMS' mappings lead to.
TRANSLATED = [
    ("29620", "F32.9"),
    ("29633", "F33.2"),
    ("3004", "F34.1"),
    ("311", "F32.9"),
    ("29682", "F32.89"),
    ("30000", "F41.9"),
    ("30023", "F40.10"),
    ("30981", "F43.10"),
    ("29530", "F20.0"),
    ("29570", "F25.9"),
    ("29650", "F31.30"),
    ("2989", "F29"),
    ("30390", "F10.20"),
    ("30500", "F10.10"),
    ("30420", "F14.20"),
    ("3051", "F17.200"),
    ("4019", "I10"),
    ("25000", "E11.9"),
    ("V270", "Z37.0"),
]


def list_groups(kind: str, system: str, *codes: str) -> list[set[str]]:
    events = pl.DataFrame(
        {"kind": kind, "system": system, "code": codes, "order": range(len(codes))}
    )
    rows = add_groups(events).sort("order").to_dicts()
    groups = CONDITION_GROUPS if kind == "diagnosis" else MEDICATION_GROUPS
    return [{name for name in groups if row[f"is_{name}"]} for row in rows]


def test_icd9_finds_the_same_conditions_as_its_translation() -> None:
    old = list_groups("diagnosis", ICD9, *(code for code, _ in TRANSLATED))
    new = list_groups("diagnosis", ICD10, *(code for _, code in TRANSLATED))
    assert old == new
    assert [len(groups) for groups in old] == [1] * 15 + [0] * 4


@pytest.mark.parametrize("code", ["F32.1", "F321", "f32.1", "F32.1G", "F32.1 !"])
def test_icd10_is_read_with_and_without_its_dot_and_marks(code: str) -> None:
    assert list_groups("diagnosis", ICD10, code) == [{"depression"}]
    assert is_mental_health(ICD10, code)


@pytest.mark.parametrize(
    ("written", "system"),
    [
        ("urn:oid:2.16.840.1.113883.6.90", "icd-10"),
        ("http://fhir.de/CodeSystem/bfarm/icd-10-gm", "icd-10"),
        ("ICD10CM", "icd-10"),
        ("ICD-9-CM", "icd-9"),
        ("http://snomed.info/sct/", "http://snomed.info/sct"),
        ("http://fhir.de/CodeSystem/bfarm/atc", "http://www.whocc.no/atc"),
        ("urn:oid:2.16.840.1.113883.6.1", "http://loinc.org"),
        ("https://loinc.org/", "http://loinc.org"),
        ("http://hl7.org/fhir/sid/icd-10-pcs", "http://hl7.org/fhir/sid/icd-10-pcs"),
        ("urn:local", "urn:local"),
    ],
)
def test_a_system_is_one_however_it_is_written(written: str, system: str) -> None:
    assert normalise_system(written) == system


def test_a_code_of_another_system_is_another_code() -> None:
    assert list_groups("medication", "urn:local", "36437") == [set()]
    assert list_groups("diagnosis", "http://loinc.org", "35489007") == [set()]


@pytest.mark.parametrize(
    ("system", "code", "group"),
    [
        (RXNORM, "36437", "antidepressant"),  # sertraline
        (RXNORM, "312941", "antidepressant"),  # sertraline 50 MG Oral Tablet
        ("http://www.whocc.no/atc", "N06AB06", "antidepressant"),
        (RXNORM, "312744", "antipsychotic"),  # quetiapine 25 MG Oral Tablet
        ("http://www.whocc.no/atc", "N05AN01", "antipsychotic"),  # lithium
        (RXNORM, "197901", "anxiolytic"),  # lorazepam 1 MG Oral Tablet
        ("http://www.whocc.no/atc", "N05BA06", "anxiolytic"),
    ],
)
def test_a_medication_is_known_by_ingredient_product_and_atc(
    system: str, code: str, group: str
) -> None:
    assert list_groups("medication", system, code) == [{group}]


def test_codes_that_map_to_nothing_are_counted_by_system() -> None:
    events = pl.DataFrame(
        {
            "kind": ["diagnosis"] * 4 + ["medication", "encounter"],
            "system": [ICD10, ICD10, ICD9, "urn:oid:1.2.3", RXNORM, "x"],
            "code": ["I10", "F32.1", "4019", "Jane", "1234567", "y"],
        }
    )
    assert count_unmapped(events) == {
        "diagnosis of icd-10: I10": 1,
        "diagnosis of icd-9: 401": 1,
        "diagnosis of urn:oid:1.2.3: not read": 1,
        f"medication of {RXNORM}: 1234567": 1,
    }
