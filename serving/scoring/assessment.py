"""What a release and its explanations say about one individual."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_repo.consent_terms import DATA_TYPES
from feature_repo.online import (
    Answers,
    OnlineFeatures,
    combine_features,
    make_request_fields,
)
from feature_repo.stored_views import StoredRow
from mlruns_config.severity import SeverityRule, SeverityRules
from monitoring.metrics import MODEL_INFERENCE_DURATION, get_series
from serving.scoring.counterfactuals import find_counterfactuals
from serving.scoring.crisis import CrisisFinding, find_crisis, is_decided_since
from serving.scoring.doubts import Estimate, Outputs, estimate
from serving.scoring.estimate import (
    Inputs,
    Vector,
    assemble_sequence,
    assemble_vector,
    find_pattern,
    list_missing_data,
)
from serving.scoring.loaded_release import Embedding, Release
from serving.scoring.parts import CounterfactualPart, ReasonPart, RulePart
from serving.scoring.reasons import combine_attributions, explain
from serving.scoring.rules import match_rule
from serving.scoring.sequence_outputs import find_known_embeddings
from serving.scoring.severity import find_holding_rules
from serving.settings import Settings


@dataclass(frozen=True)
class ExplanationOptions:
    """Which explanations an answer carries: the feature flags of the deployment guide."""

    reasons: bool = True
    counterfactuals: bool = True
    rules: bool = False


def read_explanation_options(settings: Settings) -> ExplanationOptions:
    return ExplanationOptions(
        reasons=settings.enable_shap_explanations,
        counterfactuals=settings.enable_counterfactuals,
        rules=settings.enable_rule_extraction,
    )


@dataclass(frozen=True)
class Explanations:
    """Why the estimate is what it is, and what would lower it."""

    reasons: list[ReasonPart] = field(default_factory=list)
    counterfactuals: list[CounterfactualPart] = field(default_factory=list)
    rule: RulePart | None = None


@dataclass(frozen=True)
class MemberOutput:
    """One member's estimate of an outcome, and its weight in the stack (0: not used)."""

    name: str
    outcome: str
    probability: float
    weight: float


@dataclass(frozen=True)
class Assessment:
    """A release's assessment of one individual; `inputs` are what the models saw."""

    release: Release
    features: OnlineFeatures
    estimate: Estimate
    members: list[MemberOutput]
    inputs: Inputs
    missing_data: list[str]
    explanations: Explanations


@dataclass(frozen=True)
class LastDecisions:
    """When clinicians last decided a review of a person, and a review of a crisis."""

    any_at: datetime | None = None
    crisis_at: datetime | None = None


@dataclass(frozen=True)
class RuleFindings:
    """Findings of the rules in a case, independent of any model.

    `is_reviewed`: the severity rules rest on a stored questionnaire that a clinician has
    reviewed since, so they raise the band and queue no further review.
    """

    crisis: CrisisFinding
    severity: list[SeverityRule] = field(default_factory=list)
    is_reviewed: bool = False

    @property
    def decide_alone(self) -> bool:
        """Whether a case can be answered without a model."""
        return self.crisis.forces_top_band or bool(self.severity)


@dataclass(frozen=True)
class Case:
    """What a screening may use of one individual: answers, consents, what is stored and decided."""

    answers: Answers
    consented: frozenset[str]
    row: StoredRow | None = None
    store_is_away: bool = False
    decided: LastDecisions = LastDecisions()
    #: Rules and members of a release see the same features, which are combined once.
    _seen: dict[int, OnlineFeatures] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def see_features(self, release: Release) -> OnlineFeatures:
        """Return the features as a release's contract defines them."""
        if release.version not in self._seen:
            row, views = self.row or StoredRow(), release.manifest.stored_views
            combined = combine_features(views, row, self.answers, self.consented)
            self._seen[release.version] = combined
        return self._seen[release.version]

    def apply_rules(self, release: Release | None, rules: SeverityRules) -> RuleFindings:
        """Return what crisis and severity rules find, which needs no model.

        Without a release the stored features cannot be read: the answers sent decide alone.
        """
        features = self.see_features(release) if release else see_answers(self.answers)
        holding = find_holding_rules(rules, features.values, self.answers)
        crisis = find_crisis(self.answers, features.values, self.decided.crisis_at)
        return RuleFindings(crisis, holding, self._is_reviewed(holding, features.values))

    def _is_reviewed(self, holding: list[SeverityRule], values: Mapping[str, float]) -> bool:
        """Return True if rules hold by a stored PHQ-9 alone that a clinician has reviewed since."""
        if not holding or self.answers.phq9 is not None or self.answers.phq9_total is not None:
            return False
        if any(rule.sent_only for rule in holding):
            return False
        return is_decided_since(self.answers, values, self.decided.any_at)


def see_answers(answers: Answers) -> OnlineFeatures:
    """Return the features of the answers alone, for when nothing stored can be read."""
    return combine_features((), StoredRow(), answers, frozenset(DATA_TYPES))


def assess(release: Release, case: Case, options: ExplanationOptions) -> Assessment:
    """Score and explain one individual with a release; raises ScoringFailedError."""
    features = case.see_features(release)
    inputs = assemble_inputs(release, features, case.consented)
    missing = list_missing_data(release.manifest, inputs.vector)
    outputs = score(release, inputs, case)
    pattern = find_pattern(release.manifest, inputs.vector, missing)
    estimated = estimate(release.manifest, outputs, missing, pattern, find_total(features))
    return Assessment(
        release=release,
        features=features,
        estimate=estimated,
        members=weigh(release, outputs.members),
        inputs=inputs,
        missing_data=missing,
        explanations=explain_estimate(release, inputs, estimated, options, pattern),
    )


def explain_estimate(
    release: Release, inputs: Inputs, estimate: Estimate, options: ExplanationOptions, pattern: str
) -> Explanations:
    ways = (
        find_counterfactuals(release, inputs, estimate, pattern) if options.counterfactuals else []
    )
    return Explanations(
        reasons=explain_release(release, inputs.vector) if options.reasons else [],
        counterfactuals=ways,
        rule=match_rule(release.manifest, inputs.vector) if options.rules else None,
    )


def estimate_alone(release: Release, case: Case) -> Estimate:
    """Score one individual without explaining; raises ScoringFailedError."""
    features = case.see_features(release)
    inputs = assemble_inputs(release, features, case.consented)
    missing = list_missing_data(release.manifest, inputs.vector)
    pattern = find_pattern(release.manifest, inputs.vector, missing)
    outputs = score(release, inputs, case)
    return estimate(release.manifest, outputs, missing, pattern, find_total(features))


def find_total(features: OnlineFeatures) -> float:
    """Return the PHQ-9 total that the models see, NaN where it is unknown."""
    total = features.values.get("phq9_total")
    return np.nan if total is None else float(total)


def assemble_inputs(
    release: Release, features: OnlineFeatures, consented: frozenset[str]
) -> Inputs:
    description = release.manifest.sequence
    weeks = assemble_sequence(description, features.sequences, consented) if description else None
    return Inputs(assemble_vector(release.manifest.features, features.values), weeks)


def score(release: Release, inputs: Inputs, case: Case) -> Outputs:
    """Return what every part of a release gives; raises ScoringFailedError.

    Weeks that are embedded already are not embedded again.
    """
    known = find_known_embeddings(release, case.row or StoredRow(), inputs.sequence)
    return Outputs(
        members=predict_members(release, inputs, known),
        refits=predict_refits(release, inputs),
        unfamiliarity=release.measure_unfamiliarity(inputs),
    )


def predict_refits(release: Release, inputs: Inputs) -> dict[str, NDArray[np.float64]]:
    """Return the log-odds of the weighed members' refits; raises ScoringFailedError."""
    member_refits = {}
    for head in release.manifest.heads:
        for name in head.stacker.coefficients if head.uncertainty else ():
            refits = release.members[name].predict_refits(inputs)
            if refits is not None:
                member_refits[name] = refits
    return member_refits


def predict_members(
    release: Release, inputs: Inputs, embeddings: Mapping[str, Embedding]
) -> dict[str, float]:
    """Return every member's probability, of its embedding where there is one.

    Raises ScoringFailedError.
    """
    probabilities = {}
    for name, member in release.members.items():
        begun = time.perf_counter()
        probabilities[name] = member.predict(inputs, embeddings.get(name))
        get_series(MODEL_INFERENCE_DURATION, name).observe(time.perf_counter() - begun)
    return probabilities


def weigh(release: Release, outputs: Mapping[str, float]) -> list[MemberOutput]:
    manifest = release.manifest
    return [
        MemberOutput(name, manifest.name_outcome(name), probability, manifest.find_weight(name))
        for name, probability in outputs.items()
    ]


def explain_release(release: Release, vector: Vector) -> list[ReasonPart]:
    stacker = release.manifest.stacker
    attributions = {
        name: member.explainer.explain(vector)
        for name, member in release.members.items()
        if member.explainer is not None and name in stacker.coefficients
    }
    features = release.manifest.features
    combined = combine_attributions(stacker, attributions, len(features))
    return explain(features, vector, combined)


def describe_inputs(assessment: Assessment, answers: Answers) -> dict[str, Any]:
    """Return what the models saw by name, NaN where missing, with the age of each view.

    `request` holds what was sent: index day and answers, by the names that training gives them.
    The numbers are the models' float32, which a record writes with no more digits than they have.
    """
    manifest, inputs = assessment.release.manifest, assessment.inputs
    channels = manifest.sequence.channels if manifest.sequence else []
    weeks: list[NDArray[np.float32]] = (
        [] if inputs.sequence is None else list(inputs.sequence[0].T.copy())
    )
    return {
        "features": dict(zip(manifest.columns, inputs.vector[0], strict=True)),
        "sequences": {
            channel.name: values for channel, values in zip(channels, weeks, strict=False)
        },
        "timestamps": assessment.features.timestamps,
        "request": {
            name: value for name, value in make_request_fields(answers).items() if value is not None
        },
    }
