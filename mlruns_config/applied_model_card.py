"""The Applied Model Card of the Coalition for Health AI (schema v0.2) of one release, as XML."""

import json
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from mlruns_config.manifest import RELEASE_MODEL
from mlruns_config.source_attributes import SITE, Attribute, AttributeFacts

NAMESPACE = "https://mc.chai.org/v0.2/schema.xsd"
#: Element -> text, or further elements; in the order of the schema.
Content = Mapping[str, Any] | str | Sequence[Any]


def write_applied_card(facts: AttributeFacts, attributes: list[Attribute]) -> str:
    """Return the card; what is open is stated as not available."""
    texts = {attribute.clause: attribute.text for attribute in attributes}
    root = ElementTree.Element("AppliedModelCard", {"xmlns": NAMESPACE})
    for name, content in _list_parts(facts, texts).items():
        _append(root, name, content)
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _append(parent: ElementTree.Element, name: str, content: Content) -> None:
    if isinstance(content, str):
        ElementTree.SubElement(parent, name).text = content
    elif isinstance(content, Mapping):
        element = ElementTree.SubElement(parent, name)
        for inner, text in content.items():
            _append(element, inner, text)
    else:
        for part in content:
            _append(parent, name, part)


def _list_parts(facts: AttributeFacts, texts: Mapping[str, str]) -> dict[str, Content]:
    manifest = facts.run.manifest
    return {
        "BasicInfo": {
            "ModelName": RELEASE_MODEL,
            "ModelDeveloper": texts["1.i"],
            "DeveloperContact": texts["1.i"],
        },
        "ReleaseInfo": {
            "ReleaseStage": "see the stage of the version in the registry",
            "ReleaseDate": manifest.created_at.date().isoformat(),
            "ReleaseVersion": f"training run {manifest.training_run_id}",
            "GlobalAvailability": SITE,
            "EHRCompatibility": {"EHR": ["FHIR R4", "CDS Hooks 2.0"]},
            "RegulatoryApproval": "none",
        },
        "ModelSummary": {
            "Summary": f"{texts['1.iii']}. {texts['2.i']}",
            "Keywords": {"Keyword": ["PHQ-9", "mental health", "priority of review"]},
        },
        "UsesAndDirections": {
            "IntendedUseAndWorkflow": texts["2.i"],
            "PrimaryIntendedUsers": texts["2.iii"],
            "HowToUse": texts["2.iv"],
            "TargetedPatientPopulation": texts["2.ii"],
            "CautionedOutOfScopeSettings": texts["3.i"],
        },
        "Warnings": {
            "KnownRisksAndLimitations": texts["3.ii"],
            "KnownBiasesOrEthicalConsiderations": texts["5.ii"],
            "ClinicalRiskLevel": SITE,
        },
        "TrustIngredients": _describe_trust(facts, texts),
        "KeyMetrics": _describe_metrics(facts, texts),
        "Resources": {
            "EvaluationReferences": texts["7.v"],
            "PeerReviewedPublications": "none",
            "PatientConsentOrDisclosure": "only people who consent, to training and to screening",
        },
        "Bibliography": "",
    }


def _describe_trust(facts: AttributeFacts, texts: Mapping[str, str]) -> dict[str, Content]:
    manifest = facts.run.manifest
    members = ", ".join(dict.fromkeys(member.registered_model for member in manifest.members))
    tables = ", ".join(
        name for name, landed in manifest.lineage["tables"].items() if landed["rows"]
    )
    return {
        "AISystemFacts": {
            "OutcomesAndOutputs": texts["1.iii"],
            "ModelType": f"stacked and calibrated: {members}",
            "InputDataSource": tables or "none",
            "OutputAndInputDataTypes": f"{len(manifest.features)} numbers in, a probability out",
            "DevelopmentDataCharacterization": f"{texts['4.i']}\n\n{texts['4.iii']}",
            "BiasMitigationApproaches": f"{texts['5.i']}. {texts['5.ii']}",
            "OngoingMaintenance": f"{texts['8.i']}. {texts['9.i']}",
            "Security": "signed manifest, hashed ONNX and JSON artifacts, no pickle",
            "Transparency": f"commit {manifest.lineage['git_commit']}, training run "
            f"{manifest.training_run_id}",
        },
        "TransparencyInformation": {
            "FundingSource": texts["1.ii"],
            "StakeholdersConsulted": SITE,
        },
    }


#: Kind of metric -> its goal, and the measured ones of it.
KEY_METRICS = {
    "UsefulnessUsabilityEfficacy": (
        "Ranks better than today's PHQ-9 alone",
        ("auroc", "auprc", "auroc_gain_over_phq9", "net_benefit_gain"),
    ),
    "FairnessEquity": (
        "No group is surely served worse",
        ("worst_group_auroc", "worst_group_auroc_high", "worst_group_recall_high"),
    ),
    "SafetyReliability": (
        "Probabilities mean what they say",
        ("observed_over_expected", "calibration_slope", "ece", "calibration_ici"),
    ),
}


def _describe_metrics(facts: AttributeFacts, texts: Mapping[str, str]) -> dict[str, Content]:
    return {
        kind: {
            "MetricGoal": goal,
            "Results": {"MetricResult": _list_results(facts.run.metrics, names)},
            "Interpretation": "see the model card of the training run",
            "TestType": "internal validation, held out by individual"
            + (" and time" if facts.run.split_in_time else ""),
            "TestingDataDescription": texts["7.i"],
            "ValidationProcessAndJustification": "intervals by bootstrap of individuals",
        }
        for kind, (goal, names) in KEY_METRICS.items()
    }


def _list_results(metrics: Mapping[str, float], names: Sequence[str]) -> list[Content]:
    measured = [(name, metrics[name]) for name in names if name in metrics]
    if not measured:
        return [{"Label": "not available", "ValueJson": _value("not measured in this run")}]
    return [{"Label": name, "ValueJson": _tell(metrics, name)} for name, value in measured]


def _tell(metrics: Mapping[str, float], name: str) -> str:
    low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
    if low is None or high is None:
        return _value(round(metrics[name], 4))
    ends = {"estimate": metrics[name], "lower": low, "upper": high}
    rounded = {end: round(value, 4) for end, value in ends.items()}
    return json.dumps({"kind": "estimate_ci", **rounded, "level": 95})


def _value(value: float | str) -> str:
    return json.dumps({"kind": "single", "value": value})
