"""The 31 source attributes of a predictive decision support intervention, of one release.

45 CFR 170.315(b)(11)(iv)(B) (ONC HTI-1). A view of what the run and the reviewed files hold, not a
certification. What is not known is printed as not available, with the reason.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mlruns_config.checklists import RunFacts, describe_counts
from mlruns_config.manifest import ReleaseManifest

#: Artifacts of a training run.
ATTRIBUTES_FILE = "transparency/source_attributes.json"
APPLIED_CARD_FILE = "transparency/applied_model_card.xml"
NOT_AVAILABLE = "not available: "
INTENDED_USE = (
    "Ranks consenting individuals for review by a clinician. Not a diagnosis, no prediction of "
    "suicide, never a ground to deny, delay or end care."
)
NOT_VALIDATED = "no validation on other data has been recorded with this release"
SITE = NOT_AVAILABLE + "the site that runs it states it"


@dataclass(frozen=True)
class Attribute:
    """One attribute: its clause, its title, and what is known."""

    clause: str
    title: str
    text: str

    @property
    def is_open(self) -> bool:
        return self.text.startswith(NOT_AVAILABLE)


@dataclass(frozen=True)
class AttributeFacts:
    """What the attributes need besides the checklists: text of the card's own parts."""

    run: RunFacts
    period: tuple[Any, Any]
    groups_table: str
    baseline_table: str
    external: str = ""


def list_attributes(facts: AttributeFacts) -> list[Attribute]:
    """Return all 31 attributes in the order of the rule."""
    texts = [
        *_describe_output(facts),
        *_describe_development(facts),
        *_describe_performance(facts),
        *_describe_maintenance(facts),
    ]
    return [Attribute(*parts) for parts in texts]


def _describe_output(facts: AttributeFacts) -> Iterator[tuple[str, str, str]]:
    manifest = facts.run.manifest
    yield "1.i", "Developer and contact", SITE
    yield "1.ii", "Funding source of the technical implementation", SITE
    yield "1.iii", "Output", f"Probability of `{manifest.outcome}`, and a score of 0 to 100 from it"
    yield "1.iv", "Kind of output", "prediction"
    yield "2.i", "Intended use", INTENDED_USE
    yield "2.ii", "Intended population", "People in mental health care who consent to screening"
    yield "2.iii", "Intended users", "Clinicians who review people, in a queue and on a case's page"
    yield "2.iv", "Role in decisions", "informs: a clinician decides"
    yield (
        "3.i",
        "Cautioned against",
        "Emergencies; people outside mental health care; any use without human review; "
        "any decision on benefits, employment or insurance",
    )
    yield "3.ii", "Known risks and limitations", _describe_risks(manifest)


def _describe_risks(manifest: ReleaseManifest) -> str:
    risks = [
        "a low priority is not a low risk",
        "self-report is among the predictors and in the outcome",
        "a change of population or devices shifts estimates until it is noticed",
    ]
    if manifest.is_simulated:
        risks.insert(0, "trained and evaluated on simulated people")
    return "; ".join(risks)


def _describe_development(facts: AttributeFacts) -> Iterator[tuple[str, str, str]]:
    run, (first, last) = facts.run, facts.period
    learnt, events = run.learnt
    yield (
        "4.i",
        "Inclusion and exclusion of training data",
        f"Consent to training, labelled index dates from {first} to {last}: {learnt:,} learnt from "
        f"with {events:,} outcomes. Left out: {describe_counts(run.excluded)}",
    )
    names = {feature.name for feature in run.manifest.features}
    used = [word for word, column in DEMOGRAPHICS.items() if column in names]
    unused = [word for word in ALL_DEMOGRAPHICS if word not in used]
    yield (
        "4.ii",
        "Race, ethnicity, language, orientation, gender identity, sex, birth date, social "
        "determinants, health status as inputs",
        f"Inputs: {', '.join(used)}, health status assessments (PHQ-9, GAD-7). Not inputs: "
        f"{', '.join(unused)}",
    )
    yield "4.iii", "Demographic representativeness", facts.baseline_table
    yield "4.iv", "Relevance of the training data to the deployed setting", SITE
    yield (
        "5.i",
        "Approach to fairness",
        "Gates on the worst group's AUROC and recall by sex, age band and ethnicity, alone and in "
        f"pairs; {run.groups_not_assessed} groups were too few to assess",
    )
    yield (
        "5.ii",
        "Managing bias",
        "Calibration by severity and missing data; estimates monotone in symptoms; severity rules "
        "that only raise; no protected attribute but age and sex as input",
    )


VALIDITY = ("auroc", "auprc", "calibration_slope", "observed_over_expected", "ece")
#: What the rule asks about -> the column that would hold it.
DEMOGRAPHICS = {"date of birth (as age)": "age", "sex": "sex_female"}
ALL_DEMOGRAPHICS = (
    "race",
    "ethnicity",
    "language",
    "sexual orientation",
    "gender identity",
    "sex",
    "date of birth (as age)",
    "social determinants of health",
)


def _describe_performance(facts: AttributeFacts) -> Iterator[tuple[str, str, str]]:
    metrics, (rows, events) = facts.run.metrics, facts.run.held_out
    external = facts.external or NOT_AVAILABLE + NOT_VALIDATED
    yield "6.i", "External validation: source and setting", external
    yield "6.ii", "External validation: by whom", SITE if facts.external else external
    yield (
        "6.iii",
        "External validation: representativeness",
        "the section External validation of the card" if facts.external else external,
    )
    yield (
        "6.iv",
        "External validation: process",
        "flow external-validation: same readers, labels and features, people known here left out",
    )
    yield (
        "7.i",
        "Validity in test data of the same source",
        f"{rows:,} held-out index dates with {events:,} outcomes: "
        + ", ".join(f"{name} {metrics[name]:.3f}" for name in VALIDITY if name in metrics),
    )
    yield "7.ii", "Fairness in test data of the same source", facts.groups_table
    yield "7.iii", "Validity in external data", external
    yield (
        "7.iv",
        "Fairness in external data",
        "the section External validation of the card" if facts.external else external,
    )
    yield "7.v", "Evaluations on outcomes of use", NOT_AVAILABLE + "no prospective study was made"


def _describe_maintenance(_: AttributeFacts) -> Iterator[tuple[str, str, str]]:
    yield (
        "8.i",
        "Monitoring of validity",
        "Drift daily; outcomes joined to predictions nightly",
    )
    yield (
        "8.ii",
        "Validity in local data",
        NOT_AVAILABLE + "this is the card of a training; GET /drift has it once outcomes are known",
    )
    yield "8.iii", "Monitoring of fairness", "By group in each drift report, with enough labels"
    yield (
        "8.iv",
        "Fairness in local data",
        NOT_AVAILABLE + "this is the card of a training; GET /drift has it once outcomes are known",
    )
    yield (
        "9.i",
        "Updates",
        "When drift has lasted, weekly at most: recalibrated if that suffices, else retrained; "
        "gates, shadow, traffic shares, ledger",
    )
    yield (
        "9.ii",
        "Correction of performance when risks are found",
        "Guardrails every five minutes stop a candidate and roll back; recalibration by its flow",
    )


def write_attributes(attributes: list[Attribute]) -> str:
    """Return the attributes as Markdown; texts that hold a table follow theirs."""
    parts = []
    for attribute in attributes:
        text = f"\n\n{attribute.text}\n" if attribute.text.startswith("|") else f" {attribute.text}"
        parts.append(f"**{attribute.clause} {attribute.title}**:{text}")
    return "\n\n".join(parts)
