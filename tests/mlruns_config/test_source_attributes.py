"""The source attributes of ONC HTI-1, and CHAI's Applied Model Card made of them."""

import json
from xml.etree import ElementTree

import pytest

from mlruns_config.applied_model_card import NAMESPACE, write_applied_card
from mlruns_config.source_attributes import list_attributes, write_attributes
from tests.fixtures.card_facts import make_attribute_facts
from tests.fixtures.manifests import make_manifest

LINEAGE = {
    "tables": {"surveys": {"version": 3, "rows": 12345, "digest": "d" * 64}},
    "validation": {},
    "feature_service_hash": "f" * 64,
    "git_commit": "c" * 40,
    "simulated": True,
}
FACTS = make_attribute_facts(make_manifest(lineage=LINEAGE))
#: How many attributes each paragraph of the rule has.
PARAGRAPHS = {1: 4, 2: 4, 3: 2, 4: 4, 5: 2, 6: 4, 7: 5, 8: 4, 9: 2}
#: Element -> elements that must follow in this order; "?" marks one that may be absent.
SCHEMA = {
    "AppliedModelCard": "BasicInfo ReleaseInfo ModelSummary UsesAndDirections Warnings "
    "TrustIngredients KeyMetrics Resources Bibliography",
    "BasicInfo": "ModelName ModelDeveloper DeveloperContact",
    "ReleaseInfo": "ReleaseStage ReleaseDate ReleaseVersion GlobalAvailability EHRCompatibility? "
    "RegulatoryApproval?",
    "ModelSummary": "Summary Keywords",
    "UsesAndDirections": "IntendedUseAndWorkflow PrimaryIntendedUsers HowToUse "
    "TargetedPatientPopulation CautionedOutOfScopeSettings",
    "Warnings": "KnownRisksAndLimitations KnownBiasesOrEthicalConsiderations ClinicalRiskLevel",
    "TrustIngredients": "AISystemFacts TransparencyInformation",
    "AISystemFacts": "OutcomesAndOutputs ModelType FoundationModels? InputDataSource "
    "OutputAndInputDataTypes DevelopmentDataCharacterization BiasMitigationApproaches "
    "OngoingMaintenance Security? Transparency?",
    "TransparencyInformation": "FundingSource ThirdPartyInformation? StakeholdersConsulted",
    "KeyMetrics": "UsefulnessUsabilityEfficacy FairnessEquity SafetyReliability",
    "UsefulnessUsabilityEfficacy": "MetricGoal Results Interpretation TestType "
    "TestingDataDescription ValidationProcessAndJustification",
    "MetricResult": "Label ValueJson",
    "Resources": "EvaluationReferences? ClinicalTrial? PeerReviewedPublications "
    "ReimbursementStatus? PatientConsentOrDisclosure",
}
for kind in ("FairnessEquity", "SafetyReliability"):
    SCHEMA[kind] = SCHEMA["UsefulnessUsabilityEfficacy"]


def test_there_are_31_attributes_in_the_order_of_the_rule():
    clauses = [one.clause.partition(".")[0] for one in list_attributes(FACTS)]
    counted = {number: clauses.count(str(number)) for number in PARAGRAPHS}
    assert counted == PARAGRAPHS
    assert len(clauses) == 31
    assert clauses == sorted(clauses)


def test_what_a_run_cannot_know_is_open_with_a_reason():
    attributes = {one.clause: one for one in list_attributes(FACTS)}
    open_ones = {clause for clause, one in attributes.items() if one.is_open}

    assert open_ones >= {"1.i", "1.ii", "4.iv", "6.i", "7.iii", "7.v", "8.ii"}
    assert not open_ones & {"1.iii", "2.i", "3.ii", "4.i", "7.i", "7.ii", "9.i"}
    assert all(len(attributes[one].text) > len("not available: ") for one in open_ones)
    assert "simulated people" in attributes["3.ii"].text


def test_the_numbers_are_those_of_the_run():
    written = write_attributes(list_attributes(FACTS))
    assert "1,700 held-out index dates with 340 outcomes: auroc 0.810" in written
    assert "| women & men | 0.800 |" in written


@pytest.fixture(scope="module")
def card() -> ElementTree.Element:
    return ElementTree.fromstring(write_applied_card(FACTS, list_attributes(FACTS)))


def name_of(element: ElementTree.Element) -> str:
    return element.tag.removeprefix(f"{{{NAMESPACE}}}")


def test_the_applied_card_has_every_element_of_the_schema_in_its_order(card):
    seen = set()
    for element in card.iter():
        assert element.tag.startswith(f"{{{NAMESPACE}}}")
        if (name := name_of(element)) in SCHEMA:
            seen.add(name)
            allowed = [one.removesuffix("?") for one in SCHEMA[name].split()]
            needed = [one for one in SCHEMA[name].split() if not one.endswith("?")]
            found = [name_of(child) for child in element]
            assert [one for one in allowed if one in found] == found, name
            assert set(needed) <= set(found), name
        elif not len(element):
            assert element.text or name == "Bibliography", name
    assert seen == set(SCHEMA)


def test_a_metric_with_an_interval_is_one_in_the_card(card):
    values = {
        one[0].text: json.loads(one[1].text or "")
        for one in card.iter(f"{{{NAMESPACE}}}MetricResult")
    }
    assert values["auroc"] == {
        "kind": "estimate_ci",
        "estimate": 0.81,
        "lower": 0.79,
        "upper": 0.83,
        "level": 95,
    }
    assert values["auprc"] == {"kind": "single", "value": 0.4}
