"""Which codes make an encounter psychiatric: one list of disorders for label and features."""

import pytest

from feature_repo.clinical_codes import CONDITION_GROUPS, SNOMED_SYSTEM
from flows.sources.mental_health import OTHER_DISORDERS, SNOMED_SERVICES, is_mental_health


@pytest.mark.parametrize("group", sorted(CONDITION_GROUPS))
def test_a_diagnosis_that_is_a_feature_makes_an_encounter_psychiatric(group):
    for code in CONDITION_GROUPS[group].snomed:
        assert is_mental_health(SNOMED_SYSTEM, code), code
        assert not is_mental_health("http://loinc.org", code)


def test_no_disorder_is_listed_twice():
    grouped = {code for group in CONDITION_GROUPS.values() for code in group.snomed}
    assert not grouped & (OTHER_DISORDERS.keys() | SNOMED_SERVICES.keys())


def test_a_broken_leg_is_not_psychiatric():
    assert not is_mental_health(SNOMED_SYSTEM, "46866001")
    assert not is_mental_health("http://hl7.org/fhir/sid/icd-10", "S82.1")
